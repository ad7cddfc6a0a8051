//! Law 8 for plans: what waits, hangs or cannot be read holds up nobody else.

use serde_json::{Value, json};
use titan_api::workplans::{
    AttemptState, PlanState, Signal, SignalRequest,
    attempts::{Completion, Heartbeat, Verdict},
};
use titan_tests::{
    databases, manifests,
    worlds::{World, until},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use uuid::Uuid;

use super::{claim, done, id, name, plan};

/// More than the control plane does at once of what keeps it busy.
const MANY: usize = 140;
/// Requests that it makes at once.
const MOST: usize = 128;

/// Returns a plan of many nodes that all run the same.
fn many(run: &Value) -> Value {
    let nodes = (0..MANY).map(|number| (format!("n{number}"), json!({ "run": run })));
    json!({ "nodes": nodes.collect::<serde_json::Map<_, _>>() })
}

/// Waits until so many attempts of a plan run.
async fn run_at_once(world: &World, id: Uuid, most: usize) {
    until("attempts that run", async || {
        let nodes = world.admin.plan_nodes(id, None, None).await?;
        let runs = |node: &&titan_api::workplans::NodeView| {
            node.attempts.first().is_some_and(|attempt| attempt.state == AttemptState::Running)
        };
        let running = nodes.iter().filter(runs).count();
        assert!(running <= most, "{running}");
        Ok((running == most).then_some(()))
    })
    .await
    .expect("they run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_waits_keeps_nobody_out() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let deployment = manifests::deployment("web", "w", "t", "all", &json!({}));
    let files = manifests::template("t", &[("a", "x")]);
    world
        .apply([manifests::workload("w", "1"), files, manifests::target("all", ""), deployment])
        .await
        .expect("a deployment");
    // There is no host: they wait for their hour.
    let health = |hosts: u32| json!({"health": {"deployment": "web", "hosts": hosts, "deadline": "1h"}});
    world.apply([plan("patient", &many(&health(1)))]).await.expect("applied");
    run_at_once(&world, id(&world, "patient").await, MANY).await;
    world.apply([plan("quick", &json!({"nodes": {"look": {"run": health(0)}}}))]).await.expect("applied");
    let status = world.admin.plan_status(id(&world, "quick").await, 20).await.expect("the end");
    assert_eq!(status.state, PlanState::Succeeded, "{status:?}");
}

/// Requests are limited; those that undo something do not queue behind those that do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_hang_keep_no_way_back_out() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    // It takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address");
    let hanging = many(&json!({"http": {"url": format!("http://{address}/")}}));
    world.apply([plan("hanging", &hanging)]).await.expect("applied");
    let hanging = id(&world, "hanging").await;
    run_at_once(&world, hanging, MOST).await;
    let alive = json!({"http": {"url": format!("{}/healthz", world.plane.server)}});
    let order = json!({"nodes": {
        "pay": {}, "ship": {"run": {"external": {"queue": "q"}}},
        "refund": {"compensation": true, "run": alive, "after": {"edges": ["pay"]}},
    }});
    world.apply([plan("order", &order)]).await.expect("applied");
    let order = id(&world, "order").await;
    let because = Some("the customer changed his mind".to_owned());
    let rollback = SignalRequest { reason: because, ..SignalRequest::new(Signal::Rollback, "r") };
    world.admin.signal(order, &rollback).await.expect("told");
    let status = world.admin.plan_status(order, 20).await.expect("the end");
    assert_eq!(status.state, PlanState::RolledBack, "{status:?}");
    run_at_once(&world, hanging, MOST).await;
}

/// What is wrong with the row of one plan is told, and tried again after a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_cannot_be_read_holds_up_no_other() {
    for database in databases::each() {
        let engine = database.engine;
        let world = World::over(database, crate::NODE).await.expect("a control plane");
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", server.local_addr().expect("an address"));
        let broken = json!({"nodes": {
            "ask": {"run": {"http": {"url": url}}}, "nap": {"run": {"wait": {"for": "300ms"}}},
        }});
        world.apply([plan("broken", &broken)]).await.expect("applied");
        let broken = id(&world, "broken").await;
        let (mut asked, _) = server.accept().await.expect("a request");
        let mut head = [0; 4096];
        assert!(asked.read(&mut head).await.expect("a request") > 0);
        let spoilt = format!("UPDATE workplans SET plan = '!' || plan WHERE id = '{broken}'");
        world.database.execute(&spoilt).await.expect("spoilt");
        // Both its node that is due and the end of its request are there first.
        asked.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("answered");
        let sound = json!({"nodes": {"nap": {"run": {"wait": {"for": "1s"}}},
            "ask": {"run": {"http": {"url": format!("{}/healthz", world.plane.server)}}, "after": {"edges": ["nap"]}}}});
        world.apply([plan("sound", &sound)]).await.expect("applied");
        let sound = world.admin.plan_status(id(&world, "sound").await, 20).await.expect("the end");
        assert_eq!(sound.state, PlanState::Succeeded, "{engine}: {sound:?}");
        let mended = format!("UPDATE workplans SET plan = SUBSTR(plan, 2) WHERE id = '{broken}'");
        world.database.execute(&mended).await.expect("mended");
        let broken = world.admin.plan_status(broken, 20).await.expect("the end");
        assert_eq!(broken.state, PlanState::Succeeded, "{engine}: {broken:?}");
    }
}

/// That a worker is at it is no news to whoever looked at the plan before; and what plans say themselves no worker says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_says_that_it_lives_and_speaks_its_own_words() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    world.apply([plan("p", &json!({"nodes": {"a": {"run": {"external": {"queue": "q"}}}}}))]).await.expect("applied");
    let id = id(&world, "p").await;
    let taken = world.admin.claim(&claim("q", "w", 10)).await.expect("asked").attempt.expect("an attempt");
    let version = world.admin.plan_status(id, 0).await.expect("status").version;
    let beat = Heartbeat { process_uid: "w".into(), progress: None };
    world.admin.heartbeat((id, &taken.node, 1), &beat).await.expect("heard");
    let more = serde_json::from_value(json!({"nodes": {"b": {}}})).expect("nodes");
    world.admin.write_nodes(id, &more, Some(version)).await.expect("nothing happened in between");
    for code in ["interrupted", "scheduleToStart", "noExecutor", "totalTimeout"] {
        let completion = Completion { verdict: None, code: Some(code.into()), ..done(Verdict::Passed) };
        let refused = world.admin.complete((id, &name("a"), 1), &completion).await.expect_err(code);
        assert_eq!(refused.code(), Some(titan_api::Code::Invalid), "{refused}");
    }
    world.admin.complete((id, &name("a"), 1), &done(Verdict::Passed)).await.expect("completed");
}
