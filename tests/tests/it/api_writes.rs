//! Writing many documents at once, once, and with the tasks that follow.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use titan_api::{
    Code, Kind, Name,
    changes::{Action, ApplyRequest},
    client::WriteOptions,
    enrolment::EnrolmentTokenRequest,
    hosts::BulkCreate,
    limits,
    tasks::{TaskFilter, TaskState},
};
use titan_tests::{
    manifests::{deployment, host, target, template, typed, within, workload, workspace},
    worlds::World,
};

async fn world() -> World {
    World::start(crate::NODE).await.expect("a control plane")
}

/// Returns documents of every kind; what refers comes before what it refers to.
fn mixed() -> Vec<Value> {
    vec![
        within("iot", deployment("prod", "sensor", "service", "all", &json!({}))),
        within("iot", target("all", "zone=a")),
        host("pi", "zone=a"),
        within("iot", workload("sensor", "1")),
        template("service", &[("a.j2", "{{ workload.version }}\n")]),
        workspace("iot"),
    ]
}

fn keyed(key: &str) -> WriteOptions {
    WriteOptions { idempotency_key: Some(key.to_owned()), ..WriteOptions::default() }
}

/// S1-14.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_of_all_kinds_are_applied_in_any_order_in_one_commit() {
    let world = world().await;
    let answer = world.apply(mixed()).await.expect("applied");
    assert!(answer.results.iter().all(|result| result.action == Action::Created), "{answer:?}");
    let kinds: Vec<_> = answer.results.iter().map(|result| result.kind).collect();
    let order = [Kind::Deployment, Kind::Target, Kind::Host, Kind::Workload, Kind::Template, Kind::Workspace];
    assert_eq!(kinds, order, "results come in the request's order");
    assert_eq!(answer.tasks.len(), 1, "a task waits for the host's agent");
    let page = world.admin.changes(answer.revision, 0).await.expect("changes");
    assert_eq!(page.items.len(), 6);
    assert!(page.items.iter().all(|change| Some(change.revision) == answer.revision));
    let again = world.apply(mixed().into_iter().rev()).await.expect("applied");
    assert!(again.revision.is_none() && again.results.iter().all(|result| result.action == Action::Unchanged));
}

/// S1-8, S1-13.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dry_run_and_refused_requests_write_no_row() {
    let world = world().await;
    world.settled().await.expect("decided");
    let (rows, clock) = (world.rows().await.expect("rows"), world.clock().await.expect("clock"));
    let request = ApplyRequest { resources: mixed(), dry_run: true, reason: None };
    let answer = world.admin.apply(&request, &keyed("dry")).await.expect("checked");
    assert!(answer.revision.is_none() && answer.results.iter().all(|result| result.action == Action::Created));
    for (bad, code, pointer) in [
        (json!({"kind": "Hots"}), "invalid_document", "/resources/6/kind"),
        (json!([]), "invalid_document", "/resources/6"),
        (host("pi", ""), "invalid_document", "/resources/6/metadata/name"),
        (
            deployment("lost", "sensor", "service", "none", &json!({})),
            "missing_reference",
            "/resources/6/spec/workload",
        ),
        (within("nowhere", workload("x", "1")), "missing_reference", "/resources/6/metadata/workspace"),
        (target("t", "a b=c"), "invalid_document", "/resources/6/spec/matchLabels"),
    ] {
        let mut resources = mixed();
        resources.push(bad.clone());
        let refused = world.raw_apply(&resources).await.expect("answered");
        assert_eq!((refused.status.as_u16(), refused.code()), (422, code), "{bad}: {}", refused.text);
        assert_eq!(refused.pointers(), [pointer], "{bad}: {}", refused.text);
    }
    assert_eq!((world.rows().await.expect("rows"), world.clock().await.expect("clock")), (rows, clock));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_takes_a_thousand_documents_and_not_one_more() {
    let world = world().await;
    let hosts: Vec<_> = (0..=limits::APPLY_DOCUMENTS).map(|index| host(&format!("h{index}"), "zone=a")).collect();
    let rows = world.rows().await.expect("rows");
    let refused = world.raw_apply(&hosts).await.expect("answered");
    assert_eq!((refused.status.as_u16(), refused.code()), (413, "too_large"));
    assert_eq!(refused.pointers(), ["/resources"]);
    assert_eq!(world.rows().await.expect("rows"), rows);
    let answer = world.apply(hosts.into_iter().take(limits::APPLY_DOCUMENTS)).await.expect("applied");
    assert_eq!(answer.results.len(), limits::APPLY_DOCUMENTS);
    let listed = world.admin.list_all(Kind::Host, None, None).await.expect("listed");
    assert_eq!(listed.len(), limits::APPLY_DOCUMENTS);
}

/// S4-5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_request_with_a_key_happens_once() {
    let world = world().await;
    let mut document = typed(workload("sensor", "1"));
    document.metadata.workspace = Some("default".parse().expect("a name"));
    let create = async || world.admin.create(&document, &keyed("first")).await.expect("made");
    let (one, other, third) = tokio::join!(create(), create(), create());
    assert!(one == other && other == third);
    assert_eq!(create().await, one, "also when it is repeated later");
    let history = world.admin.history(Kind::Workload, Some("default"), "sensor").await.expect("history");
    assert_eq!(history.items.len(), 1);
    let mut another = document.clone();
    another.spec = json!({"version": "2"});
    let refused = world.admin.create(&another, &keyed("first")).await.expect_err("another request");
    assert_eq!(refused.code(), Some(Code::KeyReused));

    let request = ApplyRequest { resources: vec![host("pi", "")], ..ApplyRequest::default() };
    let one = world.admin.apply(&request, &keyed("second")).await.expect("applied");
    let other = world.admin.apply(&request, &keyed("second")).await.expect("answered");
    assert_eq!(one, other);
    let refused = world.admin.apply(&ApplyRequest { dry_run: true, ..request }, &keyed("second")).await;
    assert_eq!(refused.expect_err("another request").code(), Some(Code::KeyReused));
    let token = Some(world.plane.token.as_str());
    let empty = world.call(Method::POST, "/v1/apply", token, &[("idempotency-key", "")], "{\"resources\":[]}").await;
    assert_eq!(empty.expect("answered").code(), "bad_parameter");
}

/// S1-11, S1-17.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundred_hosts_and_their_tasks_are_made_in_one_commit_or_not_at_all() {
    let world = world().await;
    world.apply([host("h42", "")]).await.expect("written");
    world.settled().await.expect("decided");
    let rows = world.rows().await.expect("rows");
    let hosts = |prefix: &str| (0..100).map(|index| host(&format!("{prefix}{index}"), "zone=a")).collect::<Vec<_>>();
    let bulk = async |hosts: Vec<Value>| {
        world.admin.bulk_create(&BulkCreate { hosts, reason: None }, &WriteOptions::default()).await
    };
    let taken = world.admin_call(Method::POST, "/v1/hosts:bulkCreate", json!({"hosts": hosts("h")}).to_string()).await;
    let taken = taken.expect("answered");
    assert_eq!((taken.status.as_u16(), taken.code()), (409, "already_exists"));
    assert_eq!(taken.pointers(), ["/hosts/42/metadata/name"]);
    let mut twice = hosts("g");
    twice[99] = host("g7", "");
    assert_eq!(bulk(twice).await.expect_err("twice").code(), Some(Code::Invalid));
    let mut other = hosts("g");
    other[3] = workload("x", "1");
    assert_eq!(bulk(other).await.expect_err("no host").code(), Some(Code::Invalid));
    assert_eq!(bulk(Vec::new()).await.expect_err("none").code(), Some(Code::TooLarge));
    assert_eq!(world.rows().await.expect("rows"), rows, "nothing was written");

    let answer = bulk(hosts("g")).await.expect("made");
    assert_eq!((answer.results.len(), answer.tasks.len()), (100, 101));
    let page = world.admin.changes(answer.revision, 0).await.expect("changes");
    assert!(page.items.len() == 100 && page.items.iter().all(|change| Some(change.revision) == answer.revision));
    let filter = TaskFilter { parent: Some(answer.tasks[0]), ..TaskFilter::default() };
    let tasks = world.admin.tasks(&filter).await.expect("tasks").items;
    assert_eq!(tasks.iter().filter(|task| answer.tasks[1..].contains(&task.id)).count(), 100);
    assert!(tasks.iter().all(|task| task.state == TaskState::Pending && task.kind == "enrol"));
}

/// S1-12, S1-18.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_of_a_new_host_is_completed_by_its_enrolment() {
    let world = world().await;
    let answer = world.apply([host("pi", ""), host("never", "")]).await.expect("written");
    let [pi, never] = answer.tasks.as_slice() else { panic!("two tasks, not {:?}", answer.tasks) };
    assert_eq!(world.admin.task(*pi, 0).await.expect("task").state, TaskState::Pending);
    let waiting = tokio::spawn({
        let (admin, pi) = (world.admin.clone(), *pi);
        async move { admin.task(pi, 30).await }
    });
    let document = world.admin.get(Kind::Host, None, "pi", None).await.expect("read");
    assert_eq!(document.status.expect("status")["enrolledAt"], Value::Null);
    world.enrol("pi").await.expect("enrolled");
    let task = tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("in time").expect("joined");
    assert_eq!(task.expect("task").state, TaskState::Completed);
    let document = world.admin.get(Kind::Host, None, "pi", None).await.expect("read");
    assert!(document.status.expect("status")["enrolledAt"].is_string());
    world.admin.delete(Kind::Host, None, "never", false, &WriteOptions::default()).await.expect("deleted");
    assert_eq!(world.admin.task(*never, 5).await.expect("task").state, TaskState::Cancelled);
    let request = EnrolmentTokenRequest { host: Name::new("never").expect("a name"), ttl_seconds: None };
    let token = world.admin.enrolment_token(&request).await;
    assert_eq!(token.expect_err("gone").code(), Some(Code::NotFound));
}
