//! What waits to be decided or done.

use serde_json::json;
use titan_api::{
    Kind,
    changes::Operation,
    tasks::{REMOVE, Task},
    workplans::{Signal, SignalRequest},
};
use titan_control_plane::{
    fleet::workplans::{Input, Told},
    store::{Waiting, Written},
    workplans::{Context, declare, step},
};
use uuid::Uuid;

use super::{at, name, read, stored, stores, write};

const SECOND: i64 = 1_000_000;

/// S4-30: the oldest of each sort; a clock that ticks, a plan that is paused and another's queue are nothing to wait for.
#[tokio::test]
async fn oldest_of_each_sort_waits() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let mut tx = write(&store).await;
        tx.tick(at(SECOND)).await.expect("tick");
        assert_eq!(tx.waiting().await.expect("read"), Waiting::default(), "{engine}");
        for (revision, text) in [(5, "a"), (7, "b"), (9, "c")] {
            let document = stored(Kind::Target, "iot", text, revision).document();
            let (before, after, actor, reason, request_id) = (None, Some(&document), "somebody", None, "r1");
            let written = Written { operation: Operation::Create, before, after, actor, reason, request_id };
            tx.add_change(at(revision), 0, &document, &written).await.expect("add");
        }
        assert_eq!(tx.waiting().await.expect("read").change, Some(at(5)), "{engine}");
        tx.set_bookmark("planner", at(5)).await.expect("decided");
        assert_eq!(tx.waiting().await.expect("read").change, Some(at(7)), "{engine}");
        tx.set_bookmark("planner", at(9)).await.expect("decided");
        for due in [30, 20] {
            let task = Task::new(Uuid::now_v7(), REMOVE, "Host a".to_owned(), json!({}), at(1));
            tx.add_task(&Task { due_at: Some(at(due)), ..task }).await.expect("add");
        }
        assert_eq!(tx.waiting().await.expect("read"), Waiting { task: Some(at(20)), ..Waiting::default() }, "{engine}");

        let http = |at: i64| (at, json!({"http": {"url": "http://localhost/"}}));
        let waits = (1, json!({"wait": {"for": "10s"}}));
        let external = (1, json!({"external": {"queue": "q"}}));
        let mut ids = Vec::new();
        for (micros, run) in [external, waits, http(3), http(2)] {
            let id = Uuid::now_v7();
            let plan = name(&format!("p{}", ids.len()));
            let spec = serde_json::from_value(json!({"nodes": {"a": {"run": run}}})).expect("a spec");
            let context = Context { actor: "token:ann", wall: at(micros) };
            declare(&mut tx, (id, &name("default"), &plan), &spec, Default::default(), context).await.expect("made");
            ids.push(id);
        }
        let waiting = tx.waiting().await.expect("read");
        assert_eq!((waiting.plan.is_some(), waiting.attempt), (true, Some(at(2))), "{engine}");
        let request = SignalRequest::new(Signal::Pause, "pause");
        let pause = Input::Told(Told { request, actor: "token:bob".into() });
        step(&mut tx, ids[3], vec![pause], Context { actor: "token:bob", wall: at(4) }).await.expect("paused");
        assert_eq!(tx.waiting().await.expect("read").attempt, Some(at(3)), "{engine}");
        tx.commit().await.expect("commit");
        assert_eq!(read(&store).await.waiting().await.expect("read").change, None, "{engine}");
    }
}
