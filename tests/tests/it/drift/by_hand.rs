//! A person edits what an agent keeps: they see the difference, make the edit declared state, and take it back.

use serde_json::json;
use titan_tests::{
    agents::AgentNode,
    manifests::{deployment, host, target, template, workload},
    operators::Operator,
    worlds::World,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_on_a_host_is_told_adopted_kept_and_given_up() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let files = [("app.conf.j2", "port={{ values.port }}\n"), ("template.yaml", "drift: report\n")];
    let declared = |port: u32| deployment("web", "w", "t", "all", &json!({ "values": { "port": port } }));
    let documents = [host("pi", ""), template("t", &files), workload("w", "1"), target("all", ""), declared(1)];
    world.apply(documents).await.expect("written");
    world.settled().await.expect("decided");
    let person = Operator::new(crate::NODE).expect("a directory");
    person.login(&world.plane.server, &world.plane.token).expect("logged in");
    let agent = AgentNode::new(crate::NODE).expect("an agent");
    agent.join(&person.titan("titan host join-command pi").expect("a line")).expect("enrolled");
    agent.settle().expect("applied");
    let path = agent.root().join("default/web/app.conf");
    let says = || std::fs::read_to_string(&path).expect("the file");
    assert_eq!(says(), "port=1\n");

    // Somebody tunes it.
    std::fs::write(&path, "port=7\n").expect("edited");
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
    world.apply([declared(2)]).await.expect("written");
    world.settled().await.expect("decided");
    agent.settle().expect("applied");
    assert_eq!(says(), "port=7\n");
    person.titan("titan host drift pi --unadopt default/web --reason enough").expect("given up");
    world.settled().await.expect("decided");
    agent.settle().expect("applied");
    assert_eq!(says(), "port=2\n");
}
