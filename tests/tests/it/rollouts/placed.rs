//! Which hosts a stage waits for: those on which the planner places the deployment, by room, replicas, cordons and taints.

use serde_json::{Value, json};
use titan_api::{
    Kind, Name,
    client::WriteOptions,
    strategies::releases::Counts,
    workplans::{PlanState, PlanStatus},
};
use titan_tests::{
    databases,
    manifests::{document, target, template, workload},
    worlds::{PolledHost, World, until},
};

use super::{Hosts, TITLE, plan};

/// The documents of a release, with `more` in the deployment's spec.
fn documents(version: &str, more: &Value) -> [Value; 4] {
    let files = [("version.j2", "{{ workload.version }}\n")];
    let deployment = titan_tests::manifests::deployment("web", "w", "t", "all", more);
    [template("t", &files), workload("w", version), target("all", ""), deployment]
}

fn host(name: &str, spec: &Value) -> Value {
    document("Host", None, name, spec)
}

fn two_stages(deadline: &str) -> Value {
    json!({
        "stages": [{ "name": "canary", "hosts": 1 }, { "name": "rest", "hosts": "100%" }],
        "progressDeadline": deadline,
    })
}

/// How the hosts of a stage stood when it ended.
async fn counts(world: &World, plan: &PlanStatus, stage: &str) -> Counts {
    let node = world.admin.plan_node(plan.id, &Name::new(stage).expect("a name")).await.expect("a stage");
    let details = node.attempts.last().and_then(|attempt| attempt.details.clone()).expect("details");
    serde_json::from_value(details["counts"].clone()).expect("counts")
}

/// S5-16: a host that has no room is passed over; a release does not wait for it and is not taken back because of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_without_room_holds_up_no_release() {
    for database in databases::each() {
        let world = World::over(database, crate::NODE).await.expect("a control plane");
        let engine = world.database.engine;
        let hosts = Hosts::start(&world, 4).await;
        world.apply([host("h3", &json!({ "capacity": { "memory": "1Gi" } }))]).await.expect("written");
        let more = json!({ "requests": { "memory": "2Gi" }, "strategy": two_stages("3s") });
        for (number, version) in ["one", "two"].into_iter().enumerate() {
            world.apply(documents(version, &more)).await.expect("written");
            let ended = plan(&world, &format!("web#{}", number + 1), |plan| plan.state.is_final()).await;
            assert_eq!(ended.state, PlanState::Succeeded, "{engine}: {ended:#?}");
            assert_eq!(hosts.count(), [(version.to_owned(), 3)].into(), "{engine}");
            assert_eq!(counts(&world, &ended, "rest").await.proven, 2, "{engine}: the canary aside");
        }
    }
}

/// Law 9: also the first release of replicas is proven by the hosts that have them, and one that fails there is no success.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_release_of_replicas_is_proven_by_them() {
    for database in databases::each() {
        let world = World::over(database, crate::NODE).await.expect("a control plane");
        let engine = world.database.engine;
        let hosts = Hosts::start(&world, 4).await;
        let more = json!({ "replicas": 2, "strategy": two_stages("10m") });
        world.apply(documents("bad", &more)).await.expect("written");
        let ended = plan(&world, "web#1", |plan| plan.state.is_final()).await;
        assert_eq!(ended.state, PlanState::RolledBack, "{engine}: {ended:#?}");
        assert_eq!(hosts.ever("bad").len(), 1, "{engine}: the canary stops it");
        world.apply(documents("one", &more)).await.expect("written");
        let ended = plan(&world, "web#2", |plan| plan.state.is_final()).await;
        assert_eq!(ended.state, PlanState::Succeeded, "{engine}: {ended:#?}");
        assert_eq!(hosts.count(), [("one".to_owned(), 2)].into(), "{engine}");
        assert_eq!(counts(&world, &ended, "canary").await.proven, 1, "{engine}");
        assert_eq!(counts(&world, &ended, "rest").await.proven, 1, "{engine}");
    }
}

/// What a host keeps though it takes nothing new is handed out to it like to all others, and watched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_take_nothing_new_are_watched_if_they_have_it() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let hosts = Hosts::start(&world, 3).await;
    let more = json!({ "strategy": { "stages": [{ "name": "all", "hosts": "100%" }] } });
    world.apply(documents("one", &more)).await.expect("written");
    plan(&world, "web#1", |plan| plan.state == PlanState::Succeeded).await;
    let tainted = json!({ "taints": [{ "key": "gpu", "effect": "NoSchedule" }] });
    let cordoned = json!({ "cordoned": true });
    let newcomer = host("h9", &cordoned);
    world.apply([host("h0", &cordoned), host("h1", &tainted), newcomer]).await.expect("written");
    world.apply(documents("two", &more)).await.expect("written");
    let ended = plan(&world, "web#2", |plan| plan.state.is_final()).await;
    assert_eq!(ended.state, PlanState::Succeeded, "{ended:#?}");
    assert_eq!(hosts.count(), [("two".to_owned(), 3)].into());
    let counts = counts(&world, &ended, "all").await;
    assert_eq!((counts.members, counts.proven), (3, 3), "the newcomer does not get it");
    // If all that has it takes nothing new, it is watched all the same.
    world.apply([host("h2", &cordoned)]).await.expect("written");
    world.apply(documents("bad", &more)).await.expect("written");
    let ended = plan(&world, "web#3", |plan| plan.state.is_final()).await;
    assert_eq!(ended.state, PlanState::RolledBack, "{ended:#?}");
}

async fn has(host: &mut PolledHost, release: &str) -> bool {
    host.poll(0).await.expect("polled");
    host.held.get(TITLE).is_some_and(|held| held.release == release)
}

/// A host that is drained in the middle of a stage is waited for no longer; the one that takes its replica is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_follows_a_replica_to_another_host() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let mut hosts = Vec::new();
    for number in 0..3 {
        hosts.push(world.host(&format!("h{number}"), "").await.expect("a host"));
    }
    let more = json!({ "replicas": 2, "strategy": { "stages": [{ "name": "all", "hosts": "100%" }] } });
    for (release, version) in [("web#1", "one"), ("web#2", "two")] {
        world.apply(documents(version, &more)).await.expect("written");
        let mut with = Vec::new();
        until("both replicas are given it", async || {
            with.clear();
            for (index, host) in hosts.iter_mut().enumerate() {
                if has(host, release).await {
                    with.push(index);
                }
            }
            Ok((with.len() == 2).then_some(()))
        })
        .await
        .expect("given");
        if version == "two" {
            let drained = hosts[with[0]].name.clone();
            let cordon = json!({ "spec": { "cordoned": true } });
            let options = WriteOptions::default();
            world.admin.patch(Kind::Host, None, &drained, &cordon, &options).await.expect("cordoned");
            let other = (0..3).find(|index| !with.contains(index)).expect("the third");
            until("the replica moved", async || Ok(has(&mut hosts[other], release).await.then_some(())))
                .await
                .expect("moved");
            with = vec![with[1], other];
        }
        for index in with {
            hosts[index].report(&Default::default()).await.expect("reported");
        }
        let ended = plan(&world, release, |plan| plan.state.is_final()).await;
        assert_eq!(ended.state, PlanState::Succeeded, "{ended:#?}");
        let counts = counts(&world, &ended, "all").await;
        assert_eq!((counts.proven, counts.failed), (2, 0), "{release}");
    }
}

/// Who takes what is there off its hosts in the middle of a stage stops no release.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_driven_off_in_a_stage_is_waited_for_no_longer() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let mut hosts = Vec::new();
    for number in 0..2 {
        hosts.push(world.host(&format!("h{number}"), "").await.expect("a host"));
    }
    world.apply([titan_tests::manifests::workspace("other")]).await.expect("written");
    let more = json!({ "strategy": { "stages": [{ "name": "all", "hosts": "100%" }] } });
    for (number, away) in [
        (1, json!({})),
        (2, json!({ "taints": [{ "key": "old", "effect": "NoExecute" }] })),
        (3, json!({ "taints": [], "workspaces": ["other"] })),
    ] {
        let release = format!("web#{number}");
        world.apply([host("h0", &json!({}))]).await.expect("written");
        world.apply(documents(&release.replace('#', "-"), &more)).await.expect("written");
        until("both were given it", async || {
            let mut all = true;
            for host in &mut hosts {
                all &= has(host, &release).await;
            }
            Ok(all.then_some(()))
        })
        .await
        .expect("given");
        if number > 1 {
            world.apply([host("h0", &away)]).await.expect("written");
        } else {
            hosts[0].report(&Default::default()).await.expect("reported");
        }
        hosts[1].report(&Default::default()).await.expect("reported");
        let ended = plan(&world, &release, |plan| plan.state.is_final()).await;
        assert_eq!(ended.state, PlanState::Succeeded, "{ended:#?}");
    }
}
