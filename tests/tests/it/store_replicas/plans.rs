//! Plans over two replicas: one of them goes on with them, the other when that one is gone.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use titan_api::{
    client::Client,
    workplans::{PlanState, PlanStatus},
};
use titan_tests::{
    databases::{self, Database},
    oracles::Oracle,
};
use uuid::Uuid;

use super::{PATIENCE, Pair, apply};

/// How many questions one plan has beside each other, and one after the other.
const WIDE: usize = 6;
const LONG: usize = 4;

fn plan(name: &str, oracle: &Oracle) -> Value {
    let mut nodes = serde_json::Map::new();
    for number in 0..LONG {
        let ask = json!({ "http": { "url": oracle.url } });
        let after = number.checked_sub(1).map(|before| json!({ "edges": [format!("in-turn-{before}")] }));
        let mut node = json!({ "run": ask });
        if let Some(after) = after {
            node["after"] = after;
        }
        nodes.insert(format!("in-turn-{number}"), node);
    }
    for number in 0..WIDE {
        nodes.insert(format!("beside-{number}"), json!({ "run": { "http": { "url": oracle.url } } }));
    }
    let inside = json!({ "nodes": { "inner": { "run": { "http": { "url": oracle.url } } } } });
    nodes.insert("inside".to_owned(), json!({ "run": { "plan": inside }, "after": { "edges": ["beside-0"] } }));
    let metadata = json!({ "name": name, "workspace": "default" });
    json!({ "apiVersion": "titan/v1", "kind": "WorkPlan", "metadata": metadata, "spec": { "nodes": nodes } })
}

/// How often each question of a plan was asked.
fn asked(oracle: &Oracle) -> BTreeMap<String, usize> {
    let mut asked = BTreeMap::new();
    oracle.asked().into_iter().for_each(|key| *asked.entry(key).or_default() += 1);
    asked
}

async fn holder(database: &Database) -> String {
    let holders = database.texts("SELECT holder FROM leases WHERE name = 'workplans'").await.expect("leases");
    holders.concat()
}

async fn ended(client: &Client, name: &str) -> PlanStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = client.plans(Some("default"), 100).await.map(|page| page.items);
        let found = found.ok().and_then(|plans| plans.into_iter().find(|plan| plan.name == name));
        if let Some(plan) = found.as_ref().filter(|plan| plan.state.is_final()) {
            return plan.clone();
        }
        assert!(Instant::now() < deadline, "{name} never ended: {found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until a plan has asked something and is not at its end.
async fn under_way(oracle: &Oracle) {
    let deadline = Instant::now() + PATIENCE;
    while oracle.asked().len() < 2 {
        assert!(Instant::now() < deadline, "nothing was asked");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Fails unless a plan came to its end once, with a history without holes.
async fn check(client: &Client, database: &Database, id: Uuid) {
    let mut numbers = Vec::new();
    loop {
        let since = numbers.last().copied().unwrap_or_default();
        let page = client.plan_events(id, since, 0).await.expect("events").items;
        let fresh: Vec<i64> = page.iter().map(|event| event.number).filter(|number| *number > since).collect();
        if fresh.is_empty() {
            break;
        }
        numbers.extend(fresh);
    }
    assert_eq!(numbers, (1..=numbers.len() as i64).collect::<Vec<_>>(), "a hole in the history");
    for (sql, what) in [
        ("AND state NOT IN ('complete', 'incomplete') GROUP BY plan_id, node", "attempts that never end"),
        ("AND state = 'complete' GROUP BY plan_id, node HAVING COUNT(*) > 1", "nodes that were done twice"),
    ] {
        let sql = format!("SELECT node FROM workplan_attempts WHERE plan_id = '{id}' {sql}");
        assert_eq!(database.texts(&sql).await.expect("rows"), [""; 0], "{what}");
    }
}

/// S4-35, S5-36: while both are there, every question is asked once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_do_each_node_of_a_plan_once() {
    let Some(database) = databases::postgres() else { return };
    let pair = Pair::start(&database).await;
    let (one, other) = (pair.admin(&pair.leader), pair.admin(&pair.other));
    let oracle = Oracle::start(Duration::from_millis(5)).await.expect("a server");
    let names = ["p1", "p2", "p3", "p4"];
    for (number, name) in names.into_iter().enumerate() {
        apply(if number % 2 == 0 { &one } else { &other }, vec![plan(name, &oracle)]).await;
    }
    for name in names {
        let plan = ended(&other, name).await;
        assert_eq!(plan.state, PlanState::Succeeded, "{plan:?}");
        check(&one, &database, plan.id).await;
    }
    let asked = asked(&oracle);
    assert_eq!(asked.len(), names.len() * (WIDE + LONG + 1), "{asked:?}");
    assert!(asked.values().all(|times| *times == 1), "{asked:?}");
}

/// S4-1, S4-35, S5-36: the one that does a plan is killed in the middle of it, and the other goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_replica_goes_on_with_the_plans_of_one_that_was_killed() {
    let Some(database) = databases::postgres() else { return };
    let mut pair = Pair::start(&database).await;
    let oracle = Oracle::start(Duration::from_millis(150)).await.expect("a server");
    let before = holder(&database).await;
    apply(&pair.admin(&pair.other), vec![plan("p", &oracle)]).await;
    under_way(&oracle).await;
    pair.leader.process.kill().expect("kill");
    let other = pair.admin(&pair.other);
    let plan = ended(&other, "p").await;
    assert_eq!(plan.state, PlanState::Succeeded, "{plan:?}");
    assert_ne!(holder(&database).await, before, "the one that was killed did not lead");
    check(&other, &database, plan.id).await;
    let asked = asked(&oracle);
    assert_eq!(asked.len(), WIDE + LONG + 1, "{asked:?}");
    // What was being asked at that moment is asked again, under the same key.
    assert!(asked.values().all(|times| *times <= 2), "{asked:?}");
}

/// S5-36, law 12: one that slept through its lease in the middle of a plan writes nothing of it when it wakes up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_that_slept_in_the_middle_of_a_plan_does_nothing_of_it_twice() {
    let Some(database) = databases::postgres() else { return };
    let pair = Pair::start(&database).await;
    let oracle = Oracle::start(Duration::from_millis(150)).await.expect("a server");
    let before = holder(&database).await;
    apply(&pair.admin(&pair.other), vec![plan("p", &oracle)]).await;
    under_way(&oracle).await;
    pair.leader.process.pause().expect("pause");
    let other = pair.admin(&pair.other);
    // It wakes up as soon as the other leads, while the plan is still under way.
    let deadline = Instant::now() + PATIENCE;
    while holder(&database).await == before {
        assert!(Instant::now() < deadline, "nobody took the lease");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    pair.leader.process.resume().expect("resume");
    let plan = ended(&other, "p").await;
    assert_eq!(plan.state, PlanState::Succeeded, "{plan:?}");
    check(&pair.admin(&pair.leader), &database, plan.id).await;
    let asked = asked(&oracle);
    assert_eq!(asked.len(), WIDE + LONG + 1, "{asked:?}");
    assert!(asked.values().all(|times| *times <= 2), "{asked:?}");
}
