//! Plans over the API: applied, worked on, told things, and their history.

mod away;
mod checks;
mod held_up;
mod lines;
mod races;

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use titan_api::{
    Code, Name,
    client::{Client, ClientError},
    workplans::{
        NodeState, Outcome, PlanState, Signal, SignalRequest, WriteNodes,
        attempts::{ClaimRequest, Completion, Verdict},
    },
};
use titan_tests::{databases, worlds::World};
use uuid::Uuid;

fn plan(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "titan/v1", "kind": "WorkPlan", "metadata": {"name": name, "workspace": "default"}, "spec": spec})
}

async fn id(world: &World, name: &str) -> Uuid {
    let document = world.admin.get(titan_api::Kind::WorkPlan, Some("default"), name, None).await.expect("the plan");
    document.metadata.uid.expect("an id")
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn done(verdict: Verdict) -> Completion {
    Completion {
        process_uid: "w".into(),
        verdict: Some(verdict),
        code: None,
        message: None,
        details: None,
        results: Vec::new(),
    }
}

fn claim(queue: &str, uid: &str, wait: u64) -> ClaimRequest {
    ClaimRequest { queues: vec![name(queue)], process_uid: uid.into(), wait }
}

/// Returns a client with another token: somebody else.
async fn somebody(world: &World, who: &str) -> Client {
    let body = json!({ "name": who }).to_string();
    let made = world.admin_call(Method::POST, "/v1/tokens", body).await.expect("a token");
    let token = made.body["token"].as_str().expect("a secret").to_owned();
    Client::new(&world.plane.server, Some(token)).expect("a client")
}

/// S3-1, S3-2, S3-9, S3-12, S3-17, S3-18, S3-33, S4-6, S4-14, S4-34: from the document to the end, on both engines.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_is_applied_worked_on_approved_and_ends() {
    for database in databases::each() {
        let engine = database.engine;
        let world = World::over(database, crate::NODE).await.expect("a control plane");
        let url = format!("{}/healthz", world.plane.server);
        let spec = json!({"values": {"path": "healthz"}, "nodes": {
            "wait": {"run": {"wait": {"for": "50ms"}}},
            "alive": {"run": {"http": {"url": url, "condition": "status == 200"}}, "after": {"edges": ["wait"]}},
            "builds": {"kind": "check", "after": {"edges": ["alive"]}},
            "build": {"run": {"external": {"queue": "builds", "input": {"target": "x"}}}, "answers": [{"check": "builds"}],
                "after": {"edges": ["alive"]}},
            "gate": {"kind": "check", "run": {"approval": {}}, "after": {"edges": ["builds"]}},
            "inner": {"run": {"plan": {"nodes": {"one": {}, "two": {"run": {"wait": {"for": "20ms"}}, "after": {"edges": ["one"]}}}}},
                "after": {"edges": ["gate"]}},
            "never": {"after": {"edges": ["gate:failed"]}},
        }});
        world.apply([plan("p", &spec)]).await.expect("applied");
        let id = id(&world, "p").await;
        // Nobody works on another queue.
        assert!(world.admin.claim(&claim("others", "w", 0)).await.expect("asked").attempt.is_none(), "{engine}");
        let taken = world.admin.claim(&claim("builds", "w", 20)).await.expect("asked").attempt.expect("an attempt");
        assert_eq!((taken.plan, taken.node.as_str(), taken.number), (id, "build", 1), "{engine}");
        assert_eq!((taken.input["target"].as_str(), taken.values["path"].as_str()), (Some("x"), Some("healthz")));
        // Whoever did not hear the answer asks again; nobody else gets it.
        let again = world.admin.claim(&claim("builds", "w", 0)).await.expect("asked").attempt.expect("the same");
        assert_eq!(again, taken);
        assert!(world.admin.claim(&claim("builds", "x", 0)).await.expect("asked").attempt.is_none());
        world.admin.complete((id, &taken.node, 1), &done(Verdict::Passed)).await.expect("completed");
        let gate = world.admin.plan_node(id, &name("gate")).await.expect("the gate");
        assert_eq!(gate.state, NodeState::Waiting, "{engine}");
        let approve = SignalRequest {
            node: Some(name("gate")),
            generation: Some(gate.generation),
            ..SignalRequest::new(Signal::Approve, "approve-1")
        };
        let own = world.admin.signal(id, &approve).await.expect_err("own plan");
        assert_eq!(own.code(), Some(Code::SelfApproval), "{engine}");
        let bob = somebody(&world, "bob").await;
        let first = bob.signal(id, &approve).await.expect("approved");
        let second = bob.signal(id, &approve).await.expect("once");
        assert_eq!((first.repeated, second.repeated, first.version), (false, true, second.version), "{engine}");
        let status = world.admin.plan_status(id, 30).await.expect("the end");
        assert_eq!(status.state, PlanState::Succeeded, "{engine}: {status:?}");
        assert_eq!((status.counts["passed"], status.counts["skipped"]), (6, 1), "{engine}");
        let checks =
            world.admin.plan_nodes(id, Some(titan_api::workplans::NodeKind::Check), None).await.expect("nodes");
        assert_eq!(checks.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["builds", "gate"]);
        assert_eq!(checks[0].results[0].owner, "build/1");
        let inner = world.admin.plan_node(id, &name("inner")).await.expect("inner").child.expect("a plan");
        assert_eq!(world.admin.plan_status(inner, 0).await.expect("inner").state, PlanState::Succeeded);
        let events = world.admin.plan_events(id, 0, 0).await.expect("events").items;
        let numbers: Vec<_> = events.iter().map(|event| event.number).collect();
        assert_eq!(numbers, (1..=numbers.len() as i64).collect::<Vec<_>>(), "{engine}: no hole");
        let over = bob.signal(id, &SignalRequest::new(Signal::Pause, "late")).await.expect_err("over");
        assert_eq!(over.code(), Some(Code::InvalidTransition), "{engine}");
        let ClientError::Refused { problem, .. } = over else { panic!("{engine}: {over}") };
        assert_eq!(problem.hint.as_deref(), Some("delete the plan and apply it again, or give it another name"));
    }
}

/// S1-13, S3-16, S3-20, S3-21, S4-19, S4-25: refused with its code, and nothing is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused_and_nothing_is_written() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let http = json!({"http": {"url": "http://127.0.0.1:1"}});
    let before = world.rows().await.expect("rows");
    for (code, pointer, spec) in [
        (
            "cycle",
            "/resources/0/spec/nodes/a/after",
            json!({"nodes": {"a": {"after": {"edges": ["b"]}}, "b": {"after": {"edges": ["a"]}}}}),
        ),
        ("unknown_node", "/resources/0/spec/nodes/a/after", json!({"nodes": {"a": {"after": {"edges": ["b"]}}}})),
        ("empty_group", "/resources/0/spec/nodes/a/after", json!({"nodes": {"a": {"after": {}}}})),
        (
            "threshold_too_large",
            "/resources/0/spec/nodes/b/after/threshold",
            json!({"nodes": {"a": {}, "b": {"after": {"edges": ["a"], "threshold": 2}}}}),
        ),
        (
            "invalid_document",
            "/resources/0/spec/nodes/b/after/edges/1",
            json!({"nodes": {"a": {}, "b": {"after": {"edges": ["a", "a"]}}}}),
        ),
        (
            "invalid_document",
            "/resources/0/spec/nodes/o/run/plan/nodes/s/answers",
            json!({"nodes": {"o": {"run": {"plan": {"nodes": {
                "s": {"answers": [{"check": "c"}]}, "c": {"kind": "check", "run": {"approval": {}}}}}}}}}),
        ),
        ("budget_exceeded", "/resources/0/spec/deadline", json!({"deadline": "15s", "nodes": {"a": {"run": http}}})),
        (
            "invalid_document",
            "/resources/0/spec/nodes/a/run/http/condition",
            json!({"nodes": {"a": {"run": {"http": {"url": "http://x", "condition": "'x' * 9"}}}}}),
        ),
        (
            "invalid_document",
            "/resources/0/spec/nodes/a/run/release",
            json!({"nodes": {"a": {"run": {"release": {}}}}}),
        ),
        ("invalid_document", "/resources/0/spec/nodes", json!({"nodes": {}})),
        ("invalid_document", "/resources/0/spec/nodes/c", json!({"nodes": {"c": {"kind": "check"}}})),
        ("invalid_document", "/resources/0/spec/nodes/a/retrys", json!({"nodes": {"a": {"retrys": {}}}})),
    ] {
        let refused = world.raw_apply(&[plan("p", &spec)]).await.expect("answered");
        assert_eq!((refused.code(), refused.pointers()), (code, vec![pointer]), "{}", refused.text);
    }
    assert_eq!(world.rows().await.expect("rows"), before);
}

/// S3-17, S3-20, S4-13: a plan grows under its version; its values change within their schema.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_grows_and_its_values_change_while_it_runs() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let schema =
        json!({"type": "object", "required": ["city"], "properties": {"city": {"type": "string", "minLength": 2}}});
    let hold = json!({"run": {"external": {"queue": "q"}}});
    world
        .apply([plan("p", &json!({"values": {"city": "Ulm"}, "schema": schema, "nodes": {"a": hold}}))])
        .await
        .expect("applied");
    let id = id(&world, "p").await;
    let version = world.admin.plan_status(id, 0).await.expect("status").version;
    let nodes = |value: Value| WriteNodes { nodes: serde_json::from_value(value).expect("nodes") };
    let more = nodes(json!({"b": {"after": {"edges": ["a"]}}, "c": {}}));
    let stale = world.admin.write_nodes(id, &more, Some(version + 5)).await.expect_err("stale");
    assert_eq!(stale.code(), Some(Code::Stale));
    let written = world.admin.write_nodes(id, &more, Some(version)).await.expect("written");
    assert_eq!(written.version, version + 1);
    assert_eq!(world.admin.plan_node(id, &name("c")).await.expect("c").outcome, Some(Outcome::Passed));
    let update = |city: &str, request: &str| {
        let values = json!({ "city": city }).as_object().cloned();
        SignalRequest { values, ..SignalRequest::new(Signal::Update, request) }
    };
    let refused = world.admin.signal(id, &update("X", "u1")).await.expect_err("too short");
    assert!(refused.to_string().contains("city"), "{refused}");
    world.admin.signal(id, &update("Bonn", "u2")).await.expect("updated");
    let taken = world.admin.claim(&claim("q", "w", 10)).await.expect("asked").attempt.expect("an attempt");
    assert_eq!(taken.values["city"], "Bonn");
    let reused = world.admin.signal(id, &update("Kiel", "u2")).await.expect_err("another one");
    assert_eq!(reused.code(), Some(Code::KeyReused));
    world.admin.complete((id, &taken.node, 1), &done(Verdict::Passed)).await.expect("completed");
    assert_eq!(world.admin.plan_status(id, 20).await.expect("the end").state, PlanState::Succeeded);
}

/// S4-12, S4-26: a pause outlives the process, a stop tells workers, and what was done is undone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_is_paused_resumed_and_rolled_back() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let external = |queue: &str| json!({"external": {"queue": queue}});
    let spec = json!({"nodes": {
        "charge": {"run": external("pay")},
        "ship": {"run": external("ship"), "after": {"edges": ["charge"]}, "timeouts": {"teardown": "300ms"}},
        "refund": {"compensation": true, "run": external("pay"), "after": {"edges": ["charge"]}},
    }});
    world.apply([plan("order", &spec)]).await.expect("applied");
    let id = id(&world, "order").await;
    let charge = world.admin.claim(&claim("pay", "w", 10)).await.expect("asked").attempt.expect("charge");
    world.admin.signal(id, &SignalRequest::new(Signal::Pause, "p")).await.expect("paused");
    world.admin.complete((id, &charge.node, 1), &done(Verdict::Passed)).await.expect("live attempts go on");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(world.admin.claim(&claim("ship", "w", 0)).await.expect("asked").attempt.is_none());
    world.admin.signal(id, &SignalRequest::new(Signal::Resume, "r")).await.expect("resumed");
    let ship = world.admin.claim(&claim("ship", "w2", 10)).await.expect("asked").attempt.expect("ship");
    let in_use =
        world.admin.delete(titan_api::Kind::WorkPlan, Some("default"), "order", false, &Default::default()).await;
    assert_eq!(in_use.expect_err("running").code(), Some(Code::InUse));
    let because = Some("the customer changed his mind".to_owned());
    let rollback = SignalRequest { reason: because, ..SignalRequest::new(Signal::Rollback, "cancel") };
    world.admin.signal(id, &rollback).await.expect("told");
    let beat = titan_api::workplans::attempts::Heartbeat { process_uid: "w2".into(), progress: Some(json!("packing")) };
    assert!(world.admin.heartbeat((id, &ship.node, 1), &beat).await.expect("heard").cancel);
    // The worker does not stop; it is not waited for for ever.
    let refund = world.admin.claim(&claim("pay", "w", 10)).await.expect("asked").attempt.expect("refund");
    assert_eq!(refund.node.as_str(), "refund");
    world.admin.complete((id, &refund.node, 1), &done(Verdict::Passed)).await.expect("refunded");
    let status = world.admin.plan_status(id, 20).await.expect("the end");
    assert_eq!(status.state, PlanState::RolledBack);
    assert!(status.reason.expect("why").contains("changed his mind"));
    world
        .admin
        .delete(titan_api::Kind::WorkPlan, Some("default"), "order", false, &Default::default())
        .await
        .expect("deleted");
    assert!(!world.admin.plan_events(id, 0, 0).await.expect("history stays").items.is_empty());
}
