//! The same life against a real server: `just check-kubernetes` starts one and says where it is.
//!
//! It has controllers and no nodes, so pods are made and never run.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};

use super::bench::{Bench, bundle, web, web_key};
use crate::{
    apply::{
        Condition, Observation,
        kubernetes::{applyset, objects::Key},
    },
    config::appliers::Kubernetes as Allowed,
};

/// Says where the kubeconfig of somebody is who may do everything.
const ADMIN: &str = "TITAN_TEST_KUBECONFIG";
/// Says where that of the service account is that the packaged manifest makes.
const AGENT: &str = "TITAN_TEST_AGENT_KUBECONFIG";
/// The agent as a pod of its cluster, with its rights.
const PACKAGED: &str = include_str!("../../../../packaging/kubernetes.yaml");

const DEFINITION: &str = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n\
    metadata: {name: widgets.check.titan}\nspec:\n  group: check.titan\n  scope: Namespaced\n  \
    names: {kind: Widget, plural: widgets, singular: widget}\n  versions:\n  - name: v1\n    served: true\n    \
    storage: true\n    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}\n---\n\
    apiVersion: check.titan/v1\nkind: Widget\nmetadata: {name: w, namespace: shop}\nspec: {size: 1}\n";

fn kubeconfig(of: &str) -> Option<PathBuf> {
    let path = std::env::var_os(of).map(PathBuf::from);
    if path.is_none() {
        eprintln!("skipped: {of} names no cluster; just check-kubernetes starts one");
    }
    path
}

fn edit(bench: &Bench, path: &str, change: &Value) {
    let path = format!("{path}?fieldManager=kubectl-edit");
    let client = &bench.applier.cluster.client;
    let patch = client.call(Method::PATCH, &path, Some(("application/merge-patch+json", change)));
    bench.applier.ground.io.block_on(patch).expect("an edit");
}

fn create(bench: &Bench, path: &str, object: &Value) {
    let post = bench.applier.cluster.client.call(Method::POST, path, Some(("application/json", object)));
    bench.applier.ground.io.block_on(post).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// Whether all is well but the deployment, which has no node to run on.
fn settled(seen: &[Observation], deployment: &Key) -> bool {
    let well = |seen: &Observation| match seen.claim == deployment.claim() {
        true => !matches!(seen.condition, Condition::Failed(_)),
        false => seen.condition == Condition::Well,
    };
    seen.iter().all(|seen| well(seen) && seen.drift.is_none())
}

#[test]
fn a_real_server_agrees_with_the_double() {
    let Some(kubeconfig) = kubeconfig(ADMIN) else { return };
    let mut bench = Bench::with(|allowed| allowed.kubeconfig = Some(kubeconfig));
    let first = bundle(&[("a.yaml", &web("x:1")), ("b.yaml", DEFINITION)]);
    bench.prepare(&first).expect("prepare");
    bench.apply(&first).expect("apply");
    let count = bench.owned.len();
    bench.wait(&first, |seen| seen.len() == count && settled(seen, &web_key()));

    let next = bundle(&[("a.yaml", &web("x:2")), ("b.yaml", DEFINITION)]);
    bench.prepare(&next).expect("prepare");
    bench.apply(&next).expect("apply");
    bench.wait(&next, |seen| seen.len() == count && settled(seen, &web_key()));

    edit(&bench, "/apis/apps/v1/namespaces/shop/deployments/web", &json!({"spec": {"replicas": 5}}));
    let seen = bench.wait(&next, |seen| seen.iter().any(|seen| seen.drift.is_some()));
    let diff = seen.into_iter().find_map(|seen| seen.drift).expect("drift").diff;
    assert!(diff.contains("-  replicas: 2\n+  replicas: 5\n"), "{diff}");
    bench.enforce(&next);
    bench.wait(&next, |seen| seen.len() == count && settled(seen, &web_key()));

    edit(&bench, "/api/v1/namespaces/shop/configmaps/web", &json!({"data": {"theirs": "set"}}));
    let more = web("x:2").replace("data: {on: 'yes'}", "data: {on: 'yes', theirs: 'no'}");
    let message =
        bench.prepare(&bundle(&[("a.yaml", &more), ("b.yaml", DEFINITION)])).expect_err("conflict").to_string();
    assert!(message.contains("\"kubectl-edit\" manages .data.theirs"), "{message}");

    // What is left stays, and is had again.
    let uid = |bench: &Bench| {
        let get = bench.applier.cluster.client.get("/apis/apps/v1/namespaces/shop/deployments/web");
        bench.applier.ground.io.block_on(get).expect("the deployment")["metadata"].clone()
    };
    let before = uid(&bench);
    bench.release();
    let left = uid(&bench);
    assert_eq!((&left["uid"], left["labels"].get(applyset::PART_OF)), (&before["uid"], None), "{left:#}");
    bench.owned.clear();
    bench.prepare(&next).expect("it may be had again");
    bench.apply(&next).expect("apply");
    bench.wait(&next, |seen| seen.len() == count && settled(seen, &web_key()));
    let again = uid(&bench);
    assert_eq!((&again["uid"], again["annotations"].get("titan/left-by")), (&before["uid"], None), "{again:#}");

    bench.remove(Some(&next)).expect("remove");
    bench.prepare(&first).expect("nothing is left in the way");
}

/// A configuration and what reads it, in the one namespace that the packaged manifest binds its role in.
fn app(image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: web, namespace: apps}}\ndata: {{image: '{image}'}}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: apps}}\nspec:\n  replicas: 1\n  \
         strategy: {{type: Recreate}}\n{more}  \
         selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      \
         containers:\n      - {{name: app, image: '{image}'}}\n"
    )
}

#[test]
fn the_packaged_role_is_enough_for_a_whole_life_and_for_no_more() {
    let (Some(admin), Some(agent)) = (kubeconfig(ADMIN), kubeconfig(AGENT)) else { return };
    let admin = Bench::with(|allowed| allowed.kubeconfig = Some(admin));
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    create(&admin, "/api/v1/namespaces", &json!({"metadata": {"name": "apps"}}));
    for text in PACKAGED.split("\n---\n") {
        let object: Value = serde_yaml::from_str(text).expect("a document");
        match object["kind"].as_str() {
            Some("ClusterRole") => create(&admin, &format!("{rbac}/clusterroles"), &object),
            Some("RoleBinding") => create(&admin, &format!("{rbac}/namespaces/apps/rolebindings"), &object),
            _ => {}
        }
    }
    let mut bench = Bench::with(|allowed| {
        let namespaces = vec!["apps".to_owned()];
        *allowed = Allowed { kubeconfig: Some(agent), namespaces, ..Allowed::default() };
    });
    let web = Key::new("apps", "Deployment", "apps", "web");
    let good = bundle(&[("a.yaml", &app("x:1", ""))]);
    // A server learns of new roles within moments.
    let until = Instant::now() + Duration::from_secs(10);
    while let Err(error) = bench.prepare(&good) {
        assert!(Instant::now() < until, "{error}");
        std::thread::sleep(Duration::from_millis(100));
    }
    bench.apply(&good).expect("apply");
    let count = bench.owned.len();
    bench.wait(&good, |seen| seen.len() == count && settled(seen, &web));

    // One that does not come up in time has failed, and the one before is had again.
    let bad = bundle(&[("a.yaml", &app("x:2", "  progressDeadlineSeconds: 1\n"))]);
    bench.prepare(&bad).expect("prepare");
    bench.apply(&bad).expect("apply");
    bench.wait(&bad, |seen| seen.iter().any(|seen| matches!(&seen.condition, Condition::Failed(_))));
    bench.apply(&good).expect("back");
    bench.wait(&good, |seen| seen.len() == count && settled(seen, &web));

    edit(&bench, "/api/v1/namespaces/apps/configmaps/web", &json!({"data": {"image": "theirs"}}));
    let seen = bench.wait(&good, |seen| seen.iter().any(|seen| seen.drift.is_some()));
    let diff = seen.into_iter().find_map(|seen| seen.drift).expect("drift").diff;
    assert!(diff.contains("-  image: \"x:1\"\n+  image: theirs\n"), "{diff}");
    bench.enforce(&good);
    bench.wait(&good, |seen| seen.len() == count && settled(seen, &web));

    // What it may not make is refused before anything is touched.
    let role = "\n---\napiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n\
                metadata: {name: more, namespace: apps}\nrules: []\n";
    let message = bench.prepare(&bundle(&[("a.yaml", &(app("x:1", "") + role))])).expect_err("beyond").to_string();
    assert!(message.contains("Role"), "{message}");
    bench.remove(Some(&good)).expect("remove");
}
