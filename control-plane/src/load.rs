//! Load: how busy this process is, and how seldom hosts are asked to come because of it.
//!
//! Hosts come at the cadence that each answer names. With the fleet it grows, so that a control plane is asked for a
//! bounded number of polls a second; with the load it is multiplied by a factor that rises within seconds and falls within
//! minutes, so that a fleet that was slowed down does not come back at once.

use std::{
    sync::atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::state::AppState;

/// Polls a second that one control plane asks for at most: with more hosts they come less often.
pub const POLLS_PER_SECOND: usize = 50_000;
/// How long a host may be told to wait at most, in seconds.
pub const LONGEST: u32 = 3600;
/// The largest factor.
const MOST: f64 = 16.0;
/// How late the runtime may be for the load to count as full.
const LATE: Duration = Duration::from_millis(50);
/// Which part of the reports' room may be taken for the load to count as full.
const FILLED: f64 = 0.5;
/// Below which part of a full load the factor falls; between it and a full load it stays.
const LOW: f64 = 0.5;
/// How long a load that is twice too high takes to double the factor.
const RISE: Duration = Duration::from_secs(10);
/// How long a low load takes to bring the factor down to a third.
const FALL: Duration = Duration::from_secs(60);
/// Over how long what is measured is smoothed.
const SMOOTH: Duration = Duration::from_secs(5);
/// How often lateness is measured.
const TICK: Duration = Duration::from_millis(100);
/// Ticks after which the factor is decided anew.
const TICKS: u32 = 10;

/// What is measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Signs {
    /// How late the runtime is: by how much a task that sleeps wakes too late.
    pub lag: Duration,
    /// Which part of the reports' room is taken, 0 to 1.
    pub filled: f64,
    /// Polls a second.
    pub polls: f64,
}

impl Signs {
    /// Returns the signs after `span` in which `now` was measured: what is short counts for little.
    #[must_use]
    pub fn smoothed(self, now: Self, span: Duration) -> Self {
        let old = (-span.as_secs_f64() / SMOOTH.as_secs_f64()).exp();
        let mix = |before: f64, now: f64| before * old + now * (1.0 - old);
        Self {
            lag: Duration::from_secs_f64(mix(self.lag.as_secs_f64(), now.lag.as_secs_f64())),
            filled: mix(self.filled, now.filled),
            polls: mix(self.polls, now.polls),
        }
    }

    /// Returns the load: 1 is full, as much as is to be asked for.
    #[must_use]
    pub fn load(&self) -> f64 {
        let lag = self.lag.as_secs_f64() / LATE.as_secs_f64();
        lag.max(self.filled / FILLED).max(self.polls / POLLS_PER_SECOND as f64)
    }
}

/// Decides the factor after `span` under these signs.
#[must_use]
pub fn factor(before: f64, signs: &Signs, span: Duration) -> f64 {
    let load = signs.load();
    let after = if load > 1.0 {
        before * load.min(2.0).powf(span.as_secs_f64() / RISE.as_secs_f64())
    } else if load < LOW {
        before * (-span.as_secs_f64() / FALL.as_secs_f64()).exp()
    } else {
        before
    };
    after.clamp(1.0, MOST)
}

/// Returns how many seconds a host waits before it asks again: `least`, or more if there are more hosts than can be asked
/// that often, times the factor.
#[must_use]
pub fn interval(least: u32, hosts: usize, factor: f64) -> u32 {
    let needed = u32::try_from(hosts / POLLS_PER_SECOND).unwrap_or(LONGEST);
    let seconds = (f64::from(least.max(needed)) * factor.clamp(1.0, MOST)).round();
    // Between 0 and 16 times as much as fits.
    (seconds as u64).min(u64::from(LONGEST)) as u32
}

/// Returns how many seconds a host waits before it asks again; `held` if its poll was held, so that it has waited already.
#[must_use]
pub fn poll_after(state: &AppState, held: bool) -> u32 {
    let least = if held { 1 } else { state.config.poll_after_seconds };
    interval(least, state.load.hosts.load(Ordering::Relaxed), state.load.factor())
}

/// How loaded this process is.
#[derive(Debug)]
pub struct Load {
    /// The factor, in thousandths.
    factor: AtomicU32,
    /// How many hosts there were a moment ago: to count them takes a lock, and every poll asks.
    hosts: AtomicUsize,
    /// The longest interval that a host may still be waiting out, in seconds, and when it was last told, in microseconds.
    longest: AtomicU32,
    told_at: AtomicI64,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            factor: AtomicU32::new(1000),
            hosts: AtomicUsize::new(0),
            longest: AtomicU32::new(0),
            told_at: AtomicI64::new(0),
        }
    }
}

impl Load {
    /// Returns the factor by which hosts come less often, 1 to 16.
    #[must_use]
    pub fn factor(&self) -> f64 {
        f64::from(self.factor.load(Ordering::Relaxed)) / 1000.0
    }

    /// Sets the factor by which hosts come less often; what is not between 1 and 16 is brought there.
    pub fn set_factor(&self, factor: f64) {
        // Between 1 000 and 16 000.
        self.factor.store((factor.clamp(1.0, MOST) * 1000.0).round() as u32, Ordering::Relaxed);
    }

    /// Returns the longest interval that a host may still be waiting out, in seconds.
    #[must_use]
    pub fn longest(&self) -> u32 {
        self.longest.load(Ordering::Relaxed)
    }

    /// Notes the interval that hosts are told now. A longer one before counts until it is over.
    fn tell(&self, interval: u32, now: i64) {
        let longest = self.longest();
        let over = now.saturating_sub(self.told_at.load(Ordering::Relaxed)) > i64::from(longest) * 1_000_000;
        if interval >= longest || over {
            self.longest.store(interval, Ordering::Relaxed);
            self.told_at.store(now, Ordering::Relaxed);
        }
    }
}

/// Measures and decides until shutdown.
pub async fn run(state: AppState) {
    let mut signs = Signs::default();
    let mut polls = state.metrics.polls.total();
    loop {
        let hosts = state.view.hosts();
        state.load.hosts.store(hosts, Ordering::Relaxed);
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        state.metrics.view_hosts.set(count(hosts));
        state.metrics.view_bytes.set(count(state.view.bytes()));
        let begun = Instant::now();
        let mut late = Duration::ZERO;
        for _ in 0..TICKS {
            let tick = Instant::now();
            if tokio::time::timeout(TICK, state.shutdown.cancelled()).await.is_ok() {
                return;
            }
            late += tick.elapsed().saturating_sub(TICK);
        }
        let span = begun.elapsed();
        let total = state.metrics.polls.total();
        let now = Signs {
            lag: late / TICKS,
            filled: state.reports.filled(),
            polls: total.saturating_sub(polls) as f64 / span.as_secs_f64(),
        };
        polls = total;
        signs = signs.smoothed(now, span);
        state.load.set_factor(factor(state.load.factor(), &signs, span));
        state.load.tell(poll_after(&state, false), state.clock.now().micros());
        let metrics = &state.metrics;
        metrics.load_factor.set(state.load.factor());
        metrics.lag_seconds.set(signs.lag.as_secs_f64());
        metrics.reports_waiting.set(i64::try_from(state.reports.waiting()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lag(millis: u64) -> Signs {
        Signs { lag: Duration::from_millis(millis), ..Signs::default() }
    }

    fn after(seconds: u32, from: f64, signs: &Signs) -> f64 {
        (0..seconds).fold(from, |before, _| factor(before, signs, SECOND))
    }

    #[test]
    fn factor_rises_in_seconds_under_too_much_load_and_not_beyond_its_bound() {
        assert!((after(10, 1.0, &lag(100)) - 2.0).abs() < 0.01, "twice too much doubles it in ten seconds");
        assert!((after(10, 1.0, &lag(10_000)) - 2.0).abs() < 0.01, "never faster");
        let barely = after(10, 1.0, &lag(55));
        assert!(barely > 1.05 && barely < 1.2, "{barely}");
        assert!((after(1000, 1.0, &lag(100)) - MOST).abs() < f64::EPSILON);
    }

    #[test]
    fn factor_falls_in_minutes_under_little_load_and_stays_in_between() {
        let minute = after(60, 16.0, &Signs::default());
        assert!((minute - 16.0 / std::f64::consts::E).abs() < 0.01, "{minute}");
        assert!((after(1000, 16.0, &Signs::default()) - 1.0).abs() < f64::EPSILON);
        assert!((after(1000, 4.0, &lag(30)) - 4.0).abs() < f64::EPSILON, "neither too much nor little");
        assert!((factor(f64::INFINITY, &lag(30), SECOND) - MOST).abs() < f64::EPSILON);
    }

    #[test]
    fn each_sign_alone_is_a_load() {
        let full = [
            lag(50),
            Signs { filled: 0.5, ..Signs::default() },
            Signs { polls: POLLS_PER_SECOND as f64, ..Signs::default() },
        ];
        for signs in full {
            assert!((signs.load() - 1.0).abs() < 1e-9, "{signs:?}");
        }
    }

    #[test]
    fn one_late_tick_is_smoothed_away() {
        let signs = lag(10).smoothed(lag(150), SECOND);
        assert!(signs.lag < Duration::from_millis(40), "{signs:?}");
        let lasting = (0..30).fold(lag(10), |signs, _| signs.smoothed(lag(150), SECOND));
        assert!(lasting.lag > Duration::from_millis(140), "{lasting:?}");
    }

    #[test]
    fn interval_grows_with_fleet_and_factor_within_bounds() {
        assert_eq!(interval(5, 0, 1.0), 5);
        assert_eq!(interval(5, 99_999, 1.0), 5);
        assert_eq!(interval(5, 1_000_000, 1.0), 20);
        assert_eq!(interval(5, 0, 1.5), 8);
        assert_eq!(interval(1, 1_000_000, 16.0), 320);
        assert_eq!(interval(3600, 0, 16.0), LONGEST);
        assert_eq!(interval(5, usize::MAX, f64::NAN.max(1.0)), LONGEST);
    }

    #[test]
    fn longest_interval_counts_until_it_is_over() {
        let load = Load::default();
        load.tell(80, 0);
        load.tell(20, 79_000_000);
        assert_eq!(load.longest(), 80, "somebody still waits it out");
        load.tell(20, 81_000_000);
        assert_eq!(load.longest(), 20);
    }
}
