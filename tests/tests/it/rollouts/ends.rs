//! How rollouts end when the last word is a person's.

use serde_json::json;
use titan_api::{
    Name,
    client::Client,
    enrolment::TokenRequest,
    workplans::{NodeState, PlanState, Signal, SignalRequest},
};
use titan_tests::worlds::{World, until};

use super::{Hosts, documents, plan};

const FEW: usize = 2;

/// Returns a client of somebody who did not make the plans.
async fn reviewer(world: &World) -> Client {
    let request = TokenRequest { name: Name::new("reviewer").expect("a name"), ttl_seconds: None };
    let token = world.admin.create_token(&request).await.expect("a token").token;
    Client::new(&world.plane.server, Some(token)).expect("a client")
}

/// Rolls a version out whose last stage waits for an approval, and approves it.
async fn approved(world: &World, reviewer: &Client, release: &str, version: &str) {
    let strategy = json!({ "stages": [{ "name": "all", "hosts": "100%", "checks": [{ "approval": {} }] }] });
    world.apply(documents(version, &strategy)).await.expect("written");
    let gate = Name::new("all-check-1").expect("a name");
    let waits = plan(world, release, |plan| plan.current.iter().any(|node| node.name == gate)).await;
    let node = world.admin.plan_node(waits.id, &gate).await.expect("the gate");
    assert_eq!(node.state, NodeState::Waiting);
    let approve = SignalRequest {
        node: Some(gate),
        generation: Some(node.generation),
        ..SignalRequest::new(Signal::Approve, release)
    };
    reviewer.signal(waits.id, &approve).await.expect("approved");
    plan(world, release, |plan| plan.state == PlanState::Succeeded).await;
}

/// S4-23, S4-43: a release that a person said yes to is the one that hosts return to, and the one that newcomers get.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_whose_last_gate_a_person_opened_is_the_one_to_return_to() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let hosts = Hosts::start(&world, FEW).await;
    let reviewer = reviewer(&world).await;
    approved(&world, &reviewer, "web#1", "one").await;
    approved(&world, &reviewer, "web#2", "two").await;
    assert_eq!(hosts.count(), [("two".to_owned(), FEW)].into());
    let strategy = json!({ "stages": [{ "name": "all", "hosts": "100%" }], "maxFailures": 0 });
    world.apply(documents("bad", &strategy)).await.expect("written");
    plan(&world, "web#3", |plan| plan.state == PlanState::RolledBack).await;
    until("all returned", async || Ok((hosts.count() == [("two".to_owned(), FEW)].into()).then_some(())))
        .await
        .unwrap_or_else(|error| panic!("{error}: {:?}", hosts.count()));
    // Nobody was ever sent further back than that.
    let seen = hosts.seen.lock().expect("seen");
    let since_two = seen.all.iter().skip_while(|(_, version)| version != "two");
    assert!(since_two.clone().count() > FEW);
    let ever: std::collections::BTreeSet<_> = since_two.map(|(_, version)| version.as_str()).collect();
    assert_eq!(ever, ["bad", "two"].into(), "{:?}", seen.all);
}

/// S4-12, S4-43: a person takes any release back while it is handed out, whatever its strategy does by itself when it fails;
/// also one that everybody was given at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_takes_any_release_back() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let hosts = Hosts::start(&world, FEW).await;
    let stages = json!([{ "name": "all", "hosts": "100%" }]);
    let mut number = 0;
    for on_failure in ["pause", "continue", "rollback", "none"] {
        let strategy = match on_failure {
            "none" => serde_json::Value::Null,
            on_failure => json!({ "stages": stages, "onFailure": on_failure }),
        };
        let (good, slow) = (format!("good-{on_failure}"), format!("slow-{on_failure}"));
        world.apply(documents(&good, &strategy)).await.expect("written");
        number += 1;
        plan(&world, &format!("web#{number}"), |plan| plan.state == PlanState::Succeeded).await;
        world.apply(documents(&slow, &strategy)).await.expect("written");
        number += 1;
        let name = format!("web#{number}");
        until("all were given it", async || Ok((hosts.count() == [(slow.clone(), FEW)].into()).then_some(())))
            .await
            .unwrap_or_else(|error| panic!("{on_failure}: {error}: {:?}", hosts.count()));
        let running = plan(&world, &name, |plan| plan.state == PlanState::Running).await;
        let back = SignalRequest { reason: Some("enough".to_owned()), ..SignalRequest::new(Signal::Rollback, "back") };
        world.admin.signal(running.id, &back).await.expect("told");
        let ended = plan(&world, &name, |plan| plan.state.is_final()).await;
        assert_eq!(ended.state, PlanState::RolledBack, "{on_failure}: {ended:?}");
        until("all returned", async || Ok((hosts.count() == [(good.clone(), FEW)].into()).then_some(())))
            .await
            .unwrap_or_else(|error| panic!("{on_failure}: {error}: {:?}", hosts.count()));
    }
}

/// A release that was taken back waits for a person; once somebody starts it and it is proven, it is like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_veto_is_over_once_the_release_is_proven_after_all() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let hosts = Hosts::start(&world, FEW).await;
    let gated = json!({ "stages": [
        { "name": "one", "hosts": 1, "checks": [{ "approval": {} }] },
        { "name": "all", "hosts": "100%" },
    ] });
    let free = json!({ "stages": [{ "name": "all", "hosts": "100%" }] });
    world.apply(documents("one", &free)).await.expect("written");
    plan(&world, "web#1", |plan| plan.state == PlanState::Succeeded).await;
    world.apply(documents("two", &gated)).await.expect("written");
    let waits = plan(&world, "web#2", |plan| plan.current.iter().any(|node| &*node.name == "one-check-1")).await;
    let back = SignalRequest { reason: Some("not yet".to_owned()), ..SignalRequest::new(Signal::Rollback, "back") };
    world.admin.signal(waits.id, &back).await.expect("taken back");
    plan(&world, "web#2", |plan| plan.state == PlanState::RolledBack).await;
    // The same again, by way of another: it is not begun.
    world.apply(documents("three", &free)).await.expect("written");
    plan(&world, "web#3", |plan| plan.state == PlanState::Succeeded).await;
    world.apply(documents("two", &free)).await.expect("written");
    let waits = plan(&world, "web#4", |_| true).await;
    assert_eq!(waits.state, PlanState::Planning);
    assert_eq!(hosts.count(), [("three".to_owned(), FEW)].into());
    let reason = Some("the shop is mended".to_owned());
    let start = SignalRequest { reason, ..SignalRequest::new(Signal::Start, "start") };
    world.admin.signal(waits.id, &start).await.expect("started");
    plan(&world, "web#4", |plan| plan.state == PlanState::Succeeded).await;
    until("it is settled", async || {
        let vetoes = world.database.texts("SELECT CAST(number AS TEXT) FROM vetoes").await?;
        Ok(vetoes.is_empty().then_some(()))
    })
    .await
    .expect("no veto is left");
    world.apply(documents("three", &free)).await.expect("written");
    plan(&world, "web#5", |plan| plan.state == PlanState::Succeeded).await;
    world.apply(documents("two", &free)).await.expect("written");
    plan(&world, "web#6", |plan| plan.state == PlanState::Succeeded).await;
    assert_eq!(hosts.count(), [("two".to_owned(), FEW)].into());
}

/// S4-22: the hosts that failed are told of the release anew; no agent tries by itself what proved bad.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_on_which_a_release_failed_try_it_again_once_a_person_says_so() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let hosts = Hosts::start(&world, FEW).await;
    let strategy = json!({ "stages": [{ "name": "all", "hosts": "100%" }], "maxFailures": 0, "onFailure": "pause" });
    world.apply(documents("one", &strategy)).await.expect("written");
    plan(&world, "web#1", |plan| plan.state == PlanState::Succeeded).await;
    world.apply(documents("bad", &strategy)).await.expect("written");
    let failed = plan(&world, "web#2", |plan| plan.state == PlanState::Paused).await;
    let retry = async |request: &str| {
        let node = Some(Name::new("all").expect("a name"));
        let retry = SignalRequest { node, ..SignalRequest::new(Signal::Retry, request) };
        world.admin.signal(failed.id, &retry).await.expect("taken");
    };
    // They fail as before, and no more often than they were asked.
    retry("once").await;
    let tries = || {
        let seen = hosts.seen.lock().expect("seen");
        seen.all.iter().filter(|(_, version)| version == "bad").count()
    };
    until("all told anew", async || Ok((tries() == 2 * FEW).then_some(()))).await.expect("told anew");
    plan(&world, "web#2", |plan| plan.state == PlanState::Paused && plan.retries > 0).await;
    hosts.seen.lock().expect("seen").mended = true;
    retry("twice").await;
    plan(&world, "web#2", |plan| plan.state == PlanState::Succeeded).await;
    assert_eq!(tries(), 3 * FEW, "{:?}", hosts.seen.lock().expect("seen").all);
}
