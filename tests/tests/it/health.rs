//! What operators are told: how long changes, tasks and plans have waited.

use axum::http::Method;
use serde_json::{Value, json};
use titan_control_plane::tasks::{work, workplans::Runner};
use titan_tests::{
    databases,
    fleets::{Fleet, document},
};

use crate::store_replicas::deployment;

const SECOND: i64 = 1_000_000;

pub(crate) async fn metric(fleet: &Fleet, name: &str) -> f64 {
    let text = fleet.admin_text("/metrics").await.expect("metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name}: {text}")).parse().expect("a number")
}

async fn behind(fleet: &Fleet) -> f64 {
    metric(fleet, "titan_planner_behind_seconds").await
}

async fn ready(fleet: &Fleet) -> Value {
    // 503 would be an error.
    fleet.admin(Method::GET, "/readyz", &Value::Null).await.expect("it serves")
}

/// S4-28, S4-30, S4-41: a change that nobody decides makes the planner late however soon after another one it came; that
/// the clock ticks without a change does not.
#[tokio::test]
async fn planner_is_as_late_as_its_oldest_change() {
    let database = databases::sqlite();
    let mut fleet = Fleet::open(&database.url, crate::NODE).await.expect("open");
    fleet.settle().await.expect("settle");
    assert!(behind(&fleet).await.abs() < f64::EPSILON);
    // Two changes within a minute of each other.
    fleet.apply(&[document("Host", None, "pi", &json!({}))]).await.expect("apply");
    fleet.shift_clock(10 * SECOND);
    fleet.settle().await.expect("settle");
    fleet.apply(&deployment("prod", 1)).await.expect("apply");
    fleet.shift_clock(61 * SECOND);
    fleet.apply(&[document("Host", None, "po", &json!({}))]).await.expect("apply");
    let late = behind(&fleet).await;
    assert!((61.0..62.0).contains(&late), "{late}");
    let told = ready(&fleet).await;
    assert_eq!(told["planner"]["ready"], json!(false), "{told}");
    assert!(told["planner"]["behindSeconds"].as_f64().is_some_and(|late| late > 61.0), "{told}");
    assert_eq!((&told["view"]["ready"], &told["tasks"]["ready"]), (&json!(true), &json!(true)), "{told}");
    // A process that was just started knows as well.
    let mut fleet = fleet.restart().await.expect("again");
    assert!(behind(&fleet).await > 600.0);
    fleet.settle().await.expect("settle");
    assert!(behind(&fleet).await.abs() < f64::EPSILON);
    assert_eq!(ready(&fleet).await["planner"]["ready"], json!(true));

    // Assignments moved for a fact long after the last change, and the clock ticked as it does when a gate opens.
    let arm = json!({ "matchLabels": { "fact/arch": "arm" } });
    fleet.apply(&[document("Target", Some("default"), "all", &arm)]).await.expect("apply");
    fleet.settle().await.expect("settle");
    let credential = fleet.enrol("pi").await.expect("enrolled");
    let moved = metric(&fleet, "titan_assignments_moved_total").await;
    fleet.shift_clock(600 * SECOND);
    let report = json!({ "seq": 1, "facts": { "arch": "arm" }, "deployments": [] });
    let answered = fleet.send(Method::POST, "/v1/hosts/pi/report", &credential, &report).await.expect("answered");
    assert!(answered.status.is_success(), "{}", String::from_utf8_lossy(&answered.body));
    fleet.settle().await.expect("settle");
    assert!(metric(&fleet, "titan_assignments_moved_total").await > moved);
    let mut tx = fleet.state.store.write("gate").await.expect("begin");
    tx.tick(fleet.state.clock.now()).await.expect("tick");
    tx.commit().await.expect("commit");
    fleet.follow().await.expect("followed");
    let apart = metric(&fleet, "titan_view_revision_us").await - metric(&fleet, "titan_planned_revision_us").await;
    assert!(apart > 60e6, "{apart}");
    assert!(behind(&fleet).await.abs() < f64::EPSILON);
    assert_eq!(
        ready(&fleet).await["planner"],
        json!({
            "ready": true, "revision": ready(&fleet).await["view"]["revision"], "behindSeconds": 0.0, "leads": true,
        })
    );
}

/// S4-30, S5-37: what is due and is not taken makes its queue late, and nothing else does.
#[tokio::test]
async fn queues_are_as_late_as_what_is_due_in_them() {
    let database = databases::sqlite();
    let mut fleet = Fleet::open(&database.url, crate::NODE).await.expect("open");
    let on_time = json!({ "ready": true, "oldestPendingSeconds": 0.0 });
    let plan = json!({ "nodes": { "a": { "run": { "wait": { "for": "10s" } } } } });
    fleet.apply(&[document("WorkPlan", Some("default"), "p", &plan)]).await.expect("apply");
    fleet.settle().await.expect("settle");
    fleet.shift_clock(5 * SECOND);
    assert_eq!(ready(&fleet).await["workplans"], on_time, "it is not due yet");
    fleet.shift_clock(85 * SECOND);
    let told = ready(&fleet).await;
    let late = told["workplans"]["oldestPendingSeconds"].as_f64().expect("a number");
    assert!((80.0..81.0).contains(&late) && told["workplans"]["ready"] == json!(false), "{told}");
    assert!(metric(&fleet, "titan_workplans_queue_age_seconds").await > 80.0);
    assert_eq!(told["tasks"], on_time);
    let mut runner = Runner::new(fleet.state.clone());
    while runner.pass().await.expect("a pass") {}
    assert_eq!(ready(&fleet).await["workplans"], on_time);

    fleet.apply(&[document("Host", None, "pi", &json!({}))]).await.expect("apply");
    fleet.apply(&deployment("prod", 1)).await.expect("apply");
    fleet.settle().await.expect("settle");
    fleet.admin(Method::DELETE, "/v1/workspaces/default/deployments/prod", &Value::Null).await.expect("deleted");
    fleet.settle().await.expect("settle");
    fleet.shift_clock(90 * SECOND);
    let told = ready(&fleet).await;
    let late = told["tasks"]["oldestPendingSeconds"].as_f64().expect("a number");
    assert!((90.0..91.0).contains(&late) && told["tasks"]["ready"] == json!(false), "{told}");
    assert!(metric(&fleet, "titan_tasks_queue_age_seconds").await > 90.0);
    work::pass(&fleet.state, "test").await.expect("a pass");
    assert_eq!(ready(&fleet).await["tasks"], on_time, "it waits for the host, and is looked at again later");
}
