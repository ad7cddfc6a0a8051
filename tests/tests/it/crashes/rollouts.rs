//! Power cuts in the middle of a rollout: two stages with a question to a server and a gate for people between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use titan_api::{
    Name,
    changes::ApplyRequest,
    client::{Client, WriteOptions},
    enrolment::TokenRequest,
    reports::Phase,
    workplans::{NodeState, PlanState, PlanStatus, Signal, SignalRequest},
};
use titan_control_plane::{
    fleet::workplans::{Plan, Working},
    store::Store,
};
use titan_tests::{
    manifests::{deployment, target, template, workload},
    nodes::PlaneNode,
    oracles::Oracle,
    worlds::{News, PolledHost},
};

use super::{PATIENCE, Site, each_time, start, url};

const TITLE: &str = "default/web";
const HOSTS: [&str; 2] = ["h1", "h2"];

fn documents(version: &str, oracle: &str) -> Vec<Value> {
    let stages = json!({ "stages": [
        { "name": "canary", "hosts": 1, "checks": [{ "http": { "url": oracle } }, { "approval": {} }] },
        { "name": "rest", "hosts": "100%" },
    ] });
    let files = [("version.j2", "{{ workload.version }}\n")];
    let web = deployment("web", "w", "t", "all", &json!({ "strategy": stages }));
    vec![template("t", &files), workload("w", version), target("all", ""), web]
}

/// A host, and all that it was ever given.
struct Fed {
    host: PolledHost,
    /// What came and was not reported yet.
    news: Option<News>,
    /// Release and version, with the revisions at which they came.
    given: BTreeMap<(String, String), BTreeSet<i64>>,
}

/// A fleet that outlives its control plane.
struct Scene<'a> {
    site: &'a Site,
    fault: &'a str,
    reviewer: String,
    oracle: Oracle,
    hosts: Vec<Fed>,
    /// Who had the second release, in the order in which they got it, and whether the gate was approved by then.
    order: Vec<(String, bool)>,
    approved: bool,
}

impl<'a> Scene<'a> {
    async fn new(site: &'a Site, fault: &'a str, reviewer: &str) -> Self {
        let oracle = Oracle::start(Duration::from_millis(20)).await.expect("a server");
        let hosts = HOSTS.iter().zip(&site.hosts).map(|(name, credential)| {
            let client = Client::new("http://127.0.0.1:1", Some(credential.clone())).expect("client");
            let mut host = PolledHost::new(client, name, credential.clone());
            // Whatever it said before it forgot what it has.
            host.seq = 1_000;
            Fed { host, news: None, given: BTreeMap::new() }
        });
        let hosts = hosts.collect();
        let (order, reviewer) = (Vec::new(), reviewer.to_owned());
        Self { site, fault, reviewer, oracle, hosts, order, approved: false }
    }

    /// Hosts poll, take what they are given and say how they are. Fails as soon as the control plane does.
    async fn feed(&mut self, server: &str) -> anyhow::Result<()> {
        for fed in &mut self.hosts {
            fed.host.client = Client::new(server, Some(fed.host.credential.clone()))?;
            if let Some(news) = fed.host.poll(0).await? {
                if let Some(held) = fed.host.held.get(TITLE) {
                    let version = held.files["version"].trim().to_owned();
                    if held.release == "web#2" && fed.given.keys().all(|(release, _)| release != "web#2") {
                        self.order.push((fed.host.name.clone(), self.approved));
                    }
                    let given = fed.given.entry((held.release.clone(), version)).or_default();
                    given.insert(held.revision.micros());
                }
                fed.news = Some(news);
            }
            let Some(news) = &fed.news else { continue };
            let bad = fed.host.held.get(TITLE).is_some_and(|held| held.files["version"].starts_with("bad"));
            if bad {
                fed.host.report_drift(TITLE, Phase::Failed, Vec::new()).await?;
            } else {
                fed.host.report(news).await?;
            }
            fed.news = None;
        }
        Ok(())
    }

    /// Approves the gate as soon as it is open, under one request id however often.
    async fn approve(&mut self, server: &str, plan: &PlanStatus) -> anyhow::Result<()> {
        let reviewer = Client::new(server, Some(self.reviewer.clone()))?;
        let gate = Name::new("canary-check-2")?;
        let node = reviewer.plan_node(plan.id, &gate).await?;
        if node.state != NodeState::Waiting {
            return Ok(());
        }
        // Whether it was heard is not known if the power is cut now.
        self.approved = true;
        let (node, generation) = (Some(gate), Some(node.generation));
        let approve = SignalRequest { node, generation, ..SignalRequest::new(Signal::Approve, "approve") };
        reviewer.signal(plan.id, &approve).await?;
        Ok(())
    }

    /// Declares a version and sees its rollout through, as far as the control plane lives.
    async fn see_through(&mut self, node: &mut PlaneNode, release: &str, version: &str) -> Option<PlanStatus> {
        let admin = self.site.admin(node);
        let deadline = Instant::now() + PATIENCE;
        let resources = documents(version, &self.oracle.url);
        let mut declared = false;
        loop {
            if !declared {
                let request = ApplyRequest { resources: resources.clone(), ..ApplyRequest::default() };
                declared = admin.apply(&request, &WriteOptions::default()).await.is_ok();
            }
            let fed = self.feed(&node.server).await;
            let found = async {
                let found =
                    admin.plans(Some("default"), 100).await?.items.into_iter().find(|plan| plan.name == release);
                anyhow::Ok(match found {
                    Some(found) => Some(admin.plan_status(found.id, 0).await?),
                    None => None,
                })
            };
            let found = found.await;
            if let Ok(Some(plan)) = &found {
                if plan.state.is_final() && fed.is_ok() {
                    return found.ok().flatten();
                }
                let _again_if_not_heard = self.approve(&node.server, plan).await;
            }
            if !node.process.is_running() {
                return None;
            }
            assert!(Instant::now() < deadline, "{}: neither cut nor at its end: {found:?} {fed:?}", self.fault);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Feeds hosts until each has this release.
    async fn until_all_have(&mut self, node: &PlaneNode, release: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let fed = self.feed(&node.server).await;
            let has = |fed: &Fed| fed.host.held.get(TITLE).is_some_and(|held| held.release == release);
            if self.hosts.iter().all(has) {
                return;
            }
            let held: Vec<_> =
                self.hosts.iter().map(|fed| fed.host.held.get(TITLE).map(|held| &held.release)).collect();
            assert!(Instant::now() < deadline, "{}: not all have {release}: {held:?} {fed:?}", self.fault);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Fails unless the history of a plan has no hole, gives the plan, and no attempt lives or was done twice.
    async fn check_history(&self, plan: &PlanStatus) {
        let fault = self.fault;
        let store = Store::open(&url(self.site.folder.path())).await.expect("open");
        let mut tx = store.read().await.expect("begin");
        let row = tx.plan(plan.id).await.expect("read").expect("the plan");
        let events = tx.plan_events(plan.id, 0, 10_000).await.expect("events");
        let mut replayed = Working::whole(Plan::new(plan.id), 0, 0);
        for (event, number) in events.iter().zip(1..) {
            assert_eq!(event.number, number, "{fault}: a hole in the history");
            replayed.apply(&event.event);
        }
        assert_eq!(replayed.plan, row.plan, "{fault}: the history gives another plan");
        drop(tx);
        store.close().await;
        let live = "SELECT node FROM workplan_attempts WHERE state NOT IN ('complete', 'incomplete')";
        assert_eq!(self.site.texts(live).await, [""; 0], "{fault}: never ended");
        let done = "SELECT plan_id || ' ' || node FROM workplan_attempts WHERE state = 'complete'";
        let done = self.site.texts(done).await;
        let once: BTreeSet<_> = done.iter().collect();
        assert_eq!(done.len(), once.len(), "{fault}: done twice: {done:?}");
    }
}

/// Makes a site whose hosts have the first release, and a token of somebody who may approve.
async fn begun() -> (Site, String) {
    let site = Site::new(Vec::new()).await;
    let mut node = start(site.folder.path(), None);
    assert!(node.ready().await.expect("ready"));
    let request = TokenRequest { name: Name::new("reviewer").expect("a name"), ttl_seconds: None };
    let reviewer = site.admin(&node).create_token(&request).await.expect("a token").token;
    let mut scene = Scene::new(&site, "before all", &reviewer).await;
    scene.hosts.iter_mut().for_each(|fed| fed.host.seq = 0);
    let plan = scene.see_through(&mut node, "web#1", "one").await.expect("the first release");
    assert_eq!(plan.state, PlanState::Succeeded, "{plan:?}");
    super::settled(&node.server).await;
    drop(scene);
    node.process.terminate().expect("terminate");
    assert!(node.process.wait(PATIENCE).expect("ended").success());
    (site, reviewer)
}

/// Rolls a version out with a power cut; returns whether the power was cut.
async fn roll_out_and_cut(site: &Site, reviewer: &str, version: &str, fault: &str) -> bool {
    let mut scene = Scene::new(site, fault, reviewer).await;
    let mut node = site.start(Some(fault));
    let mut cut = !node.ready().await.expect("ready");
    if !cut {
        cut = scene.see_through(&mut node, "web#2", version).await.is_none();
        node.process.kill().expect("kill");
    }
    let mut node = site.restart().await;
    let plan =
        scene.see_through(&mut node, "web#2", version).await.unwrap_or_else(|| panic!("{fault}: it ended again"));
    let good = !version.starts_with("bad");
    let (ending, last) = if good { (PlanState::Succeeded, "web#2") } else { (PlanState::RolledBack, "web#1") };
    assert_eq!(plan.state, ending, "{fault}: {plan:?}");
    scene.until_all_have(&node, last).await;
    drop(node);
    scene.check_history(&plan).await;
    // Nobody was given it twice, and nobody before his stage.
    for fed in &scene.hosts {
        let given: Vec<_> = fed.given.iter().filter(|((release, _), _)| release == "web#2").collect();
        assert!(given.len() <= 1, "{fault}: {given:?}");
        assert!(given.iter().all(|(_, revisions)| revisions.len() == 1), "{fault}: given twice: {given:?}");
        let all: BTreeSet<_> = fed.given.keys().map(|(release, _)| release.as_str()).collect();
        assert!(all.is_subset(&["web#1", "web#2"].into()), "{fault}: {all:?}");
    }
    let expected: &[bool] = if good { &[false, true] } else { &[false] };
    let approved: Vec<_> = scene.order.iter().map(|(_, approved)| *approved).collect();
    assert_eq!(approved, expected, "{fault}: {:?}", scene.order);
    // The server was asked under one key, once, and once more if nobody wrote its answer down.
    let asked = scene.oracle.asked();
    let keys: BTreeSet<_> = asked.iter().collect();
    let most = if good { 1 + usize::from(cut) } else { 0 };
    assert!(asked.len() <= most && keys.len() == usize::from(good), "{fault}: asked {asked:?}");
    let vetoed = scene.site.texts("SELECT CAST(number AS TEXT) FROM vetoes").await;
    assert_eq!(vetoed, if good { vec![] } else { vec!["2"] }, "{fault}");
    let gates = "SELECT to_number || ' ' || from_number || ' ' || openings FROM gates";
    assert_eq!(scene.site.texts(gates).await, [if good { "2 2 []" } else { "2 1 []" }], "{fault}");
    let plans = scene.site.texts("SELECT name FROM workplans ORDER BY name").await;
    assert_eq!(plans, ["web#1", "web#2"], "{fault}: a rollout is missing or double");
    cut
}

async fn cut_at(points: &[&'static str], version: &'static str) -> usize {
    let (site, reviewer) = begun().await;
    let site = Arc::new((site, reviewer));
    let mut cuts = 0;
    for point in points {
        let site = Arc::clone(&site);
        let here = each_time(point, async move |fault: String| {
            roll_out_and_cut(&site.0.copy(), &site.1, version, &fault).await
        });
        let here = here.await;
        cuts += here;
    }
    cuts
}

/// S4-1, S4-5: killed just before and just after every commit of a rollout, the control plane goes on; no host is given the
/// release twice or before its stage, and nobody is asked anything again whose answer was kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_goes_on_wherever_the_power_is_cut() {
    let points = ["runner-commit", "gate-commit", "planner-commit", "progress-commit", "workplan-commit"];
    let cuts = cut_at(&points, "two").await;
    assert!(cuts >= 20, "only {cuts} power cuts");
}

/// S4-12: a bad release is taken back once, wherever the power is cut, and is not tried again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_is_taken_back_wherever_the_power_is_cut() {
    let cuts = cut_at(&["runner-commit", "gate-commit", "planner-commit"], "bad").await;
    assert!(cuts >= 12, "only {cuts} power cuts");
}
