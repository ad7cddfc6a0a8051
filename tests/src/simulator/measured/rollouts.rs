//! A release that reaches its hosts in five stages, by agents that take at once what they are given, beside the same release
//! for all hosts at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use titan_api::{
    changes::ApplyRequest,
    client::WriteOptions,
    workplans::{PlanState, PlanStatus},
};

use super::{PATIENCE, differences, fanout};
use crate::{
    manifests,
    measures::{Figure, Samples},
    processes,
    simulator::{
        documents,
        fleet::Fleet,
        script::{Carrier, Script},
        stage::Stage,
    },
};

/// The deployment that is handed out.
const STAGED: &str = "staged";
/// How often the memory is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What one release came to.
#[derive(Debug)]
struct Handed {
    seconds: f64,
    steps: f64,
    moved: f64,
    reports: f64,
    bytes: f64,
    /// Processor time of the control plane, in seconds.
    processor: f64,
    /// The most that the control plane had resident meanwhile, in bytes.
    peak: f64,
}

/// Hands out `rounds` releases in stages, and as many at once, in turns.
pub(super) async fn measure(stage: &Stage, connections: usize, rounds: u64) -> anyhow::Result<Vec<Figure>> {
    let hosts = stage.hosts as f64;
    let script =
        Script { carrier: Carrier::Mux, connections, wait: 60, verify: 0.0, reports: true, ..Script::default() };
    let fleet = fanout::waiting(stage, stage.hosts, script).await?;
    let mut number = 1;
    // The first one makes the assignments and does not count.
    hand_out(stage, &fleet, number, &manifests::free()).await?;
    let rest = stage.server.resident()? as f64;
    let (mut staged, mut at_once) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for (strategy, taken) in [(manifests::free(), &mut at_once), (five(), &mut staged)] {
            number += 1;
            taken.push(hand_out(stage, &fleet, number, &strategy).await?);
        }
    }
    fleet.stop().await;
    let verdict = fleet.verdict().await;
    let median = |all: &[Handed], of: fn(&Handed) -> f64| all.iter().map(of).collect::<Samples>().median();
    let both = |of: fn(&Handed) -> f64| (median(&staged, of), median(&at_once, of));
    let note = format!("{hosts} hosts, median of {rounds}; from when it was made to when the last host was proven");
    let figure = |name: &str, of: fn(&Handed) -> f64, scale: f64, unit| {
        let (staged, at_once) = both(of);
        Figure::new(name, staged * scale, unit).beside("the same release to all at once", at_once * scale)
    };
    let (seconds, _) = both(|handed| handed.seconds);
    Ok(vec![
        figure("release through five stages", |handed| handed.seconds, 1.0, "s").note(note),
        Figure::new("hosts that five stages prove", hosts / seconds, "1/s"),
        figure("steps of the plan", |handed| handed.steps / handed.seconds, 1.0, "1/s").note("each is one transaction"),
        figure("processor time to hand out, per host", |handed| handed.processor, 1e6 / hosts, "us"),
        figure("assignments that move, per host", |handed| handed.moved, 1.0 / hosts, ""),
        figure("reports that are written, per host", |handed| handed.reports, 1.0 / hosts, ""),
        figure("bytes that are written, per host", |handed| handed.bytes, 1.0 / hosts, "B")
            .note("to the disk, by Linux"),
        Figure::new("control plane while it hands out", both(|handed| handed.peak).0 / f64::from(1 << 20), "MiB")
            .beside("before", rest / f64::from(1 << 20))
            .note("the most that was resident"),
        differences("release", &verdict),
    ])
}

/// One host, 1%, 10%, a half, all; a quarter of them out at a time.
fn five() -> Value {
    json!({
        "stages": [
            { "name": "canary", "hosts": 1 },
            { "name": "few", "hosts": "1%" },
            { "name": "tenth", "hosts": "10%" },
            { "name": "half", "hosts": "50%", "maxUnavailable": "25%" },
            { "name": "all", "hosts": "100%", "maxUnavailable": "25%" },
        ],
        "maxFailures": "5%",
    })
}

async fn hand_out(stage: &Stage, fleet: &Fleet, number: u64, strategy: &Value) -> anyhow::Result<Handed> {
    let (moved, reports, bytes) = counted(stage).await?;
    let processor = stage.server.processor()?;
    let more = json!({ "values": { "serial": format!("{STAGED}-{number}") }, "strategy": strategy });
    let deployment = manifests::deployment(STAGED, documents::WORKLOAD, STAGED, "all", &more);
    let resources = vec![documents::template(STAGED, 0), deployment];
    let request = ApplyRequest { resources, ..ApplyRequest::default() };
    stage.server.admin.apply(&request, &WriteOptions::default()).await?;
    let name = format!("{STAGED}#{number}");
    let begun = Instant::now();
    let mut peak = 0;
    let ended = loop {
        peak = peak.max(stage.server.resident()?);
        let plan = plan(stage, &name).await?;
        if let Some(ended) = plan.filter(|plan| plan.state.is_final()) {
            break ended;
        }
        ensure!(begun.elapsed() < PATIENCE, "{name} did not end in {PATIENCE:?}; errors: {:?}", fleet.tally.faults());
        tokio::time::sleep(LOOK).await;
    };
    ensure!(ended.state == PlanState::Succeeded, "{name} ended as {}: {:?}", ended.state, ended.reason);
    let (after, processor) = (counted(stage).await?, stage.server.processor()?.saturating_sub(processor));
    let span = ended.finished_at.context("it ended")?.micros() - ended.created_at.micros();
    // Whoever was told last asks again within half a second, and is waiting when the next release comes.
    tokio::time::sleep(Duration::from_millis(800)).await;
    Ok(Handed {
        seconds: span as f64 / 1e6,
        steps: ended.version as f64,
        moved: after.0 - moved,
        reports: after.1 - reports,
        bytes: after.2 - bytes,
        processor: processor.as_secs_f64(),
        peak: peak as f64,
    })
}

/// Returns the plan of a release.
async fn plan(stage: &Stage, name: &str) -> anyhow::Result<Option<PlanStatus>> {
    let plans = stage.server.admin.plans(Some("default"), 10).await?;
    Ok(plans.items.into_iter().find(|plan| plan.name == name))
}

/// Returns how many assignments moved, how many reports said something new, and how many bytes went to the disk.
async fn counted(stage: &Stage) -> anyhow::Result<(f64, f64, f64)> {
    let of = async |name: &str| anyhow::Ok(stage.server.metric(name).await?.unwrap_or_default());
    let bytes = stage.server.id().map(processes::written).transpose()?.unwrap_or_default();
    Ok((of("titan_assignments_moved_total").await?, of("titan_reports_total").await?, bytes as f64))
}
