//! The measures that fit into 45 seconds, with a verdict.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    measures::{Figure, Goal},
    simulator::{
        checks::Verdict,
        fleet::Fleet,
        measured::{self, Measuring, fanout::Fanout, unchanged::Unchanged},
        progress::tell,
        script::Script,
        stage::Stage,
    },
};

/// Hosts that wait for a template edit at most, and the connections they share.
const WAITERS: usize = 10_000;
const CONNECTIONS: usize = 100;
/// Agents whose end is compared for each second that is left.
const COMPARED: usize = 500;

/// Everything is to end in this time; what was slow before leaves fewer rounds for what comes after.
const BUDGET: Duration = Duration::from_secs(45);

/// What the quick measures came to.
#[derive(Debug)]
pub struct Quick {
    unchanged: Unchanged,
    fanout: Fanout,
    view_bytes_per_host: Option<f64>,
    hosts: usize,
    /// Whether every agent holds what it should.
    pub verdict: Verdict,
    took: Duration,
}

/// Takes them.
pub async fn take(options: &Measuring) -> anyhow::Result<Quick> {
    let begun = Instant::now();
    let stage = Stage::open(&options.stage).await?;
    let left = || BUDGET.saturating_sub(begun.elapsed());
    let rounds = if left() > Duration::from_secs(28) { 3 } else { 1 };
    let unchanged = measured::unchanged::measure(&stage, options, rounds, Duration::from_millis(1200)).await?;
    tell(&format!("unchanged polls measured after {:.0} s", begun.elapsed().as_secs_f64()));
    let view = (stage.server.metric("titan_view_bytes").await?, stage.server.metric("titan_view_hosts").await?);
    let view_bytes_per_host = match view {
        (Some(bytes), Some(hosts)) if hosts > 0.0 => Some(bytes / hosts),
        _ => None,
    };
    let (waiters, rounds) = if left() > Duration::from_secs(18) { (WAITERS, 3) } else { (WAITERS / 5, 1) };
    let waiters = stage.hosts.min(waiters);
    let fanout = measured::fanout::measure(&stage, options, waiters, CONNECTIONS, rounds).await?;
    tell(&format!("fan-out measured after {:.0} s", begun.elapsed().as_secs_f64()));
    let compared = usize::try_from(left().as_secs()).unwrap_or_default() * COMPARED;
    let verdict = verdict(&stage, &fanout, compared.max(1000).min(stage.hosts)).await?;
    let hosts = stage.hosts;
    stage.server.stop().await?;
    Ok(Quick { unchanged, fanout, view_bytes_per_host, hosts, verdict, took: begun.elapsed() })
}

/// Lets `agents` hosts of the stage poll, changes something, and compares everything that they hold.
async fn verdict(stage: &Stage, fanout: &Fanout, agents: usize) -> anyhow::Result<Verdict> {
    let script = Script { connections: CONNECTIONS, cadence: Some(1.0), ramp: Some(0.5), ..Script::default() };
    let fleet = Fleet::new(&stage.server.place, script, stage.credentials.clone(), agents)?;
    fleet.start(Duration::from_millis(500));
    let all = agents as u64;
    fleet.until("every first answer", Duration::from_secs(60), |fleet| fleet.tally.fulls.get() >= all).await?;
    let mut churn =
        crate::simulator::churn::Churn::begin(stage.server.admin.clone(), stage.hosts, Default::default(), 1).await?;
    for _ in 0..5 {
        churn.step().await?;
    }
    stage.server.settled(Duration::from_secs(60)).await?;
    fleet.stop().await;
    let mut verdict = fleet.verdict().await;
    verdict.agents = verdict.agents.max(fanout.verdict.agents);
    verdict.differences += fanout.verdict.differences;
    verdict.first.extend(fanout.verdict.first.iter().cloned());
    Ok(verdict)
}

impl Quick {
    /// Returns everything for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        let unchanged = &self.unchanged;
        json!({
            "unchangedRatio": round(unchanged.rate.0 / unchanged.rate.1),
            "cpuRatio": round(unchanged.cost.0 / unchanged.cost.1),
            "bytesPerUnchangedPoll": unchanged.bytes.0 + unchanged.bytes.1,
            "viewBytesPerHost": self.view_bytes_per_host.map(round),
            "fanoutRatio": round(self.fanout.told / self.fanout.memory),
            "hosts": self.hosts,
            "verdict": self.verdict.to_string(),
        })
    }

    /// Returns everything as figures.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        let mut figures = self.unchanged.figures();
        if let Some(bytes) = self.view_bytes_per_host {
            let figure = Figure::new("view, per host", bytes, "B").goal(Goal::AtMost(600.0));
            figures.push(figure.note(format!("{} hosts, counted", self.hosts)));
        }
        figures.extend(self.fanout.figures());
        let took = Figure::new("all of it", self.took.as_secs_f64(), "s").goal(Goal::AtMost(BUDGET.as_secs_f64()));
        figures.extend([measured::differences("quick", &self.verdict), took]);
        figures
    }
}
