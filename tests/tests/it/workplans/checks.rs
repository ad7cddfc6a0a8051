//! Plans that are put together over the API, what can be asked of their nodes, and the results that checks take.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use titan_api::{
    Code,
    workplans::{
        Event, NodeState, Outcome, PlanState, Signal, SignalRequest, WriteNodes,
        attempts::{Completion, ResultRequest, ResultsRequest, Verdict},
    },
};
use titan_tests::{
    databases,
    worlds::{PATIENCE, World},
};
use uuid::Uuid;

use super::{claim, done, id, name, plan};

fn nodes(value: Value) -> WriteNodes {
    WriteNodes { nodes: serde_json::from_value(value).expect("nodes") }
}

fn result(check: &str, data: Value, failure: Option<&str>) -> ResultRequest {
    ResultRequest { check: name(check), data, failure_message: failure.map(str::to_owned) }
}

/// S3-2, S3-5, S3-18: an empty plan is made, read and filled; once it has begun its nodes stay as they are, and are found by
/// what they are and how far.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_plan_is_made_read_filled_and_started() {
    for database in databases::each() {
        let engine = database.engine;
        let world = World::over(database, crate::NODE).await.expect("a control plane");
        let body = json!({ "name": "p", "spec": { "start": false } }).to_string();
        let made = world.admin_call(Method::POST, "/v1/workplans", body).await.expect("answered");
        assert_eq!((made.status.as_u16(), &made.body["state"]), (201, &json!("planning")), "{engine}: {}", made.text);
        let plan: Uuid = made.body["id"].as_str().expect("an id").parse().expect("a UUID");
        let path = format!("/v1/workplans/{plan}");
        let read = world.admin_call(Method::GET, &path, "").await.expect("answered");
        assert_eq!((read.status.as_u16(), &read.body), (200, &made.body), "{engine}");
        assert_eq!(read.header("etag"), format!("\"{}\"", read.body["version"]), "{engine}");
        assert_eq!(world.admin.plan_nodes(plan, None, None).await.expect("nodes"), [], "{engine}");
        let start = |request: &str| SignalRequest::new(Signal::Start, request);
        let empty = world.admin.signal(plan, &start("early")).await.expect_err("there is nothing to do");
        assert_eq!(empty.code(), Some(Code::Invalid), "{engine}: {empty}");

        let external = json!({ "external": { "queue": "q" } });
        let ask = |deadline: &str| json!({ "kind": "check", "run": { "approval": { "deadline": deadline } } });
        let all = json!({ "a": { "run": external }, "b": { "run": external, "after": { "edges": ["a"] } },
            "ask": ask("1h"), "later": { "kind": "check", "run": external, "after": { "edges": ["b"] } } });
        world.admin.write_nodes(plan, &nodes(all), None).await.expect("filled");
        let again = nodes(json!({ "ask": ask("2h") }));
        world.admin.write_nodes(plan, &again, None).await.expect("nothing has begun");
        world.admin.signal(plan, &start("start")).await.expect("started");
        for (node, spec) in [("ask", ask("3h")), ("later", ask("3h")), ("b", json!({}))] {
            let refused = world.admin.write_nodes(plan, &nodes(json!({ node: spec })), None).await;
            assert_eq!(refused.expect_err(node).code(), Some(Code::ImmutableNode), "{engine}");
        }

        for (query, wanted) in [
            ("", &["a", "ask", "b", "later"] as &[&str]),
            ("kind=check", &["ask", "later"]),
            ("kind=stage", &["a", "b"]),
            ("state=planned", &["b", "later"]),
            ("state=waiting", &["ask"]),
            ("kind=check&state=planned", &["later"]),
            ("kind=stage&state=attempting", &["a"]),
            ("kind=stage&state=waiting", &[]),
            ("state=final", &[]),
        ] {
            let page = world.admin_call(Method::GET, &format!("{path}/nodes?{query}"), "").await.expect("answered");
            let items = page.body["items"].as_array().expect("items");
            assert_eq!(items.iter().map(|node| node["name"].as_str().expect("a name")).collect::<Vec<_>>(), wanted);
        }
        let (mut next, mut paged) = (String::new(), Vec::new());
        loop {
            let query = format!("{path}/nodes?kind=check&limit=1{next}");
            let page = world.admin_call(Method::GET, &query, "").await.expect("answered");
            paged.push(page.body["items"][0]["name"].clone());
            let Some(after) = page.body["continue"].as_str() else { break };
            next = format!("&continue={after}");
        }
        assert_eq!(paged, ["ask", "later"], "{engine}");
        for query in ["kind=host", "state=lost", "colour=red", "limit=-1"] {
            let refused = world.admin_call(Method::GET, &format!("{path}/nodes?{query}"), "").await.expect("answered");
            assert_eq!((refused.status.as_u16(), refused.code()), (400, "bad_parameter"), "{engine}: {query}");
        }
        let nowhere = format!("/v1/workplans/{}/nodes?kind=check", Uuid::nil());
        assert_eq!(world.admin_call(Method::GET, &nowhere, "").await.expect("answered").code(), "not_found");
    }
}

/// S3-6, S3-13: a check keeps what each attempt found, when, and why the answer is no. Once it is final a result is refused,
/// and stands in the history alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_are_kept_for_each_attempt_and_late_ones_are_refused() {
    for database in databases::each() {
        let engine = database.engine;
        let world = World::over(database, crate::NODE).await.expect("a control plane");
        let stage = |queue: &str| json!({ "run": { "external": { "queue": queue } }, "answers": [{ "check": "ask" }] });
        let spec = json!({ "nodes": { "ask": { "kind": "check" }, "s": stage("s"), "t": stage("t") } });
        world.apply([plan("p", &spec)]).await.expect("applied");
        let plan = id(&world, "p").await;
        let before = world.admin.plan_status(plan, 0).await.expect("status").created_at;
        for (queue, worker) in [("s", "w"), ("t", "x")] {
            world.admin.claim(&claim(queue, worker, 20)).await.expect("asked").attempt.expect("an attempt");
        }
        let (s, t) = (name("s"), name("t"));
        let says = |data: Value| ResultsRequest { process_uid: "w".into(), results: vec![result("ask", data, None)] };
        world.admin.results((plan, &s, 1), &says(json!({ "free": 7 }))).await.expect("taken");
        let no = result("ask", json!({ "free": 0 }), Some("the disk is full"));
        let completion = Completion { process_uid: "x".into(), results: vec![no], ..done(Verdict::Passed) };
        world.admin.complete((plan, &t, 1), &completion).await.expect("completed");

        let ask = world.admin.plan_node(plan, &name("ask")).await.expect("the check");
        assert_eq!(ask.state, NodeState::Waiting, "{engine}: one of its stages is still at it");
        let kept: Vec<_> =
            ask.results.iter().map(|it| (it.owner.as_str(), &it.data, it.failure_message.as_deref())).collect();
        let (some, none) = (json!({ "free": 7 }), json!({ "free": 0 }));
        assert_eq!(kept, [("s/1", &some, None), ("t/1", &none, Some("the disk is full"))], "{engine}");
        for it in &ask.results {
            assert!(it.created_at >= before && it.finalized_at >= Some(it.created_at), "{engine}: {it:?}");
        }

        let skip = SignalRequest {
            node: Some(name("ask")),
            reason: Some("nobody needs it".to_owned()),
            ..SignalRequest::new(Signal::Skip, "skip")
        };
        world.admin.signal(plan, &skip).await.expect("decided");
        let late = world.admin.results((plan, &s, 1), &says(json!({ "free": 9 }))).await.expect_err("too late");
        assert_eq!(late.code(), Some(Code::ImmutableNode), "{engine}: {late}");
        let after = world.admin.plan_node(plan, &name("ask")).await.expect("the check");
        assert_eq!((after.outcome, &after.results), (Some(Outcome::Overridden), &ask.results), "{engine}");
        let events = world.admin.plan_events(plan, 0, 0).await.expect("events").items;
        let told = events.iter().filter_map(|it| match &it.event {
            Event::Result { data, late, .. } => Some((data["free"].as_i64(), *late)),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), [(Some(7), false), (Some(0), false), (Some(9), true)], "{engine}");
        world.admin.complete((plan, &s, 1), &done(Verdict::Passed)).await.expect("completed");
        assert_eq!(world.admin.plan_status(plan, 20).await.expect("the end").state, PlanState::Succeeded, "{engine}");
    }
}

/// Returns the ids of server-sent events, each of which is what its data says.
fn ids(text: &str) -> Vec<i64> {
    let field = |event: &str, name: &str| {
        event.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned()).expect("a field")
    };
    let events = text.split("\n\n").filter(|event| event.contains("event: event"));
    let each = events.map(|event| {
        let data: Value = serde_json::from_str(&field(event, "data:")).expect("JSON");
        let id: i64 = field(event, "id:").parse().expect("a number");
        assert_eq!(data["number"], id);
        id
    });
    each.collect()
}

/// S3-37: whoever subscribes is told of everything that happens, from where he was, until the plan is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_a_plan_are_streamed_until_its_end() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let spec =
        json!({ "nodes": { "a": { "run": { "external": { "queue": "q" } } }, "b": { "after": { "edges": ["a"] } } } });
    world.apply([plan("p", &spec)]).await.expect("applied");
    let plan = id(&world, "p").await;
    let ask = |plan: Uuid, last: Option<i64>| {
        let request = reqwest::Client::new()
            .get(format!("{}/v1/workplans/{plan}/events", world.plane.server))
            .bearer_auth(&world.plane.token)
            .header("accept", "text/event-stream")
            .timeout(PATIENCE);
        last.into_iter().fold(request, |request, last| request.header("last-event-id", last.to_string()))
    };
    let mut stream = ask(plan, None).send().await.expect("answered");
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    while ids(&text[..text.rfind("\n\n").map_or(0, |end| end + 2)]).is_empty() {
        text += &String::from_utf8_lossy(&stream.chunk().await.expect("a chunk").expect("it goes on"));
    }
    // What happens from now on comes over the same connection, and its end is the stream's.
    world.admin.claim(&claim("q", "w", 20)).await.expect("asked").attempt.expect("an attempt");
    world.admin.complete((plan, &name("a"), 1), &done(Verdict::Passed)).await.expect("completed");
    let rest = tokio::time::timeout(PATIENCE, async {
        while let Some(chunk) = stream.chunk().await.expect("a chunk") {
            text += &String::from_utf8_lossy(&chunk);
        }
    });
    rest.await.expect("it ends with the plan");
    let all = world.admin.plan_events(plan, 0, 0).await.expect("events").items;
    let last = all.last().expect("some").number;
    assert_eq!(ids(&text), (1..=last).collect::<Vec<_>>());
    // A reader that was cut off goes on behind what it heard last.
    let again = tokio::time::timeout(Duration::from_secs(20), ask(plan, Some(last - 2)).send()).await.expect("in time");
    assert_eq!(ids(&again.expect("answered").text().await.expect("to its end")), [last - 1, last]);
    let nowhere = ask(Uuid::nil(), None).send().await.expect("answered");
    assert_eq!(
        (nowhere.status().as_u16(), &nowhere.headers()["content-type"]),
        (404, &"application/problem+json".parse().expect("a header"))
    );
}
