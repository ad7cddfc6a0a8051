//! From a write to a hundred hosts that are proven healthy, through three stages, with real agents.
//! S4-19, S4-40.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use titan_api::{
    client::Client,
    workplans::{PlanState, PlanStatus},
};
use titan_tests::{
    crowds::{self, Crowd},
    manifests,
    measures::{Figure, Goal, Samples},
};

use crate::{children::Plane, hosts, options::Options};

/// Hosts, each with an agent.
const FLEET: usize = 100;
/// Releases that are measured.
const RELEASES: usize = 20;
/// How many seconds a host has to be healthy before it counts, in each of the stages.
const READY: u32 = 1;
const STAGES: u32 = 3;
/// How long one rollout may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// The file that the release is, below a host's root.
const FILE: &str = "default/web/version";

/// Time from the 2xx of a write until the rollout is over: every host's own report, newer than the release, has shown it
/// healthy for a second, one stage after the other.
pub(crate) async fn speed(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let (size, releases) = options.pick((FLEET, RELEASES), (10, 2));
    let plane = Plane::start().await?;
    let crowd = Crowd::join(&plane.admin, &plane.url(), "host-", size).await?;
    let files = [("version.j2", "{{ workload.version }}\n")];
    hosts::apply(&plane, vec![manifests::template("web", &files), manifests::target("all", "")]).await?;
    // The first release has nothing before it, and agents still begin.
    hosts::apply(&plane, documents(0)).await?;
    over(&plane.admin, 1).await?;
    let mut taken = Samples::default();
    for release in 1..=releases {
        hosts::apply(&plane, documents(release)).await?;
        let begun = Instant::now();
        let plan = over(&plane.admin, release + 1).await?;
        taken.push(begun.elapsed().as_secs_f64());
        ensure!(plan.state == PlanState::Succeeded, "{} ended as {}: {:?}", plan.name, plan.state, plan.reason);
        crowds::all_have(&crowd, FILE, &version(release))?;
    }
    crowd.leave().await?;
    let least = f64::from(STAGES * READY);
    let figure = |name: &str, part: f64| {
        let name = format!("accepted write to {size} hosts proven healthy, {STAGES} stages, {name}");
        Figure::new(name, taken.quantile(part), "s").beside("minReadySeconds of the stages", least)
    };
    let note = format!("{releases} releases, minReadySeconds: {READY}, real agents in one process");
    Ok(vec![
        figure("median", 0.5).goal(Goal::AtMost(5.0)).note(note),
        figure("p99", 0.99).goal(Goal::AtMost(15.0)).note("of so few the longest"),
    ])
}

fn version(release: usize) -> String {
    format!("v{release}")
}

fn documents(release: usize) -> Vec<Value> {
    let stage = |name: &str, hosts: &str| json!({ "name": name, "hosts": hosts, "minReadySeconds": READY });
    let stages = [stage("canary", "1%"), stage("tenth", "10%"), stage("all", "100%")];
    let more = json!({ "strategy": { "stages": stages } });
    vec![manifests::workload("web", &version(release)), manifests::deployment("web", "web", "web", "all", &more)]
}

/// Waits until the rollout of the release of this number is over.
async fn over(admin: &Client, number: usize) -> anyhow::Result<PlanStatus> {
    let (name, begun) = (format!("web#{number}"), Instant::now());
    let id = loop {
        // Until it is decided, there is the one before, or none at all.
        match admin.rollout("default", "web").await {
            Ok(plan) if plan.name == name => break plan.id,
            Ok(_) => {}
            Err(error) if begun.elapsed() > PATIENCE => return Err(error).context("there is no rollout"),
            Err(_) => {}
        }
        ensure!(begun.elapsed() < PATIENCE, "the rollout {name} was not begun in {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    loop {
        let plan = admin.plan_status(id, 30).await?;
        if plan.state.is_final() {
            return Ok(plan);
        }
        ensure!(begun.elapsed() < PATIENCE, "{name} is not over after {PATIENCE:?}: {plan:?}");
    }
}
