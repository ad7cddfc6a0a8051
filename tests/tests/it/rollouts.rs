//! Rollouts: a new release reaches its hosts stage by stage, stops itself, and is taken back.

mod absent;
mod again;
mod budgets;
mod ends;
mod lines;
mod metrics;
mod placed;
mod restarts;
mod returns;
mod strategies;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use titan_api::{
    Code, Name,
    client::ClientError,
    reports::Phase,
    workplans::{Event, PlanState, PlanStatus, Signal, SignalRequest},
};
use titan_tests::{
    manifests::{deployment, target, template, workload},
    worlds::{World, until},
};
use tokio::task::JoinHandle;

const HOSTS: usize = 10;
const TITLE: &str = "default/web";

/// What every host has now, and everything that any ever had, in order.
#[derive(Debug, Default)]
struct Seen {
    now: BTreeMap<String, String>,
    /// What was wrong with the hosts is right again: they take what they failed on before.
    mended: bool,
    all: Vec<(String, String)>,
}

/// Hosts that take what they are given: a version that begins with `bad` fails on them, and of one that begins with `slow`
/// they say nothing.
struct Hosts {
    seen: Arc<Mutex<Seen>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Hosts {
    async fn start(world: &World, count: usize) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut tasks = Vec::new();
        for number in 0..count {
            let name = format!("h{number}");
            let mut host = world.host(&name, "").await.expect("a host");
            let seen = Arc::clone(&seen);
            tasks.push(tokio::spawn(async move {
                loop {
                    let Ok(news) = host.poll(20).await else {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    };
                    let Some(news) = news else { continue };
                    let mut mended = false;
                    let version = host.held.get(TITLE).map(|held| held.files["version"].trim().to_owned());
                    {
                        let mut seen = seen.lock().expect("seen");
                        mended |= seen.mended;
                        match &version {
                            Some(version) => {
                                seen.now.insert(name.clone(), version.clone());
                                seen.all.push((name.clone(), version.clone()));
                            }
                            None => drop(seen.now.remove(&name)),
                        }
                    }
                    let reported = match &version {
                        Some(version) if version.starts_with("slow") => Ok(()),
                        Some(version) if version.starts_with("bad") && !mended => {
                            host.report_drift(TITLE, Phase::Failed, Vec::new()).await
                        }
                        _ => host.report(&news).await,
                    };
                    reported.expect("reported");
                }
            }));
        }
        Self { seen, tasks }
    }

    /// How many hosts have which version.
    fn count(&self) -> BTreeMap<String, usize> {
        let seen = self.seen.lock().expect("seen");
        let mut counts = BTreeMap::new();
        seen.now.values().for_each(|version| *counts.entry(version.clone()).or_default() += 1);
        counts
    }

    /// The hosts that ever had a version.
    fn ever(&self, version: &str) -> BTreeSet<String> {
        let seen = self.seen.lock().expect("seen");
        seen.all.iter().filter(|(_, had)| had == version).map(|(host, _)| host.clone()).collect()
    }
}

fn documents(version: &str, strategy: &Value) -> [Value; 4] {
    let files = [("version.j2", "{{ workload.version }}\n")];
    let more = json!({ "strategy": strategy });
    [template("t", &files), workload("w", version), target("all", ""), deployment("web", "w", "t", "all", &more)]
}

fn stages(last: &Value) -> Value {
    json!({ "stages": [{ "name": "canary", "hosts": 1 }, { "name": "half", "hosts": "50%" }, last] })
}

/// Waits until the rollout of a release is as it is to be.
async fn plan(world: &World, release: &str, when: impl Fn(&PlanStatus) -> bool) -> PlanStatus {
    let last = Mutex::new(None);
    let found = until(release, async || {
        let plans = world.admin.plans(Some("default"), 100).await?;
        let plan = match plans.items.into_iter().find(|plan| plan.name == release) {
            Some(plan) => Some(world.admin.plan_status(plan.id, 0).await?),
            None => None,
        };
        last.lock().expect("last").clone_from(&plan);
        Ok(plan.filter(|plan| when(plan)))
    });
    found.await.unwrap_or_else(|error| panic!("{error}: {:#?}", last.lock()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_goes_from_stage_to_stage_and_a_bad_one_is_taken_back() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let hosts = Hosts::start(&world, HOSTS).await;
    let strategy = stages(&json!({ "name": "all", "hosts": "100%" }));
    world.apply(documents("one", &strategy)).await.expect("written");
    plan(&world, "web#1", |plan| plan.state == PlanState::Succeeded).await;
    assert_eq!(hosts.count(), [("one".to_owned(), HOSTS)].into());

    // One that fails on the canary reaches nobody else, and is taken back.
    world.apply(documents("bad", &strategy)).await.expect("written");
    let back = plan(&world, "web#2", |plan| plan.state.is_final()).await;
    assert_eq!(back.state, PlanState::RolledBack, "{back:#?}");
    until("the canary returned", async || Ok((hosts.count() == [("one".to_owned(), HOSTS)].into()).then_some(())))
        .await
        .expect("back");
    assert_eq!(hosts.ever("bad").len(), 1);

    // It is not tried again by itself; another one is.
    world.apply(documents("two", &strategy)).await.expect("written");
    plan(&world, "web#3", |plan| plan.state == PlanState::Succeeded).await;
    assert_eq!(hosts.count(), [("two".to_owned(), HOSTS)].into());
    world.apply(documents("bad", &strategy)).await.expect("written");
    world.settled().await.expect("decided");
    let vetoed = plan(&world, "web#4", |_| true).await;
    assert_eq!(vetoed.state, PlanState::Planning, "a release that was taken back waits for a person");
    assert_eq!(hosts.count(), [("two".to_owned(), HOSTS)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_holds_the_rest_until_somebody_opens_it_and_a_newer_release_takes_over() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let hosts = Hosts::start(&world, HOSTS).await;
    let free = json!({ "stages": [{ "name": "all", "hosts": "100%" }] });
    world.apply(documents("one", &free)).await.expect("written");
    plan(&world, "web#1", |plan| plan.state == PlanState::Succeeded).await;
    let gated = json!({ "stages": [
        { "name": "some", "hosts": 3, "maxUnavailable": 1, "checks": [{ "approval": {} }] },
        { "name": "all", "hosts": "100%" },
    ] });
    world.apply(documents("two", &gated)).await.expect("written");
    let waits = plan(&world, "web#2", |plan| plan.current.iter().any(|node| &*node.name == "some-check-1")).await;
    assert_eq!(hosts.count(), [("one".to_owned(), HOSTS - 3), ("two".to_owned(), 3)].into());
    assert_eq!(waits.state, PlanState::Running);
    // All are well, and yet it is not there.
    let (workspace, name) = (Name::new("default").expect("a name"), Name::new("web").expect("a name"));
    let status = world.admin.deployment_status(&workspace, &name).await.expect("a status");
    assert!(!status.converged() && status.counts.healthy == HOSTS, "{status:?}");
    assert_eq!(status.rollout.map(|rollout| (rollout.plan, rollout.state)), Some((waits.id, PlanState::Running)));

    // A newer one begins with the same hosts; the others never had the one before.
    world.apply(documents("three", &gated)).await.expect("written");
    plan(&world, "web#2", |plan| plan.state == PlanState::Superseded).await;
    let waits = plan(&world, "web#3", |plan| plan.current.iter().any(|node| &*node.name == "some-check-1")).await;
    assert_eq!(hosts.count(), [("one".to_owned(), HOSTS - 3), ("three".to_owned(), 3)].into());
    assert_eq!(hosts.ever("two"), hosts.ever("three"));

    // Aborted, everybody keeps what he has.
    let abort = SignalRequest { reason: Some("not today".to_owned()), ..SignalRequest::new(Signal::Abort, "a") };
    world.admin.signal(waits.id, &abort).await.expect("aborted");
    plan(&world, "web#3", |plan| plan.state == PlanState::Aborted).await;
    world.settled().await.expect("decided");
    assert_eq!(hosts.count(), [("one".to_owned(), HOSTS - 3), ("three".to_owned(), 3)].into());
}

/// What was taken back is handed out again when a person says so and why, and by nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_was_taken_back_goes_out_again_when_a_person_says_why() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let hosts = Hosts::start(&world, HOSTS).await;
    let strategy = stages(&json!({ "name": "all", "hosts": "100%" }));
    world.apply(documents("one", &strategy)).await.expect("written");
    plan(&world, "web#1", |plan| plan.state == PlanState::Succeeded).await;
    world.apply(documents("bad", &strategy)).await.expect("written");
    plan(&world, "web#2", |plan| plan.state == PlanState::RolledBack).await;
    world.apply(documents("two", &strategy)).await.expect("written");
    plan(&world, "web#3", |plan| plan.state == PlanState::Succeeded).await;
    world.apply(documents("bad", &strategy)).await.expect("written");
    let vetoed = plan(&world, "web#4", |_| true).await;
    let reason = vetoed.reason.as_deref().unwrap_or_default();
    assert!(reason.starts_with("waits for a person: the release was taken back before, as #2 at "), "{reason}");

    // Nobody lifts a veto in passing.
    let silent = world.admin.signal(vetoed.id, &SignalRequest::new(Signal::Start, "a")).await.expect_err("no reason");
    let ClientError::Refused { problem, .. } = silent else { panic!("{silent}") };
    assert_eq!((problem.code, problem.errors[0].pointer.as_str()), (Code::Invalid, "/reason"), "{problem:?}");
    assert_eq!(plan(&world, "web#4", |_| true).await.state, PlanState::Planning);

    hosts.seen.lock().expect("seen").mended = true;
    let why = Some("the network was to blame".to_owned());
    let again = SignalRequest { reason: why.clone(), ..SignalRequest::new(Signal::Start, "b") };
    world.admin.signal(vetoed.id, &again).await.expect("started");
    let done = plan(&world, "web#4", |plan| plan.state.is_final()).await;
    assert_eq!(done.state, PlanState::Succeeded, "{done:#?}");
    assert_eq!(hosts.count(), [("bad".to_owned(), HOSTS)].into());
    let events = world.admin.plan_events(vetoed.id, 0, 0).await.expect("events").items;
    let started = events.iter().find_map(|event| match &event.event {
        Event::Signalled { signal: Signal::Start, reason, .. } => Some((event.actor.as_str(), reason.clone())),
        _ => None,
    });
    let (actor, said) = started.expect("it is in the history");
    assert!(actor.starts_with("token:") && said == why, "{actor} {said:?}");

    // The veto is gone for good: the same release, after another one, begins by itself.
    world.apply(documents("two", &strategy)).await.expect("written");
    plan(&world, "web#5", |plan| plan.state == PlanState::Succeeded).await;
    world.apply(documents("bad", &strategy)).await.expect("written");
    plan(&world, "web#6", |plan| plan.state == PlanState::Succeeded).await;
}
