//! Rollouts that go neither well nor wrong, and hosts of which nothing is heard.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use titan_api::workplans::{PlanState, PlanStatus, Signal, SignalRequest};
use titan_tests::{
    crowds::Crowd,
    manifests::{deployment, host, target, template, workload},
    worlds::World,
};

use crate::rollout_fleet::{HEALTH, VERSION, current, plan, wait_for};

/// A control plane and agents that have the release `one`.
struct Site {
    world: World,
    crowd: Crowd,
}

impl Site {
    async fn new(count: usize) -> Self {
        let world = World::start(crate::NODE).await.expect("a control plane");
        let crowd = Crowd::join(&world.admin, &world.plane.server, "h", count).await.expect("agents");
        let site = Self { world, crowd };
        for name in site.hosts() {
            site.fit(&name, "one two three");
        }
        let files = [("template.yaml", HEALTH), ("version.j2", "{{ workload.version }}\n")];
        site.world.apply([template("t", &files), target("all", "")]).await.expect("written");
        site.apply("one", json!({ "stages": [{ "name": "all", "hosts": "100%" }] })).await;
        site.rollout("web#1", |plan| plan.state == PlanState::Succeeded).await;
        site
    }

    fn hosts(&self) -> BTreeSet<String> {
        self.crowd.hosts().map(str::to_owned).collect()
    }

    /// Says which releases can run on a host.
    fn fit(&self, host: &str, versions: &str) {
        std::fs::write(self.crowd.folder(host).join("fit"), versions).expect("written");
    }

    async fn apply(&self, version: &str, strategy: Value) {
        let more = json!({ "strategy": strategy, "values": { "folder": self.crowd.path() } });
        let documents = [workload("w", version), deployment("web", "w", "t", "all", &more)];
        self.world.apply(documents).await.expect("written");
        self.world.settled().await.expect("decided");
    }

    async fn rollout(&self, release: &str, when: impl Fn(&PlanStatus) -> bool) -> PlanStatus {
        plan(&self.world.admin, release, when).await
    }

    fn with(&self, version: &str) -> BTreeSet<String> {
        let lines = self.crowd.lines(VERSION).expect("files");
        lines.into_iter().filter(|(_, (line, _))| line == version).map(|(host, _)| host).collect()
    }
}

/// Whether a node waits for a person.
fn held(plan: &PlanStatus, node: &str) -> bool {
    current(plan, node).is_some_and(|node| node.held)
}

fn message(plan: &PlanStatus, node: &str) -> String {
    let node = current(plan, node).expect("the node waits");
    let said = node.attempts.last().and_then(|attempt| attempt.failure_message.clone());
    format!("{} {}", node.message.clone().unwrap_or_default(), said.unwrap_or_default())
}

/// Four fifths have to succeed and three fifths do: the next group does not begin, and a person is asked, who decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_group_60_percent_ok_40_percent_failed_threshold_80_50() {
    let site = Site::new(20).await;
    let strategy = json!({
        "stages": [
            { "name": "probe", "hosts": "50%", "checks": [{ "approval": {} }] },
            { "name": "rest", "hosts": "100%" },
        ],
        "onFailure": "pause",
    });
    // Which hosts are the first group is seen from a release that is stopped behind it.
    site.apply("two", strategy).await;
    site.rollout("web#2", |plan| current(plan, "probe-check-1").is_some()).await;
    let first = site.with("two");
    assert_eq!(first.len(), 10);

    let ill: BTreeSet<String> = first.iter().take(4).cloned().collect();
    ill.iter().for_each(|host| site.fit(host, "one two"));
    let witness = site.crowd.witness(VERSION);
    let groups = json!({
        "stages": [{ "name": "first", "hosts": "50%" }, { "name": "second", "hosts": "100%" }],
        "maxFailures": "20%",
        "onFailure": "pause",
    });
    site.apply("three", groups).await;
    let asks = site.rollout("web#3", |plan| plan.state.is_final() || held(plan, "first")).await;
    assert_eq!(asks.state, PlanState::Paused, "{asks:#?}");
    let why = message(&asks, "first");
    assert!(why.contains("of 10 hosts failed, and 20% may"), "{asks:#?}");
    // All four return to what they had; nobody of the second group has it, and nothing goes on by itself.
    let well: BTreeSet<String> = first.difference(&ill).cloned().collect();
    let settled = async || site.with("three") == well && ill.is_subset(&site.with("two"));
    wait_for(settled, || format!("{:?}", site.crowd.lines(VERSION))).await;
    site.world.settled().await.expect("decided");
    let asks = site.rollout("web#3", |_| true).await;
    assert!(held(&asks, "first") && current(&asks, "second").is_none(), "{asks:#?}");
    assert_eq!(witness.ever("three"), first);

    let skip = SignalRequest {
        node: current(&asks, "first").map(|node| node.name.clone()),
        reason: Some("the four are known to be ill".to_owned()),
        ..SignalRequest::new(Signal::Skip, "skip")
    };
    site.world.admin.signal(asks.id, &skip).await.expect("decided");
    let done = site.rollout("web#3", |plan| plan.state.is_final()).await;
    assert_eq!(done.state, PlanState::Succeeded, "{done:#?}");
    assert_eq!(site.with("three"), site.hosts().difference(&ill).cloned().collect());
    site.crowd.leave().await.expect("agents end");
}

/// One that is not there is left out, or counts as failed if that is what the strategy says; one that asks and never says
/// how it is ends the stage at its deadline, and a person decides. None holds up anybody for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_never_reports() {
    let site = Site::new(5).await;
    site.world.apply([host("ghost", "")]).await.expect("written");
    let all = |then: &str, on_failure: &str| {
        json!({
            "stages": [{ "name": "all", "hosts": "100%" }],
            "progressDeadline": "4s",
            "offline": { "after": "1s", "do": then },
            "onFailure": on_failure,
        })
    };
    site.apply("two", all("exclude", "rollback")).await;
    let done = site.rollout("web#2", |plan| plan.state.is_final()).await;
    assert_eq!(done.state, PlanState::Succeeded, "{done:#?}");
    assert_eq!(site.with("two"), site.hosts());

    site.apply("three", all("fail", "pause")).await;
    let asks = site.rollout("web#3", |plan| plan.state.is_final() || held(plan, "all")).await;
    assert!(message(&asks, "all").contains("1 of 6 hosts failed"), "{asks:#?}");
    let abort = SignalRequest { reason: Some("seen".to_owned()), ..SignalRequest::new(Signal::Abort, "abort") };
    site.world.admin.signal(asks.id, &abort).await.expect("aborted");
    site.rollout("web#3", |plan| plan.state == PlanState::Aborted).await;

    // It comes, takes what it is told, and is silent about it.
    let mut mute = site.world.enrol("ghost").await.expect("a host");
    let asking = tokio::spawn(async move {
        loop {
            if mute.poll(5).await.is_err() {
                return;
            }
        }
    });
    site.apply("one", all("exclude", "pause")).await;
    let asks = site.rollout("web#4", |plan| plan.state.is_final() || held(plan, "all")).await;
    let why = message(&asks, "all");
    assert!(why.contains("no progress in 4s: 5 of 6 hosts are healthy, 6 have it, 0 failed, 0 are offline"), "{why}");
    assert_eq!(site.with("one"), site.hosts(), "nobody waits for it");
    asking.abort();
    site.crowd.leave().await.expect("agents end");
}
