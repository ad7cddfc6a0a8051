//! Dependencies between deployments: written, told to hosts, refused.

use reqwest::StatusCode;
use serde_json::{Value, json};
use titan_api::{client::Polled, deployments::DependencyState};
use titan_tests::{
    manifests::{deployment, target, template, workload},
    worlds::World,
};

fn web(depends_on: Value) -> Value {
    deployment("web", "w", "t", "all", &json!({ "dependsOn": depends_on }))
}

async fn world() -> World {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let deployments = ["db", "cache"].map(|name| deployment(name, "w", "t", "all", &json!({})));
    let documents = [template("t", &[("a", "x\n")]), workload("w", "1"), target("all", "")];
    world.apply(documents.into_iter().chain(deployments)).await.expect("written");
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_are_told_what_goes_first_and_how_far_it_has_to_be() {
    let world = world().await;
    world.apply([web(json!(["db:healthy", "cache:applied"]))]).await.expect("written");
    let host = world.host("a", "").await.expect("a host");
    world.settled().await.expect("decided");
    let Polled::Changed(answer) = host.client.poll("a", None, None, 0).await.expect("polled") else {
        panic!("the first answer is full");
    };
    let told = answer.deployments.iter().find(|told| &*told.name == "web").expect("told");
    let states: Vec<_> = told.depends_on.iter().map(|dependency| (&*dependency.name, dependency.state)).collect();
    assert_eq!(states, [("db", DependencyState::Healthy), ("cache", DependencyState::Applied)]);
    let document = world.admin.get(titan_api::Kind::Deployment, Some("default"), "web", None).await.expect("read");
    assert_eq!(document.spec["dependsOn"], json!(["db", "cache:applied"]), "what holds unless told is left out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dependencies_that_make_no_sense_are_refused_with_their_place() {
    let world = world().await;
    for (depends_on, code, pointer) in [
        (json!(["db", "cache:up"]), "invalid_document", "/resources/0/spec/dependsOn/1"),
        (json!(["db:"]), "invalid_document", "/resources/0/spec/dependsOn/0"),
        (json!([":applied"]), "invalid_document", "/resources/0/spec/dependsOn/0"),
        (json!(["iot/db"]), "invalid_document", "/resources/0/spec/dependsOn/0"),
        (json!(["db", 7]), "invalid_document", "/resources/0/spec/dependsOn/1"),
        (json!([{"name": "db"}]), "invalid_document", "/resources/0/spec/dependsOn/0"),
        (json!("db"), "invalid_document", "/resources/0/spec/dependsOn"),
        (json!(["db", "none:applied"]), "missing_reference", "/resources/0/spec/dependsOn/1"),
        (json!(["web"]), "missing_reference", "/resources/0/spec/dependsOn/0"),
    ] {
        let refused = world.raw_apply(&[web(depends_on.clone())]).await.expect("answered");
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{depends_on}");
        assert_eq!((refused.code(), refused.pointers()), (code, vec![pointer]), "{depends_on}: {}", refused.text);
    }
}
