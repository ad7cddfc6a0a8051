//! Pipelines: what they report, and the way of a release from a commit to the hosts.

use std::sync::Mutex;

use reqwest::Method;
use serde_json::{Value, json};
use titan_api::{
    Kind,
    pipelines::PipelineEvent,
    status::{
        DeploymentStatus,
        graph::{Step, StepState},
    },
};
use titan_tests::{
    manifests::{deployment, target, template, workload},
    worlds::{World, until},
};

const COMMIT: &str = "3fa9c1e24b0d3fa9c1e24b0d3fa9c1e24b0d3fa9";

fn documents(version: &str) -> [Value; 4] {
    let files = [("version.j2", "{{ workload.version }}\n")];
    let strategy = json!({"stages": [{"name": "canary", "hosts": 1}, {"name": "rest", "hosts": "100%"}]});
    let more = json!({ "strategy": strategy });
    [template("t", &files), workload("w", version), target("all", ""), deployment("web", "w", "t", "all", &more)]
}

async fn report(world: &World, kind: Kind, name: &str, event: Value) -> bool {
    let event: PipelineEvent = serde_json::from_value(event).expect("an event");
    world.admin.report_pipeline((kind, "default", name), &event).await.expect("taken").recorded
}

fn build(id: &str, state: &str) -> Value {
    json!({"build": {"id": id, "commit": COMMIT, "state": state, "version": "two",
        "artifact": "ghcr.io/acme/web@sha256:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b"}})
}

fn step<'a>(status: &'a DeploymentStatus, id: &str) -> Option<&'a Step> {
    status.graph.iter().find(|step| step.id == id)
}

/// S2-33, S2-34, S2-35: from the commit over its build, the change and the release to each host, with times and ages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_shows_the_way_from_the_commit_to_every_host() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let mut hosts = Vec::new();
    for name in ["a", "b", "c"] {
        hosts.push(world.host(name, "").await.expect("a host"));
    }
    world.apply(documents("one")).await.expect("written");
    // Two edits in a row may become one release.
    world.settled().await.expect("decided");
    let before = world.clock().await.expect("clock");
    let source = json!({"source": {"commit": COMMIT, "branch": "main", "author": "ann", "message": "mend it"}});
    assert!(report(&world, Kind::Deployment, "web", source.clone()).await);
    assert!(!report(&world, Kind::Workload, "w", source).await, "the same again says nothing new");
    assert!(report(&world, Kind::Deployment, "web", build("42", "running")).await);
    let status = world.admin.deployment_status("default", "web").await.expect("status");
    assert_eq!(step(&status, "build:42").map(|step| step.state), Some(StepState::Running));
    assert!(report(&world, Kind::Deployment, "web", build("42", "succeeded")).await);
    assert!(!report(&world, Kind::Deployment, "web", build("42", "running")).await, "it comes late");
    let changes = world.admin.changes(Some(before), 0).await.expect("changes").items;
    assert_eq!(changes, [], "what is observed is no change");

    world.apply(documents("two")).await.expect("written");
    let last = Mutex::new(None);
    let status = until("everybody has it", async || {
        for host in &mut hosts {
            if let Some(news) = host.poll(0).await? {
                host.report(&news).await?;
            }
        }
        let status = world.admin.deployment_status("default", "web").await?;
        *last.lock().expect("last") = Some(status.clone());
        let done = step(&status, "release:web#2").is_some_and(|step| step.state == StepState::Done);
        Ok((done && status.converged()).then_some(status))
    });
    let status = status.await.unwrap_or_else(|error| panic!("{error}: {:#?}", last.lock()));
    let way = ["build:42", "change:Workload/w", "release:web#2", "check:preflight", "stage:canary", "stage:rest"];
    let mut before = "source:3fa9c1e24b0d".to_owned();
    for id in way {
        let step = step(&status, id).unwrap_or_else(|| panic!("{id}: {:#?}", status.graph));
        assert!(step.after.contains(&before), "{step:#?}");
        assert_eq!(step.state, StepState::Done, "{step:#?}");
        assert!(step.at.is_some() && step.age_seconds.is_some(), "{step:#?}");
        before = id.to_owned();
    }
    assert_eq!(step(&status, "release:web#2").and_then(|step| step.version.as_deref()), Some("two"));
    let given: Vec<_> = status.hosts.iter().map(|host| host.after.as_deref().unwrap_or_default()).collect();
    let count = |stage: &str| given.iter().filter(|given| **given == stage).count();
    assert_eq!((count("stage:canary"), count("stage:rest")), (1, 2), "{given:?}");
    assert!(status.hosts.iter().all(|host| host.digest.is_some() && host.age_seconds.is_some()));

    // A workload that is gone takes what was reported of it along.
    let log = world.admin.pipeline_log("default", "w").await.expect("log");
    assert_eq!((log.sources.len(), log.builds.len()), (1, 1));
}

/// S2-33: what cannot be is refused with its code, and nothing is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_that_cannot_be_are_refused() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    world.apply(documents("one")).await.expect("written");
    assert!(report(&world, Kind::Workload, "w", build("1", "failed")).await);
    let kept = async || {
        let rows = world.rows().await.expect("rows");
        ["sources", "builds"].map(|table| rows[table])
    };
    let before = kept().await;
    let other = json!({"build": {"id": "1", "commit": "0".repeat(40), "state": "failed"}});
    for (path, body, status, code) in [
        ("workloads/w", build("1", "succeeded"), 409, "invalid_transition"),
        ("workloads/w", other, 409, "already_exists"),
        ("workloads/none", build("2", "running"), 404, "not_found"),
        ("deployments/none", build("2", "running"), 404, "not_found"),
        ("workloads/w", build("a b", "running"), 422, "invalid_document"),
        ("deployments/web", json!({"source": {"commit": "main"}}), 422, "invalid_document"),
        ("workloads/w", json!({"source": {}}), 422, "invalid_document"),
        ("workloads/w", json!({"deploy": {}}), 422, "invalid_document"),
    ] {
        let url = format!("/v1/workspaces/default/{path}/events");
        let answer = world.admin_call(Method::POST, &url, body.to_string()).await.expect("answered");
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{path} {body} {}", answer.text);
    }
    assert_eq!((kept().await, before), ([0, 1], [0, 1]), "nothing was written");
}
