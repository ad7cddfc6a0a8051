//! A vigil: whether what was found healthy stays so.

use std::time::Duration;

use titan_api::health::Health;

use super::{PAUSE, Rules, Tally, all_well, reasons::Reasons, rounds::Rounds};
use crate::apply::{Condition, Observation};

/// The longest pause, in milliseconds, between two looks at what is not well and stays so: doubled up to this while the
/// same is ill. Events have it looked at before.
const LONGEST: u64 = 60_000;

/// The watch over a deployment after its trial.
#[derive(Debug, Clone)]
pub(crate) struct Vigil {
    rules: Rules,
    rounds: Rounds,
    ill: Tally,
    starting_since: Option<u64>,
    well_since: Option<u64>,
    /// What is not well, and why, since when it is degraded.
    degraded: Option<(Vec<String>, String)>,
    /// When to look again at what is not well, and the pause before that; absent while all is well.
    again: Option<(u64, u64)>,
}

/// How a deployment stands after its trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Why it is degraded, if it is.
    pub(crate) degraded: Option<String>,
    /// After how long to look again; absent: when something stirs.
    pub(crate) next: Option<Duration>,
}

impl Vigil {
    pub(super) fn after(rules: Rules, rounds: Rounds) -> Self {
        let (ill, starting_since, well_since) = (Tally::default(), None, None);
        Self { rules, rounds, ill, starting_since, well_since, degraded: None, again: None }
    }

    /// Goes on with the watch after a restart of the agent or the host. `degraded` is why it was degraded, if it was.
    pub(crate) fn resume(health: &Health, degraded: Option<String>, now: u64) -> Self {
        let mut rounds = Rounds::new(health);
        rounds.start(now);
        Self { degraded: degraded.map(|why| (Vec::new(), why)), ..Self::after(Rules::of(health), rounds) }
    }

    /// Returns the probes that are to be asked now, by their place in [`Health::probes`]. They count as asked.
    pub(crate) fn due(&mut self, now: u64) -> Vec<usize> {
        self.rounds.due(now)
    }

    /// A probe has answered.
    pub(crate) fn answered(&mut self, probe: usize, now: u64, result: Result<(), String>) {
        if result.is_err() {
            self.well_since = None;
        }
        self.rounds.answered(probe, now, result);
    }

    /// Returns how it stands at `now`, in milliseconds of the boot clock, with what was just observed.
    pub(crate) fn look(&mut self, now: u64, observed: &[Observation]) -> Standing {
        let ill = |seen: &Observation| matches!(seen.condition, Condition::Ill(_) | Condition::Failed(_));
        let starting = observed.iter().any(|seen| matches!(seen.condition, Condition::Starting(_)));
        let ill = self.ill.count(observed.iter().any(ill), now, self.rules.apart);
        self.starting_since = if starting { self.starting_since.or(Some(now)) } else { None };
        let late = self.starting_since.is_some_and(|since| now.saturating_sub(since) >= self.rules.deadline);
        let well = all_well(observed) && self.rounds.all_well();
        let (mut same, mut news) = (false, false);
        self.well_since = if well { self.well_since.or(Some(now)) } else { None };
        if self.well_since.is_some_and(|since| now.saturating_sub(since) >= self.rules.min_ready) {
            self.degraded = None;
        } else if ill.max(self.rounds.failures()) >= self.rules.threshold || late {
            let reasons = Reasons::new("not healthy any more").observed(observed).with_all(self.rounds.faults());
            // The same things being ill is not told again each time, though what they say may differ.
            let subjects = reasons.subjects();
            same = self.degraded.as_ref().is_some_and(|(known, _)| *known == subjects);
            news = !same;
            if news {
                self.degraded = Some((subjects, reasons.tell()));
            }
        }
        self.again = match self.again {
            _ if well => None,
            Some((due, pause)) if !news && now < due => Some((due, pause)),
            Some((_, pause)) if same => {
                let pause = (pause * 2).min(LONGEST);
                Some((now + pause, pause))
            }
            _ => Some((now + self.rules.apart, self.rules.apart)),
        };
        Standing { degraded: self.degraded.as_ref().map(|(_, why)| why.clone()), next: self.next(now, well) }
    }

    fn next(&self, now: u64, well: bool) -> Option<Duration> {
        let ready = self.well_since.filter(|_| self.degraded.is_some());
        let ready = ready.map(|since| (since + self.rules.min_ready).saturating_sub(now));
        // What an applier sees is not told by events alone while it is not well.
        let again = self.again.filter(|_| !well && self.rounds.all_well()).map(|(due, _)| due.saturating_sub(now));
        let next = [ready, again, self.rounds.next(now)].into_iter().flatten().min();
        next.map(|next| Duration::from_millis(next.max(PAUSE.0)))
    }
}
