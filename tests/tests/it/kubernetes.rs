//! A deployment of objects in a cluster, from the control plane to an API server double and back.

use std::{collections::BTreeMap, os::unix::process::ExitStatusExt as _, path::PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use titan_agent::KUBERNETES_FAULT_POINTS;
use titan_api::{Kind, client::WriteOptions};
use titan_tests::{
    agents::AgentNode,
    apiserver::ApiServer,
    manifests::{deployment, host, target, template, workload},
    nodes::{self, Running},
    operators::Operator,
    worlds::{World, until},
};

use crate::full_disk::every_write;

const MANIFEST: &str = "applier: kubernetes\nhealth: { deadline: 15s, interval: 1s }\n";
const OBJECTS: &str = "apiVersion: v1\nkind: Namespace\nmetadata: { name: shop }\n---\n\
    apiVersion: v1\nkind: ConfigMap\nmetadata: { name: web, namespace: shop }\ndata: { version: {{ workload.version | to_json }} }\n---\n\
    apiVersion: v1\nkind: ConfigMap\nmetadata: { name: 'only-in-{{ workload.version }}', namespace: shop }\n---\n\
    apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: web, namespace: shop }\nspec:\n  replicas: 2\n  \
    selector: { matchLabels: { app: web } }\n  template:\n    metadata: { labels: { app: web } }\n    spec:\n      \
    containers:\n        - { name: app, image: 'web:{{ workload.version }}' }\n";

/// A control plane, a cluster, and the agent that is to look after it.
struct Stage {
    world: World,
    cluster: ApiServer,
    agent: AgentNode,
    _folder: TempDir,
}

impl Stage {
    async fn new() -> Self {
        let world = World::start(crate::NODE).await.expect("a control plane");
        let (cluster, folder) = (ApiServer::start(), tempfile::tempdir().expect("a folder"));
        let kubeconfig: PathBuf = folder.path().join("kubeconfig");
        cluster.write_kubeconfig(&kubeconfig);
        let allowed = format!("kubernetes: {{ kubeconfig: {}, clusterScoped: true }}", kubeconfig.display());
        let agent = AgentNode::allowing(crate::NODE, &allowed).expect("an agent");
        let documents = [
            host("pi", ""),
            template("web", &[("template.yaml", MANIFEST), ("objects.yaml.j2", OBJECTS)]),
            workload("web", "1"),
            target("all", ""),
            deployment("web", "web", "web", "all", &json!({})),
        ];
        world.apply(documents).await.expect("written");
        world.settled().await.expect("decided");
        let person = Operator::new(crate::NODE).expect("a directory");
        person.login(&world.plane.server, &world.plane.token).expect("logged in");
        agent.join(&person.titan("titan host join-command pi").expect("a line")).expect("enrolled");
        Self { world, cluster, agent, _folder: folder }
    }

    fn run(&self) -> Running {
        self.agent.run().expect("running")
    }

    /// Has the agent killed at a point.
    fn cut(&self, point: &str) {
        let ended = nodes::output(self.agent.command(&["once"]).env("TITAN_FAULT", point)).expect("it ran");
        assert_eq!(ended.status.signal(), Some(9), "{point} is not reached: {ended:?}");
    }

    async fn version(&self, version: &str) {
        self.world.apply([workload("web", version)]).await.expect("written");
    }

    /// Whether the cluster has all of one version and nothing of another.
    fn is(&self, version: &str) -> bool {
        let names = self.cluster.names();
        let mut extra = names.iter().filter(|name| name.contains("only-in-"));
        let only = extra.next().is_some_and(|name| name.ends_with(&format!("only-in-{version}")));
        only && extra.next().is_none() && self.image() == Some(format!("web:{version}"))
    }

    fn image(&self) -> Option<String> {
        let web = self.cluster.get("deployments", "shop", "web")?;
        web.pointer("/spec/template/spec/containers/0/image").and_then(Value::as_str).map(str::to_owned)
    }

    async fn wait_for(&self, what: &str, is: impl Fn(&Self) -> bool) {
        until(what, async || Ok(is(self).then_some(()))).await.unwrap_or_else(|error| {
            panic!("{error}: {:?} {:?}", self.cluster.names(), self.agent.status());
        });
    }

    fn lines(&self) -> BTreeMap<String, (String, String)> {
        let status = self.agent.status().expect("status");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let lines = status["deployments"].as_array().into_iter().flatten();
        lines.map(|line| (text(&line["name"]), (text(&line["phase"]), text(&line["message"])))).collect()
    }

    async fn wait_for_phase(&self, phase: &str) {
        self.wait_for(phase, |stage| stage.lines().get("web").is_some_and(|line| line.0 == phase)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_of_objects_comes_changes_is_repaired_goes_back_and_leaves() {
    let stage = Stage::new().await;
    let at_first = stage.cluster.names();
    let mut running = stage.run();
    stage.wait_for_phase("healthy").await;
    assert_eq!(stage.image().as_deref(), Some("web:1"));
    stage.version("2").await;
    stage.wait_for("the second release", |stage| stage.image().as_deref() == Some("web:2")).await;
    stage.wait_for_phase("healthy").await;

    // Somebody changes a field of ours, and one that is not.
    stage.cluster.edit("deployments", "shop", "web", "kubectl-edit", |web| {
        web["spec"]["replicas"] = json!(7);
        web["spec"]["paused"] = json!(true);
    });
    stage
        .wait_for("the repair", |stage| {
            stage.cluster.get("deployments", "shop", "web").is_some_and(|web| web["spec"]["replicas"] == 2)
        })
        .await;
    assert_eq!(stage.cluster.get("deployments", "shop", "web").expect("web")["spec"]["paused"], true);

    // A release whose pods crash goes back by itself.
    stage.version("broken").await;
    stage.wait_for("the bad release", |stage| stage.image().as_deref() == Some("web:broken")).await;
    stage.wait_for("the release before", |stage| stage.image().as_deref() == Some("web:2")).await;
    stage.wait_for_phase("rolledBack").await;
    let message = &stage.lines()["web"].1;
    assert!(message.contains("CrashLoopBackOff"), "{message}");

    let options = WriteOptions::default();
    stage.version("3").await;
    stage.wait_for("the third release", |stage| stage.image().as_deref() == Some("web:3")).await;
    stage.world.admin.delete(Kind::Deployment, Some("default"), "web", false, &options).await.expect("deleted");
    stage.wait_for("the end", |stage| stage.cluster.names() == at_first).await;
    assert!(running.is_running());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_at_any_point_of_the_agent_ends_with_what_was_declared() {
    let stage = Stage::new().await;
    stage.cluster.edit("configmaps", "default", "theirs", "somebody", |map| map["data"] = json!({"a": "b"}));
    let at_first = stage.cluster.names();
    stage.wait_for("the first release", |stage| stage.agent.once().is_ok() && stage.is("1")).await;
    let sent = ["object-sent:2", "object-sent:3"];
    let beside = ["journal-switching", "ledger-saved", "files-applied", "beside-applied", "proved-good"];
    for (index, point) in KUBERNETES_FAULT_POINTS.iter().chain(&sent).chain(&beside).enumerate() {
        let version = (index + 10).to_string();
        stage.version(&version).await;
        stage.world.settled().await.expect("decided");
        stage.cut(point);
        stage.wait_for(point, |stage| stage.agent.once().is_ok() && stage.is(&version)).await;
    }
    // On its way back.
    stage.version("20").await;
    stage.world.settled().await.expect("decided");
    stage.wait_for("a good one", |stage| stage.agent.once().is_ok() && stage.is("20")).await;
    stage.version("broken").await;
    stage.world.settled().await.expect("decided");
    stage.cut("proved-bad");
    stage.wait_for("the way back", |stage| stage.agent.once().is_ok() && stage.is("20")).await;
    assert_eq!(stage.lines()["web"].0, "rolledBack");
    let options = WriteOptions::default();
    for (index, point) in ["object-going", "object-going:3", "taken-down", "removal-settled"].iter().enumerate() {
        stage.world.admin.delete(Kind::Deployment, Some("default"), "web", false, &options).await.expect("deleted");
        stage.world.settled().await.expect("decided");
        stage.cut(point);
        stage.wait_for(point, |stage| stage.agent.once().is_ok() && stage.cluster.names() == at_first).await;
        stage.version(&(index + 30).to_string()).await;
        stage.world.apply([deployment("web", "web", "web", "all", &json!({}))]).await.expect("written");
        stage.world.settled().await.expect("decided");
        stage.wait_for(point, |stage| stage.agent.once().is_ok() && stage.is(&(index + 30).to_string())).await;
    }
    let theirs = stage.cluster.get("configmaps", "default", "theirs").expect("nothing foreign is touched");
    assert_eq!(theirs["data"], json!({"a": "b"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_at_any_write_leaves_the_cluster_whole_and_room_ends_with_what_was_declared() {
    let stage = Stage::new().await;
    let declare = async |version: &str| {
        stage.version(version).await;
        stage.world.settled().await.expect("decided");
    };
    every_write(&stage.agent, &["disk-write"], declare, |version| stage.is(version)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_stays_and_is_had_again_by_a_deployment_of_the_same_name() {
    let stage = Stage::new().await;
    let declare = async || {
        let left = deployment("web", "web", "web", "all", &json!({ "onRemove": "orphan" }));
        stage.world.apply([left]).await.expect("written");
        stage.world.settled().await.expect("decided");
    };
    declare().await;
    stage.wait_for("it to come", |stage| stage.agent.once().is_ok() && stage.is("1")).await;
    let uid = || stage.cluster.get("deployments", "shop", "web").expect("web")["metadata"]["uid"].clone();
    let (before, is_parent) = (uid(), |name: &String| name.contains("titan.default.web"));
    let all = stage.cluster.names();
    assert!(all.iter().any(is_parent), "{all:?}");
    let options = WriteOptions::default();
    stage.world.admin.delete(Kind::Deployment, Some("default"), "web", false, &options).await.expect("deleted");
    stage.world.settled().await.expect("decided");
    // Cut off in the middle of it.
    stage.cut("object-sent");
    stage
        .wait_for("it to be let go of", |stage| {
            stage.agent.once().is_ok() && !stage.cluster.names().iter().any(is_parent)
        })
        .await;
    assert_eq!(stage.cluster.names().len() + 1, all.len(), "all others stay");
    assert!(stage.lines().is_empty());
    declare().await;
    stage.wait_for("it to be had again", |stage| stage.agent.once().is_ok() && !stage.lines().is_empty()).await;
    assert_eq!(stage.cluster.names(), all);
    stage.version("2").await;
    stage.world.settled().await.expect("decided");
    stage.wait_for("a change", |stage| stage.agent.once().is_ok() && stage.is("2")).await;
    assert_eq!((uid(), stage.lines()["web"].0.as_str()), (before, "healthy"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_of_another_manager_and_a_foreign_object_are_refused_with_the_reason() {
    let stage = Stage::new().await;
    stage.cluster.edit("namespaces", "", "shop", "kubectl", |_| {});
    stage.cluster.edit("configmaps", "shop", "web", "kubectl", |map| map["data"] = json!({"version": "theirs"}));
    let before = stage.cluster.names();
    stage.agent.once().expect("it ran");
    stage
        .wait_for("the refusal", |stage| {
            let _ran = stage.agent.once();
            stage
                .lines()
                .get("web")
                .is_some_and(|line| line.0 == "failed" && line.1.contains("was not made by the agent"))
        })
        .await;
    assert_eq!(stage.cluster.names(), before);
    assert_eq!(stage.cluster.get("configmaps", "shop", "web").expect("map")["data"]["version"], "theirs");
}
