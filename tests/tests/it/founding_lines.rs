//! The six lines of the founding document, as they stand, down to files and commit on the host.

use std::path::Path;

use serde_json::Value;
use titan_tests::{agents::AgentNode, operators::Operator, worlds::World};

/// The platform engineer's lines, and then the developer's, to which a workspace may be added.
const LINES: [&str; 6] = [
    "titan create host --name tim-pi --labels name=tim-pi,platform=kubernetes",
    "titan create template device-service -f ./device-service",
    "titan get workspaces",
    "titan create workload temperature-sensor --repo https://github.com/timfpark/temp-sensor",
    "titan create target tim-pi --labels name=tim-pi",
    "titan create deployment prod --workload temperature-sensor --template device-service --target tim-pi",
];

async fn lines_work(workspace: Option<&str>) {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let person = Operator::new(crate::NODE).expect("a directory");
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates");
    person.copy(&templates.join("device-service"), "device-service").expect("copied");
    person.login(&world.plane.server, &world.plane.token).expect("logged in");
    let flag = workspace.map_or_else(String::new, |workspace| format!(" --workspace {workspace}"));
    if let Some(workspace) = workspace {
        person.titan(&format!("titan create workspace {workspace}")).expect("made");
    }
    for (index, line) in LINES.iter().enumerate() {
        let added = if index > 2 { flag.as_str() } else { "" };
        let said = person.titan(&format!("{line}{added}")).expect("it works as it stands");
        if index == 2 {
            assert!(said.contains("default"), "{said}");
            assert_eq!(said.contains("iot"), workspace.is_some(), "{said}");
        }
    }

    let agent = AgentNode::new(crate::NODE).expect("an agent");
    agent.join(&person.titan("titan host join-command tim-pi").expect("a line")).expect("enrolled");
    world.settled().await.expect("decided");
    agent.settle().expect("applied");
    let title = format!("{}/prod", workspace.unwrap_or("default"));
    let files = agent.files().expect("files");
    let below = |name: &&String| name.starts_with(&format!("{title}/"));
    let applied: Vec<_> = files.keys().filter(below).collect();
    assert!(applied.iter().any(|name| name.ends_with(".service")), "{files:?}");
    assert!(applied.iter().all(|name| !files[*name].contains("{{")), "{files:?}");

    let commits = agent.commits().expect("commits");
    let [(commit, message)] = commits.as_slice() else { panic!("one commit, not {commits:?}") };
    for name in &applied {
        let committed = agent.committed(name).expect("readable");
        assert_eq!(committed.as_ref(), Some(&files[*name]), "{name}");
    }
    let (code, status) = person.json(&format!("titan status deployment prod{flag}")).expect("a status");
    assert_eq!(code, 0);
    let host = &status["hosts"][0];
    assert_eq!((host["host"].as_str(), host["state"].as_str()), (Some("tim-pi"), Some("healthy")), "{status}");
    assert_eq!(host["commit"].as_str(), Some(commit.as_str()), "{status}");
    let digest = host["digest"].as_str().expect("a digest");
    assert_eq!(host["observedDigest"].as_str(), Some(digest), "{status}");
    let revision = host["revision"].as_str().expect("a revision");
    for trailer in [
        format!("Deployment: {title}"),
        "Release: prod#1".to_owned(),
        format!("Revision: {revision}"),
        format!("Digest: {digest}"),
    ] {
        assert!(message.lines().any(|line| line == trailer), "{trailer} in {message}");
    }
    let table = person.titan(&format!("titan status deployment prod{flag}")).expect("a table");
    for part in ["tim-pi", "healthy", "prod#1", &digest[..12], &commit[..10], "converged"] {
        assert!(table.contains(part), "{part} in {table}");
    }

    // Once more changes nothing: no write, no commit.
    agent.settle().expect("settled");
    assert_eq!((agent.files().expect("files"), agent.commits().expect("commits")), (files, commits));
    let (_, again) = person.json(&format!("titan status deployment prod{flag}")).expect("a status");
    assert_eq!(again["hosts"][0]["commit"], Value::from(host["commit"].as_str()));
}

/// S2-36, S2-37, S2-38, S2-39, S2-40, S2-41, S2-42, S2-35.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_lines_of_the_founding_document_end_in_files_and_a_commit() {
    lines_work(None).await;
}

/// S2-40, S2-41, S2-42.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_lines_work_in_a_workspace_of_their_own() {
    lines_work(Some("iot")).await;
}
