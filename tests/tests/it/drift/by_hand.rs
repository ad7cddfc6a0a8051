//! A person edits what an agent keeps: they see the difference, make the edit declared state, and take it back; or it is
//! put right, once that is told.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::json;
use titan_tests::{
    agents::AgentNode,
    manifests::{deployment, host, target, template, workload},
    nodes,
    operators::Operator,
    worlds::World,
};

/// Returns a control plane with one deployment, `default/web`, somebody who asks it, and an agent that has it.
async fn stage(files: &[(&str, &str)]) -> (World, Operator, AgentNode) {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let declared = deployment("web", "w", "t", "all", &json!({ "values": { "port": 1 } }));
    let documents = [host("pi", ""), template("t", files), workload("w", "1"), target("all", ""), declared];
    world.apply(documents).await.expect("written");
    world.settled().await.expect("decided");
    let person = Operator::new(crate::NODE).expect("a directory");
    person.login(&world.plane.server, &world.plane.token).expect("logged in");
    let agent = AgentNode::new(crate::NODE).expect("an agent");
    agent.join(&person.titan("titan host join-command pi").expect("a line")).expect("enrolled");
    agent.settle().expect("applied");
    (world, person, agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_on_a_host_is_told_adopted_kept_and_given_up() {
    let files = [("app.conf.j2", "port={{ values.port }}\n"), ("template.yaml", "drift: report\n")];
    let (world, person, agent) = stage(&files).await;
    let path = agent.root().join("default/web/app.conf");
    let says = || fs::read_to_string(&path).expect("the file");
    assert_eq!(says(), "port=1\n");

    // Somebody tunes it.
    fs::write(&path, "port=7\n").expect("edited");
    agent.once().expect("it ran");
    assert_eq!(says(), "port=7\n", "it is to be told only");
    let drift = || {
        let told = person.run("titan host drift pi").expect("told");
        (told.status.code(), String::from_utf8_lossy(&told.stdout).into_owned())
    };
    let (code, told) = drift();
    assert_eq!(code, Some(6), "there is a difference: {told}");
    assert!(told.contains("app.conf") && told.contains("-port=1") && told.contains("+port=7"), "{told}");

    // It becomes what is declared for this host: the agent has nothing to change and nothing to tell.
    let adopt = "titan host drift pi --adopt default/web --path app.conf --reason tuned";
    assert!(person.titan(adopt).expect("adopted").contains("app.conf is adopted"));
    world.settled().await.expect("decided");
    agent.settle().expect("applied");
    agent.settle().expect("nothing to do");
    assert_eq!(says(), "port=7\n");
    let (code, told) = drift();
    assert!(code == Some(0) && !told.contains("+port=7"), "{told}");
    assert_eq!(agent.commits().expect("commits").len(), 2);

    // A new release leaves it, until it is given up.
    world.apply([deployment("web", "w", "t", "all", &json!({ "values": { "port": 2 } }))]).await.expect("written");
    world.settled().await.expect("decided");
    agent.settle().expect("applied");
    assert_eq!(says(), "port=7\n");
    person.titan("titan host drift pi --unadopt default/web --reason enough").expect("given up");
    world.settled().await.expect("decided");
    agent.settle().expect("applied");
    assert_eq!(says(), "port=2\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drift_is_reported_with_its_difference_before_it_is_put_right() {
    let (world, _person, agent) = stage(&[("app.conf.j2", "port={{ values.port }}\n")]).await;
    let path = agent.root().join("default/web/app.conf");
    let says = || fs::read_to_string(&path).expect("the file");
    fs::write(&path, "port=7\n").expect("edited");

    // It ends once the control plane has taken the report.
    let mut once = agent.command(&["once"]);
    let ended = nodes::output(once.env("TITAN_FAULT", "report-noted")).expect("it ran");
    assert!(!ended.status.success() && says() == "port=7\n", "{ended:?}");
    let told = || async { world.admin.drift("pi").await.expect("drift").deployments.remove(0).drift.remove(0) };
    let first = told().await;
    assert!(first.diff.contains("-port=1\n+port=7\n") && !first.repaired, "{first:?}");
    let said = agent.settle().expect("put right");
    assert!(said.contains("repaired") && says() == "port=1\n", "{said}");
    assert!(told().await.repaired);

    // In one round, and by the agent that stays.
    fs::write(&path, "port=8\n").expect("edited");
    let said = agent.settle().expect("put right");
    assert!(said.contains("repaired") && says() == "port=1\n", "{said}");
    let _agent = agent.run().expect("it runs");
    let until = Instant::now() + Duration::from_secs(30);
    fs::write(&path, "port=9\n").expect("edited");
    while says() != "port=1\n" || !told().await.diff.contains("+port=9\n") || !told().await.repaired {
        assert!(Instant::now() < until, "it says {:?}", says());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
