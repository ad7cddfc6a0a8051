//! The ways in which a release reaches its hosts, and how soon everybody is back when one is bad.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use titan_api::workplans::PlanState;
use titan_tests::{
    manifests::{deployment, host},
    worlds::{World, until},
};

use super::{Hosts, TITLE, documents, plan};

const FLEET: usize = 6;
/// How soon everybody has the release before again.
const BACK: Duration = Duration::from_secs(15);

/// A control plane with hosts of which every other one is green.
async fn scene() -> (World, Hosts) {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let hosts = Hosts::start(&world, FLEET).await;
    let coloured = (0..FLEET)
        .map(|number| host(&format!("h{number}"), if number % 2 == 0 { "colour=green" } else { "colour=blue" }));
    world.apply(coloured).await.expect("labelled");
    (world, hosts)
}

/// S4-20, S4-43: all at once, rolling, a canary first, green before blue: with each a good release reaches everybody, and a
/// bad one those alone whom it comes to first, who have the one before again within 15 seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_strategy_hands_a_good_release_out_and_takes_a_bad_one_back() {
    let (world, hosts) = scene().await;
    let everybody: BTreeSet<_> = (0..FLEET).map(|number| format!("h{number}")).collect();
    let green: BTreeSet<_> = (0..FLEET).step_by(2).map(|number| format!("h{number}")).collect();
    let first = json!({ "name": "green", "match": { "matchLabels": { "colour": "green" } } });
    let all = json!({ "name": "all", "hosts": "100%" });
    let mut rolling = all.clone();
    rolling["maxUnavailable"] = json!(2);
    let strategies: [(&str, Value, usize); 4] = [
        ("all-at-once", json!([all]), FLEET),
        ("rolling", json!([rolling]), 2),
        ("canary", json!([{ "name": "canary", "hosts": 1 }, all]), 1),
        ("blue-green", json!([first, all]), FLEET / 2),
    ];
    let mut number = 0;
    for (name, stages, reached) in strategies {
        let strategy = json!({ "stages": stages, "maxFailures": 0 });
        let (good, bad) = (format!("good-{name}"), format!("bad-{name}"));
        world.apply(documents(&good, &strategy)).await.expect("written");
        number += 1;
        plan(&world, &format!("web#{number}"), |plan| plan.state == PlanState::Succeeded).await;
        assert_eq!(hosts.count(), [(good.clone(), FLEET)].into(), "{name}");
        let begun = Instant::now();
        world.apply(documents(&bad, &strategy)).await.expect("written");
        number += 1;
        plan(&world, &format!("web#{number}"), |plan| plan.state == PlanState::RolledBack).await;
        until("all returned", async || Ok((hosts.count() == [(good.clone(), FLEET)].into()).then_some(())))
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}: {:?}", hosts.count()));
        assert!(begun.elapsed() < BACK, "{name}: it took {:?}", begun.elapsed());
        let ever = hosts.ever(&bad);
        assert!(!ever.is_empty() && ever.len() <= reached && ever.is_subset(&everybody), "{name}: {ever:?}");
        assert!(name != "blue-green" || ever.is_subset(&green), "{ever:?}");
    }
}

/// S4-20: of hosts that say nothing a stage has no more than its `maxUnavailable` under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_has_no_more_hosts_under_way_than_it_may() {
    let (world, hosts) = scene().await;
    let free = json!({ "stages": [{ "name": "all", "hosts": "100%" }] });
    world.apply(documents("one", &free)).await.expect("written");
    plan(&world, "web#1", |plan| plan.state == PlanState::Succeeded).await;
    let two = json!({ "stages": [{ "name": "all", "hosts": "100%", "maxUnavailable": 2 }] });
    world.apply(documents("slow", &two)).await.expect("written");
    plan(&world, "web#2", |plan| plan.state == PlanState::Running).await;
    until("two have it", async || Ok((hosts.ever("slow").len() == 2).then_some(()))).await.expect("two");
    // Whatever is decided after that lets nobody else through.
    world.apply([titan_tests::manifests::workload("beside", "1")]).await.expect("written");
    world.settled().await.expect("decided");
    assert_eq!((hosts.ever("slow").len(), hosts.count()["one"]), (2, FLEET - 2));
}

/// S4-43: a feature is a value: it is switched on for some hosts, then for all, and off again, without another version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feature_is_switched_by_a_value_for_those_who_are_to_have_it() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let mut green = world.host("green", "colour=green").await.expect("a host");
    let mut blue = world.host("blue", "colour=blue").await.expect("a host");
    let files = [("feature.j2", "{{ values.feature }}\n")];
    let around = [
        titan_tests::manifests::template("t", &files),
        titan_tests::manifests::workload("w", "1"),
        titan_tests::manifests::target("all", ""),
    ];
    world.apply(around).await.expect("written");
    let on = |colour: &str| json!({ "match": { "matchLabels": { "colour": colour } }, "values": { "feature": "on" } });
    for (overrides, wanted) in [
        (json!([]), ["off", "off"]),
        (json!([on("green")]), ["on", "off"]),
        (json!([on("green"), on("blue")]), ["on", "on"]),
        (json!([]), ["off", "off"]),
    ] {
        let more = json!({ "values": { "feature": "off" }, "overrides": overrides });
        world.apply([deployment("web", "w", "t", "all", &more)]).await.expect("written");
        let clock = world.settled().await.expect("decided");
        for (host, wanted) in [&mut green, &mut blue].into_iter().zip(wanted) {
            let news = host.catch_up(clock).await.expect("polled");
            host.report(&news).await.expect("reported");
            assert_eq!(host.held[TITLE].files["feature"].trim(), wanted, "{}: {overrides}", host.name);
        }
    }
}
