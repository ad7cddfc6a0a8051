//! A deployment of pods, from the control plane to a real podman and back.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use titan_agent::PODMAN_FAULT_POINTS;
use titan_api::{Kind, client::WriteOptions};
use titan_tests::{
    agents::AgentNode,
    manifests::{deployment, host, target, template, workload},
    nodes::{self, Running},
    operators::Operator,
    podman::{IMAGE, Podman, Registry, podman},
    worlds::{World, until},
};

use crate::full_disk::every_write;

const MANIFEST: &str = "applier: podman\nhealth: { deadline: 20s, interval: 1s, minReadySeconds: 1 }\n";

/// Two pods of which one changes with the version. `crash` is one that does not work.
fn pods(image: &str) -> String {
    let pod = |name: &str, image: &str, script: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name} }}\nspec:\n  hostNetwork: true\n  \
             terminationGracePeriodSeconds: 0\n  containers:\n  - name: main\n    image: {image}\n    \
             command: [sh, -c, \"{script}\"]\n    volumeMounts: [{{ name: conf, mountPath: /conf }}]\n  \
             volumes: [{{ name: conf, configMap: {{ name: {name}-conf }} }}]\n---\n\
             apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: {name}-conf }}\ndata: {{ greeting: hello }}\n---\n"
        )
    };
    let script = "{% if workload.version == 'crash' %}echo it went wrong; exit 3{% else %}: {{ workload.version }}; sleep 600{% endif %}";
    pod("same", IMAGE, "sleep 600") + &pod("web", image, script)
}

/// A control plane, a podman, and the agent that is to look after it.
struct Stage {
    world: World,
    podman: Podman,
    agent: AgentNode,
}

impl Stage {
    /// With an image that has to be pulled, if there is a registry to be had.
    async fn new() -> Option<(Self, Option<Registry>)> {
        let podman = podman()?;
        let registry = podman.registry();
        let image = registry.as_ref().map_or_else(|| IMAGE.to_owned(), |registry| push(&podman, registry));
        let world = World::start(crate::NODE).await.expect("a control plane");
        let allowed = format!("podman: {{ socket: {}, privileged: true }}", podman.socket().display());
        let agent = AgentNode::allowing(crate::NODE, &allowed).expect("an agent");
        let documents = [
            host("pi", ""),
            template("web", &[("template.yaml", MANIFEST), ("pods.yaml.j2", &pods(&image))]),
            workload("web", "1"),
            target("all", ""),
            deployment("web", "web", "web", "all", &json!({})),
        ];
        world.apply(documents).await.expect("written");
        world.settled().await.expect("decided");
        let person = Operator::new(crate::NODE).expect("a directory");
        person.login(&world.plane.server, &world.plane.token).expect("logged in");
        agent.join(&person.titan("titan host join-command pi").expect("a line")).expect("enrolled");
        Some((Self { world, podman, agent }, registry))
    }

    fn run(&self) -> Running {
        self.agent.run().expect("running")
    }

    async fn version(&self, version: &str) {
        self.world.apply([workload("web", version)]).await.expect("written");
        self.world.settled().await.expect("decided");
    }

    /// Returns a pod's id, and the command of its container.
    fn pod(&self, name: &str) -> Option<(String, String)> {
        let id = self.podman.run(&["pod", "inspect", "-f", "{{.ID}}", name]).ok()?;
        let command =
            self.podman.run(&["inspect", "-f", "{{.Args}} {{.State.Status}}", &format!("{name}-main")]).ok()?;
        Some((id, command))
    }

    fn runs(&self, version: &str) -> bool {
        self.pod("web")
            .is_some_and(|(_, command)| command.contains(&format!(": {version};")) && command.contains("running"))
    }

    async fn wait_for(&self, what: &str, is: impl Fn(&Self) -> bool) {
        until(what, async || Ok(is(self).then_some(()))).await.unwrap_or_else(|error| {
            panic!("{error}: {:?} {:?}", self.podman.run(&["ps", "-a", "--pod"]), self.agent.status());
        });
    }

    fn lines(&self) -> BTreeMap<String, (String, String)> {
        let status = self.agent.status().expect("status");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let lines = status["deployments"].as_array().into_iter().flatten();
        lines.map(|line| (text(&line["name"]), (text(&line["phase"]), text(&line["message"])))).collect()
    }

    async fn wait_for_phase(&self, phase: &str) {
        self.wait_for(phase, |stage| stage.lines().get("web").is_some_and(|line| line.0 == phase)).await;
    }

    async fn delete(&self) {
        let options = WriteOptions::default();
        self.world.admin.delete(Kind::Deployment, Some("default"), "web", false, &options).await.expect("deleted");
        self.world.settled().await.expect("decided");
    }
}

pub(crate) fn push(podman: &Podman, registry: &Registry) -> String {
    let name = format!("{}/box:1", registry.address);
    let file = podman.path().join("digest");
    podman.import(&name, "one").expect("import");
    podman.run(&["push", "-q", "--digestfile", &file.to_string_lossy(), &name]).expect("push");
    podman.run(&["rmi", &name]).expect("rmi");
    format!("{}/box@{}", registry.address, std::fs::read_to_string(file).expect("digest"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_of_pods_comes_changes_is_repaired_goes_back_and_leaves() {
    let Some((stage, registry)) = Stage::new().await else { return };
    stage.podman.run(&["pod", "create", "--name", "theirs", "--network", "host"]).expect("a person's pod");
    let mut running = stage.run();
    stage.wait_for_phase("healthy").await;
    assert!(stage.runs("1"));
    // From here on there is no registry: everything is here that may be needed.
    drop(registry);
    let (same, first) = (stage.pod("same").expect("same").0, stage.pod("web").expect("web").0);
    stage.version("2").await;
    stage.wait_for("the second release", |stage| stage.runs("2")).await;
    stage.wait_for_phase("healthy").await;
    assert_ne!(stage.pod("web").expect("web").0, first);

    // A person stops one container, and removes a pod.
    stage.podman.run(&["stop", "-t", "0", "web-main"]).expect("stop");
    stage.wait_for("the repair", |stage| stage.runs("2")).await;
    stage.wait_for_phase("healthy").await;
    stage.podman.run(&["pod", "rm", "-f", "-t", "0", "web"]).expect("rm");
    stage.wait_for("the repair", |stage| stage.runs("2")).await;
    stage.wait_for_phase("healthy").await;

    // A release that crashes goes back by itself, without a registry.
    stage.version("crash").await;
    stage.wait_for_phase("rolledBack").await;
    stage.wait_for("the release before", |stage| stage.runs("2")).await;
    let message = stage.lines()["web"].1.clone();
    assert!(message.contains("it went wrong"), "{message}");
    assert_eq!(stage.pod("same").expect("same").0, same, "it never changed");

    stage.version("3").await;
    stage.wait_for("the third release", |stage| stage.runs("3")).await;
    stage.wait_for_phase("healthy").await;
    stage.delete().await;
    stage.wait_for("the end", |stage| stage.pod("web").is_none() && stage.pod("same").is_none()).await;
    stage
        .wait_for("the volumes' end", |stage| {
            stage.podman.run(&["volume", "ls", "-q"]).is_ok_and(|left| left.is_empty())
        })
        .await;
    let pods = stage.podman.run(&["pod", "ps", "--format", "{{.Name}}"]).expect("pods");
    assert_eq!(pods, "theirs");
    assert!(running.is_running());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_at_any_write_leaves_pods_running_and_room_ends_with_what_was_declared() {
    let Some((stage, registry)) = Stage::new().await else { return };
    let mut writes = vec!["write-podman-underway", "write-ledger"];
    if registry.is_some() {
        writes.push("write-podman-images");
    }
    let declare = async |version: &str| stage.version(version).await;
    every_write(&stage.agent, &writes, declare, |version| stage.runs(version)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_at_any_point_of_making_pods_ends_with_what_was_declared() {
    let Some((stage, registry)) = Stage::new().await else { return };
    stage.podman.run(&["pod", "create", "--name", "theirs", "--network", "host"]).expect("a person's pod");
    let cut = |point: &str| {
        let mut once = stage.agent.command(&["once"]);
        once.env("TITAN_FAULT", point);
        let ended = nodes::output(&mut once).expect("it ran");
        assert!(!ended.status.success(), "{point} is never reached: {ended:?}");
    };
    let pulls = ["pull-recorded", "images-recorded"];
    if registry.is_some() {
        pulls.iter().for_each(|point| cut(point));
    }
    let points = ["files-applied", "beside-applied", "proved-good", "pods-stopped", "volumes-made", "pod-played"];
    let known = |point: &&str| pulls.contains(point) || points.contains(point);
    assert!(PODMAN_FAULT_POINTS.iter().all(known), "one is not cut at");
    for (index, point) in points.iter().enumerate() {
        let version = (index + 10).to_string();
        stage.version(&version).await;
        cut(point);
        let mut running = stage.run();
        stage.wait_for(point, |stage| stage.runs(&version)).await;
        stage.wait_for_phase("healthy").await;
        assert!(running.is_running());
    }
    // On its way back.
    let last = (points.len() + 9).to_string();
    stage.version("crash").await;
    let mut falling = Running::start(stage.agent.command(&["run"]).env("TITAN_FAULT", "proved-bad")).expect("running");
    let fell = until("proved-bad", async || Ok((!falling.is_running()).then_some(())));
    fell.await.expect("cut off before it goes back");
    let running = stage.run();
    stage.wait_for("the release before", |stage| stage.runs(&last)).await;
    stage.wait_for_phase("rolledBack").await;
    drop(running);
    stage.delete().await;
    cut("pods-stopped");
    cut("taken-down");
    let _running = stage.run();
    stage.wait_for("the end", |stage| stage.pod("web").is_none() && stage.pod("same").is_none()).await;
    let pods = stage.podman.run(&["pod", "ps", "--format", "{{.Name}}"]).expect("pods");
    assert_eq!(pods, "theirs");
}
