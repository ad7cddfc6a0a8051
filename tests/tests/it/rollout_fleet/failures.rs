//! Releases that are bad on some hosts.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;
use titan_api::{
    Code,
    reports::Phase,
    workplans::{PlanState, Signal, SignalRequest},
};

use super::{Fleet, HOSTS, VERSION, current, gated};

/// What lies between two hosts of one place in a stage, at the least, but for the grain of the file system's clock.
const READY: Duration = Duration::from_millis(980);

/// Four of ninety are more than 3 %, two are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_fails_on_too_many_is_taken_back_from_all_and_waits_for_a_person() {
    let fleet = Fleet::start().await;
    let before = fleet.told().await;
    assert!(before.values().all(|host| host.phase == Some(Phase::Healthy) && host.observed_digest == host.digest));

    // A canary and nine more, three at a time; then it waits for somebody else than its author.
    let witness = fleet.crowd.witness(VERSION);
    fleet.apply("two", &gated()).await;
    let waits = fleet.plan("web#2", |plan| current(plan, "early-check-1").is_some()).await;
    fleet.has(&[("one", 90), ("two", 10)]).await;
    let early = fleet.with("two");
    let canary = witness.times("two")[0].1.clone();
    assert_eq!(witness.most_within("two", READY, |host| host == canary), 1);
    assert!(witness.times("two").iter().skip(1).all(|(at, _)| *at >= witness.times("two")[0].0 + READY), "the canary");
    assert!(witness.most_within("two", READY, |host| host != canary) <= 3, "{:?}", witness.times("two"));
    let gate = current(&waits, "early-check-1").expect("the gate");
    let own = SignalRequest {
        node: Some(gate.name.clone()),
        generation: Some(gate.generation),
        ..SignalRequest::new(Signal::Approve, "own")
    };
    let refused = fleet.admin.signal(waits.id, &own).await.expect_err("nobody approves his own");
    assert_eq!(refused.code(), Some(Code::SelfApproval));

    // It cannot run on four of the others: each finds that out by itself and returns, and then all do.
    let ill: Vec<String> = fleet.hosts().difference(&early).take(4).cloned().collect();
    ill.iter().for_each(|host| fleet.fit(host, "one three"));
    fleet.approve(&waits, "early-check-1").await;
    let back = fleet.plan("web#2", |plan| plan.state.is_final()).await;
    assert_eq!(back.state, PlanState::RolledBack, "{back:#?}");
    fleet.has(&[("one", HOSTS)]).await;
    assert!(ill.iter().all(|host| witness.ever("two").contains(host)), "they had it");
    let rest = |host: &str| !early.contains(host);
    assert!(witness.most_within("two", READY, rest) <= 27, "30 % of 90: {:?}", witness.times("two"));
    let after = fleet.told().await;
    for (host, before) in &before {
        let after = &after[host];
        assert_eq!((after.digest, after.observed_digest), (before.digest, before.digest), "{host}: {after:?}");
        assert_eq!(after.phase, Some(Phase::Healthy), "{host}: {after:?}");
    }
    drop(witness);

    // What comes from Git again, changed or not, is not handed out again, not even after something else was.
    let witness = fleet.crowd.witness(VERSION);
    fleet.apply("two", &gated()).await;
    let newest = fleet.admin.rollout("default", "web").await.expect("a rollout");
    assert_eq!((newest.name.as_str(), newest.state), ("web#2", PlanState::RolledBack), "nothing is new");
    fleet.apply("one", &Value::Null).await;
    fleet.plan("web#3", |plan| plan.state == PlanState::Succeeded).await;
    fleet.apply("two", &gated()).await;
    let vetoed = fleet.plan("web#4", |_| true).await;
    assert_eq!(vetoed.state, PlanState::Planning, "{vetoed:#?}");
    assert_eq!(witness.ever("two"), BTreeSet::new());

    // A person wants it all the same. On two hosts it still cannot run: that is within what was allowed.
    ill.iter().skip(2).for_each(|host| fleet.fit(host, "one two three"));
    fleet.tell(&vetoed, Signal::Start).await;
    let waits = fleet.plan("web#4", |plan| current(plan, "early-check-1").is_some()).await;
    assert_eq!(fleet.with("two"), early, "the same hosts are the first ones");
    fleet.approve(&waits, "early-check-1").await;
    let done = fleet.plan("web#4", |plan| plan.state.is_final()).await;
    assert_eq!(done.state, PlanState::Succeeded, "{done:#?}");
    fleet.has(&[("one", 2), ("two", 98)]).await;
    assert_eq!(fleet.with("one"), ill.iter().take(2).cloned().collect::<BTreeSet<_>>());
    assert!(witness.most_within("two", READY, rest) <= 27, "{:?}", witness.times("two"));

    // It was a person's decision: the same again is like any other release from now on.
    fleet.apply("one", &Value::Null).await;
    fleet.plan("web#5", |plan| plan.state == PlanState::Succeeded).await;
    fleet.apply("two", &gated()).await;
    let again = fleet.plan("web#6", |_| true).await;
    assert_eq!(again.state, PlanState::Running, "{again:#?}");
    drop(witness);
    fleet.crowd.leave().await.expect("agents end");
}
