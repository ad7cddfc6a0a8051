//! A deployment of Compose, from the control plane to a real podman and back, cut off at every point.

use std::{io::Write as _, process::Command};

use crate::full_disk::every_write;

use serde_json::json;
use titan_agent::COMPOSE_FAULT_POINTS;
use titan_api::{Kind, client::WriteOptions};
use titan_tests::{
    agents::AgentNode,
    manifests::{deployment, host, target, template, workload},
    nodes::{self, Running},
    operators::Operator,
    podman::{IMAGE, Podman, podman_alone},
    worlds::{World, until},
};

const MANIFEST: &str = "applier: compose\nhealth:\n  interval: 1s\n  minReadySeconds: 1\n  \
                        deadline: \"{{ '3s' if workload.version == 'crash' else '60s' }}\"\n";

/// One service whose command names the version. `crash` is one that does not work.
fn project() -> String {
    format!(
        "services:\n  web:\n    image: {IMAGE}\n    restart: always\n    stop_grace_period: 1s\n    \
         command: [sh, -c, \"{{% if workload.version == 'crash' %}}exit 3{{% endif %}}: {{{{ workload.version }}}}; \
         sleep 600\"]\n"
    )
}

/// A control plane, a podman, and the agent that is to look after it.
struct Stage {
    world: World,
    podman: Podman,
    agent: AgentNode,
}

impl Stage {
    /// A Compose of this program, if that and its engine's program are here.
    async fn new(program: &str, engine: &str) -> Option<Self> {
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        for needed in [program, engine] {
            if !ci && Command::new(needed).arg("--version").output().is_err() {
                let _nobody_listens = writeln!(std::io::stderr(), "left out: {program} ({needed} is not installed)");
                return None;
            }
        }
        let podman = podman_alone()?;
        let world = World::start(crate::NODE).await.expect("a control plane");
        let (key, value) = podman.environment();
        // Docker's programs and podman's find the same service by different names.
        let service = format!("\"{key}={value}\", \"DOCKER_HOST={value}\"");
        let allowed = format!("compose: {{ command: [/usr/bin/env, {service}, {program}], privileged: true }}");
        let agent = AgentNode::allowing(crate::NODE, &allowed).expect("an agent");
        let documents = [
            host("pi", ""),
            template("web", &[("template.yaml", MANIFEST), ("compose.yaml.j2", &project())]),
            workload("web", "1"),
            target("all", ""),
            deployment("web", "web", "web", "all", &json!({})),
        ];
        world.apply(documents).await.expect("written");
        world.settled().await.expect("decided");
        let person = Operator::new(crate::NODE).expect("a directory");
        person.login(&world.plane.server, &world.plane.token).expect("logged in");
        agent.join(&person.titan("titan host join-command pi").expect("a line")).expect("enrolled");
        Some(Self { world, podman, agent })
    }

    /// Ends the agent at a point.
    fn cut(&self, point: &str) {
        let mut once = self.agent.command(&["once"]);
        once.env("TITAN_FAULT", point);
        let ended = nodes::output(&mut once).expect("it ran");
        assert!(!ended.status.success(), "{point} is never reached: {ended:?}");
    }

    async fn version(&self, version: &str) {
        self.world.apply([workload("web", version)]).await.expect("written");
        self.world.settled().await.expect("decided");
    }

    /// Returns the containers of ours: their commands and states.
    fn containers(&self) -> Vec<String> {
        let ps = ["ps", "-a", "--no-trunc", "--filter", "label=titan.home=default/web", "--format"];
        let format = "{{.Command}} {{.Status}}";
        let told = self.podman.run(&[&ps[..], &[format]].concat()).unwrap_or_default();
        told.lines().map(str::to_owned).collect()
    }

    /// Whether one container runs this version, and no other one is there.
    fn runs(&self, version: &str) -> bool {
        let containers = self.containers();
        let runs = |line: &String| line.contains(&format!(": {version};")) && line.contains("Up ");
        containers.len() == 1 && containers.iter().all(runs)
    }

    fn phase(&self) -> String {
        let status = self.agent.status().expect("status");
        let line = status["deployments"].as_array().into_iter().flatten().find(|line| line["name"] == "web");
        line.and_then(|line| line["phase"].as_str()).unwrap_or_default().to_owned()
    }

    async fn wait_for(&self, what: &str, is: impl Fn(&Self) -> bool) {
        until(what, async || Ok(is(self).then_some(()))).await.unwrap_or_else(|error| {
            panic!("{error}: {:?} {:?}", self.containers(), self.agent.status());
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_at_any_write_leaves_a_project_running_and_room_ends_with_what_was_declared() {
    let Some(stage) = Stage::new("podman-compose", "podman").await else { return };
    let declare = async |version: &str| stage.version(version).await;
    every_write(&stage.agent, &["write-compose"], declare, |version| stage.runs(version)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_at_any_point_of_a_project_ends_with_what_was_declared() {
    cut_everywhere("podman-compose", "podman").await;
}

/// Docker's own Compose (Debian has version 1.29, in Python), on podman's socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_at_any_point_of_a_project_of_docker_compose_ends_with_what_was_declared() {
    cut_everywhere("docker-compose", "docker").await;
}

async fn cut_everywhere(program: &str, engine: &str) {
    let Some(stage) = Stage::new(program, engine).await else { return };
    stage.podman.run(&["run", "-d", "--network", "host", "--name", "theirs", IMAGE]).expect("a person's container");
    let up = ["files-applied", "project-written", "beside-applied", "project-up", "proved-good"];
    let down = ["project-down", "taken-down"];
    let known = |point: &&str| up.contains(point) || down.contains(point);
    assert!(COMPOSE_FAULT_POINTS.iter().all(known), "one is not cut at");
    for (index, point) in up.iter().enumerate() {
        let version = (index + 10).to_string();
        stage.version(&version).await;
        stage.cut(point);
        let mut running = stage.agent.run().expect("running");
        stage.wait_for(point, |stage| stage.runs(&version) && stage.phase() == "healthy").await;
        assert!(running.is_running());
    }
    // On its way back.
    let last = (up.len() + 9).to_string();
    stage.version("crash").await;
    let mut falling = Running::start(stage.agent.command(&["run"]).env("TITAN_FAULT", "proved-bad")).expect("running");
    let fell = until("proved-bad", async || Ok((!falling.is_running()).then_some(())));
    fell.await.expect("cut off before it goes back");
    let running = stage.agent.run().expect("running");
    stage.wait_for("the release before", |stage| stage.runs(&last) && stage.phase() == "rolledBack").await;
    drop(running);
    let options = WriteOptions::default();
    stage.world.admin.delete(Kind::Deployment, Some("default"), "web", false, &options).await.expect("deleted");
    stage.world.settled().await.expect("decided");
    down.iter().for_each(|point| stage.cut(point));
    let _running = stage.agent.run().expect("running");
    stage.wait_for("the end", |stage| stage.containers().is_empty() && stage.phase().is_empty()).await;
    let left = stage.podman.run(&["ps", "--format", "{{.Names}}"]).expect("containers");
    assert_eq!(left, "theirs");
}
