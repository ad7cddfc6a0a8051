//! Rollouts that ask a real Prometheus whether they may go on.

use serde_json::{Value, json};
use titan_api::{
    Name,
    workplans::{Outcome, PlanState},
};
use titan_tests::{
    prometheus::Prometheus,
    worlds::{World, until},
};

use super::{Hosts, documents, plan};

const FEW: usize = 3;

fn watched(prometheus: &Prometheus) -> Value {
    let metric = json!({ "metric": {
        "server": prometheus.url, "query": "sum(shop_errors)", "success": "result < 5", "interval": "100ms", "count": 3,
    } });
    json!({ "stages": [{ "name": "canary", "hosts": 1, "checks": [metric] }, { "name": "rest", "hosts": "100%" }] })
}

/// Section 8: the metric of a canary lets the rest have the release, or takes it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_lets_a_good_release_go_on_and_has_a_bad_one_taken_back() {
    let Some(mut prometheus) = Prometheus::start().await.expect("Prometheus") else { return };
    let world = World::start(crate::NODE).await.expect("a control plane");
    let hosts = Hosts::start(&world, FEW).await;
    let check = Name::new("canary-check-1").expect("a name");
    world.apply(documents("one", &watched(&prometheus))).await.expect("written");
    let good = plan(&world, "web#1", |plan| plan.state.is_final()).await;
    let node = world.admin.plan_node(good.id, &check).await.expect("the check");
    assert_eq!((good.state, node.outcome), (PlanState::Succeeded, Some(Outcome::Passed)), "{node:?}");
    let measured = &node.attempts[0].details.as_ref().expect("what was measured")["measurements"];
    assert_eq!(*measured, json!([[0.0], [0.0], [0.0]]));
    assert_eq!(hosts.count(), [("one".to_owned(), FEW)].into());

    prometheus.set(7).await.expect("scraped");
    world.apply(documents("two", &watched(&prometheus))).await.expect("written");
    let bad = plan(&world, "web#2", |plan| plan.state.is_final()).await;
    let node = world.admin.plan_node(bad.id, &check).await.expect("the check");
    assert_eq!((bad.state, node.outcome), (PlanState::RolledBack, Some(Outcome::Failed)), "{node:?}");
    assert_eq!(hosts.ever("two").len(), 1, "nobody but the canary had it");
    until("the canary returned", async || Ok((hosts.count() == [("one".to_owned(), FEW)].into()).then_some(())))
        .await
        .expect("back");
}

/// That nothing can be measured is not that it is good: the rest does not get it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_prometheus_does_not_understand_opens_nothing() {
    let Some(prometheus) = Prometheus::start().await.expect("Prometheus") else { return };
    let world = World::start(crate::NODE).await.expect("a control plane");
    let hosts = Hosts::start(&world, FEW).await;
    let mut strategy = watched(&prometheus);
    strategy["stages"][0]["checks"][0]["metric"]["query"] = json!("sum(shop_errors");
    world.apply(documents("one", &strategy)).await.expect("written");
    let check = Name::new("canary-check-1").expect("a name");
    let waits = plan(&world, "web#1", |plan| plan.current.iter().any(|node| node.name == check)).await;
    let said = until("an attempt that failed", async || {
        let node = world.admin.plan_node(waits.id, &check).await?;
        Ok(node.attempts.iter().find_map(|attempt| attempt.failure_message.clone()))
    })
    .await
    .expect("an attempt");
    assert!(said.contains("400") && said.contains("parse error"), "{said}");
    assert_eq!(hosts.ever("one").len(), 1, "the canary alone");
}
