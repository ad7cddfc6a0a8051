//! The life of a deployment: it comes, changes, fails, goes back and leaves.

use serde_json::{Value, json};

use super::bench::{Bench, bundle, target, web, web_key};
use crate::apply::{
    ApplyError, Condition, Readiness,
    kubernetes::{applyset, fields, records::Record},
};

const DEFINITION: &str = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n\
    metadata: {name: widgets.example.org}\nspec:\n  group: example.org\n  scope: Namespaced\n  \
    names: {kind: Widget, plural: widgets}\n  versions: [{name: v1, served: true, storage: true}]\n";
const WIDGET: &str =
    "apiVersion: example.org/v1\nkind: Widget\nmetadata: {name: w, namespace: default}\nspec: {size: 1}\n";

fn live(bench: &Bench, plural: &str, namespace: &str, name: &str) -> Value {
    bench
        .server
        .get(plural, namespace, name)
        .unwrap_or_else(|| panic!("{plural} {namespace}/{name}: {:?}", bench.server.names()))
}

#[test]
fn objects_come_with_the_marks_of_their_set_and_applying_again_sends_nothing() {
    let mut bench = Bench::new();
    let first = bundle(&[("a.yaml", &web("x:1"))]);
    let seen = bench.settle(&first);
    assert!(seen.iter().all(|seen| seen.drift.is_none()), "{seen:#?}");
    let parent = live(&bench, "configmaps", "shop", "titan.default.shop");
    let annotations = &parent["metadata"]["annotations"];
    assert_eq!(annotations["applyset.kubernetes.io/contains-group-kinds"], "ConfigMap,Deployment.apps,Namespace");
    let id = &parent["metadata"]["labels"][applyset::ID];
    let web = live(&bench, "deployments", "shop", "web");
    assert_eq!(&web["metadata"]["labels"][applyset::PART_OF], id);
    assert_eq!(web["metadata"]["managedFields"][0]["manager"], fields::MANAGER);
    assert_eq!(live(&bench, "configmaps", "shop", "web")["data"]["on"], "yes");
    bench.server.calls();
    bench.apply(&first).expect("again");
    bench.prepare(&first).expect("prepare");
    assert!(bench.server.calls().is_empty(), "the same bundle is no change");
}

#[test]
fn a_change_touches_what_differs_and_removes_what_is_not_declared_any_more() {
    let mut bench = Bench::new();
    let old =
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: old, namespace: shop}\nspec: {ports: [{port: 80}]}\n";
    bench.settle(&bundle(&[("a.yaml", &web("x:1")), ("b.yaml", old)]));
    bench.server.calls();
    let next = bundle(&[("a.yaml", &web("x:2").replace("  replicas: 2\n", ""))]);
    bench.settle(&next);
    let changed = live(&bench, "deployments", "shop", "web");
    assert_eq!(changed["spec"]["template"]["spec"]["containers"][0]["image"], "x:2");
    assert_eq!(changed["spec"]["replicas"], 1, "given up, so the server's own value holds");
    let patched: Vec<String> =
        bench.server.calls().into_iter().filter(|call| call.method == "PATCH").map(|call| call.path).collect();
    assert!(patched.iter().all(|path| path.contains("fieldManager=titan-agent&force=false")), "{patched:?}");
    assert!(!patched.iter().any(|path| path.contains("configmaps/web")), "it did not change: {patched:?}");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while bench.server.get("services", "shop", "old").is_some() {
        assert!(std::time::Instant::now() < until, "still there");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let parent = live(&bench, "configmaps", "shop", "titan.default.shop");
    let kinds = &parent["metadata"]["annotations"]["applyset.kubernetes.io/contains-group-kinds"];
    assert_eq!(kinds, "ConfigMap,Deployment.apps,Namespace");
}

#[test]
fn a_definition_is_established_before_its_objects_come() {
    let mut bench = Bench::new();
    let both = bundle(&[("a.yaml", WIDGET), ("z.yaml", DEFINITION)]);
    bench.settle(&both);
    assert_eq!(live(&bench, "widgets", "default", "w")["spec"]["size"], 1);
    bench.remove(Some(&both)).expect("remove");
    let names = bench.server.names();
    assert!(!names.iter().any(|name| name.contains("widgets")), "{names:?}");
}

#[test]
fn a_kind_that_nobody_knows_is_refused_before_the_switch() {
    let mut bench = Bench::new();
    let message = bench.prepare(&bundle(&[("a.yaml", WIDGET)])).expect_err("unknown").to_string();
    assert!(
        message.contains("a.yaml: document 1: Widget default/w: the cluster knows no Widget in example.org/v1"),
        "{message}"
    );
}

#[test]
fn what_is_invalid_is_refused_before_the_switch() {
    let mut bench = Bench::new();
    bench.settle(&bundle(&[("a.yaml", &web("x:1"))]));
    let invalid = bundle(&[("a.yaml", &web("x:1").replace("  selector: {matchLabels: {app: web}}\n", ""))]);
    let before = live(&bench, "deployments", "shop", "web");
    // The selector is ours, so leaving it out takes it away.
    let message = bench.prepare(&invalid).expect_err("invalid").to_string();
    assert!(message.contains("checking Deployment shop/web") && message.contains("spec.selector"), "{message}");
    assert_eq!(live(&bench, "deployments", "shop", "web"), before);
}

#[test]
fn a_release_that_crashes_says_why_and_the_one_before_comes_back() {
    let mut bench = Bench::new();
    let (good, bad) = (bundle(&[("a.yaml", &web("x:1"))]), bundle(&[("a.yaml", &web("x:broken"))]));
    bench.settle(&good);
    bench.prepare(&bad).expect("prepare");
    bench.apply(&bad).expect("apply");
    let is_web = |seen: &crate::apply::Observation| seen.claim == web_key().claim();
    let seen =
        bench.wait(&bad, |seen| seen.iter().any(|seen| is_web(seen) && matches!(seen.condition, Condition::Ill(_))));
    let Some(Condition::Ill(why)) = seen.into_iter().find(is_web).map(|seen| seen.condition) else { panic!("ill") };
    assert!(why.contains("CrashLoopBackOff") && why.contains("cannot reach the database"), "{why}");
    bench.apply(&good).expect("back");
    bench.wait_well(&good);
    let image = &live(&bench, "deployments", "shop", "web")["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "x:1");
}

#[test]
fn removal_goes_backwards_waits_for_the_end_and_leaves_nothing() {
    let mut bench = Bench::new();
    let before = bench.server.names();
    let all = bundle(&[("a.yaml", &web("x:1"))]);
    bench.settle(&all);
    bench.server.calls();
    bench.remove(Some(&all)).expect("remove");
    assert_eq!(bench.server.names(), before);
    let deleted: Vec<String> =
        bench.server.calls().into_iter().filter(|call| call.method == "DELETE").map(|call| call.path).collect();
    let order = ["deployments/web", "configmaps/web", "configmaps/titan.default.shop", "namespaces/shop"];
    assert!(deleted.len() == 4 && deleted.iter().zip(order).all(|(path, end)| path.ends_with(end)), "{deleted:?}");
    assert!(!bench.dir.path().join("state/kubernetes").join(format!("{}.json", bench.target.id)).exists());
}

#[test]
fn what_is_left_has_no_marks_any_more_and_may_be_had_again_without_being_made_anew() {
    let mut bench = Bench::new();
    let all = bundle(&[("a.yaml", &web("x:1"))]);
    bench.settle(&all);
    let uid = |bench: &Bench| live(bench, "deployments", "shop", "web")["metadata"]["uid"].clone();
    let before = (uid(&bench), bench.server.names());
    bench.release();
    let parent = |name: &String| name.contains("titan.default.shop");
    let left: Vec<String> = before.1.iter().filter(|name| !parent(name)).cloned().collect();
    assert_eq!((uid(&bench), bench.server.names()), (before.0.clone(), left), "all stay but the set's parent");
    let object = live(&bench, "deployments", "shop", "web");
    assert!(object["metadata"]["labels"].get(applyset::PART_OF).is_none(), "{object:#}");
    assert!(!bench.dir.path().join("state/kubernetes").join(format!("{}.json", bench.target.id)).exists());

    // Once more is nothing, and what somebody made anew meanwhile is not touched.
    bench.server.delete("configmaps", "shop", "web");
    bench.server.edit("configmaps", "shop", "web", "somebody", |map| map["data"] = json!({"mine": "1"}));
    bench.server.calls();
    bench.release();
    assert!(bench.server.calls().iter().all(|call| call.method == "GET"));

    // Another deployment has them, but for what is somebody else's.
    bench.owned.clear();
    bench.target = target("other", 9);
    let error = bench.prepare(&all).expect_err("foreign");
    assert!(matches!(&error, ApplyError::Foreign(claim) if claim.name == "/ConfigMap/shop/web"), "{error}");
    bench.server.delete("configmaps", "shop", "web");
    bench.settle(&all);
    assert_eq!(uid(&bench), before.0, "it was never gone");
    let annotations = live(&bench, "deployments", "shop", "web")["metadata"]["annotations"].clone();
    assert!(annotations.get("titan/left-by").is_none(), "{annotations:#}");
    bench.remove(Some(&all)).expect("remove");
    assert!(bench.server.get("deployments", "shop", "web").is_none());
}

#[test]
fn what_was_left_to_others_goes_though_the_parent_of_its_set_went_before() {
    let all = bundle(&[("a.yaml", &web("x:1"))]);
    for known in [None, Some(&all)] {
        let mut bench = Bench::new();
        bench.settle(&all);
        bench.server.delete("configmaps", "shop", "titan.default.shop");
        bench.owned.retain(|claim, _| *claim == web_key().claim());
        bench.restart();
        bench.remove(known).expect("remove");
        assert!(bench.server.get("deployments", "shop", "web").is_none());
        live(&bench, "configmaps", "shop", "web");
    }
}

#[test]
fn what_was_left_to_others_is_not_theirs_who_look_after_a_deployment_of_that_name_by_now() {
    let mut bench = Bench::new();
    let all = bundle(&[("a.yaml", &web("x:1"))]);
    bench.settle(&all);
    // Another agent of the cluster has it under another assignment since.
    bench.server.edit("configmaps", "shop", "titan.default.shop", "another", |parent| {
        parent["metadata"]["annotations"]["titan/assignment"] = json!(target("shop", 8).id.to_string());
    });
    bench.owned.retain(|claim, _| *claim == web_key().claim());
    let web_alone = bench.owned.clone();
    bench.restart();
    let before = bench.server.names();
    bench.release();
    bench.remove(Some(&all)).expect("nothing of it is left");
    assert_eq!(bench.server.names(), before);
    let marks = live(&bench, "deployments", "shop", "web")["metadata"]["labels"].clone();
    assert!(marks.get(applyset::PART_OF).is_some(), "{marks:#}");
    // Made again on this very host, it is no other's.
    bench.owned = web_alone;
    let record = Record { todo: bench.owned.keys().cloned().collect(), ..Record::default() };
    bench.applier.records.put(target("shop", 8).id, record).expect("noted");
    bench.remove(Some(&all)).expect("remove");
    assert!(bench.server.get("deployments", "shop", "web").is_none());
}

#[test]
fn a_namespace_does_not_go_while_something_in_it_is_to_stay() {
    let mut bench = Bench::new();
    let all = bundle(&[("a.yaml", &web("x:1"))]);
    bench.settle(&all);
    let (owned, before) = (bench.owned.clone(), bench.server.names());
    // It was left to another deployment, which does not want it; all else is still this one's.
    bench.owned.retain(|claim, _| claim.name.ends_with("/Namespace//shop"));
    assert_eq!(bench.owned.len(), 1);
    let message = bench.remove(Some(&all)).expect_err("held").to_string();
    assert!(message.contains("Namespace shop") && message.contains(", which is to stay"), "{message}");
    assert_eq!(bench.server.names(), before);
    // A release that does not declare it any more, but what is in it.
    bench.owned = owned;
    let next = bundle(&[("a.yaml", web("x:1").split_once("---\n").expect("parts").1)]);
    bench.prepare(&next).expect("prepare");
    bench.apply(&next).expect("apply");
    let seen = bench.wait(&next, |seen| seen.iter().any(|seen| seen.drift.is_some()));
    let how = seen.into_iter().find_map(|seen| seen.drift).expect("drift").how;
    assert!(how.starts_with("not removed: ") && how.contains("which is to stay"), "{how}");
    assert_eq!(bench.server.names(), before);
}

#[test]
fn what_is_held_by_a_finalizer_is_waited_for_and_named() {
    let mut bench = Bench::new();
    let all =
        bundle(&[("a.yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, finalizers: [example.org/hold]}}")]);
    bench.settle(&all);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match bench.remove_once().expect("remove") {
            Readiness::Underway(text) if text.contains("example.org/hold") => break,
            other => assert!(std::time::Instant::now() < until, "{other:?}"),
        }
    }
    bench.server.edit("configmaps", "default", "a", "holder", |map| map["metadata"]["finalizers"] = json!([]));
    bench.remove(None).expect("removed");
    assert!(bench.server.get("configmaps", "default", "a").is_none());
}

#[test]
fn what_exists_already_is_refused_unless_it_may_be_adopted() {
    let make = |bench: &Bench| {
        bench.server.edit("namespaces", "", "shop", "kubectl", |_| {});
        bench.server.edit("configmaps", "shop", "web", "kubectl", |map| map["data"] = json!({"theirs": "1"}));
    };
    let all = bundle(&[("a.yaml", web("x:1").split_once("---\n").expect("parts").1)]);
    let mut bench = Bench::new();
    make(&bench);
    let before = live(&bench, "configmaps", "shop", "web");
    let error = bench.prepare(&all).expect_err("foreign");
    assert!(matches!(&error, ApplyError::Foreign(claim) if claim.name == "/ConfigMap/shop/web"), "{error}");
    assert_eq!(live(&bench, "configmaps", "shop", "web"), before);
    let mut bench = Bench::with(|allowed| allowed.adopt = true);
    make(&bench);
    bench.settle(&all);
    assert_eq!(live(&bench, "configmaps", "shop", "web")["data"], json!({"theirs": "1", "on": "yes"}));
}

#[test]
fn foreign_objects_are_never_removed_nor_what_holds_them() {
    let mut bench = Bench::new();
    let all = bundle(&[("a.yaml", &web("x:1"))]);
    bench.settle(&all);
    // Somebody made the map anew, and put something of his own into our namespace.
    bench.server.delete("configmaps", "shop", "web");
    bench.server.edit("configmaps", "shop", "web", "somebody", |map| map["data"] = json!({"mine": "1"}));
    let message = bench.remove(Some(&all)).expect_err("held").to_string();
    assert!(
        message.contains("Namespace shop") && message.contains("ConfigMap web, which is not of this deployment"),
        "{message}"
    );
    assert_eq!(live(&bench, "configmaps", "shop", "web")["data"]["mine"], "1");
    assert!(bench.server.get("deployments", "shop", "web").is_none(), "ours are gone");
    bench.server.delete("configmaps", "shop", "web");
    // For a moment it is not asked for again.
    bench.server.calls();
    bench.remove(Some(&all)).expect_err("as before");
    assert!(bench.server.calls().is_empty());
    let until = std::time::Instant::now() + std::time::Duration::from_secs(15);
    while let Err(error) = bench.remove(Some(&all)) {
        assert!(std::time::Instant::now() < until, "nothing of others is left: {error}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(bench.server.get("namespaces", "", "shop").is_none());
}

#[test]
fn another_agent_of_the_same_cluster_cannot_take_a_deployment_of_the_same_name() {
    let mut bench = Bench::new();
    let all = bundle(&[("a.yaml", &web("x:1"))]);
    bench.settle(&all);
    bench.owned.clear();
    bench.target = target("shop", 8);
    assert!(matches!(bench.prepare(&all), Err(ApplyError::Foreign(_))));
    bench.target = target("shop", 7);
    bench.prepare(&all).expect("the same assignment, after the agent lost its memory");
}

#[test]
fn an_object_is_handed_over_without_a_gap() {
    let mut bench = Bench::new();
    let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {x: '1'}}";
    let other = "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: b}}";
    let (both, one) = (bundle(&[("a.yaml", map), ("b.yaml", other)]), bundle(&[("b.yaml", other)]));
    bench.settle(&both);
    let uid = live(&bench, "configmaps", "default", "a")["metadata"]["uid"].clone();
    let (giver, given) = (bench.target.clone(), bench.owned.clone());
    // The taker comes first, with what it takes among what it owned before.
    bench.target = target("taker", 9);
    let taken = bundle(&[("a.yaml", map)]);
    bench.owned.retain(|claim, _| claim.name.ends_with("/a"));
    bench.settle(&taken);
    bench.target = giver;
    bench.owned = given;
    bench.settle(&one);
    assert_eq!(live(&bench, "configmaps", "default", "a")["metadata"]["uid"], uid, "it was never gone");
}
