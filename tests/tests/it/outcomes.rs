//! What hosts share, and what they do not wait for: one rendering for all that are alike, and answers beside a writer.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use titan_tests::{
    databases,
    fleets::{Fleet, document},
};

use crate::health::metric;

/// How long an answer may take that waits for nobody.
const PATIENCE: Duration = Duration::from_secs(20);

/// Returns a template that reads one label, in an edition of its own.
fn template(edition: u32) -> Value {
    let content = format!("edition {edition} in {{{{ host.labels.region }}}}\n");
    document("Template", None, "t", &json!({ "files": { "app.conf.j2": { "content": content } } }))
}

fn host(number: u32, labels: &Value) -> Value {
    let mut host = document("Host", None, &format!("pi-{number:02}"), &json!({}));
    host["metadata"]["labels"] = labels.clone();
    host
}

/// Returns forty hosts in two regions, with whatever else tells them apart.
fn hosts(shelf: u32) -> Vec<Value> {
    let labels = |number: u32| json!({ "region": format!("r{}", number % 2), "shelf": format!("{}", number + shelf) });
    (0..40).map(|number| host(number, &labels(number))).collect()
}

fn everywhere(edition: u32) -> Vec<Value> {
    let everybody =
        json!({ "stages": [{ "name": "all", "hosts": "100%" }], "maxFailures": "100%", "onFailure": "continue" });
    let spec = json!({ "workload": "w", "template": "t", "target": "all", "strategy": everybody });
    vec![
        template(edition),
        document("Workload", None, "w", &json!({ "version": "v1" })),
        document("Target", None, "all", &json!({ "expression": "true" })),
        document("Deployment", None, "d", &spec),
    ]
}

/// S2-28, S5-38: a template is rendered once for all hosts that it cannot tell apart, and never again for what came out before.
#[tokio::test]
async fn hosts_that_are_alike_share_one_rendering() {
    for database in databases::each() {
        let mut fleet = Fleet::open(&database.url, crate::NODE).await.expect("open");
        fleet.plan_in_chunks_of(7);
        fleet.apply(&hosts(0)).await.expect("apply");
        fleet.settle().await.expect("settle");
        let (mut renderings, mut moved) = (0.0, 0.0);
        let edits = [
            ("a deployment to forty hosts in two regions", everywhere(1), 2.0, 40.0),
            ("labels that the template does not read", hosts(100), 0.0, 0.0),
            ("another edition of the template", vec![template(2)], 2.0, 40.0),
            ("the edition before", vec![template(1)], 0.0, 40.0),
            ("a host in a region that others are in", vec![host(0, &json!({ "region": "r1" }))], 0.0, 1.0),
            ("a host in a region of its own", vec![host(0, &json!({ "region": "r2" }))], 1.0, 1.0),
        ];
        for (what, documents, rendered, moves) in edits {
            fleet.apply(&documents).await.expect("apply");
            fleet.settle().await.expect("settle");
            (renderings, moved) = (renderings + rendered, moved + moves);
            let counted =
                (metric(&fleet, "titan_renderings_total").await, metric(&fleet, "titan_assignments_moved_total").await);
            assert_eq!(counted, (renderings, moved), "after {what}, over {}", database.url);
        }
    }
}

/// S2-9: whoever writes keeps no poll waiting, be it answered from the view or with bundles off the disk.
#[tokio::test]
async fn polls_do_not_wait_for_whoever_writes() {
    for database in databases::each() {
        let mut fleet = Fleet::open(&database.url, crate::NODE).await.expect("open");
        fleet.apply(&hosts(0)).await.expect("apply");
        fleet.apply(&everywhere(1)).await.expect("apply");
        fleet.settle().await.expect("settle");
        let (one, other) =
            (fleet.enrol("pi-01").await.expect("enrolled"), fleet.enrol("pi-02").await.expect("enrolled"));
        let mut writing = fleet.state.store.write("somebody").await.expect("begin");
        writing.tick(fleet.state.clock.now()).await.expect("tick");
        let full = asked(&fleet, "/v1/hosts/pi-01/changes", &one).await;
        assert_eq!((full["full"].as_bool(), full["deployments"].as_array().map(Vec::len)), (Some(true), Some(1)));
        let path = format!("/v1/hosts/pi-01/changes?since={}&have={}", text(&full["cursor"]), text(&full["digest"]));
        assert_eq!(asked(&fleet, &path, &one).await, Value::Null, "unchanged");
        // Nobody has asked for this host before.
        assert_eq!(asked(&fleet, "/v1/hosts/pi-02/changes", &other).await["full"], json!(true));
        writing.commit().await.expect("commit");
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// Returns what a host is answered; nothing if nothing changed.
async fn asked(fleet: &Fleet, path: &str, credential: &str) -> Value {
    let answered = fleet.send(Method::GET, path, credential, &Value::Null);
    let answered = tokio::time::timeout(PATIENCE, answered).await.expect("nobody is waited for").expect("answered");
    match answered.status {
        StatusCode::NO_CONTENT => Value::Null,
        StatusCode::OK => serde_json::from_slice(&answered.body).expect("an answer"),
        status => panic!("{path}: {status} {}", String::from_utf8_lossy(&answered.body)),
    }
}
