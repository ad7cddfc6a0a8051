//! Times of millions of events: each is counted, none is sampled.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Times up to this many microseconds have a counter each.
const EXACT: u64 = 2048;
/// Counters for each doubling above: a quantile is right to a thousandth.
const PARTS: u64 = 1024;
/// Doublings: up to some two hours.
const DOUBLINGS: u64 = 22;

/// A histogram that any thread may add to.
#[derive(Debug)]
pub struct Histogram {
    counts: Vec<AtomicU64>,
    most: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        let counters = EXACT + PARTS * DOUBLINGS;
        Self { counts: (0..counters).map(|_| AtomicU64::new(0)).collect(), most: AtomicU64::new(0) }
    }
}

/// Returns the counter for a time in microseconds.
fn index(micros: u64) -> u64 {
    if micros < EXACT {
        return micros;
    }
    let doubling = u64::from(micros.ilog2()) - 11;
    if doubling >= DOUBLINGS {
        return EXACT + PARTS * DOUBLINGS - 1;
    }
    // `micros` is between 2048 << doubling and twice that.
    EXACT + doubling * PARTS + ((micros >> (doubling + 1)) - PARTS)
}

/// Returns the longest time that a counter stands for, in microseconds.
const fn longest(index: u64) -> u64 {
    if index < EXACT {
        return index;
    }
    let (doubling, part) = ((index - EXACT) / PARTS, (index - EXACT) % PARTS);
    ((part + PARTS + 1) << (doubling + 1)) - 1
}

impl Histogram {
    /// Counts a time.
    pub fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.most.fetch_max(micros, Ordering::Relaxed);
        if let Some(count) = usize::try_from(index(micros)).ok().and_then(|index| self.counts.get(index)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns how many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Returns the time below or at which a `part` (0 to 1) of all lie; zero if there are none.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Duration {
        let rank = ((part.clamp(0.0, 1.0) * self.count() as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count.load(Ordering::Relaxed);
            if seen >= rank {
                return Duration::from_micros(longest(index as u64)).min(self.max());
            }
        }
        Duration::ZERO
    }

    /// Returns the longest.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.most.load(Ordering::Relaxed))
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.most.store(0, Ordering::Relaxed);
        self.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }

    /// Returns `p50 .. p99 .. max ..` in milliseconds.
    #[must_use]
    pub fn summary(&self) -> String {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let (p50, p99, max) = (self.quantile(0.5), self.quantile(0.99), self.max());
        format!("p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", milliseconds(p50), milliseconds(p99), milliseconds(max))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_of_small_times_are_exact() {
        let histogram = Histogram::default();
        for micros in 1..=1000 {
            histogram.add(Duration::from_micros(micros));
        }
        assert_eq!(histogram.quantile(0.5), Duration::from_micros(500));
        assert_eq!(histogram.quantile(0.99), Duration::from_micros(990));
        assert_eq!((histogram.count(), histogram.max()), (1000, Duration::from_micros(1000)));
        histogram.clear();
        assert_eq!((histogram.count(), histogram.quantile(0.5)), (0, Duration::ZERO));
    }

    #[test]
    fn a_day_is_counted_as_the_longest() {
        let histogram = Histogram::default();
        histogram.add(Duration::from_secs(86_400));
        assert_eq!((histogram.count(), histogram.max()), (1, Duration::from_secs(86_400)));
    }

    proptest! {
        #[test]
        fn every_time_is_within_a_thousandth_of_its_counter(micros in 0_u64..4_000_000_000) {
            let most = longest(index(micros));
            prop_assert!(most >= micros && most - micros <= micros / 1000, "{micros} {most}");
        }
    }
}
