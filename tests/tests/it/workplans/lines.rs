//! Plans at the command line: every word that one can say to a plan.

use serde_json::{Value, json};
use titan_api::workplans::{NodeState, attempts::Completion};
use titan_tests::{
    operators::Operator,
    worlds::{World, until},
};

use super::{claim, id, name, plan};

fn broken() -> Completion {
    Completion {
        process_uid: "w".into(),
        verdict: None,
        code: Some("crash".into()),
        message: Some("the disk is full".into()),
        details: Some(json!({ "free": 0 })),
        results: Vec::new(),
    }
}

/// Takes the attempt of the node `build` and breaks it off; returns what the worker was told.
async fn break_off(world: &World, plan: uuid::Uuid) -> Value {
    let taken = world.admin.claim(&claim("q", "w", 20)).await.expect("asked").attempt.expect("an attempt");
    let values = json!(taken.values);
    world.admin.complete((plan, &taken.node, taken.number), &broken()).await.expect("heard");
    until("it waits for a person", async || Ok(world.admin.plan_node(plan, &name("build")).await?.held.then_some(())))
        .await
        .expect("held");
    values
}

/// S3-14, S4-12, S4-13, S4-14, S4-16, S4-22, S4-29, S4-39: start, status, watch, list, history, nodes, and all ten signals.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_word_to_a_plan_works_at_the_command_line() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let person = Operator::new(crate::NODE).expect("a directory");
    person.login(&world.plane.server, &world.plane.token).expect("logged in");
    let titan = |line: &str| person.titan(line).expect("it works");
    let spec = json!({ "start": false, "values": { "city": "Ulm" }, "nodes": {
        "build": { "run": { "external": { "queue": "q" } }, "retry": { "attempts": 1 }, "onFailure": "pause" },
        "gate": { "kind": "check", "run": { "approval": {} }, "after": { "edges": ["build"] } },
    } });
    person.write("p.yaml", &plan("p", &spec).to_string()).expect("a file");
    titan("titan apply -f p.yaml");
    assert!(titan("titan workplan list").contains('p'));
    let id = id(&world, "p").await;
    assert_eq!(id.get_version_num(), 7, "S3-27");
    titan("titan workplan start p");
    titan("titan workplan pause p --reason lunch");
    let (_, status) = person.json("titan workplan status p").expect("a status");
    assert_eq!(status["state"], "paused", "{status}");
    titan("titan workplan resume p");
    titan("titan workplan update p --set city=Bonn --reason moved");
    assert_eq!(break_off(&world, id).await["city"], "Bonn");
    titan("titan workplan retry p build --reason emptied");
    break_off(&world, id).await;
    let build = world.admin.plan_node(id, &name("build")).await.expect("the node");
    assert_eq!(build.attempts.len(), 2, "every attempt is kept");
    for attempt in &build.attempts {
        let told = (attempt.process_uid.as_deref(), attempt.code.as_deref(), attempt.failure_message.as_deref());
        assert_eq!(told, (Some("w"), Some("crash"), Some("the disk is full")));
        assert_eq!(attempt.details, Some(json!({ "free": 0 })));
    }
    let (_, status) = person.json("titan workplan status p").expect("a status");
    let errors = status["recentErrors"].as_array().expect("what went wrong");
    let told: Vec<_> = errors.iter().map(|error| (&error["node"], &error["number"], &error["message"])).collect();
    let (build_name, full) = (json!("build"), json!("the disk is full"));
    assert_eq!(told, [(&build_name, &json!(2), &full), (&build_name, &json!(1), &full)], "the newest first");
    titan("titan workplan skip p build --reason by-hand");
    until("the gate", async || {
        let gate = world.admin.plan_node(id, &name("gate")).await?;
        Ok((gate.state == NodeState::Waiting).then_some(()))
    })
    .await
    .expect("it waits");
    let waits = titan("titan workplan status workplan/p");
    assert!(waits.contains("waits for approval, 0 of 1") && waits.contains("titan workplan approve p gate"), "{waits}");
    let own = person.run("titan workplan approve p gate").expect("run");
    assert_eq!(own.status.code(), Some(4), "nobody approves his own");
    titan("titan workplan reject p gate --reason too-late");
    let over = person.run("titan workplan status p --wait").expect("run");
    let told = String::from_utf8_lossy(&over.stdout).into_owned();
    assert_eq!(over.status.code(), Some(1), "{told}");
    assert!(told.contains("gate was rejected by token:admin: too-late"), "{told}");
    let watched = person.run("titan workplan watch p").expect("run");
    assert_eq!(watched.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&watched.stdout).contains("gate"), "{watched:?}");
    let history = titan("titan workplan history p");
    for what in ["lunch", "moved", "emptied", "by-hand", "too-late", "token:admin"] {
        assert!(history.contains(what), "{what}: {history}");
    }
    assert!(history.contains("plan made by token:admin\n"), "who it was is said once: {history}");
    assert!(titan("titan workplan history p --node build").contains("told to skip"));
    let nobody = person.run("titan workplan history p --node nosuch").expect("run");
    assert_eq!(nobody.status.code(), Some(3), "{nobody:?}");
    assert!(titan("titan workplan nodes p --kind check").contains("gate"));

    for (word, state) in [("abort", "aborted"), ("rollback", "rolledBack")] {
        let spec = json!({ "nodes": { "hold": { "run": { "external": { "queue": "nobody" } } } } });
        person.write("q.yaml", &plan(word, &spec).to_string()).expect("a file");
        titan("titan apply -f q.yaml");
        titan(&format!("titan workplan {word} {word} --reason enough"));
        assert_eq!(person.run(&format!("titan workplan status {word} --wait")).expect("run").status.code(), Some(1));
        let (_, status) = person.json(&format!("titan workplan status {word}")).expect("a status");
        assert_eq!(status["state"], state, "{status}");
    }
}
