//! Power cuts in the middle of a plan.

use std::{sync::Arc, time::Instant};

use serde_json::json;
use titan_api::{Kind, changes::ApplyRequest, client::WriteOptions, workplans::PlanState};

use super::{PATIENCE, Site, apply, each_time};

/// Runs a plan with a power cut at a step; returns whether the power was cut.
async fn run_and_cut(site: &Site, fault: &str) -> bool {
    let spec = json!({"nodes": {
        "first": {"run": {"wait": {"for": "20ms"}}},
        "inner": {"run": {"plan": {"nodes": {"one": {"run": {"wait": {"for": "10ms"}}}}}}, "after": {"edges": ["first"]}},
        // Nobody answers there, and that is the answer that the plan goes on with.
        "ask": {"run": {"http": {"url": "http://127.0.0.1:9"}}, "retry": {"attempts": 1}, "optional": true,
            "after": {"edges": ["inner"]}},
        "last": {"after": {"edges": ["ask:failed"]}},
    }});
    let plan = json!({"apiVersion": "titan/v1", "kind": "WorkPlan", "metadata": {"name": "p", "workspace": "default"}, "spec": spec});
    let mut node = site.start(Some(fault));
    let mut cut = !node.ready().await.expect("ready");
    if !cut {
        let admin = site.admin(&node);
        let request = ApplyRequest { resources: vec![plan.clone()], ..ApplyRequest::default() };
        // The runner may be cut before the answer is out; whether the plan is there then is looked up.
        let _answered_or_not = admin.apply(&request, &WriteOptions::default()).await;
        let document = admin.get(Kind::WorkPlan, Some("default"), "p", None).await;
        let id = document.ok().and_then(|document| document.metadata.uid);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = match id {
                Some(id) => admin.plan_status(id, 1).await.is_ok_and(|status| status.state.is_final()),
                None => false,
            };
            if !node.process.is_running() {
                cut = true;
                break;
            }
            if ended {
                break;
            }
            assert!(Instant::now() < deadline, "{fault}: neither cut nor at its end");
        }
        node.process.kill().expect("kill");
    }
    let node = site.restart().await;
    let admin = site.admin(&node);
    if admin.get(Kind::WorkPlan, Some("default"), "p", None).await.is_err() {
        apply(&admin, vec![plan]).await;
    }
    let document = admin.get(Kind::WorkPlan, Some("default"), "p", None).await.expect("the plan");
    let id = document.metadata.uid.expect("an id");
    let status = admin.plan_status(id, 30).await.expect("status");
    assert_eq!(status.state, PlanState::Succeeded, "{fault}: {status:?}");
    assert_eq!((status.counts.get("passed"), status.counts.get("failed")), (Some(&3), Some(&1)), "{fault}");
    let events = admin.plan_events(id, 0, 0).await.expect("events").items;
    assert!(events.iter().zip(1..).all(|(event, number)| event.number == number), "{fault}: a hole in the history");
    let live = site.texts("SELECT node FROM workplan_attempts WHERE state NOT IN ('complete', 'incomplete')").await;
    assert!(live.is_empty(), "{fault}: {live:?} never ended");
    let plans = site.texts("SELECT name FROM workplans ORDER BY name").await;
    assert_eq!(plans, ["p", "p/inner"], "{fault}: a plan is missing or double");
    cut
}

/// S4-1: a plan goes on wherever the power is cut, and nothing of it is done twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_goes_on_wherever_the_power_is_cut() {
    let site = Arc::new(Site::new(Vec::new()).await);
    let cuts = each_time("runner", async move |fault: String| run_and_cut(&site.copy(), &fault).await).await;
    assert!(cuts >= 20, "only {cuts} power cuts");
}
