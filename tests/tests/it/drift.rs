//! Drift: what hosts report of it is shown, and a person's deliberate edit becomes declared state.

mod by_hand;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use titan_api::{
    Code, Kind,
    client::WriteOptions,
    drift::{AdoptRequest, Drift},
    limits,
    reports::Phase,
};
use titan_tests::{
    manifests::{deployment, target, template, workload},
    worlds::{PolledHost, World},
};

/// Returns two hosts that have `web`: a file of its own, one below the root and one that not everybody may read.
async fn fleet() -> (World, [PolledHost; 2]) {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let rules = "files: { motd: { destination: etc }, key: { mode: '0600' } }\n";
    let files =
        [("app.conf.j2", "port={{ host.name }}\n"), ("motd", "hello\n"), ("key", "k\n"), ("template.yaml", rules)];
    let documents =
        [template("t", &files), workload("w", "1"), target("all", ""), deployment("web", "w", "t", "all", &json!({}))];
    world.apply(documents).await.expect("written");
    let mut hosts = [world.host("a", "").await.expect("a host"), world.host("b", "").await.expect("a host")];
    let clock = world.settled().await.expect("decided");
    for host in &mut hosts {
        host.catch_up(clock).await.expect("polled");
    }
    (world, hosts)
}

fn drift(what: &str, found: Option<&str>, repaired: bool) -> Drift {
    Drift {
        what: what.to_owned(),
        how: "content".to_owned(),
        diff: "--- applied\n+++ found\n@@ -1 +1 @@\n-port=a\n+port=7\n".to_owned(),
        found: found.map(str::to_owned),
        repaired,
    }
}

fn request(deployment: &str, paths: Option<&[&str]>) -> AdoptRequest {
    let paths = paths.map(|paths| paths.iter().map(|path| (*path).to_owned()).collect());
    AdoptRequest { deployment: deployment.to_owned(), paths, reason: Some("tuned by hand".to_owned()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reported_drift_is_shown_for_host_and_deployment_until_it_is_gone() {
    let (world, [mut a, _]) = fleet().await;
    let told = vec![drift("default/web/app.conf", Some("port=7\n"), false), drift("etc/motd", None, true)];
    a.report_drift("default/web", Phase::Degraded, told.clone()).await.expect("reported");
    let shown = world.admin.drift("a").await.expect("drift");
    assert_eq!((shown.deployments.len(), &shown.deployments[0].drift), (1, &told));
    assert_eq!(shown.deployments[0].digest, Some(a.held["default/web"].digest));
    assert!(world.admin.drift("b").await.expect("drift").deployments.is_empty());
    let status = world.admin.deployment_status("default", "web").await.expect("status");
    assert_eq!((status.counts.drifted, status.counts.degraded, status.counts.failed), (1, 1, 1));
    let brief: Vec<_> = told.iter().map(Drift::brief).collect();
    assert_eq!(status.hosts[0].drift, brief, "what and how, without the difference");
    assert_eq!(world.admin.why("a", "default", "web").await.expect("why").assignment.expect("row").drift, brief);
    let document = world.admin.get(Kind::Host, None, "a", None).await.expect("host");
    assert_eq!(document.status.expect("status")["drift"], json!({ "default/web": brief }));
    a.report_drift("default/web", Phase::RolledBack, Vec::new()).await.expect("reported");
    assert!(world.admin.drift("a").await.expect("drift").deployments.is_empty());
    let counts = world.admin.deployment_status("default", "web").await.expect("status").counts;
    assert_eq!((counts.drifted, counts.degraded, counts.rolled_back, counts.failed), (0, 0, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_cannot_say_too_much_of_drift() {
    let (world, [a, _]) = fleet().await;
    let held = &a.held["default/web"];
    let say = async |drift: Value| {
        let body = json!({"seq": 1, "deployments": [{"id": held.id, "revision": held.revision, "phase": "healthy",
            "drift": drift}]});
        let path = "/v1/hosts/a/report";
        world.call(Method::POST, path, Some(&a.credential), &[], body.to_string()).await.expect("answered")
    };
    let one = json!({"what": "a", "how": "mode"});
    let refused = say(json!(vec![one.clone(); limits::DRIFTS + 1])).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::PAYLOAD_TOO_LARGE, "too_large"));
    assert_eq!(refused.pointers(), ["/deployments/0/drift"]);
    for key in ["diff", "found"] {
        let mut large = one.clone();
        large[key] = "x".repeat(limits::DRIFT_BYTES + 1).into();
        let refused = say(json!([one, large])).await;
        assert_eq!(
            (refused.code(), refused.pointers()),
            ("too_large", vec![&*format!("/deployments/0/drift/1/{key}")])
        );
    }
    let refused = say(json!([{"what": "a", "how": "mode", "colour": 1}])).await;
    assert_eq!(
        (refused.status, refused.pointers()),
        (StatusCode::UNPROCESSABLE_ENTITY, vec!["/deployments/0/drift/0/colour"])
    );
    let mut most = one.clone();
    most["diff"] = "x".repeat(limits::DRIFT_BYTES).into();
    assert_eq!(say(json!(vec![most; limits::DRIFTS])).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adopted_edit_is_declared_on_its_host_alone_until_it_is_given_up() {
    let (world, [mut a, mut b]) = fleet().await;
    let told = vec![drift("default/web/app.conf", Some("port=7\n"), false), drift("etc/motd", Some("bye\n"), true)];
    a.report_drift("default/web", Phase::Healthy, told).await.expect("reported");
    let adopt = async |paths: Option<&[&str]>| {
        let options = WriteOptions::default();
        world.admin.adopt("a", &request("default/web", paths), &options).await.expect("adopted")
    };
    let answer = adopt(Some(&["default/web/app.conf"])).await;
    assert!(answer.revision.is_some() && answer.paths == ["app.conf"], "{answer:?}");
    let document = world.admin.get(Kind::Host, None, "a", None).await.expect("host");
    assert_eq!(document.spec["files"], json!({"default/web": {"app.conf": {"content": "port=7\n"}}}));
    let newest = world.admin.history(Kind::Host, None, "a").await.expect("history").items.remove(0);
    assert_eq!((newest.reason.as_deref(), newest.after.expect("after").spec), (Some("tuned by hand"), document.spec));
    let clock = world.settled().await.expect("decided");
    assert!(a.catch_up(clock).await.expect("polled").moved.contains("default/web"));
    assert!(b.catch_up(clock).await.expect("polled").moved.is_empty());
    assert_eq!(a.held["default/web"].files["app.conf"], "port=7\n");
    assert_eq!(a.held["default/web"].files["etc/motd"], "hello\n");

    // What was said is about the bundle before: it is to be looked at again.
    let stale = world.admin.adopt("a", &request("default/web", None), &WriteOptions::default()).await;
    assert_eq!(stale.expect_err("stale").code(), Some(Code::Stale));
    a.report_drift("default/web", Phase::Healthy, vec![drift("etc/motd", Some("bye\n"), true)])
        .await
        .expect("reported");
    assert_eq!(adopt(None).await.paths, ["/etc/motd", "app.conf"], "all that is adopted now");
    assert_eq!(adopt(None).await.revision, None, "it says so already");
    let clock = world.settled().await.expect("decided");
    a.catch_up(clock).await.expect("polled");
    assert_eq!(a.held["default/web"].files["etc/motd"], "bye\n");

    let unadopt = async |paths: Option<&[&str]>| {
        let options = WriteOptions::default();
        world.admin.unadopt("a", &request("default/web", paths), &options).await
    };
    assert_eq!(unadopt(Some(&["app.conf"])).await.expect("given up").paths, ["/etc/motd"]);
    let files = world.admin.get(Kind::Host, None, "a", None).await.expect("host").spec["files"].clone();
    assert_eq!(files, json!({"default/web": {"/etc/motd": {"content": "bye\n"}}}));
    assert_eq!(unadopt(None).await.expect("given up").paths, [""; 0]);
    assert_eq!(unadopt(None).await.expect_err("nothing left").code(), Some(Code::NotFound));
    assert_eq!(world.admin.get(Kind::Host, None, "a", None).await.expect("host").spec.get("files"), None);
    let clock = world.settled().await.expect("decided");
    a.catch_up(clock).await.expect("polled");
    assert_eq!(a.held["default/web"].files["app.conf"], "port=a\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adoption_that_makes_no_sense_changes_nothing_and_says_why() {
    let (world, [mut a, b]) = fleet().await;
    let told = vec![drift("default/web/app.conf", Some("port=7\n"), false), drift("default/web/key", None, false)];
    a.report_drift("default/web", Phase::Healthy, told).await.expect("reported");
    let before = world.clock().await.expect("clock");
    let ask = async |host: &str, body: Value, headers: &[(&str, &str)]| {
        let path = format!("/v1/hosts/{host}/drift:adopt");
        world.call(Method::POST, &path, Some(&world.plane.token), headers, body.to_string()).await.expect("answered")
    };
    for (host, body, code, pointers) in [
        ("none", json!({"deployment": "default/web"}), "not_found", &[][..]),
        ("a", json!({"deployment": "default/none"}), "not_found", &[]),
        ("b", json!({"deployment": "default/web"}), "not_found", &[]),
        ("a", json!({"deployment": "web"}), "invalid_document", &["/deployment"]),
        ("a", json!({"deployment": "a/../b"}), "invalid_document", &["/deployment"]),
        ("a", json!({"deployment": "default/web", "paths": []}), "invalid_document", &["/paths"]),
        ("a", json!({"deployment": "default/web", "paths": ["none"]}), "invalid_document", &["/paths/0"]),
        ("a", json!({"deployment": "default/web", "paths": ["app.conf", "key"]}), "invalid_document", &["/paths/1"]),
        ("a", json!({"deployment": "default/web", "path": "x"}), "invalid_document", &["/path"]),
        ("a", json!({}), "invalid_document", &[""]),
    ] {
        let refused = ask(host, body.clone(), &[]).await;
        assert_eq!((refused.code(), refused.pointers()), (code, pointers.to_vec()), "{body}: {}", refused.text);
    }
    let stale = ask("a", json!({"deployment": "default/web"}), &[("if-match", "\"2026-01-01T00:00:00Z\"")]).await;
    assert_eq!((stale.status, stale.code()), (StatusCode::PRECONDITION_FAILED, "stale"));
    // A host says what it found; it does not declare.
    let path = "/v1/hosts/a/drift:adopt";
    let body = json!({"deployment": "default/web"}).to_string();
    let refused = world.call(Method::POST, path, Some(&a.credential), &[], body).await.expect("answered");
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let refused = world.call(Method::GET, "/v1/hosts/a/drift", Some(&b.credential), &[], "").await.expect("answered");
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(world.clock().await.expect("clock"), before, "nothing was written");
    // The same, twice under one key, is one change.
    let key = [("idempotency-key", "once")];
    let first = ask("a", json!({"deployment": "default/web"}), &key).await;
    let again = ask("a", json!({"deployment": "default/web"}), &key).await;
    assert_eq!((first.status, &first.body), (StatusCode::OK, &again.body), "{}", again.text);
}
