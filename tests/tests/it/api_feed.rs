//! The feed of changes, the counters, the description, and how every answer looks.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use titan_api::{Kind, Revision, changes::Operation, client::WriteOptions};
use titan_tests::{
    manifests::{deployment, host, target, template, typed, within, workload, workspace},
    worlds::{PATIENCE, World},
};

async fn world() -> World {
    World::start(crate::NODE).await.expect("a control plane")
}

/// S2-16, S2-20, S3-37.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_feed_waits_for_the_next_change_and_shows_it_before_and_after() {
    let world = world().await;
    let cursor = world.clock().await.expect("clock");
    let nothing = world.admin.changes(Some(cursor), 1).await.expect("a page");
    assert!(nothing.items.is_empty() && nothing.cursor >= cursor);
    let waiting = tokio::spawn({
        let admin = world.admin.clone();
        async move { admin.changes(Some(cursor), 30).await }
    });
    world.apply([workload("w", "1")]).await.expect("written");
    let page = tokio::time::timeout(PATIENCE, waiting).await.expect("in time").expect("joined").expect("a page");
    let [made] = page.items.as_slice() else { panic!("one change, not {page:?}") };
    assert_eq!((made.operation, made.kind, &*made.name), (Operation::Create, Kind::Workload, "w"));
    assert!(made.before.is_none() && made.after.is_some() && page.cursor > made.revision);
    let options = WriteOptions { reason: Some("new ü".to_owned()), ..WriteOptions::default() };
    let mut changed = typed(workload("w", "2"));
    changed.metadata.workspace = Some("default".parse().expect("a name"));
    world.admin.put(&changed, &options).await.expect("put");
    world.admin.delete(Kind::Workload, Some("default"), "w", false, &options).await.expect("deleted");
    let page = world.admin.changes(Some(page.cursor), 0).await.expect("a page");
    let [put, deleted] = page.items.as_slice() else { panic!("two changes, not {page:?}") };
    let version = |document: &Option<titan_api::Document>| document.as_ref().map(|d| d.spec["version"].clone());
    assert_eq!((version(&put.before), version(&put.after)), (Some(json!("1")), Some(json!("2"))));
    assert_eq!((version(&deleted.before), version(&deleted.after)), (Some(json!("2")), None));
    assert_eq!(put.reason.as_deref(), Some("new ü"));
    assert!(put.revision < deleted.revision);
}

/// S3-38: revisions and workspaces.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_feed_can_be_narrowed_to_a_kind_and_a_workspace() {
    let world = world().await;
    let documents =
        [workspace("iot"), host("pi", ""), workload("w", "1"), within("iot", workload("w", "1")), target("t", "a=b")];
    world.apply(documents).await.expect("written");
    for (query, count) in
        [("kind=Workload", 2), ("workspace=iot", 1), ("kind=Host", 1), ("kind=Workload&workspace=iot", 1)]
    {
        let page = world.admin_call(Method::GET, &format!("/v1/changes?{query}"), "").await.expect("answered");
        assert_eq!(page.body["items"].as_array().map(Vec::len), Some(count), "{query}: {}", page.text);
    }
    for query in ["kind=Nothing", "since=yesterday", "wait=long", "unknown=1"] {
        let refused = world.admin_call(Method::GET, &format!("/v1/changes?{query}"), "").await.expect("answered");
        assert_eq!((refused.status.as_u16(), refused.code()), (400, "bad_parameter"), "{query}");
    }
}

/// S3-37.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_feed_streams_events_whose_ids_continue_it() {
    let world = world().await;
    let cursor = world.clock().await.expect("clock");
    let mut answer = reqwest::Client::new()
        .get(format!("{}/v1/changes?since={cursor}", world.plane.server))
        .bearer_auth(&world.plane.token)
        .header("accept", "text/event-stream")
        .send()
        .await
        .expect("answered");
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    world.apply([workload("one", "1")]).await.expect("written");
    world.apply([workload("two", "1")]).await.expect("written");
    let read = async {
        let mut text = String::new();
        while text.matches("event: change").count() < 2 || !text.ends_with("\n\n") {
            let chunk = answer.chunk().await.expect("a chunk").expect("the stream goes on");
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
        text
    };
    let text = tokio::time::timeout(PATIENCE, read).await.expect("in time");
    let field = |event: &str, name: &str| {
        event.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_owned()).expect("a field")
    };
    let events: Vec<_> = text.split("\n\n").filter(|event| event.contains("event: change")).collect();
    let names: Vec<_> = events
        .iter()
        .map(|event| serde_json::from_str::<Value>(&field(event, "data:")).expect("JSON")["name"].clone())
        .collect();
    assert_eq!(names, ["one", "two"]);
    let id: Revision = field(events[0], "id:").parse().expect("a cursor");
    let rest = world.admin.changes(Some(id), 0).await.expect("a page");
    assert_eq!(rest.items.iter().map(|change| change.name.to_string()).collect::<Vec<_>>(), ["two"]);
}

/// S4-21, S4-28, S5-31.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_count_what_is_answered() {
    let world = world().await;
    let documents = [template("t", &[("a", "b\n")]), workload("w", "1"), target("all", "")];
    world.apply(documents).await.expect("written");
    world.apply([deployment("d", "w", "t", "all", &json!({}))]).await.expect("written");
    let mut pi = world.host("pi", "").await.expect("a host");
    let clock = world.settled().await.expect("decided");
    let news = pi.catch_up(clock).await.expect("polled");
    pi.report(&news).await.expect("reported");
    assert!(pi.poll(0).await.expect("polled").is_none());
    let answer = world.admin_call(Method::GET, "/metrics", "").await.expect("answered");
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    let count = |name: &str| {
        let line = answer
            .text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{name}: {}", answer.text));
        line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok()).expect("a number")
    };
    assert!(count("titan_requests_total{class=\"Success\"}") >= 5.0);
    assert!(count("titan_polls_total{answer=\"Unchanged\"}") >= 1.0);
    assert!(count("titan_reports_total") >= 1.0 && count("titan_assignments_moved_total") >= 1.0);
    assert!(count("titan_leader") == 1.0 && count("titan_planned_revision_us") > 0.0);
    // How long transactions took, of those that read and of those that wrote.
    let summed = |kind: &str, what: &str| -> f64 {
        let prefix = format!("titan_transaction_seconds_{what}{{kind=\"{kind}\"");
        let lines = answer.text.lines().filter(|line| line.starts_with(&prefix));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    for kind in ["read", "write"] {
        let (times, seconds) = (summed(kind, "count"), summed(kind, "sum"));
        assert!(times >= 5.0 && seconds > 0.0 && seconds / times < 10.0, "{kind}: {times} in {seconds} s");
    }
    for purpose in ["request", "planner", "report"] {
        assert!(answer.text.contains(&format!("kind=\"write\",purpose=\"{purpose}\"")), "{}", answer.text);
    }
    assert!(answer.text.ends_with("# EOF\n"));
}

/// Returns the sum of the counters of this name whose labels hold all of these texts.
pub(crate) async fn counted(world: &World, name: &str, labels: &[&str]) -> f64 {
    let text = world.admin_call(Method::GET, "/metrics", "").await.expect("answered").text;
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
    let lines = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// S1-9, S3-34, S4-15.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn description_of_the_api_is_whole() {
    let world = world().await;
    let answer = world.call(Method::GET, "/openapi.json", None, &[], "").await.expect("answered");
    let description = &answer.body;
    assert_eq!(description["openapi"], "3.1.0");
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/apply",
        "/v1/plan",
        "/v1/changes",
        "/v1/tasks",
        "/v1/tasks/{id}",
        "/v1/tokens",
        "/v1/tokens/{id}",
        "/v1/enrolment-tokens",
        "/v1/enrol",
        "/v1/hosts:bulkCreate",
        "/v1/hosts",
        "/v1/hosts/{name}",
        "/v1/hosts/{name}/history",
        "/v1/hosts/{name}/changes",
        "/v1/hosts/{name}/report",
        "/v1/hosts/{name}/prune",
        "/v1/hosts/{name}/bundles/{digest}",
        "/v1/hosts/{name}/why/{workspace}/{deployment}",
        "/v1/workspaces",
        "/v1/workspaces/{name}",
        "/v1/workspaces/{workspace}/templates/{name}",
        "/v1/workspaces/{workspace}/workloads/{name}",
        "/v1/workspaces/{workspace}/targets/{name}",
        "/v1/workspaces/{workspace}/deployments/{name}",
        "/v1/workspaces/{workspace}/deployments/{name}/status",
        "/v1/workspaces/{workspace}/deployments/{name}/values",
        "/v1/workspaces/{workspace}/deployments/{name}/history",
    ] {
        let item = &description["paths"][path];
        assert!(item.is_object(), "{path} is not described");
        for (method, operation) in item.as_object().expect("methods") {
            assert!(operation["summary"].is_string() && operation["responses"].is_object(), "{method} {path}");
            for parameter in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
                let named = operation["parameters"].as_array().into_iter().flatten();
                assert!(named.into_iter().any(|known| known["name"] == parameter), "{method} {path}: {parameter}");
            }
        }
    }
    // Every reference leads somewhere.
    fn references(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                into.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, into));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, into)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(description, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads elsewhere"));
        assert!(description.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

/// S3-21, S3-31.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_has_its_request_id_and_every_problem_its_form() {
    let world = world().await;
    let token = Some(world.plane.token.as_str());
    let with_id = [("x-request-id", "trace-1:a.b_c")];
    for (method, path, status, code) in [
        (Method::GET, "/v1/nothing", 404, "not_found"),
        (Method::GET, "/v1/hosts/missing", 404, "not_found"),
        (Method::GET, "/v1/hosts/..%2f..%2fetc", 404, "not_found"),
        (Method::DELETE, "/v1/apply", 405, "method_not_allowed"),
        (Method::PUT, "/v1/hosts", 405, "method_not_allowed"),
        (Method::GET, "/v1/tasks/not-a-uuid", 400, "bad_parameter"),
        (Method::POST, "/v1/apply", 400, "malformed_body"),
    ] {
        let answer = world.call(method.clone(), path, token, &with_id, "").await.expect("answered");
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{method} {path}: {}", answer.text);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {path}");
        assert_eq!(answer.header("x-request-id"), "trace-1:a.b_c");
        assert_eq!(answer.body["requestId"], "trace-1:a.b_c", "{method} {path}");
        assert_eq!(answer.body["type"], format!("urn:titan:problem:{code}"));
        assert!(answer.body["title"].is_string() && answer.body["detail"].is_string());
        assert_eq!(answer.body["status"], status);
    }
    let answer = world.call(Method::GET, "/healthz", None, &with_id, "").await.expect("answered");
    assert_eq!((answer.status.as_u16(), answer.header("x-request-id")), (200, "trace-1:a.b_c"));
    // An id that could forge a log line is replaced.
    let answer = world.call(Method::GET, "/healthz", None, &[("x-request-id", "a b\tc")], "").await.expect("answered");
    assert!(uuid::Uuid::parse_str(answer.header("x-request-id")).is_ok());
    // What was asked under an id is in the history under it.
    let body = json!({"resources": [workload("w", "1")]}).to_string();
    world.call(Method::POST, "/v1/apply", token, &[("x-request-id", "change-7")], body).await.expect("answered");
    let history = world.admin.history(Kind::Workload, Some("default"), "w").await.expect("history");
    assert_eq!(history.items[0].request_id, "change-7");
}

/// Whatever is sent to whatever path: the answer is never a fault of the control plane's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_is_never_answered_with_a_fault_of_our_own() {
    let world = world().await;
    let pi = world.host("pi", "").await.expect("a host");
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let deep_values = format!(
        r#"{{"apiVersion":"titan/v1","kind":"Workload","metadata":{{"name":"w"}},"spec":{{"values":{}{}}}}}"#,
        r#"{"a":"#.repeat(100),
        "1".to_owned() + &"}".repeat(100)
    );
    let bodies = [
        "",
        "null",
        "[]",
        "{}",
        "\"\"",
        "0",
        "{\"resources\":null}",
        "{\"resources\":[null,1,[]]}",
        "\u{0}",
        "{\"a\":1e999}",
        "{\"hosts\":[{}]}",
        "{\"spec\":{\"values\":{\"\\u0000\":\"\\u0000\"}}}",
        "{\"metadata\":null}",
        "{\"spec\":null}",
        "{\"seq\":18446744073709551615,\"facts\":{\"a\":null}}",
        "{\"seq\":-1}",
        "{\"metadata\":{\"labels\":{\"a\":1}}}",
        &deep,
        &deep_values,
    ];
    let description = world.call(Method::GET, "/openapi.json", None, &[], "").await.expect("answered").body;
    let client = reqwest::Client::new();
    let mut asked = 0;
    for (path, item) in description["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("methods").keys() {
            let method: Method = method.to_uppercase().parse().expect("a method");
            let host_path = ["/changes", "/report"].iter().any(|end| path.ends_with(end)) || path.contains("/bundles/");
            let token = if host_path && path.contains("hosts") { &pi.credential } else { &world.plane.token };
            let tries: &[&str] = if matches!(method, Method::GET | Method::DELETE) { &["", "{}"] } else { &bodies };
            for (index, body) in tries.iter().enumerate() {
                let filler = ["pi", "default", "%00", "%F0%9F%98%80", "..", "a%2Fb", "A"][index % 7];
                let mut url = path.clone();
                while let (Some(from), Some(to)) = (url.find('{'), url.find('}')) {
                    url.replace_range(from..=to, if index == 0 { "pi" } else { filler });
                }
                let query = if index == 1 { "?since=%00&limit=-1&wait=99999999999999999999&at=0" } else { "" };
                let request = client.request(method.clone(), format!("{}{url}{query}", world.plane.server));
                // Nobody waits here for a minute.
                let request = request.bearer_auth(token).timeout(Duration::from_secs(20)).body((*body).to_owned());
                let answer = request.send().await.unwrap_or_else(|error| panic!("{method} {url} {body}: {error}"));
                assert!(answer.status().as_u16() < 500, "{method} {url} {body}: {answer:?}");
                asked += 1;
            }
        }
    }
    assert!(asked > 300, "{asked}");
    let alive = world.call(Method::GET, "/readyz", None, &[], "").await.expect("answered");
    assert_eq!(alive.status, 200);
}
