//! What happened, counted.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::simulator::histogram::Histogram;

/// Arrivals are counted in stretches of this length.
pub const BUCKET: Duration = Duration::from_millis(100);
/// So many stretches at most: a day.
const BUCKETS: usize = 864_000;
/// So many differences are told; all are counted.
const TOLD: usize = 20;

/// A counter.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds one.
    pub fn one(&self) {
        self.add(1);
    }

    /// Adds some.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Returns how many there were.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that is counted while a fleet runs.
#[derive(Debug)]
pub struct Tally {
    begun: Instant,
    /// Polls answered: nothing changed.
    pub unchanged: Count,
    /// Polls answered: something changed.
    pub deltas: Count,
    /// Polls answered in full.
    pub fulls: Count,
    /// Answers that were read and then lost.
    pub lost: Count,
    /// Answers that were read slowly.
    pub slow: Count,
    /// Turns that were not taken, since the agent was away.
    pub away: Count,
    /// Polls put off with 429 or 503.
    pub put_off: Count,
    /// Reports taken in.
    pub reports: Count,
    /// Bundles whose bytes had their digest.
    pub verified: Count,
    /// Answers after which the set was not what the control plane said.
    pub mismatches: Count,
    /// Connections made.
    pub connects: Count,
    /// TLS handshakes in full, and resumed ones.
    pub handshakes: (Count, Count),
    /// Polls that are under way, held ones included.
    pub under_way: AtomicU64,
    /// Polls that were not held: from sent to answered.
    pub answered: Histogram,
    /// Connecting, with the TLS handshake.
    pub connecting: Histogram,
    /// Reports: from sent to answered.
    pub reporting: Histogram,
    /// How late agents were when their turn came: the simulator's own delay.
    pub late: Histogram,
    /// When the newest answer with a change was read, in microseconds since the beginning.
    pub last_change: AtomicU64,
    faults: Mutex<BTreeMap<String, u64>>,
    differences: Mutex<(u64, Vec<String>)>,
    arrivals: Vec<AtomicU32>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            unchanged: Count::default(),
            deltas: Count::default(),
            fulls: Count::default(),
            lost: Count::default(),
            slow: Count::default(),
            away: Count::default(),
            put_off: Count::default(),
            reports: Count::default(),
            verified: Count::default(),
            mismatches: Count::default(),
            connects: Count::default(),
            handshakes: (Count::default(), Count::default()),
            under_way: AtomicU64::new(0),
            answered: Histogram::default(),
            connecting: Histogram::default(),
            reporting: Histogram::default(),
            late: Histogram::default(),
            last_change: AtomicU64::new(0),
            faults: Mutex::default(),
            differences: Mutex::default(),
            arrivals: (0..BUCKETS).map(|_| AtomicU32::new(0)).collect(),
        }
    }
}

impl Tally {
    /// Returns how long ago the counting began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Counts a poll that sets out.
    pub fn arrival(&self) {
        let bucket = usize::try_from(self.elapsed().as_millis() / BUCKET.as_millis()).unwrap_or(usize::MAX);
        if let Some(count) = self.arrivals.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that an answer with a change was read now.
    pub fn changed(&self) {
        let now = u64::try_from(self.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last_change.fetch_max(now, Ordering::Relaxed);
    }

    /// Returns when the newest answer with a change was read, since the beginning.
    #[must_use]
    pub fn last_change(&self) -> Duration {
        Duration::from_micros(self.last_change.load(Ordering::Relaxed))
    }

    /// Returns how many polls were answered.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.unchanged.get() + self.deltas.get() + self.fulls.get()
    }

    /// Counts an error of a kind.
    pub fn fault(&self, kind: String) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    }

    /// Returns the errors by kind.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<String, u64> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns how many errors there were.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.faults().values().sum()
    }

    /// Notes that an agent is not what it should be.
    pub fn difference(&self, what: String) {
        let mut differences = self.differences.lock().unwrap_or_else(PoisonError::into_inner);
        differences.0 += 1;
        if differences.1.len() < TOLD {
            differences.1.push(what);
        }
    }

    /// Returns how many differences there were, and the first of them.
    #[must_use]
    pub fn differences(&self) -> (u64, Vec<String>) {
        self.differences.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the polls that set out in each [`BUCKET`] between two times since the beginning.
    #[must_use]
    pub fn arrivals(&self, from: Duration, to: Duration) -> Vec<u32> {
        let index = |time: Duration| usize::try_from(time.as_millis() / BUCKET.as_millis()).unwrap_or(usize::MAX);
        let range = index(from).min(BUCKETS)..index(to).min(BUCKETS);
        self.arrivals.get(range).unwrap_or_default().iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

/// How far from even some arrivals are: the fullest bucket over the mean, and what chance alone would make of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evenness {
    /// The fullest bucket divided by the mean; 0 without arrivals.
    pub peak_to_mean: f64,
    /// The same for as many arrivals at random times: the mean and some four deviations, by the law of rare events.
    pub by_chance: f64,
}

impl Evenness {
    /// Works it out.
    #[must_use]
    pub fn of(arrivals: &[u32]) -> Self {
        let mean = arrivals.iter().map(|count| f64::from(*count)).sum::<f64>() / arrivals.len().max(1) as f64;
        if mean == 0.0 {
            return Self { peak_to_mean: 0.0, by_chance: 0.0 };
        }
        let peak = f64::from(arrivals.iter().copied().max().unwrap_or_default());
        Self { peak_to_mean: peak / mean, by_chance: 1.0 + 4.0 / mean.sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockstep_shows_in_the_peak() {
        let even = Evenness::of(&[100, 110, 90, 100]);
        assert!(even.peak_to_mean < even.by_chance);
        let lockstep = Evenness::of(&[400, 0, 0, 0]);
        assert!(lockstep.peak_to_mean > 2.0 * lockstep.by_chance);
        assert_eq!(Evenness::of(&[]).peak_to_mean, 0.0);
    }

    #[test]
    fn only_the_first_differences_are_kept_and_all_are_counted() {
        let tally = Tally::default();
        (0..50).for_each(|number| tally.difference(number.to_string()));
        assert_eq!((tally.differences().0, tally.differences().1.len()), (50, TOLD));
        tally.fault("timeout".into());
        tally.fault("timeout".into());
        assert_eq!((tally.errors(), tally.faults()["timeout"]), (2, 2));
        tally.arrival();
        assert_eq!(tally.arrivals(Duration::ZERO, Duration::from_secs(1)).iter().sum::<u32>(), 1);
    }
}
