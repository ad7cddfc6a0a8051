//! Rounds: which probe is asked when, and what it said last.

use titan_api::health::{Health, Probe};

use super::millis;

/// The rounds of all probes of a deployment.
#[derive(Debug, Clone)]
pub(super) struct Rounds {
    probes: Vec<Round>,
    initial_delay: u64,
    interval: u64,
    started: bool,
}

#[derive(Debug, Clone)]
struct Round {
    title: String,
    /// When it is to be asked next; absent while it is being asked.
    due: Option<u64>,
    last: Option<Result<(), String>>,
    failures: u32,
}

impl Rounds {
    pub(super) fn new(health: &Health) -> Self {
        let round = |probe: &Probe| Round { title: title(probe), due: None, last: None, failures: 0 };
        Self {
            probes: health.probes.iter().map(round).collect(),
            initial_delay: millis(health.initial_delay.0),
            interval: millis(health.interval.0),
            started: false,
        }
    }

    /// From `now` on the first delay counts.
    pub(super) fn start(&mut self, now: u64) {
        if !self.started {
            self.started = true;
            let due = Some(now.saturating_add(self.initial_delay));
            self.probes.iter_mut().for_each(|probe| probe.due = due);
        }
    }

    pub(super) fn due(&mut self, now: u64) -> Vec<usize> {
        let due = |(index, probe): (usize, &mut Round)| {
            let is_due = probe.due.is_some_and(|due| due <= now);
            is_due.then(|| {
                probe.due = None;
                index
            })
        };
        self.probes.iter_mut().enumerate().filter_map(due).collect()
    }

    pub(super) fn answered(&mut self, probe: usize, now: u64, result: Result<(), String>) {
        let Some(round) = self.probes.get_mut(probe) else { return };
        round.failures = if result.is_ok() { 0 } else { round.failures.saturating_add(1) };
        round.last = Some(result);
        round.due = Some(now.saturating_add(self.interval));
    }

    /// Whether every probe said yes when it was asked last.
    pub(super) fn all_well(&self) -> bool {
        self.probes.iter().all(|probe| probe.last == Some(Ok(())))
    }

    /// Returns the most failures in a row of one probe.
    pub(super) fn failures(&self) -> u32 {
        self.probes.iter().map(|probe| probe.failures).max().unwrap_or(0)
    }

    /// Returns after how long the next probe is due.
    pub(super) fn next(&self, now: u64) -> Option<u64> {
        self.probes.iter().filter_map(|probe| probe.due).min().map(|due| due.saturating_sub(now))
    }

    /// Returns what is to be said of every probe that did not say yes.
    pub(super) fn faults(&self) -> impl Iterator<Item = (&str, &str)> {
        self.probes.iter().filter_map(|probe| match &probe.last {
            Some(Ok(())) => None,
            Some(Err(why)) => Some((probe.title.as_str(), why.as_str())),
            None => Some((probe.title.as_str(), "it has not answered yet")),
        })
    }
}

/// Returns what a probe is called for people.
fn title(probe: &Probe) -> String {
    match probe {
        Probe::Http(probe) => format!("http {}", probe.url),
        Probe::Tcp(probe) => format!("tcp {}", probe.address),
        Probe::Exec(probe) => format!("exec {}", probe.command.first().map_or("", String::as_str)),
        Probe::File(probe) => format!("file {}", probe.path),
        Probe::ControlPlane {} => "controlPlane".to_owned(),
    }
}
