//! Rollouts that cannot be over in time.

use serde_json::json;
use titan_api::workplans::{PlanState, Signal, SignalRequest};
use titan_tests::{
    manifests::{deployment, template, workload},
    worlds::{World, until},
};

use super::{Hosts, documents, plan};

const FEW: usize = 6;

/// S4-19, law 8: how many hosts there are is known when a release is to begin. If it cannot be over in time then, it waits
/// for a person, with the sum; all other deployments go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_that_cannot_be_over_in_time_waits_and_holds_up_nobody_else() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let hosts = Hosts::start(&world, FEW).await;
    let free = json!({ "stages": [{ "name": "all", "hosts": "100%" }] });
    world.apply(documents("one", &free)).await.expect("written");
    plan(&world, "web#1", |plan| plan.state == PlanState::Succeeded).await;
    let slow = json!({ "deadline": "30m", "stages": [{ "name": "all", "hosts": "100%", "maxUnavailable": 1 }] });
    world.apply(documents("two", &slow)).await.expect("one host at a time fits");
    let beside =
        [template("u", &[("a", "x\n")]), workload("v", "1"), deployment("beside", "v", "u", "all", &json!({}))];
    world.apply(beside).await.expect("written");
    let waits = plan(&world, "web#2", |_| true).await;
    assert_eq!(waits.state, PlanState::Planning, "{waits:?}");
    let reason = waits.reason.expect("why");
    assert!(reason.contains("cannot begin") && reason.contains("30m"), "{reason}");
    until("the other deployment", async || {
        let status = world.admin.deployment_status("default", "beside").await?;
        Ok((status.counts.healthy == FEW).then_some(()))
    })
    .await
    .expect("it is not held up");
    assert_eq!(hosts.count(), [("one".to_owned(), FEW)].into());
    // A person gives it more time and begins it.
    let refused =
        world.admin.signal(waits.id, &SignalRequest::new(Signal::Start, "early")).await.expect_err("too long");
    assert_eq!(refused.code(), Some(titan_api::Code::BudgetExceeded), "{refused}");
    let deadline = serde_json::from_value(json!("3h")).expect("a span");
    let update = SignalRequest { deadline: Some(deadline), ..SignalRequest::new(Signal::Update, "more") };
    world.admin.signal(waits.id, &update).await.expect("updated");
    world.admin.signal(waits.id, &SignalRequest::new(Signal::Start, "start")).await.expect("started");
    plan(&world, "web#2", |plan| plan.state == PlanState::Succeeded).await;
    assert_eq!(hosts.count(), [("two".to_owned(), FEW)].into());
}
