//! Plans that many speak to at once.

use serde_json::json;
use titan_api::{
    Code,
    workplans::{
        PlanState, Signal, SignalRequest, WriteNodes,
        attempts::{Heartbeat, Verdict},
    },
};
use titan_tests::{databases, worlds::World};
use tokio::task::JoinSet;

use super::{claim, done, id, plan};

/// How many speak at once.
const MANY: usize = 12;

/// S3-20, S4-7, S4-26: of many that claim, write or tell at once one wins; all others are told so, and nothing is
/// lost between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_one_wins() {
    for database in databases::each() {
        let engine = database.engine;
        let world = World::over(database, crate::NODE).await.expect("a control plane");
        let spec = json!({ "nodes": { "a": { "run": { "external": { "queue": "q" } } } } });
        world.apply([plan("p", &spec)]).await.expect("applied");
        let id = id(&world, "p").await;
        let version = world.admin.plan_status(id, 0).await.expect("status").version;
        // All of them read the same version.
        let mut writers = JoinSet::new();
        for number in 0..MANY {
            let client = world.admin.clone();
            writers.spawn(async move {
                let nodes = json!({ format!("n{number}"): { "after": { "edges": ["a"] } } });
                let nodes = WriteNodes { nodes: serde_json::from_value(nodes).expect("nodes") };
                client.write_nodes(id, &nodes, Some(version)).await
            });
        }
        let (won, lost): (Vec<_>, Vec<_>) = writers.join_all().await.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, MANY - 1), "{engine}");
        assert!(lost.iter().all(|lost| lost.as_ref().is_err_and(|lost| lost.code() == Some(Code::Stale))), "{lost:?}");
        let mut claims = JoinSet::new();
        for number in 0..MANY {
            let client = world.admin.clone();
            claims.spawn(async move {
                let uid = format!("w{number}");
                client.claim(&claim("q", &uid, 0)).await.expect("answered").attempt.map(|attempt| (uid, attempt))
            });
        }
        let mut taken: Vec<_> = claims.join_all().await.into_iter().flatten().collect();
        assert_eq!(taken.len(), 1, "{engine}: {taken:?}");
        let (uid, attempt) = taken.pop().expect("one");
        // One request, sent again and again because no answer was heard, is taken once.
        let pause = SignalRequest::new(Signal::Pause, "once");
        let mut told = JoinSet::new();
        for _ in 0..MANY {
            let (client, pause) = (world.admin.clone(), pause.clone());
            told.spawn(async move { client.signal(id, &pause).await.expect("taken") });
        }
        let told = told.join_all().await;
        assert_eq!(told.iter().filter(|answer| !answer.repeated).count(), 1, "{engine}");
        assert!(told.iter().all(|answer| answer.version == told[0].version), "{engine}");
        world.admin.signal(id, &SignalRequest::new(Signal::Resume, "on")).await.expect("resumed");
        let beat = Heartbeat { process_uid: uid.clone(), progress: Some(json!("halfway")) };
        world.admin.heartbeat((id, &attempt.node, attempt.number), &beat).await.expect("heard");
        let completion = titan_api::workplans::attempts::Completion { process_uid: uid, ..done(Verdict::Passed) };
        world.admin.complete((id, &attempt.node, attempt.number), &completion).await.expect("completed");
        assert_eq!(world.admin.plan_status(id, 20).await.expect("the end").state, PlanState::Succeeded, "{engine}");
        let node = world.admin.plan_node(id, &attempt.node).await.expect("the node");
        assert_eq!(node.attempts[0].progress, [json!("halfway")], "{engine}");
        let events = world.admin.plan_events(id, 0, 0).await.expect("events").items;
        assert!(events.iter().zip(1..).all(|(event, number)| event.number == number), "{engine}: a hole");
    }
}
