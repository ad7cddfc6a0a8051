//! Plans: a step is kept whole, and the history of a plan is never changed.

use serde_json::json;
use titan_api::{
    Name,
    workplans::{
        Event, PlanState,
        attempts::{ResultRequest, Verdict},
    },
};
use titan_control_plane::{
    fleet::workplans::{Finished, Input, Plan, Working},
    store::{BUSY_QUEUE, OWN_QUEUE, Store, StoreError, UNDO_QUEUE},
    workplans::{Context, StepError, declare, step},
};
use titan_tests::databases;
use uuid::Uuid;

use super::{at, name, read, stores, write};

const fn context(micros: i64) -> Context<'static> {
    Context { actor: "token:ann", wall: at(micros) }
}

async fn made(store: &Store, id: Uuid, spec: serde_json::Value) {
    let mut tx = write(store).await;
    let spec = serde_json::from_value(spec).expect("a spec");
    declare(&mut tx, (id, &name("default"), &name("p")), &spec, Default::default(), context(1)).await.expect("made");
    tx.commit().await.expect("commit");
}

fn end(node: &str) -> Input {
    Input::Finish(Box::new(Finished {
        node: name(node),
        number: 1,
        uid: "w".into(),
        end: Ok(Verdict::Passed),
        message: None,
        details: Some(json!({"x": 1})),
        results: Vec::new(),
    }))
}

/// S3-15, S3-25, S4-6: what is read back is what the events give.
#[tokio::test]
async fn replaying_the_events_gives_the_plan_as_it_is() {
    for (database, store) in stores().await {
        let id = Uuid::now_v7();
        let external = json!({"external": {"queue": "q"}});
        let spec = json!({"nodes": {"a": {"run": external}, "b": {"run": external, "after": {"edges": ["a", "a:final"], "threshold": 1}},
            "c": {"kind": "check"}, "d": {"answers": [{"check": "c"}], "after": {"groups": [{"edges": ["a"]}, {"edges": ["b:failed"]}], "threshold": 1}}}});
        made(&store, id, spec).await;
        let mut tx = write(&store).await;
        let claim = Input::Claim { node: name("a"), number: 1, uid: "w".into() };
        step(&mut tx, id, vec![claim, end("a")], context(2)).await.expect("a step");
        tx.commit().await.expect("commit");
        let mut tx = read(&store).await;
        let row = tx.plan(id).await.expect("read").expect("there");
        let mut replayed = Working::whole(Plan::new(id), 0, 0);
        for view in tx.plan_events(id, 0, 1000).await.expect("events") {
            replayed.apply(&view.event);
        }
        assert_eq!(replayed.plan, row.plan, "{}", database.engine);
        assert_eq!((row.plan.state, row.version), (PlanState::Running, 2), "{}", database.engine);
        let kept = tx.plan_node_views(id, (None, None, ""), 100).await.expect("nodes");
        let kept: Vec<_> =
            kept.into_iter().map(|node| (node.name, node.state, node.outcome, node.generation)).collect();
        let all: Vec<_> = replayed
            .all()
            .into_iter()
            .map(|(name, node)| (Name::clone(name), node.state, node.outcome, node.generation))
            .collect();
        assert_eq!(kept, all, "{}", database.engine);
        let queued = tx.queued_attempts(&["q", "other"], 10).await.expect("queued");
        assert_eq!(queued.iter().map(|queued| queued.node.as_str()).collect::<Vec<_>>(), ["b"]);
        let met = "SELECT source || ' ' || condition FROM workplan_edges WHERE met AND target = 'a' ORDER BY 1";
        drop(tx);
        assert_eq!(
            database.texts(met).await.expect("edges"),
            ["b final", "b passed", "d passed"],
            "{}",
            database.engine
        );
    }
}

/// S4-6, law 10.
#[tokio::test]
async fn events_of_plans_are_never_changed() {
    for (database, store) in stores().await {
        made(&store, Uuid::now_v7(), json!({"nodes": {"a": {}}})).await;
        for sql in ["UPDATE workplan_events SET actor = 'x'", "DELETE FROM workplan_events"] {
            let refused = database.execute(sql).await.expect_err("append-only").to_string();
            assert!(refused.contains("append-only"), "{}: {refused}", database.engine);
        }
    }
}

#[tokio::test]
async fn times_of_a_plan_are_rows_and_stand_still_with_it() {
    for (database, store) in stores().await {
        let id = Uuid::now_v7();
        made(&store, id, json!({"deadline": "1m", "nodes": {"w": {"run": {"wait": {"for": "10s"}}}}})).await;
        let second = 1_000_000;
        let mut tx = read(&store).await;
        assert_eq!(tx.next_due(at(0)).await.expect("due"), Some(at(10 * second + 1)), "{}", database.engine);
        assert_eq!(tx.due_nodes(at(10 * second + 1), 10).await.expect("due"), [(id, Some(name("w")))]);
        // What was due then and is left alone keeps nobody awake.
        assert_eq!(
            tx.next_due(at(10 * second + 1)).await.expect("due"),
            Some(at(60 * second + 1)),
            "{}",
            database.engine
        );
        drop(tx);
        let signal = |signal, wall| {
            let request = titan_api::workplans::SignalRequest::new(signal, format!("{signal}"));
            let told = titan_control_plane::fleet::workplans::Told { request, actor: "token:bob".into() };
            (vec![Input::Told(told)], context(wall))
        };
        let mut tx = write(&store).await;
        let (inputs, when) = signal(titan_api::workplans::Signal::Pause, second);
        step(&mut tx, id, inputs, when).await.expect("paused");
        assert_eq!(tx.next_due(at(0)).await.expect("due"), None, "{}", database.engine);
        let (inputs, when) = signal(titan_api::workplans::Signal::Resume, 101 * second);
        step(&mut tx, id, inputs, when).await.expect("resumed");
        assert_eq!(tx.next_due(at(0)).await.expect("due"), Some(at(110 * second + 1)), "{}", database.engine);
        tx.commit().await.expect("commit");
    }
}

/// What a plan refuses is not in it afterwards, even if whoever asked commits.
#[tokio::test]
async fn what_is_refused_leaves_no_trace() {
    for (database, store) in stores().await {
        let id = Uuid::now_v7();
        made(&store, id, json!({"nodes": {"a": {"run": {"external": {"queue": "q"}}}}})).await;
        let before = read(&store).await.plan_events(id, 0, 100).await.expect("events").len();
        let mut tx = write(&store).await;
        let refused = step(&mut tx, id, vec![end("a")], context(2)).await.expect_err("nobody took it");
        assert!(matches!(refused, StepError::Refused(_)), "{}", database.engine);
        tx.commit().await.expect("commit");
        let after = read(&store).await.plan_events(id, 0, 100).await.expect("events");
        assert_eq!(after.len(), before, "{}", database.engine);
        assert!(after.iter().any(|view| matches!(view.event, Event::Made { .. })));
    }
}

/// S3-20, S4-24: of two that wait for each other the database lets one go on; the other one is told that it lost a race, and
/// can do all of it again.
#[tokio::test]
async fn whoever_loses_a_race_is_told_so_and_does_it_again() {
    assert!(StoreError::Overtaken(Uuid::nil()).lost_race());
    for (database, store) in stores().await {
        if database.is_sqlite() {
            // There one writes at a time.
            continue;
        }
        let ids = [Uuid::now_v7(), Uuid::now_v7()];
        for id in ids {
            made(&store, id, json!({"nodes": {"a": {"run": {"external": {"queue": "q"}}}}})).await;
        }
        let (mut one, mut other) = (write(&store).await, write(&store).await);
        one.plan_for_step(ids[0]).await.expect("held");
        other.plan_for_step(ids[1]).await.expect("held");
        let claim = || vec![Input::Claim { node: name("a"), number: 1, uid: "w".into() }];
        let cross =
            async |mut tx: titan_control_plane::store::Tx, id| match step(&mut tx, id, claim(), context(2)).await {
                Ok(_) => tx.commit().await.map_err(StepError::from),
                Err(error) => Err(error),
            };
        let (one, other) = tokio::join!(cross(one, ids[1]), cross(other, ids[0]));
        let (lost, id) = match (one, other) {
            (Ok(()), Err(lost)) => (lost, ids[0]),
            (Err(lost), Ok(())) => (lost, ids[1]),
            both => panic!("one of two, not {both:?}"),
        };
        assert!(matches!(&lost, StepError::Store(error) if error.lost_race()), "{lost:?}");
        cross(write(&store).await, id).await.expect("the second time");
    }
}

fn claim(node: &str, uid: &str) -> Input {
    Input::Claim { node: name(node), number: 1, uid: uid.to_owned() }
}

/// Where texts stand in the order of a dictionary, `w:` comes before `w9`.
#[tokio::test]
async fn attempts_are_found_by_who_has_them_whatever_the_order_of_letters() {
    let mut all = stores().await;
    if let Some(database) = databases::linguistic() {
        let store = Store::open(&database.url).await.expect("open");
        let order = database.texts("SELECT CAST('w:' < 'w9' AS TEXT)").await.expect("asked");
        assert_eq!(order, ["true"], "{}", database.engine);
        all.push((database, store));
    }
    for (database, store) in all {
        let id = Uuid::now_v7();
        let external = json!({"run": {"external": {"queue": "q"}}});
        made(&store, id, json!({"nodes": {"a": external, "b": external, "c": external}})).await;
        let mut tx = write(&store).await;
        let claims = vec![claim("a", "titan/w9"), claim("b", "titan/w99"), claim("c", "titan:w9")];
        step(&mut tx, id, claims, context(2)).await.expect("taken");
        tx.commit().await.expect("commit");
        let mut tx = read(&store).await;
        let found = tx.running_attempts("titan/w9").await.expect("found");
        assert_eq!(found.iter().map(|one| one.node.as_str()).collect::<Vec<_>>(), ["a"], "{}", database.engine);
        let found = tx.running_attempts_like("titan/").await.expect("found");
        let mut found: Vec<_> = found.into_iter().map(|(one, uid)| (one.node.to_string(), uid)).collect();
        found.sort();
        assert_eq!(found, [("a".into(), "titan/w9".into()), ("b".into(), "titan/w99".into())], "{}", database.engine);
    }
}

/// Whoever read the plan before a heartbeat is not behind.
#[tokio::test]
async fn a_heartbeat_is_kept_and_is_no_step() {
    for (database, store) in stores().await {
        let id = Uuid::now_v7();
        let timeouts = json!({"heartbeat": "10s"});
        made(&store, id, json!({"nodes": {"a": {"run": {"external": {"queue": "q"}}, "timeouts": timeouts}}})).await;
        let mut tx = write(&store).await;
        step(&mut tx, id, vec![claim("a", "w")], context(2)).await.expect("taken");
        tx.commit().await.expect("commit");
        let before = read(&store).await.plan(id).await.expect("read").expect("there");
        let mut tx = write(&store).await;
        let beat = Input::Beat { node: name("a"), number: 1, uid: "w".into() };
        let stepped = step(&mut tx, id, vec![beat], context(5_000_002)).await.expect("heard");
        tx.commit().await.expect("commit");
        let mut tx = read(&store).await;
        assert_eq!(tx.plan(id).await.expect("read"), Some(before.clone()), "{}", database.engine);
        assert_eq!(stepped.row.version, before.version, "{}", database.engine);
        assert_eq!(tx.next_due(at(0)).await.expect("due"), Some(at(25_000_002)), "{}", database.engine);
    }
}

/// What waits for hosts, people and time is not counted with what keeps the control plane busy.
#[tokio::test]
async fn what_mostly_waits_has_a_queue_of_its_own() {
    for (database, store) in stores().await {
        let id = Uuid::now_v7();
        let http = json!({"http": {"url": "http://127.0.0.1:1"}});
        let spec = json!({"onFailure": "rollback", "nodes": {
            "look": {"run": {"health": {"deployment": "web"}}},
            "preflight": {"run": {"release": {"preflight": {"maxFailures": 0}}}},
            "request": {"run": http},
            "undo": {"run": http, "compensation": true},
        }});
        made(&store, id, spec).await;
        let queued = async |queue: &str| {
            let queued = read(&store).await.queued_attempts(&[queue], 10).await.expect("queued");
            let mut names: Vec<_> = queued.into_iter().map(|one| one.node.to_string()).collect();
            names.sort();
            names
        };
        assert_eq!(queued(OWN_QUEUE).await, ["look"], "{}", database.engine);
        assert_eq!(queued(BUSY_QUEUE).await, ["preflight", "request"], "{}", database.engine);
        let signal = titan_api::workplans::Signal::Rollback;
        let request = titan_api::workplans::SignalRequest {
            reason: Some("because".into()),
            ..titan_api::workplans::SignalRequest::new(signal, "r")
        };
        let mut tx = write(&store).await;
        let told = titan_control_plane::fleet::workplans::Told { request, actor: "token:bob".into() };
        step(&mut tx, id, vec![Input::Told(told)], context(2)).await.expect("told");
        tx.commit().await.expect("commit");
        assert_eq!(queued(UNDO_QUEUE).await, ["undo"], "{}", database.engine);
    }
}

/// PostgreSQL holds every character but one.
#[tokio::test]
async fn what_workers_say_is_kept_though_a_database_cannot_hold_all_of_it() {
    for (database, store) in stores().await {
        let id = Uuid::now_v7();
        let external = json!({"external": {"queue": "q"}});
        let spec = json!({"nodes": {"a": {"run": external, "answers": [{"check": "c"}]}, "c": {"kind": "check"}}});
        made(&store, id, spec).await;
        let mut tx = write(&store).await;
        let no = ResultRequest { check: name("c"), data: json!("\0"), failure_message: Some("no\0".into()) };
        let Input::Finish(finished) = end("a") else { panic!("an end") };
        let finished = Finished {
            message: Some("so\0".into()),
            end: Ok(Verdict::Failed),
            details: Some(json!({"x": "\0"})),
            results: vec![no],
            ..*finished
        };
        let inputs = vec![claim("a", "w"), Input::Finish(Box::new(finished))];
        step(&mut tx, id, inputs, context(2)).await.expect("a step");
        tx.commit().await.expect("commit");
        let mut tx = read(&store).await;
        let a = tx.plan_node_view(id, &name("a")).await.expect("read").expect("a");
        assert_eq!(a.attempts[0].failure_message.as_deref(), Some("so\u{fffd}"), "{}", database.engine);
        let c = tx.plan_node_view(id, &name("c")).await.expect("read").expect("c");
        assert_eq!(c.results[0].failure_message.as_deref(), Some("no\u{fffd}"), "{}", database.engine);
        drop(tx);
        let (mut tx, inputs) = (write(&store).await, titan_api::Digest::of(b"inputs"));
        tx.veto(id, &inputs, 1, ("so\0", "token:ann"), at(3)).await.expect("a veto");
        let veto = tx.veto_of(id, &inputs).await.expect("read").expect("a veto");
        assert_eq!(veto.reason, "so\u{fffd}", "{}", database.engine);
    }
}

/// Law 8: one row that cannot be read is left out, and the others are found.
#[tokio::test]
async fn a_row_that_cannot_be_read_hides_no_other() {
    for (database, store) in stores().await {
        for _ in 0..2 {
            let external = json!({"run": {"external": {"queue": "q"}}});
            made(&store, Uuid::now_v7(), json!({"nodes": {"a": external, "w": {"run": {"wait": {"for": "1s"}}}}}))
                .await;
        }
        let broken = "UPDATE workplan_nodes SET node = 'x' WHERE name = 'a' AND plan_id = (SELECT MIN(plan_id) FROM workplan_nodes)";
        database.execute(broken).await.expect("broken");
        let broken = "UPDATE workplan_nodes SET name = 'W' WHERE name = 'w' AND plan_id = (SELECT MIN(plan_id) FROM workplan_nodes)";
        database.execute(broken).await.expect("broken");
        let mut tx = read(&store).await;
        assert_eq!(tx.queued_attempts(&["q"], 10).await.expect("queued").len(), 1, "{}", database.engine);
        assert_eq!(tx.due_nodes(at(2_000_000), 10).await.expect("due").len(), 1, "{}", database.engine);
    }
}
