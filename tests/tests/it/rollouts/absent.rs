//! Hosts that are not there: a stage that had none but them is shown as what it is, and nobody waits for them.

use serde_json::{Value, json};
use titan_api::workplans::PlanState;
use titan_tests::{manifests, operators::Operator, worlds::World};

use super::{Hosts, documents, plan};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_are_left_out_are_neither_a_success_nor_waited_for() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let hosts = Hosts::start(&world, 1).await;
    let person = Operator::new(crate::NODE).expect("a directory");
    person.login(&world.plane.server, &world.plane.token).expect("logged in");
    // It is known, and was never heard of.
    world.apply([manifests::host("gone", "at=attic")]).await.expect("written");
    let strategy = json!({
        "stages": [
            { "name": "canary", "match": { "matchLabels": { "at": "attic" } } },
            { "name": "all", "hosts": "100%" },
        ],
        "offline": { "after": "1s", "do": "exclude" },
    });
    let written: Vec<String> = documents("one", &strategy).iter().map(Value::to_string).collect();
    person.write("fleet.yaml", &written.join("\n---\n")).expect("a file");
    let applied = person.run("titan apply -f fleet.yaml --wait --timeout 60s").expect("run");
    let told = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert_eq!(applied.status.code(), Some(0), "{told}");
    assert!(told.trim_end().ends_with("web: 1 of 2 healthy, 1 offline and left out"), "{told}");
    plan(&world, "web#1", |plan| plan.state == PlanState::Succeeded).await;
    assert_eq!(hosts.count(), [("one".to_owned(), 1)].into());

    let shown = |line: &str| {
        let text = person.titan(line).expect(line);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let status = shown("titan status web --wait --timeout 60s");
    assert!(status.contains("stage canary nothing to do"), "{status}");
    assert!(status.contains("stage all passed"), "{status}");
    let summary = "web (web#1): converged but for 1 host, 1 of 2 healthy, 1 offline and left out";
    assert!(status.ends_with(summary), "{status}");
    let rollout = shown("titan rollout status web");
    assert!(rollout.contains("– canary: nothing to do, all 1 hosts are offline"), "{rollout}");
    assert!(!rollout.contains("– all"), "{rollout}");
    let watched = shown("titan rollout watch web");
    assert!(watched.contains("canary: nothing to do, all 1 hosts are offline"), "{watched}");
    let (_, graph) = person.json("titan status web").expect("a status");
    let steps = graph["graph"].as_array().expect("steps").iter();
    let idle: Vec<_> = steps.filter(|step| step["noOp"] == json!(true)).map(|step| &step["name"]).collect();
    assert_eq!(idle, ["canary"], "{graph}");
}
