//! Trials: whether what was switched to works, decided from what was seen of it. Pure: no clock, no processes, no disk.
//!
//! A [`Trial`] begins with the switch and ends with a [`Verdict`]: healthy once everything has held for
//! `minReadySeconds` without a break; else, at the deadline or when it cannot become well, the way back. From then on a
//! [`Vigil`] tells whether it stays healthy. Both say which probes are due; whoever runs them tells how they went.
//!
//! Time is that of the host's boot clock. A restart of the agent changes nothing: the deadline counts on. After a reboot
//! it begins anew, since everything does, but not more than [`BOOTS`] times.

mod reasons;
mod rounds;
pub(crate) mod vigil;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use titan_api::health::Health;

use crate::{
    apply::{Condition, Observation},
    clocks::Moment,
};
use reasons::Reasons;
use rounds::Rounds;
pub(crate) use vigil::Vigil;

/// In how many boots of the host a trial may go on: a change that makes the host restart again and again is taken back.
pub(crate) const BOOTS: u32 = 3;
/// The longest and shortest pause between two looks at a trial, in milliseconds.
const PAUSE: (u64, u64) = (50, 1000);

/// What has to be remembered of a trial so that a restart neither prolongs nor ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrialMark {
    /// The host's boot in which it goes on.
    pub boot: String,
    /// When it began in that boot, in milliseconds of the boot clock.
    pub began: u64,
    /// In how many boots it went on, this one among them.
    pub boots: u32,
    /// Whether this is the way back: the bundle proved itself before, and only its hook is waited for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub returned: bool,
}

impl TrialMark {
    fn now(now: &Moment) -> Self {
        Self { boot: now.boot.to_string(), began: now.millis, boots: 1, returned: false }
    }
}

/// How the hook after the switch stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hook {
    Due,
    Passed,
    Failed(String),
}

/// A deployment on trial.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    mark: TrialMark,
    rules: Rules,
    hook: Hook,
    rounds: Rounds,
    well_since: Option<u64>,
    hopeless: Tally,
}

/// What comes of a look at a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing yet: look again after this at the latest.
    Wait {
        /// After how long.
        next: Duration,
    },
    /// It works.
    Healthy,
    /// It was not healthy by its deadline; why.
    Expired(String),
    /// It is not healthy and will not become so; why.
    Failed(String),
}

/// The numbers of a [`Health`], in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Rules {
    threshold: u32,
    min_ready: u64,
    deadline: u64,
    /// How far two observations have to be apart to count as two.
    apart: u64,
}

/// Counts what was seen in a row; looks that follow each other at once count once.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    count: u32,
    last: u64,
}

impl Rules {
    fn of(health: &Health) -> Self {
        Self {
            threshold: health.failure_threshold.max(1),
            min_ready: u64::from(health.min_ready_seconds) * 1000,
            deadline: millis(health.deadline.0),
            apart: millis(health.interval.0).clamp(PAUSE.0, PAUSE.1),
        }
    }
}

impl Tally {
    fn count(&mut self, seen: bool, now: u64, apart: u64) -> u32 {
        if !seen {
            *self = Self::default();
        } else if self.count == 0 || now.saturating_sub(self.last) >= apart {
            *self = Self { count: self.count.saturating_add(1), last: now };
        }
        self.count
    }
}

fn millis(span: Duration) -> u64 {
    span.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Whether all that was observed is well.
fn all_well(observed: &[Observation]) -> bool {
    observed.iter().all(|seen| seen.condition == Condition::Well)
}

impl Trial {
    /// Begins a trial. With `hook`, one is to run first: probes wait for it.
    pub(crate) fn begin(health: &Health, hook: bool, now: &Moment) -> Self {
        Self::resume(health, hook, TrialMark::now(now), now)
    }

    /// Goes on with a trial after a restart of the agent, or of the host: the mark to keep may be another one then.
    pub(crate) fn resume(health: &Health, hook: bool, mut mark: TrialMark, now: &Moment) -> Self {
        if *mark.boot != *now.boot {
            mark = TrialMark { boots: mark.boots.saturating_add(1), returned: mark.returned, ..TrialMark::now(now) };
        }
        let mut rounds = Rounds::new(health);
        if !hook {
            rounds.start(now.millis);
        }
        Self {
            mark,
            rules: Rules::of(health),
            hook: if hook { Hook::Due } else { Hook::Passed },
            rounds,
            well_since: None,
            hopeless: Tally::default(),
        }
    }

    /// Returns what has to be written down of it.
    pub(crate) const fn mark(&self) -> &TrialMark {
        &self.mark
    }

    /// The hook after the switch has ended: well, or not, with the reason.
    pub(crate) fn hook_ended(&mut self, now: u64, result: Result<(), String>) {
        self.hook = match result {
            Ok(()) => {
                self.rounds.start(now);
                Hook::Passed
            }
            Err(why) => Hook::Failed(why),
        };
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

    /// Returns what there is to say at `now`, in milliseconds of the boot clock, with what was just observed.
    pub(crate) fn look(&mut self, now: u64, observed: &[Observation]) -> Verdict {
        if let Hook::Failed(why) = &self.hook {
            return Verdict::Failed(Reasons::new("the hook postApply failed").with("postApply", why).tell());
        }
        let well = self.hook == Hook::Passed && all_well(observed) && self.rounds.all_well();
        self.well_since = if well { self.well_since.or(Some(now)) } else { None };
        let held = self.well_since.map(|since| now.saturating_sub(since));
        if held.is_some_and(|held| held >= self.rules.min_ready) {
            return Verdict::Healthy;
        }
        let failed = observed.iter().any(|seen| matches!(seen.condition, Condition::Failed(_)));
        if self.hopeless.count(failed, now, self.rules.apart) >= self.rules.threshold {
            return Verdict::Failed(self.reasons("it failed", observed));
        }
        if self.mark.boots > BOOTS {
            let summary = format!("not healthy before the host restarted for the {BOOTS}. time since the switch");
            return Verdict::Expired(self.reasons(&summary, observed));
        }
        let spent = now.saturating_sub(self.mark.began);
        if spent >= self.rules.deadline {
            let deadline = Duration::from_millis(self.rules.deadline);
            let mut summary = format!("not healthy within {deadline:?}");
            if let Some(held) = held {
                let (held, ready) = (held / 1000, self.rules.min_ready / 1000);
                summary.push_str(&format!(": it was well for {held} s of the {ready} s that minReadySeconds asks for"));
            }
            return Verdict::Expired(self.reasons(&summary, observed));
        }
        let ready = held.map(|held| self.rules.min_ready.saturating_sub(held));
        let next = [Some(self.rules.deadline - spent), ready, self.rounds.next(now)].into_iter().flatten().min();
        let next = next.unwrap_or(PAUSE.1).clamp(PAUSE.0, PAUSE.1);
        Verdict::Wait { next: Duration::from_millis(next) }
    }

    /// Keeps watch from now on over what was on trial.
    pub(crate) fn into_vigil(self) -> Vigil {
        Vigil::after(self.rules, self.rounds)
    }

    fn reasons(&self, summary: &str, observed: &[Observation]) -> String {
        let mut reasons = Reasons::new(summary);
        if self.hook == Hook::Due {
            reasons = reasons.with("postApply", "it has not ended yet");
        }
        reasons.observed(observed).with_all(self.rounds.faults()).tell()
    }
}

#[cfg(test)]
mod tests;
