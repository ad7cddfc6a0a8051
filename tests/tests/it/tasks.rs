//! Tasks: made with what they are about, followed, waited for.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use titan_api::{
    Kind,
    client::WriteOptions,
    hosts::BulkCreate,
    tasks::{ENROL, ENROL_ALL, REMOVE, ROLLOUT, TaskFilter, TaskState, WORKPLAN},
};
use titan_tests::{
    manifests::{deployment, document, host, target, template, workload},
    worlds::{World, until},
};

fn documents() -> [Value; 4] {
    let files = [("version.j2", "{{ workload.version }}\n")];
    [template("t", &files), workload("w", "one"), target("all", ""), deployment("web", "w", "t", "all", &json!({}))]
}

async fn tasks(world: &World, filter: TaskFilter) -> Vec<titan_api::tasks::Task> {
    world.admin.tasks(&filter).await.expect("tasks").items
}

/// S1-6, S1-11, S1-12: a deletion is a task that ends once the last host has confirmed it; a rollout is one as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_and_a_rollout_are_tasks_that_end_with_them() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let mut pi = world.host("pi", "").await.expect("a host");
    world.apply(documents()).await.expect("written");
    world.settled().await.expect("decided");
    let news = until("it is told", async || pi.poll(0).await).await.expect("told");
    pi.report(&news).await.expect("reported");
    let about = TaskFilter { subject: Some("Deployment default/web".to_owned()), ..TaskFilter::default() };
    let rollout = until("the rollout is done", async || {
        let found = tasks(&world, about.clone()).await;
        Ok(found.into_iter().find(|task| task.kind == ROLLOUT && task.state == TaskState::Completed))
    });
    let rollout = rollout.await.expect("done");
    assert_eq!(rollout.payload["release"], "web#1");
    assert_eq!(rollout.workspace.as_deref(), Some("default"));
    assert_eq!(world.admin.plan_status(rollout.id, 0).await.expect("its plan").name, "web#1");

    let answer = world.admin.delete(Kind::Deployment, Some("default"), "web", false, &WriteOptions::default()).await;
    let answer = answer.expect("deleted");
    let [removal] = answer.tasks.as_slice() else { panic!("one task, not {:?}", answer.tasks) };
    let left = until("it waits for the host", async || {
        let task = world.admin.task(*removal, 0).await?;
        Ok(task.result.clone().filter(|_| task.state == TaskState::Pending && task.attempts == 0))
    });
    assert_eq!(left.await.expect("it waits"), json!({ "left": 1 }));
    let waiting = tokio::spawn({
        let (admin, removal) = (world.admin.clone(), *removal);
        async move { admin.task(removal, 30).await }
    });
    let news = until("it is told", async || Ok(pi.poll(1).await?.filter(|news| !news.removed.is_empty()))).await;
    pi.report(&news.expect("told")).await.expect("reported");
    let task = tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("in time").expect("joined");
    let task = task.expect("task");
    assert_eq!((task.kind.as_str(), task.state), (REMOVE, TaskState::Completed), "{task:?}");
    // Whoever deletes a host at once waits for nobody.
    let answer = world.admin.delete(Kind::Host, None, "pi", true, &WriteOptions::default()).await.expect("deleted");
    assert_eq!(world.admin.task(answer.tasks[0], 20).await.expect("task").state, TaskState::Completed);
}

/// S1-17, S1-18, S3-8: parts are counted with what they are parts of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_are_made_at_once_and_plans_inside_plans_are_parts() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let hosts = vec![host("a", ""), host("b", ""), host("c", "")];
    let bulk = BulkCreate { hosts, reason: None };
    let answer = world.admin.bulk_create(&bulk, &WriteOptions::default()).await.expect("made");
    let whole = world.admin.task(answer.tasks[0], 0).await.expect("task");
    assert_eq!((whole.kind.as_str(), whole.subject.as_str(), answer.tasks.len()), (ENROL_ALL, "3 hosts", 4));
    assert_eq!(whole.children, [("pending".to_owned(), 3)].into());
    world.enrol("a").await.expect("enrolled");
    let whole = world.admin.task(whole.id, 0).await.expect("task");
    assert_eq!(whole.state, TaskState::Running);
    assert_eq!(whole.children, [("completed".to_owned(), 1), ("pending".to_owned(), 2)].into());
    world.enrol("b").await.expect("enrolled");
    world.admin.delete(Kind::Host, None, "c", false, &WriteOptions::default()).await.expect("deleted");
    let whole = world.admin.task(whole.id, 5).await.expect("task");
    assert_eq!(whole.state, TaskState::Completed);
    let parts = TaskFilter { parent: Some(whole.id), state: Some(TaskState::Cancelled), ..TaskFilter::default() };
    let parts = tasks(&world, parts).await;
    assert_eq!(
        parts.iter().map(|task| (task.kind.as_str(), task.subject.as_str())).collect::<Vec<_>>(),
        [(ENROL, "Host c")]
    );

    let inner = json!({ "plan": { "nodes": { "one": {} } } });
    let spec = json!({ "nodes": { "outer": { "run": inner } } });
    world.apply([document("WorkPlan", Some("default"), "nightly", &spec)]).await.expect("written");
    let plans = TaskFilter { kind: Some(WORKPLAN.to_owned()), ..TaskFilter::default() };
    let both = until("both plans are done", async || {
        let found = tasks(&world, plans.clone()).await;
        Ok((found.len() == 2 && found.iter().all(|task| task.state == TaskState::Completed)).then_some(found))
    });
    let both = both.await.expect("done");
    let outer = both.iter().find(|task| task.parent.is_none()).expect("the outer one");
    assert_eq!(outer.subject, "WorkPlan default/nightly");
    let inner = both.iter().find(|task| task.parent == Some(outer.id)).expect("the inner one");
    assert_eq!(inner.payload, json!({ "node": "outer" }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_are_asked_for_by_filter_and_page_and_bad_questions_are_refused() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    world.apply((0..5).map(|index| host(&format!("h{index}"), ""))).await.expect("written");
    let (mut seen, mut next) = (Vec::new(), None);
    loop {
        let filter = TaskFilter { kind: Some(ENROL.to_owned()), limit: Some(2), next, ..TaskFilter::default() };
        let page = world.admin.tasks(&filter).await.expect("tasks");
        assert!(page.items.len() <= 2);
        seen.extend(page.items.into_iter().map(|task| task.subject));
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    seen.sort();
    assert_eq!(seen, ["Host h0", "Host h1", "Host h2", "Host h3", "Host h4"]);
    let long = "x".repeat(1025);
    for query in
        ["state=lost", "parent=x", "continue=x", "continue=1.x", "limit=-1", "colour=red", &format!("subject={long}")]
    {
        let answer = world.admin_call(Method::GET, &format!("/v1/tasks?{query}"), "").await.expect("answered");
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "bad_parameter"), "{query}: {}", answer.text);
    }
}
