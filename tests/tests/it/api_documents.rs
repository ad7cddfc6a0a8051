//! Documents of every kind: made, read, changed, deleted, listed; their history and their past.

use reqwest::Method;
use serde_json::{Value, json};
use titan_api::{
    Code, Document, Kind,
    changes::Operation,
    client::{ListOptions, WriteOptions},
};
use titan_tests::{
    manifests::{self, deployment, host, target, template, typed, workload, workspace},
    worlds::{World, until},
};

/// Returns a document of `kind` named `name`, and the workspace it is in.
fn sample(kind: Kind, name: &str) -> (Document, Option<&'static str>) {
    let document = match kind {
        Kind::Workspace => workspace(name),
        Kind::Host => host(name, ""),
        Kind::Template => template(name, &[("a", "b\n")]),
        Kind::Workload => workload(name, "1"),
        Kind::Target => target(name, "zone=a"),
        Kind::Deployment => deployment(name, "base", "base", "base", &json!({})),
        Kind::WorkPlan => json!({"apiVersion": "titan/v1", "kind": "WorkPlan", "metadata": {"name": name},
            "spec": {"start": false, "nodes": {"a": {}}}}),
    };
    let workspace = kind.in_workspace().then_some("default");
    let mut document = typed(document);
    document.metadata.workspace = workspace.map(|workspace| workspace.parse().expect("a name"));
    (document, workspace)
}

async fn world() -> World {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let base = [template("base", &[("a", "b\n")]), workload("base", "1"), target("base", "no=body")];
    world.apply(base).await.expect("written");
    world
}

/// S1-8, S2-16, S2-20.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_is_made_read_changed_and_deleted_and_its_past_can_be_read() {
    let world = world().await;
    let admin = &world.admin;
    let because = |reason: &str| WriteOptions { reason: Some(reason.to_owned()), ..WriteOptions::default() };
    for kind in Kind::ALL {
        let (document, workspace) = sample(kind, "one");
        let made = admin.create(&document, &because("made")).await.expect("made");
        let first = made.metadata.revision.expect("a revision");
        assert_eq!((made.metadata.generation, made.metadata.created_at), (Some(1), Some(first)), "{kind}");
        let again = admin.create(&document, &WriteOptions::default()).await.expect_err("taken");
        assert_eq!(again.code(), Some(Code::AlreadyExists), "{kind}");

        let read = admin.get(kind, workspace, "one", None).await.expect("read");
        assert_eq!((&read.metadata, &read.spec), (&made.metadata, &made.spec), "{kind}");
        let same = admin.put(&document, &WriteOptions::default()).await.expect("put as it is");
        assert_eq!(same.metadata.revision, Some(first), "{kind}: nothing changed, so nothing is written");

        let mut labelled = document.clone();
        labelled.metadata.labels = serde_json::from_value(json!({"colour": "red"})).expect("labels");
        let put = admin.put(&labelled, &because("coloured")).await.expect("put");
        let second = put.metadata.revision.expect("a revision");
        assert!(second > first && put.metadata.generation == Some(2) && put.metadata.uid == made.metadata.uid);

        let patch = json!({"metadata": {"labels": {"colour": null, "shape": "round"}}});
        let patched = admin.patch(kind, workspace, "one", &patch, &because("reshaped")).await.expect("patched");
        let third = patched.metadata.revision.expect("a revision");
        assert_eq!(serde_json::to_value(&patched.metadata.labels).expect("json"), json!({"shape": "round"}), "{kind}");

        admin.delete(kind, workspace, "one", false, &because("done")).await.expect("deleted");
        until("it to be gone", async || {
            let found = admin.get(kind, workspace, "one", None).await;
            Ok(found.is_err_and(|error| error.code() == Some(Code::NotFound)).then_some(()))
        })
        .await
        .expect("gone");
        let gone = admin.delete(kind, workspace, "one", false, &WriteOptions::default()).await.expect_err("gone");
        assert_eq!(gone.code(), Some(Code::NotFound), "{kind}");

        let history = admin.history(kind, workspace, "one").await.expect("history").items;
        let told: Vec<_> = history.iter().map(|change| (change.operation, change.reason.as_deref())).collect();
        let expected = [
            (Operation::Delete, Some("done")),
            (Operation::Update, Some("reshaped")),
            (Operation::Update, Some("coloured")),
            (Operation::Create, Some("made")),
        ];
        assert_eq!(told, expected, "{kind}");
        // Page by page it is the same.
        let (mut paged, mut next) = (Vec::new(), None);
        for size in [3, 1] {
            let page = admin.history_page((kind, workspace, "one"), 3, next.as_deref()).await.expect("a page");
            assert_eq!((page.items.len(), page.next.is_some()), (size, size == 3), "{kind}");
            paged.extend(page.items);
            next = page.next;
        }
        assert_eq!(paged, history, "{kind}");
        let odd = admin.history_page((kind, workspace, "one"), 3, Some("yesterday")).await.expect_err("no page");
        assert_eq!(odd.code(), Some(Code::BadParameter), "{kind}");
        for change in &history {
            assert_eq!(change.before.is_none(), change.operation == Operation::Create, "{kind}");
            assert_eq!(change.after.is_none(), change.operation == Operation::Delete, "{kind}");
            assert!(change.actor.starts_with("token:") && !change.request_id.is_empty(), "{change:?}");
        }
        for (at, labels) in [(first, json!({})), (second, json!({"colour": "red"})), (third, json!({"shape": "round"}))]
        {
            let past = admin.get(kind, workspace, "one", Some(at)).await.expect("the past stays readable");
            assert_eq!(serde_json::to_value(&past.metadata.labels).expect("json"), labels, "{kind} at {at}");
            let options = ListOptions { at: Some(at), ..ListOptions::default() };
            let listed = admin.list(kind, workspace, &options).await.expect("listed").items;
            assert!(listed.iter().any(|document| document.metadata.name == *"one"), "{kind} at {at}");
        }
        let before =
            admin.get(kind, workspace, "one", Some(titan_api::Revision::from_micros(first.micros() - 1))).await;
        assert_eq!(before.expect_err("not there yet").code(), Some(Code::NotFound), "{kind}");
    }
}

/// S3-20, S3-21.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entity_tag_of_a_read_is_what_a_write_may_depend_on() {
    let world = world().await;
    let path = "/v1/workspaces/default/workloads/base";
    let read = world.admin_call(Method::GET, path, "").await.expect("read");
    let tag = read.header("etag").to_owned();
    assert_eq!(tag, format!("\"{}\"", read.body["metadata"]["revision"].as_str().expect("a revision")));
    let token = Some(world.plane.token.as_str());
    let change = |version: &str| json!({"spec": {"version": version}}).to_string();
    let headers = [("if-match", tag.as_str())];
    let written = world.call(Method::PATCH, path, token, &headers, change("2")).await.expect("answered");
    assert_eq!(written.status, 200, "{written:?}");
    assert_ne!(written.header("etag"), tag);
    let stale = world.call(Method::PATCH, path, token, &headers, change("3")).await.expect("answered");
    assert_eq!((stale.status.as_u16(), stale.code()), (412, "stale"));
    let stale = world.call(Method::DELETE, path, token, &headers, "").await.expect("answered");
    assert_eq!((stale.status.as_u16(), stale.code()), (412, "stale"));
    let rubbish =
        world.call(Method::PATCH, path, token, &[("if-match", "\"x\"")], change("3")).await.expect("answered");
    assert_eq!((rubbish.status.as_u16(), rubbish.code()), (400, "bad_parameter"));
}

/// S3-20.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_that_read_the_same_exactly_one_wins() {
    let world = world().await;
    for round in 0..20 {
        let read = world.admin.get(Kind::Workload, Some("default"), "base", None).await.expect("read");
        let write = async |who: &str| {
            let options = WriteOptions { if_match: read.metadata.revision, ..WriteOptions::default() };
            let patch = json!({"spec": {"version": format!("{round}-{who}")}});
            world.admin.patch(Kind::Workload, Some("default"), "base", &patch, &options).await
        };
        let (one, other) = tokio::join!(write("one"), write("other"));
        let (won, lost) = match (one, other) {
            (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
            both => panic!("one wins and one loses, not {both:?}"),
        };
        assert_eq!(lost.code(), Some(Code::Stale));
        let now = world.admin.get(Kind::Workload, Some("default"), "base", None).await.expect("read");
        assert_eq!(now.spec, won.spec);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_paged_and_selected_by_labels_and_facts() {
    let world = world().await;
    let hosts =
        (0..25).map(|index| host(&format!("h{index:02}"), if index % 5 == 0 { "zone=a" } else { "colour=red" }));
    world.apply(hosts).await.expect("written");
    let mut names = Vec::new();
    let mut options = ListOptions { limit: Some(10), ..ListOptions::default() };
    let mut pages = 0;
    loop {
        let page = world.admin.list(Kind::Host, None, &options).await.expect("listed");
        pages += 1;
        names.extend(page.items.iter().map(|document| document.metadata.name.to_string()));
        options.next = page.next;
        if options.next.is_none() {
            break;
        }
    }
    assert_eq!((pages, names), (3, (0..25).map(|index| format!("h{index:02}")).collect::<Vec<_>>()));

    let mut host = world.enrol("h07").await.expect("enrolled");
    host.report_facts([("arch".to_owned(), json!("arm"))].into()).await.expect("reported");
    for (selector, count) in [
        ("zone=a", 5),
        ("zone==a", 5),
        ("zone!=a", 20),
        ("zone", 5),
        ("!zone", 20),
        ("zone=a,colour", 0),
        ("fact/arch=arm", 1),
        ("fact/arch", 1),
        ("", 25),
    ] {
        let found = world.admin.list_all(Kind::Host, None, Some(selector)).await.expect("listed");
        assert_eq!(found.len(), count, "{selector}");
    }
    for query in ["labelSelector=a%20b%3Dc", "limit=many", "colour=red", "at=yesterday"] {
        let answer = world.admin_call(Method::GET, &format!("/v1/hosts?{query}"), "").await.expect("answered");
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "bad_parameter"), "{query}");
    }
    let nowhere = world.admin_call(Method::GET, "/v1/workspaces/nowhere/targets", "").await.expect("answered");
    assert_eq!(nowhere.code(), "not_found");
    let everywhere = world.admin_call(Method::GET, "/v1/targets", "").await.expect("answered");
    assert_eq!(everywhere.body["items"].as_array().map(Vec::len), Some(1));
}

/// S1-8.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn document_that_does_not_belong_at_its_path_is_refused() {
    let world = world().await;
    let (path, target) = ("/v1/workspaces/default/targets/base", target("base", "a=b"));
    let elsewhere = manifests::within("elsewhere", target.clone());
    for (body, pointer) in [
        (workload("base", "1"), "/kind"),
        (elsewhere, "/metadata/workspace"),
        (manifests::target("other", "a=b"), "/metadata/name"),
    ] {
        let answer = world.admin_call(Method::PUT, path, body.to_string()).await.expect("answered");
        assert_eq!((answer.status.as_u16(), answer.pointers()), (422, vec![pointer]), "{}", answer.text);
    }
    let patch = json!({"metadata": {"name": "other"}}).to_string();
    let answer = world.admin_call(Method::PATCH, path, patch).await.expect("answered");
    assert_eq!((answer.status.as_u16(), answer.pointers()), (422, vec!["/metadata/name"]), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_something_else_lives_by_cannot_be_deleted() {
    let world = world().await;
    world.apply([deployment("prod", "base", "base", "base", &json!({}))]).await.expect("written");
    for kind in [Kind::Template, Kind::Workload, Kind::Target] {
        let kept = world.admin.delete(kind, Some("default"), "base", false, &WriteOptions::default()).await;
        assert_eq!(kept.expect_err("in use").code(), Some(Code::InUse), "{kind}");
    }
    let kept = world.admin.delete(Kind::Workspace, None, "default", false, &WriteOptions::default()).await;
    assert_eq!(kept.expect_err("in use").code(), Some(Code::InUse));
    for (field, value) in [("workload", "gone"), ("template", "gone"), ("target", "gone")] {
        let patch: Value = json!({"spec": {field: value}});
        let refused =
            world.admin.patch(Kind::Deployment, Some("default"), "prod", &patch, &WriteOptions::default()).await;
        assert_eq!(refused.expect_err("missing").code(), Some(Code::MissingReference), "{field}");
    }
}
