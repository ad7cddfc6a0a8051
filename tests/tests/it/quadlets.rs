//! A host with systemd and podman 5, the agent on it as the unit that is shipped: units that podman makes of quadlets are
//! installed, changed, kept as they are, taken back and removed.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use titan_agent::QUADLET_FAULT_POINTS;
use titan_api::{Kind, client::WriteOptions, reports::Phase, status::DeploymentStatus};
use titan_tests::{
    manifests::{deployment, host, target, template, workload},
    nspawn::{self, Machine},
    operators::Operator,
    podman::{Podman, Registry, podman},
    worlds::World,
};

use crate::systemd::{DROP_IN, SERVICE};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(2);
const MANIFEST: &str = "applier: podman\nhealth: { minReadySeconds: 2, interval: 1s, deadline: 20s }\n";
const WEB: &str = r#"# Everything that changes is here.
[Unit]
Description=What is served
[Container]
Image={{ values.image }}
Exec=sh -c ": {{ workload.version }}; sleep \
  600"
Volume=./conf:/conf:ro
Volume=data.volume:/data
Network=none
StopTimeout=1
HealthCmd={% if workload.version == 'ill' %}sh -c 'echo it is ill; false'{% else %}test -e /conf/greeting{% endif %}
HealthInterval=1s
HealthRetries=1
[Install]
WantedBy=multi-user.target
"#;
const SIDE: &str = "[Container]\nImage={{ values.image }}\nExec=sleep 5000\nNetwork=none\nStopTimeout=0\n";
const AGENT: &str = "polling: { wait: 5s, maxBackoff: 1s, beat: 4s }\n";
const ALLOWED: &str = "{ files: { root: /srv/titan, switch: file }, podman: { names: [web, side, data, net, box, group, member, 'systemd-*'] } }";

struct Stage {
    world: World,
    machine: Machine,
    image: String,
    _podman: Podman,
    _registry: Registry,
}

/// Whether such a host can be had; says so if not, which is a failure where everything has to be shown.
#[expect(clippy::print_stderr, reason = "whoever runs the tests is to know what they did not show")]
fn possible() -> bool {
    let possible = nspawn::possible().and_then(|()| nspawn::base(&nspawn::WITH_PODMAN).map(drop));
    if let Err(error) = &possible {
        assert!(std::env::var("CI").is_err(), "a host with systemd and podman is needed here: {error}");
        eprintln!("left out: a host with quadlets ({error})");
    }
    possible.is_ok()
}

impl Stage {
    /// With an agent that has enrolled, and runs if it is told to.
    async fn new(allowed: &str, runs: bool) -> Option<Self> {
        if !possible() {
            return None;
        }
        let podman = podman()?;
        let registry = podman.registry()?;
        let image = crate::podman::push(&podman, &registry);
        let world = World::start(crate::NODE).await.expect("a control plane");
        let binds = [format!("{}:/usr/local/bin/titan-node", crate::NODE), "/etc/ssl/certs:/etc/ssl/certs".to_owned()];
        let mut machine = Machine::start_on(nspawn::WITH_PODMAN, "quadlets", &binds).expect("a host");
        machine.booted().expect("booted");
        let stage = Self { world, machine, image, _podman: podman, _registry: registry };
        stage.world.apply([host("q", "")]).await.expect("host");
        stage.enrol(allowed);
        if runs {
            stage.ok(&["systemctl", "start", "titan-agent.service"]);
        }
        Some(stage)
    }

    fn enrol(&self, allowed: &str) {
        let person = Operator::new(crate::NODE).expect("a directory");
        person.login(&self.world.plane.server, &self.world.plane.token).expect("logged in");
        let machine = &self.machine;
        machine.write("/etc/titan/agent.yaml", &format!("{AGENT}appliers: {allowed}\n")).expect("configured");
        machine.write("/srv/titan/.keep", "").expect("the root");
        let line = person.titan("titan host join-command q").expect("a line");
        let mut command = vec!["/usr/local/bin/titan-node", "agent"];
        command.extend(line.split_whitespace().skip(1));
        command.extend(["--state-dir", "/var/lib/titan-agent", "--config", "/etc/titan/agent.yaml"]);
        let enrolled = machine.run(&command).expect("nsenter");
        assert!(enrolled.status.success(), "{enrolled:?}");
        machine.write("/etc/systemd/system/titan-agent.service", SERVICE).expect("the unit");
        machine.write("/etc/systemd/system/titan-agent.service.d/test.conf", DROP_IN).expect("the program");
        self.ok(&["systemctl", "daemon-reload"]);
        self.ok(&["systemctl", "enable", "--now", "podman.socket"]);
    }

    fn documents(&self, version: &str, files: &[(&str, &str)]) -> [Value; 4] {
        let values = json!({ "values": { "image": self.image } });
        [
            template("quadlets", files),
            workload("app", version),
            target("all", ""),
            deployment("app", "app", "quadlets", "all", &values),
        ]
    }

    async fn version(&self, version: &str) {
        let files = [
            ("template.yaml", MANIFEST),
            ("web.container.j2", WEB),
            ("side.container.j2", SIDE),
            ("data.volume", "[Volume]\n[X-Titan]\nOnRemove=delete\n"),
            ("net.network", "[Network]\nInternal=true\n"),
            ("box.image.j2", "[Image]\nImage={{ values.image }}\n"),
            ("group.pod", "[Pod]\nNetwork=none\n"),
            ("member.container", "[Container]\nImage=box.image\nPod=group.pod\nExec=sleep 6000\nStopTimeout=0\n"),
            ("conf/greeting", "hello\n"),
        ];
        self.declare(version, &files).await;
    }

    async fn declare(&self, version: &str, files: &[(&str, &str)]) {
        self.world.apply(self.documents(version, files)).await.expect("written");
        self.world.settled().await.expect("decided");
    }

    async fn delete(&self) {
        let client = self.world.plane.client();
        client
            .delete(Kind::Deployment, Some("default"), "app", false, &WriteOptions::default())
            .await
            .expect("deleted");
        self.world.settled().await.expect("decided");
    }

    /// Waits until nothing is there that the deployment brought.
    fn left_nothing(&self) {
        let left = BTreeMap::from([
            ("files", "ls /etc/containers/systemd | grep -vE '^(users|theirs.volume)$'"),
            (
                "units",
                "systemctl list-units --all --no-legend | grep -E ' (web|side|member|v[0-9]+|data-volume|net-network|box-image|group-pod)[.]service' | grep -v 'not-found inactive'",
            ),
            ("containers", "podman ps -aq"),
            ("pods", "podman pod ps -q"),
            ("networks", "podman network ls -q | grep systemd-"),
            ("volumes", "podman volume ls -q"),
        ]);
        for (what, script) in left {
            self.eventually(&format!("no {what} are left"), || self.say(&["sh", "-c", script]).is_empty());
        }
    }

    fn say(&self, command: &[&str]) -> String {
        self.machine.say(command).expect("inside")
    }

    fn ok(&self, command: &[&str]) {
        let ended = self.machine.run(command).expect("inside");
        assert!(ended.status.success(), "{command:?}: {ended:?}");
    }

    fn container(&self, name: &str) -> String {
        self.say(&["podman", "inspect", "-f", "{{.Id}} {{.Args}} {{.State.Status}} {{.State.Health.Status}}", name])
    }

    fn runs(&self, version: &str) -> bool {
        let web = self.container("systemd-web");
        web.contains(&format!(": {version};")) && web.contains("running healthy")
    }

    async fn until(&self, what: &str, wanted: impl Fn(&DeploymentStatus) -> bool) -> DeploymentStatus {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let client = self.world.plane.client();
            let status = client.deployment_status("default", "app").await.expect("status");
            if wanted(&status) {
                return status;
            }
            if tokio::time::Instant::now() > deadline {
                panic!("{what}: {status:#?}\n{}", self.story());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn eventually(&self, what: &str, look: impl Fn() -> bool) {
        nspawn::eventually(what, PATIENCE, || look().then_some(()))
            .unwrap_or_else(|error| panic!("{error}\n{}", self.story()));
    }

    /// Returns what can be told of the host when something does not happen.
    fn story(&self) -> String {
        let script = "podman ps -a; systemctl status --no-pager web side data-volume net-network | head -80; \
                      ls -l /etc/containers/systemd; cat /etc/containers/systemd/web.container; \
                      journalctl --no-pager -u titan-agent -n 60 -o cat";
        self.say(&["sh", "-c", script])
    }
}

fn is(status: &DeploymentStatus, phase: Phase) -> bool {
    !status.hosts.is_empty() && status.hosts.iter().all(|row| row.phase == Some(phase))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_made_of_quadlets_are_kept_as_declared_through_all_of_it() {
    let Some(stage) = Stage::new(ALLOWED, true).await else { return };
    // What a person has on this host, and what is there already under a name that is wanted.
    stage.machine.write("/etc/containers/systemd/theirs.volume", "[Volume]\n").expect("theirs");
    stage.ok(&["podman", "volume", "create", "systemd-data"]);
    stage.version("1").await;
    let refused =
        |status: &DeploymentStatus| status.hosts.iter().any(|row| row.message.contains("volume:systemd-data exists"));
    stage.until("what is theirs is refused", refused).await;
    assert_eq!(stage.say(&["ls", "/etc/containers/systemd"]).replace("users", "").trim(), "theirs.volume");
    stage.ok(&["podman", "volume", "rm", "systemd-data"]);
    stage.version("2").await;

    // Installed: pulled by digest, healthy, started at boot.
    stage.until("installed", |status| is(status, Phase::Healthy) && status.converged()).await;
    assert!(stage.runs("2"), "{}", stage.story());
    assert!(stage.say(&["ls", "/run/systemd/generator/multi-user.target.wants"]).contains("web.service"));
    assert!(stage.say(&["podman", "network", "ls"]).contains("systemd-net"));
    assert_eq!(stage.say(&["podman", "pod", "ps", "--format", "{{.Name}} {{.Status}}"]), "systemd-group Running");
    let member = stage.container("systemd-member");
    let (side, web) = (stage.container("systemd-side"), stage.container("systemd-web"));

    // A change restarts what changed.
    stage.version("3").await;
    stage.until("changed", |status| is(status, Phase::Healthy) && status.converged()).await;
    assert!(stage.runs("3"), "{}", stage.story());
    assert_ne!(stage.container("systemd-web"), web);
    assert_eq!(stage.container("systemd-side"), side);
    assert_eq!(stage.container("systemd-member"), member);

    // People stop the unit, remove its container, and write into its file.
    let drifted = |how: &'static str| {
        move |status: &DeploymentStatus| {
            status.hosts.iter().any(|row| row.drift.iter().any(|drift| drift.repaired && drift.how.contains(how)))
        }
    };
    stage.ok(&["systemctl", "stop", "web.service"]);
    stage.until("drift is told", drifted("stopped")).await;
    stage.eventually("what was stopped runs again", || stage.runs("3"));
    let before = stage.container("systemd-web");
    stage.ok(&["podman", "rm", "-f", "-t", "0", "systemd-web"]);
    stage.eventually("what was removed runs again", || stage.runs("3") && stage.container("systemd-web") != before);
    stage.ok(&["sed", "-i", "s/600/700/", "/etc/containers/systemd/web.container"]);
    stage.ok(&["systemctl", "daemon-reload"]);
    stage.ok(&["systemctl", "restart", "web.service"]);
    stage.until("an edit is told", drifted("content")).await;
    stage.eventually("what was written over is back", || {
        let container = stage.container("systemd-web");
        stage.runs("3") && !container.contains("700")
    });
    stage.until("healthy again", |status| is(status, Phase::Healthy)).await;

    // A release whose health check fails is taken back, with what it said.
    stage.version("ill").await;
    let status = stage.until("rolled back", |status| is(status, Phase::RolledBack)).await;
    assert!(status.hosts[0].message.contains("it is ill"), "{status:#?}");
    stage.eventually("what was before runs", || stage.runs("3"));
    assert_eq!(stage.container("systemd-side"), side, "what did not change was never touched");

    // Removed: no file, no unit, no container, no network, no volume that was to go.
    stage.version("4").await;
    stage.until("good again", |status| is(status, Phase::Healthy) && status.converged()).await;
    stage.delete().await;
    stage.left_nothing();
}

/// A unit and a network that change with each version, and a unit that another one follows.
const TURNS: [(&str, &str); 5] = [
    ("template.yaml", MANIFEST),
    ("web.container.j2", WEB),
    ("v{{ workload.version }}.container.j2", SIDE),
    ("data.volume", "[Volume]\n[X-Titan]\nOnRemove=delete\n"),
    ("net.network.j2", "[Network]\nLabel=version={{ workload.version }}\n"),
];
/// The same service as a pod.
const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: { name: web }\nspec:\n  hostNetwork: true\n  terminationGracePeriodSeconds: 0\n  \
                   containers: [ { name: main, image: '{{ values.image }}', command: [sleep, '900'] } ]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_units_of_quadlets_are_old_or_new_once_the_agent_is_back() {
    let allowed = "{ files: { root: /srv/titan, switch: file }, podman: { privileged: true } }";
    let Some(stage) = Stage::new(allowed, false).await else { return };
    let agent = |verb: &str| stage.ok(&["systemctl", verb, "titan-agent.service"]);
    let cut = |point: &str| {
        let fault = format!("TITAN_FAULT={point}");
        let ended = stage.machine.run(&["env", &fault, "/usr/local/bin/titan-node", "agent", "once"]).expect("nsenter");
        assert!(!ended.status.success(), "{point} is never reached: {ended:?}");
    };
    let files = TURNS.iter().copied().chain([("conf/greeting", "hello\n")]).collect::<Vec<_>>();
    let states = |version: u32| {
        let (old, new) = (format!("v{}.service", version - 1), format!("v{version}.service"));
        stage.say(&["systemctl", "is-active", "web.service", &old, &new]).replace('\n', " ")
    };
    stage.declare("10", &files).await;
    agent("start");
    stage.until("installed", |status| is(status, Phase::Healthy) && status.converged()).await;
    let mut version = 10;
    for point in QUADLET_FAULT_POINTS.iter().chain(&["files-applied", "unit-asked", "beside-applied"]) {
        agent("stop");
        version += 1;
        stage.declare(&version.to_string(), &files).await;
        cut(point);
        agent("start");
        stage.until(point, |status| is(status, Phase::Healthy) && status.converged()).await;
        assert!(stage.runs(&version.to_string()), "after {point}: {}", stage.story());
        assert_eq!(states(version), "active inactive active", "after {point}");
        let label = stage.say(&["podman", "network", "inspect", "-f", "{{.Labels.version}}", "systemd-net"]);
        assert_eq!(label, version.to_string(), "after {point}");
    }

    // Cut off on its way back.
    agent("stop");
    stage.declare("ill", &files).await;
    let fall = ["timeout", "60", "env", "TITAN_FAULT=proved-bad", "/usr/local/bin/titan-node", "agent", "run"];
    let fell = stage.machine.run(&fall).expect("nsenter");
    assert!(!fell.status.success() && fell.status.code() != Some(124), "it is never proved bad: {fell:?}");
    agent("start");
    stage.until("rolled back", |status| is(status, Phase::RolledBack)).await;
    stage.eventually("what was before runs", || stage.runs(&version.to_string()));
    let units = format!("v{version}.service");
    assert_eq!(stage.say(&["systemctl", "is-active", &units, "vill.service"]), "active\ninactive");

    // From quadlets to a pod, and back.
    stage.declare("30", &[("template.yaml", MANIFEST), ("pod.yaml.j2", POD)]).await;
    stage.until("a pod", |status| is(status, Phase::Healthy) && status.converged()).await;
    assert_eq!(stage.say(&["podman", "pod", "ps", "--format", "{{.Name}} {{.Status}}"]), "web Running");
    assert_eq!(stage.say(&["ls", "/etc/containers/systemd"]), "users");
    stage.declare("31", &files).await;
    stage.until("quadlets again", |status| is(status, Phase::Healthy) && status.converged()).await;
    assert_eq!(stage.say(&["podman", "pod", "ps", "-q"]), "");

    // Cut off in the middle of a removal.
    agent("stop");
    stage.delete().await;
    cut("quadlets-cleared");
    cut("taken-down");
    agent("start");
    stage.left_nothing();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quadlets_for_which_there_is_no_room_are_refused_and_come_once_there_is() {
    let allowed =
        "{ files: { root: /srv/titan, switch: file }, podman: { privileged: true } }\nlimits: { reserveBytes: 0 }";
    let Some(stage) = Stage::new(allowed, false).await else { return };
    let directory = "/etc/containers/systemd";
    stage.ok(&["mount", "-t", "tmpfs", "-o", "size=64k", "titan-test", directory]);
    let files = TURNS.iter().copied().chain([("conf/greeting", "hello\n")]).collect::<Vec<_>>();
    stage.declare("10", &files).await;
    stage.ok(&["systemctl", "start", "titan-agent.service"]);
    stage.until("installed", |status| is(status, Phase::Healthy) && status.converged()).await;
    let before = stage.container("systemd-web");
    stage.say(&["dd", "if=/dev/zero", &format!("of={directory}/ballast"), "bs=4k"]);
    stage.declare("11", &files).await;
    let refused = |status: &DeploymentStatus| status.hosts[0].message.contains(&format!("the disk of {directory} has"));
    stage.until("refused", refused).await;
    assert_eq!(stage.container("systemd-web"), before, "nothing is touched");
    assert_eq!(stage.say(&["systemctl", "is-active", "web.service", "v10.service"]), "active\nactive");
    stage.ok(&["rm", &format!("{directory}/ballast")]);
    stage.until("it comes", |status| is(status, Phase::Healthy) && status.converged()).await;
    assert!(stage.runs("11"), "{}", stage.story());
}

/// Takes fifteen seconds to stop.
const SLOW: &str = "[Container]\nImage={{ values.image }}\nExec=sh -c \"trap '' TERM; while true; do sleep 1; done\"\n\
                    Network=none\nStopTimeout=15\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_comes_while_a_unit_still_stops_forgets_nothing_of_it() {
    let allowed = "{ files: { root: /srv/titan, switch: file }, podman: { privileged: true } }";
    let Some(stage) = Stage::new(allowed, true).await else { return };
    let rest = [("template.yaml", MANIFEST), ("web.container.j2", WEB), ("data.volume", "[Volume]\n")];
    let rest = rest.into_iter().chain([("conf/greeting", "hello\n")]).collect::<Vec<_>>();
    let slow = rest.iter().copied().chain([("slow.container.j2", SLOW)]).collect::<Vec<_>>();
    stage.declare("20", &slow).await;
    stage.until("installed", |status| is(status, Phase::Healthy) && status.converged()).await;
    stage.declare("21", &rest).await;
    let is_active = || stage.say(&["systemctl", "is-active", "slow.service"]);
    stage.eventually("it stops", || is_active() == "deactivating");
    stage.declare("22", &rest).await;
    stage.until("the next one", |status| is(status, Phase::Healthy) && status.converged()).await;
    assert!(stage.runs("22"), "{}", stage.story());
    stage.eventually("what was dropped is gone", || {
        stage.say(&["ls", "/etc/containers/systemd"]).split_whitespace().all(|file| !file.starts_with("slow"))
            && stage
                .say(&["podman", "ps", "-a", "--format", "{{.Names}}"])
                .split_whitespace()
                .all(|name| name != "systemd-slow")
            && is_active() == "inactive"
    });
}
