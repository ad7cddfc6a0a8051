//! Others change what we applied.

use std::time::{Duration, Instant};

use serde_json::json;
use titan_api::templates::Applier as Kind;

use super::bench::{Bench, bundle, web, web_key};
use crate::apply::{Condition, Observation};

fn drifted(seen: &[Observation]) -> Vec<&Observation> {
    seen.iter().filter(|seen| seen.drift.is_some()).collect()
}

#[test]
fn fields_that_we_manage_are_compared_and_put_right_and_others_left() {
    let mut bench = Bench::new();
    let all = bundle(&[("a.yaml", &web("x:1"))]);
    bench.settle(&all);
    bench.server.edit("deployments", "shop", "web", "autoscaler", |web| {
        web["metadata"]["annotations"]["example.org/note"] = "theirs".into();
        web["spec"]["revisionHistoryLimit"] = json!(3);
    });
    let seen = bench.wait_well(&all);
    assert!(drifted(&seen).is_empty(), "{seen:#?}");
    bench.server.edit("deployments", "shop", "web", "kubectl-edit", |web| web["spec"]["replicas"] = json!(5));
    let seen = bench.wait(&all, |seen| !drifted(seen).is_empty());
    let drift = drifted(&seen)[0].drift.clone().expect("drift");
    assert_eq!((drift.what.as_str(), drift.how.as_str()), ("object:apps/Deployment/shop/web", "fields"));
    assert!(drift.diff.contains("-  replicas: 2\n+  replicas: 5\n"), "{}", drift.diff);
    assert!(!drift.diff.contains("managedFields") && !drift.diff.contains("revisionHistoryLimit"), "{}", drift.diff);
    bench.enforce(&all);
    let web = bench.server.get("deployments", "shop", "web").expect("web");
    assert_eq!((&web["spec"]["replicas"], &web["spec"]["revisionHistoryLimit"]), (&json!(2), &json!(3)));
    assert!(drifted(&bench.wait_well(&all)).is_empty());
}

#[test]
fn what_is_missing_comes_back() {
    let mut bench = Bench::new();
    let all = bundle(&[("a.yaml", &web("x:1"))]);
    bench.settle(&all);
    bench.server.delete("configmaps", "shop", "web");
    let seen = bench.wait(&all, |seen| !drifted(seen).is_empty());
    assert_eq!(drifted(&seen)[0].drift.as_ref().expect("drift").how, "missing");
    bench.enforce(&all);
    assert!(bench.server.get("configmaps", "shop", "web").is_some());
}

#[test]
fn a_field_that_another_manager_holds_is_refused_by_name_unless_it_may_be_forced() {
    let all = bundle(&[("a.yaml", &web("x:1"))]);
    let two = bundle(&[("a.yaml", &web("x:1").replace("data: {on: 'yes'}", "data: {on: 'yes', theirs: 'no'}"))]);
    let theirs = |bench: &Bench| {
        bench.server.edit("configmaps", "shop", "web", "operator", |map| map["data"]["theirs"] = "set".into());
    };
    let mut bench = Bench::new();
    bench.settle(&all);
    theirs(&bench);
    let message = bench.prepare(&two).expect_err("conflict").to_string();
    assert!(message.contains("ConfigMap shop/web: \"operator\" manages .data.theirs;"), "{message}");
    assert!(message.contains("appliers.kubernetes.force"), "{message}");
    let message = bench.apply(&two).expect_err("conflict").to_string();
    assert!(message.contains("\"operator\" manages .data.theirs"), "{message}");
    let failed = bench.wait(&two, |seen| seen.iter().any(|seen| matches!(&seen.condition, Condition::Failed(_))));
    assert!(!failed.is_empty());
    assert_eq!(bench.server.get("configmaps", "shop", "web").expect("map")["data"]["theirs"], "set");
    bench.apply(&all).expect("back");
    bench.wait_well(&all);
    let mut bench = Bench::with(|allowed| allowed.force = true);
    bench.settle(&all);
    theirs(&bench);
    bench.settle(&two);
    assert_eq!(bench.server.get("configmaps", "shop", "web").expect("map")["data"]["theirs"], "no");
}

#[test]
fn a_field_that_was_ours_is_taken_back_by_the_next_release_even_after_a_restart() {
    let mut bench = Bench::new();
    bench.settle(&bundle(&[("a.yaml", &web("x:1"))]));
    bench.server.edit("deployments", "shop", "web", "kubectl-edit", |web| web["spec"]["replicas"] = json!(5));
    bench.restart();
    bench.settle(&bundle(&[("a.yaml", &web("x:2"))]));
    assert_eq!(bench.server.get("deployments", "shop", "web").expect("web")["spec"]["replicas"], 2);
}

#[test]
fn a_secrets_content_is_nowhere_but_in_the_cluster() {
    let secret = |value: &str| {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData: {{password: {value}}}\n")
    };
    let mut bench = Bench::new();
    let all = bundle(&[("a.yaml", &secret("hunter2"))]);
    bench.settle(&all);
    bench
        .server
        .edit("secrets", "default", "s", "thief", |secret| secret["stringData"]["password"] = "swordfish".into());
    let seen = bench.wait(&all, |seen| !drifted(seen).is_empty());
    let text = format!("{seen:?}{:?}", bench.adopt(&all));
    assert!(text.contains("differs") && !text.contains("hunter2") && !text.contains("swordfish"), "{text}");
}

#[test]
fn an_edit_can_be_adopted_as_files() {
    let mut bench = Bench::new();
    let content = web("x:1");
    let all = bundle(&[
        ("a.yaml", &content),
        ("b.json", r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"spec":{"x":1}}"#),
    ]);
    bench.settle(&all);
    assert_eq!(bench.adopt(&all), [], "nothing to adopt");
    bench.server.edit("deployments", "shop", "web", "kubectl-edit", |web| web["spec"]["replicas"] = json!(5));
    bench.server.edit("services", "default", "s", "kubectl-edit", |service| service["spec"]["x"] = json!(2));
    let adopted = bench.adopt(&all);
    assert_eq!(adopted.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["a.yaml", "b.json"]);
    let files: Vec<(&str, &str)> = adopted.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    assert!(!adopted[0].1.contains("imagePullPolicy") && !adopted[0].1.contains("applyset"), "{}", adopted[0].1);
    let next = bundle(&files);
    let edited = bench.server.get("deployments", "shop", "web").expect("web")["spec"].clone();
    bench.settle(&next);
    assert_eq!(bench.server.get("deployments", "shop", "web").expect("web")["spec"], edited, "what was there holds");
}

#[test]
fn changes_wake_the_agent_and_what_did_not_change_is_not_asked_for() {
    let mut bench = Bench::new();
    let all = bundle(&[("a.yaml", &web("x:1"))]);
    bench.settle(&all);
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        bench.server.calls();
        bench.observe(&all).expect("observe");
        if bench.server.watches() == 3 && bench.server.calls().is_empty() {
            break;
        }
        assert!(Instant::now() < until, "{} watches", bench.server.watches());
        std::thread::sleep(Duration::from_millis(20));
    }
    let woken = |bench: &Bench, what: &dyn Fn(&Bench)| {
        std::thread::sleep(Duration::from_millis(300));
        bench.wake.take();
        what(bench);
        let until = Instant::now() + Duration::from_secs(10);
        while !bench.wake.take().contains(&Kind::Kubernetes) {
            assert!(Instant::now() < until, "nobody woke the agent");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let edit = |replicas: i64| {
        move |bench: &Bench| {
            bench.server.edit("deployments", "shop", "web", "x", |web| web["spec"]["replicas"] = json!(replicas));
        }
    };
    woken(&bench, &edit(3));
    assert_eq!(drifted(&bench.observe(&all).expect("observe")).len(), 1);
    bench.enforce(&all);
    bench.wait_well(&all);
    // Watches that break off are taken up, also when what was heard last is too long ago.
    bench.server.break_watches();
    bench.server.compact();
    woken(&bench, &edit(4));
    assert_eq!(drifted(&bench.observe(&all).expect("observe")).len(), 1);
    assert!(
        bench.server.get("deployments", "shop", "web").is_some_and(|web| web["spec"]["replicas"] == 4),
        "{}",
        web_key()
    );
}
