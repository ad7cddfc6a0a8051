//! A control plane that is killed in the middle, a host that is not there, and a release that takes over.

use std::{
    collections::BTreeSet,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use titan_api::{
    Kind, Revision,
    client::{ListOptions, WriteOptions},
    hosts::BulkCreate,
    workplans::{PlanState, Signal},
};
use titan_control_plane::fleet::rollouts::ranked;
use titan_tests::{clocks, manifests};

use super::{Fleet, HOSTS, VERSION, current, wait_for};

const READY: Duration = Duration::from_millis(980);
/// By how much the clock goes on while the control plane is away: nobody waits for a host that long.
const LATER: Duration = Duration::from_mins(10);
/// Hosts that are declared and have no agent.
const NEWCOMERS: usize = 20;

impl Fleet {
    /// Returns the hosts in the order in which they get a release.
    async fn order(&self) -> Vec<String> {
        let deployment = self.admin.get(Kind::Deployment, Some("default"), "web", None).await.expect("it");
        let hosts = self.admin.list(Kind::Host, None, &ListOptions::default()).await.expect("hosts").items;
        let uid = |document: &titan_api::Document| document.metadata.uid.expect("an id");
        let order = ranked(uid(&deployment), hosts.iter().map(uid));
        let name =
            |host| hosts.iter().find(|document| uid(document) == host).map(|found| found.metadata.name.to_string());
        order.into_iter().filter_map(|ranked| name(ranked.host)).collect()
    }

    /// Returns the hosts that are to have a release.
    async fn assigned(&self, release: &str) -> BTreeSet<String> {
        let told = self.told().await;
        told.into_iter().filter(|(_, host)| host.release == release).map(|(host, _)| host).collect()
    }
}

/// A pause holds across a kill; afterwards the stage has the hosts that it had, though others came. Whoever is not there is
/// left out and catches up; a newer release takes over in the middle of a stage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_goes_on_after_a_kill_leaves_out_who_is_not_there_and_gives_way_to_a_newer_one() {
    let mut fleet = Fleet::start().await;
    let order = fleet.order().await;
    // Without a clock that can be turned nobody is away for long enough.
    let away = clocks::believe(&mut Command::new("true"), "+10m").then(|| order[20].clone());
    if let Some(away) = &away {
        fleet.crowd.stop(away).await.expect("ended");
    }
    let there = |hosts: &[String]| -> BTreeSet<String> {
        hosts.iter().filter(|host| Some(*host) != away.as_ref()).cloned().collect()
    };
    let strategy = json!({
        "stages": [
            { "name": "canary", "hosts": 1, "minReadySeconds": 1 },
            { "name": "half", "hosts": 50, "minReadySeconds": 1, "maxUnavailable": 10, "checks": [{ "approval": {} }] },
            { "name": "all", "hosts": "100%", "minReadySeconds": 1, "maxUnavailable": 20 },
        ],
        "maxFailures": "3%",
        "progressDeadline": "1m",
        "offline": { "after": "1s", "do": "exclude" },
    });
    let witness = fleet.crowd.witness(VERSION);
    fleet.apply("two", &strategy).await;
    let under_way = async || fleet.with("two").len() > 10;
    wait_for(under_way, || "nobody has it".to_owned()).await;
    let running = fleet.plan("web#2", |_| true).await;
    fleet.tell(&running, Signal::Pause).await;

    // Who has been given it gets it, and nobody else; those who come meanwhile have a place before some of them.
    let hosts = (0..NEWCOMERS).map(|number| manifests::host(&format!("n{number:02}"), "")).collect();
    let created = BulkCreate { hosts, reason: None };
    fleet.admin.bulk_create(&created, &WriteOptions::default()).await.expect("declared");
    fleet.admin.plan(&Default::default()).await.expect("decided");
    let given = there(&fleet.assigned("web#2").await.into_iter().collect::<Vec<_>>());
    assert!(given.len() < 49, "half of it was done before somebody could pause it: {given:?}");
    wait_for(async || fleet.with("two") == given, || format!("{given:?} is not {:?}", fleet.with("two"))).await;
    let later = |command: &mut Command| {
        clocks::believe(command, "+10m");
    };
    fleet.restart(later).await;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time") + LATER / 2;
    let since = Revision::from_micros(i64::try_from(since.as_micros()).expect("a time"));
    if away.is_some() {
        let heard = async || {
            let told = fleet.told().await;
            fleet.hosts().iter().all(|host| told[host].last_seen >= Some(since))
        };
        wait_for(heard, || "not all agents ask again".to_owned()).await;
    }
    let paused = fleet.plan("web#2", |_| true).await;
    assert_eq!((paused.state, fleet.with("two")), (PlanState::Paused, given));

    fleet.tell(&paused, Signal::Resume).await;
    let waits = fleet.plan("web#2", |plan| plan.state.is_final() || current(plan, "half-check-1").is_some()).await;
    assert_eq!(waits.state, PlanState::Running, "{waits:#?}");
    assert_eq!(fleet.with("two"), there(&order[..50]), "the first fifty as they were when it began");
    let canary = |host: &str| host == order[0];
    assert!(witness.most_within("two", READY, |host| !canary(host)) <= 10, "{:?}", witness.times("two"));

    // In the middle of the last stage something better comes.
    fleet.approve(&waits, "half-check-1").await;
    wait_for(async || fleet.with("two").len() > 55, || "nobody else has it".to_owned()).await;
    fleet.apply("three", &strategy).await;
    fleet.plan("web#2", |plan| plan.state == PlanState::Superseded).await;
    let had = fleet.assigned("web#2").await;
    let had: BTreeSet<String> = had.union(&witness.ever("two")).cloned().collect();
    assert!(had.len() < HOSTS, "all had it before: {had:?}");
    let waits = fleet.plan("web#3", |plan| plan.state.is_final() || current(plan, "half-check-1").is_some()).await;
    assert_eq!(waits.state, PlanState::Running, "{waits:#?}");
    assert_eq!(fleet.with("three"), there(&fleet.order().await[..50]).intersection(&fleet.hosts()).cloned().collect());
    fleet.approve(&waits, "half-check-1").await;
    let done = fleet.plan("web#3", |plan| plan.state.is_final()).await;
    assert_eq!(done.state, PlanState::Succeeded, "{done:#?}");
    assert_eq!(fleet.with("three"), there(&order));
    assert!(witness.ever("two").is_subset(&had), "{:?}", witness.ever("two").difference(&had));
    assert!(witness.most_within("three", READY, |_| true) <= 20, "{:?}", witness.times("three"));

    // Whoever was left out has it as soon as it is back, without what came between.
    if let Some(away) = &away {
        assert_eq!(fleet.crowd.lines(VERSION).expect("files")[away].0, "one");
        fleet.crowd.start(away).expect("started");
        fleet.has(&[("three", HOSTS)]).await;
        assert!(!witness.ever("two").contains(away));
    }
    drop(witness);
    fleet.crowd.leave().await.expect("agents end");
}
