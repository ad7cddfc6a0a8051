//! Plans: a step is kept whole, and the history of a plan is never changed.

use serde_json::json;
use titan_api::{
    Name,
    workplans::{Event, PlanState, attempts::Verdict},
};
use titan_control_plane::{
    fleet::workplans::{Finished, Input, Plan, Working},
    store::{Store, StoreError},
    workplans::{Context, StepError, declare, step},
};
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
        assert_eq!(tx.next_due().await.expect("due"), Some(at(10 * second + 1)), "{}", database.engine);
        assert_eq!(tx.due_nodes(at(10 * second + 1), 10).await.expect("due"), [(id, Some(name("w")))]);
        drop(tx);
        let signal = |signal, wall| {
            let request = titan_api::workplans::SignalRequest::new(signal, format!("{signal}"));
            let told = titan_control_plane::fleet::workplans::Told { request, actor: "token:bob".into() };
            (vec![Input::Told(told)], context(wall))
        };
        let mut tx = write(&store).await;
        let (inputs, when) = signal(titan_api::workplans::Signal::Pause, second);
        step(&mut tx, id, inputs, when).await.expect("paused");
        assert_eq!(tx.next_due().await.expect("due"), None, "{}", database.engine);
        let (inputs, when) = signal(titan_api::workplans::Signal::Resume, 101 * second);
        step(&mut tx, id, inputs, when).await.expect("resumed");
        assert_eq!(tx.next_due().await.expect("due"), Some(at(110 * second + 1)), "{}", database.engine);
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
