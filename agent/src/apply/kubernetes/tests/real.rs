//! The same life against a real server: `just check-kubernetes` starts one and says where it is.
//!
//! It has controllers and no nodes, so pods are made and never run.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Value, json};

use super::bench::{Bench, bundle, web, web_key};
use crate::apply::{Condition, Observation, kubernetes::applyset};

const DEFINITION: &str = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n\
    metadata: {name: widgets.check.titan}\nspec:\n  group: check.titan\n  scope: Namespaced\n  \
    names: {kind: Widget, plural: widgets, singular: widget}\n  versions:\n  - name: v1\n    served: true\n    \
    storage: true\n    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}\n---\n\
    apiVersion: check.titan/v1\nkind: Widget\nmetadata: {name: w, namespace: shop}\nspec: {size: 1}\n";

fn kubeconfig() -> Option<PathBuf> {
    let path = std::env::var_os("TITAN_TEST_KUBECONFIG").map(PathBuf::from);
    if path.is_none() {
        eprintln!("skipped: TITAN_TEST_KUBECONFIG names no cluster; just check-kubernetes starts one");
    }
    path
}

fn edit(bench: &Bench, path: &str, change: &Value) {
    let path = format!("{path}?fieldManager=kubectl-edit");
    let client = &bench.applier.cluster.client;
    let patch = client.call(Method::PATCH, &path, Some(("application/merge-patch+json", change)));
    bench.applier.ground.io.block_on(patch).expect("an edit");
}

/// Whether all is well but the deployment, which has no node to run on.
fn settled(seen: &[Observation]) -> bool {
    let well = |seen: &Observation| match seen.claim == web_key().claim() {
        true => !matches!(seen.condition, Condition::Failed(_)),
        false => seen.condition == Condition::Well,
    };
    seen.iter().all(|seen| well(seen) && seen.drift.is_none())
}

#[test]
fn a_real_server_agrees_with_the_double() {
    let Some(kubeconfig) = kubeconfig() else { return };
    let mut bench = Bench::with(|allowed| allowed.kubeconfig = Some(kubeconfig));
    let first = bundle(&[("a.yaml", &web("x:1")), ("b.yaml", DEFINITION)]);
    bench.prepare(&first).expect("prepare");
    bench.apply(&first).expect("apply");
    let count = bench.owned.len();
    bench.wait(&first, |seen| seen.len() == count && settled(seen));

    let next = bundle(&[("a.yaml", &web("x:2")), ("b.yaml", DEFINITION)]);
    bench.prepare(&next).expect("prepare");
    bench.apply(&next).expect("apply");
    bench.wait(&next, |seen| seen.len() == count && settled(seen));

    edit(&bench, "/apis/apps/v1/namespaces/shop/deployments/web", &json!({"spec": {"replicas": 5}}));
    let seen = bench.wait(&next, |seen| seen.iter().any(|seen| seen.drift.is_some()));
    let diff = seen.into_iter().find_map(|seen| seen.drift).expect("drift").diff;
    assert!(diff.contains("-  replicas: 2\n+  replicas: 5\n"), "{diff}");
    bench.enforce(&next);
    bench.wait(&next, |seen| seen.len() == count && settled(seen));

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
    bench.wait(&next, |seen| seen.len() == count && settled(seen));
    assert_eq!(uid(&bench)["uid"], before["uid"]);

    bench.remove(Some(&next)).expect("remove");
    bench.prepare(&first).expect("nothing is left in the way");
}
