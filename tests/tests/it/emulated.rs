//! The agent for ARM, as `agent/packaging/cross` builds it, runs the quickstart under user-mode emulation.

use std::{path::Path, process::Command};

use titan_tests::{agents::AgentNode, nodes, operators::Operator, worlds::World};

/// An architecture, what runs its programs, and what its agent says of the machine.
struct Machine {
    architecture: &'static str,
    emulator: &'static str,
    told: &'static str,
}

const ARM64: Machine = Machine { architecture: "arm64", emulator: "qemu-aarch64-static", told: "aarch64" };
const ARMHF: Machine = Machine { architecture: "armhf", emulator: "qemu-arm-static", told: "arm" };

impl Machine {
    fn binary(&self) -> String {
        format!("{}/../target/cross/titan-agent-{}", env!("CARGO_MANIFEST_DIR"), self.architecture)
    }

    /// Whether there is an agent to run and something to run it. On the shared build's machine both have to be there.
    #[expect(clippy::print_stderr, reason = "whoever runs the tests is to know what they did not show")]
    fn is_there(&self) -> bool {
        let Self { architecture, emulator, .. } = self;
        let said = Command::new(emulator).arg("-version").output();
        let missing = match (said, Path::new(&self.binary()).exists()) {
            (Ok(_), true) => return true,
            (Err(error), _) => format!("{emulator}: {error}"),
            (Ok(_), false) => {
                format!("target/cross/titan-agent-{architecture}: agent/packaging/cross {architecture} builds it")
            }
        };
        let needed = std::env::var("CI").is_ok_and(|value| value == "true") && cfg!(target_arch = "x86_64");
        assert!(!needed, "{missing}");
        eprintln!("left out: the agent for {architecture} ({missing})");
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_for_arm64_runs_the_quickstart() {
    runs_the_quickstart(ARM64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_for_armhf_runs_the_quickstart() {
    runs_the_quickstart(ARMHF).await;
}

async fn runs_the_quickstart(machine: Machine) {
    if !machine.is_there() {
        return;
    }
    let binary = machine.binary();
    let said = nodes::succeed(nodes::command(machine.emulator, &binary).arg("--version")).expect("a version");
    assert_eq!(said.trim(), concat!("titan-agent ", env!("CARGO_PKG_VERSION")));

    let world = World::start(crate::NODE).await.expect("a control plane");
    let person = Operator::new(crate::NODE).expect("a directory");
    person.login(&world.plane.server, &world.plane.token).expect("logged in");
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates");
    person.copy(&templates.join("static-site"), "static-site").expect("copied");
    for line in [
        "titan create host --name tim-pi --labels name=tim-pi",
        "titan create template static-site -f ./static-site",
        "titan create workload site --repo https://github.com/timfpark/temp-sensor",
        "titan create target tim-pi --labels name=tim-pi",
        "titan create deployment prod --workload site --template static-site --target tim-pi",
    ] {
        person.titan(line).unwrap_or_else(|error| panic!("{line}: {error:#}"));
    }

    let agent = AgentNode::emulated(machine.emulator, &binary).expect("an agent");
    // By its name: what looks names up is part of a static binary too.
    let line = person.titan("titan host join-command tim-pi").expect("a line").replace("127.0.0.1", "localhost");
    assert!(line.contains("//localhost:"), "{line}");
    agent.join(&line).expect("enrolled");
    world.settled().await.expect("decided");
    agent.settle().expect("applied");
    let files = agent.files().expect("files");
    assert!(files.get("default/prod/site/index.html").is_some_and(|page| !page.contains("{{")), "{files:?}");
    let [(commit, _)] = &agent.commits().expect("commits")[..] else { panic!("one commit") };
    let (_, status) = person.json("titan status deployment prod").expect("a status");
    let host = &status["hosts"][0];
    assert_eq!((host["state"].as_str(), host["commit"].as_str()), (Some("healthy"), Some(commit.as_str())), "{status}");
    let host = person.titan("titan describe host tim-pi").expect("a host");
    assert!(host.split(|c: char| !c.is_alphanumeric()).any(|word| word == machine.told), "{host}");

    agent.settle().expect("nothing to do");
    assert_eq!(agent.commits().expect("commits").len(), 1, "the same bundle again is no commit");
    person.titan("titan delete deployment prod").expect("deleted");
    world.settled().await.expect("decided");
    agent.settle().expect("removed");
    assert!(agent.files().expect("files").is_empty());
}
