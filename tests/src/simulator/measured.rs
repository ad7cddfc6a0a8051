//! Figures that need a fleet: one measure for each row of the table.

pub mod fanout;
mod latency;
mod rollouts;
mod runs;
mod targets;
pub mod unchanged;
mod waiting;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    measures::{Figure, Goal},
    simulator::{
        checks::Verdict,
        script::Carrier,
        stage::{self, Stage},
    },
};

/// How long one step of a measure may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);
/// How figures of agents that do not hold what they should end.
pub const DIFFERENCES: &str = "agents that differ";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Measure {
    /// Unchanged polls a second beside a bare route, their processor time and bytes
    Unchanged,
    /// A template edit to the last answer of every waiting host, beside the same bodies from memory
    Fanout,
    /// Server memory per waiting host, each on a connection of its own
    WaitingOwn,
    /// Server memory per waiting host over HTTP/2: on full connections, and on 2000
    WaitingMux,
    /// Every host polls every 5 minutes over a new TLS connection that resumes a session
    SustainedTls,
    /// Every host polls every 30 s over 2000 HTTP/2 connections
    SustainedMux,
    /// Every host asks for everything within a minute
    AllFull,
    /// 15 000 TLS connections reconnect at once, again and again
    Storm,
    /// One change, and one relabel, to the answer of the one waiting host that it concerns
    ChangeLatency,
    /// A target edit that concerns 10, 1000 or a tenth of the hosts: commit to planned
    TargetEdit,
    /// A release through five stages, beside the same one to all hosts at once
    Rollout,
    /// A day in one run: changes, hosts that are away, restarts
    Day,
    /// A restart to ready
    Start,
}

impl Measure {
    /// Returns how many hosts there are unless told.
    const fn hosts(self) -> usize {
        match self {
            Self::Rollout => 10_000,
            Self::WaitingOwn | Self::Storm => 15_000,
            Self::Fanout | Self::WaitingMux | Self::ChangeLatency | Self::Day => 100_000,
            _ => 1_000_000,
        }
    }

    /// Returns how long it runs unless told, in seconds.
    const fn seconds(self) -> f64 {
        match self {
            Self::SustainedTls | Self::SustainedMux | Self::Day => 600.0,
            Self::Storm => 150.0,
            _ => 60.0,
        }
    }

    const fn tls(self) -> bool {
        matches!(self, Self::SustainedTls | Self::Storm)
    }
}

/// How it is measured.
#[derive(Debug, Clone)]
pub struct Measuring {
    /// Where things are. The hosts and TLS are the measure's own unless told.
    pub stage: stage::Options,
    /// Hosts, if told.
    pub hosts: Option<usize>,
    /// How long a run takes, if told.
    pub seconds: Option<f64>,
    /// How often each host polls, if told.
    pub cadence: Option<f64>,
    /// How long polls are held in runs.
    pub wait: u64,
    /// Connections of HTTP/2.
    pub connections: usize,
    /// Rounds of what is measured again and again, if told.
    pub rounds: Option<u64>,
    /// What carries polls in runs, if told.
    pub carrier: Option<Carrier>,
}

impl Measuring {
    fn span(&self, measure: Measure) -> f64 {
        self.seconds.unwrap_or(measure.seconds())
    }
}

/// Takes a measure.
pub async fn take(measure: Measure, options: &Measuring) -> anyhow::Result<Vec<Figure>> {
    let mut options = options.clone();
    options.stage.hosts = options.hosts.unwrap_or(measure.hosts());
    options.stage.tls = measure.tls();
    let mut stage = Stage::open(&options.stage).await?;
    let rounds = |usual| options.rounds.unwrap_or(usual);
    match measure {
        Measure::Unchanged => {
            let span = Duration::from_secs_f64(options.seconds.unwrap_or(2.0));
            Ok(unchanged::measure(&stage, &options, rounds(7) as usize, span).await?.figures())
        }
        Measure::Fanout => {
            let (hosts, connections) = (stage.hosts, options.connections);
            let measured = fanout::measure(&stage, &options, hosts, connections, rounds(3)).await?;
            let mut figures = measured.figures();
            figures.push(differences("template edit", &measured.verdict));
            Ok(figures)
        }
        Measure::WaitingOwn => waiting::measure(&stage, Carrier::Own, options.connections).await,
        Measure::WaitingMux => {
            let full = stage.hosts.div_ceil(waiting::FULL);
            let mut figures = waiting::measure(&stage, Carrier::Mux, full).await?;
            if full != options.connections {
                stage.server.restart().await?;
                figures.extend(waiting::measure(&stage, Carrier::Mux, options.connections).await?);
            }
            Ok(figures)
        }
        Measure::SustainedTls | Measure::SustainedMux | Measure::AllFull | Measure::Storm | Measure::Day => {
            runs::measure(measure, &mut stage, &options, options.span(measure)).await
        }
        Measure::ChangeLatency => latency::measure(&stage, options.connections, rounds(200)).await,
        Measure::TargetEdit => targets::measure(&stage, rounds(3)).await,
        Measure::Rollout => rollouts::measure(&stage, options.connections, rounds(3)).await,
        Measure::Start => start(&mut stage, rounds(3)).await,
    }
}

/// Returns the figure of agents that do not hold what they should after `what`.
pub(crate) fn differences(what: &str, verdict: &Verdict) -> Figure {
    let Verdict { agents, differences, first } = verdict;
    let note = [format!("of {agents}, each with its full answer")].into_iter().chain(first.iter().cloned());
    let figure = Figure::new(format!("{what}: {DIFFERENCES}"), *differences as f64, "").goal(Goal::AtMost(0.0));
    figure.note(note.collect::<Vec<_>>().join("; "))
}

async fn start(stage: &mut Stage, rounds: u64) -> anyhow::Result<Vec<Figure>> {
    let mut times = crate::measures::Samples::default();
    for _ in 0..rounds {
        times.push(stage.server.restart().await?.as_secs_f64());
    }
    let resident = stage.server.resident()? as f64 / f64::from(1 << 20);
    let note = format!("{} hosts, median of {rounds} restarts", stage.hosts);
    Ok(vec![
        Figure::new("restart to ready", times.median(), "s").goal(Goal::AtMost(15.0)).note(note),
        Figure::new("control plane at rest", resident, "MiB").goal(Goal::AtMost(1200.0)).note("RSS after a restart"),
    ])
}

/// Does something for each of `count` agents, some hundreds at a time; returns what came of each, in order.
pub(crate) async fn at_once<T, F>(
    count: usize,
    act: impl Fn(u32) -> F + Send + Sync + 'static,
) -> anyhow::Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send,
{
    let (next, act) = (Arc::new(AtomicUsize::new(0)), Arc::new(act));
    let done = Arc::new(Mutex::new(Vec::with_capacity(count)));
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..256.min(count) {
        let (next, act, done) = (Arc::clone(&next), Arc::clone(&act), Arc::clone(&done));
        running.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(());
                }
                let result = act(number as u32).await?;
                done.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    let mut done = std::mem::take(&mut *done.lock().unwrap_or_else(PoisonError::into_inner));
    done.sort_unstable_by_key(|(number, _): &(usize, T)| *number);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}
