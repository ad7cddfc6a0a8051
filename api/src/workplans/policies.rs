//! Policies: how often an attempt is made again, and how long things may take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{limits, problems::Fault, spans::Span};

/// When an attempt that came to nothing is made again. After the n-th one it waits up to `first` times `times` to the
/// power of n - 1, but no longer than `cap`; full jitter makes the wait anything between nothing and that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Retry {
    /// Attempts altogether; 1 is none again, 0 as many as the time allows.
    pub attempts: u32,
    /// The longest wait after the first attempt.
    pub first: Span,
    /// What it grows by each time.
    pub times: f64,
    /// What it grows to.
    pub cap: Span,
    /// How the wait is drawn.
    pub jitter: Jitter,
    /// Codes of failures after which no attempt is made again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub non_retryable: Vec<String>,
}

/// How the wait before another attempt is drawn from the longest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Jitter {
    /// It is the longest one.
    None,
    /// Anything up to the longest one.
    #[default]
    Full,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            first: Span(Duration::from_secs(1)),
            times: 2.0,
            cap: Span(Duration::from_secs(10)),
            jitter: Jitter::default(),
            non_retryable: Vec::new(),
        }
    }
}

impl Retry {
    /// Returns the longest wait after the attempt of this number.
    #[must_use]
    pub fn longest_wait(&self, after: u32) -> Duration {
        let exponent = i32::try_from(after.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.first.0.as_secs_f64() * self.times.powi(exponent);
        // What is too much for a span is more than the cap.
        Duration::try_from_secs_f64(seconds).unwrap_or(self.cap.0).min(self.cap.0)
    }

    /// Returns the wait after the attempt of this number, by `dice`.
    #[must_use]
    pub fn wait(&self, after: u32, dice: u64) -> Duration {
        let longest = self.longest_wait(after);
        match self.jitter {
            Jitter::None => longest,
            Jitter::Full => {
                let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
                Duration::from_micros(dice % micros.saturating_add(1))
            }
        }
    }

    /// Whether a failure of `code` may be tried again.
    #[must_use]
    pub fn allows(&self, code: &str) -> bool {
        !self.non_retryable.iter().any(|refused| refused == code)
    }

    /// Returns what is wrong with the policy, at `pointer`.
    #[must_use]
    pub fn faults(&self, pointer: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.attempts > limits::ATTEMPTS {
            let detail = format!("{}, the limit is {}", self.attempts, limits::ATTEMPTS);
            faults.push(Fault::new(format!("{pointer}/attempts"), detail));
        }
        if !(1.0..=100.0).contains(&self.times) {
            faults.push(Fault::new(format!("{pointer}/times"), format!("{} is not between 1 and 100", self.times)));
        }
        faults.extend(self.first.fault(format!("{pointer}/first"), Duration::ZERO, limits::PLAN_SPAN_MOST));
        faults.extend(self.cap.fault(format!("{pointer}/cap"), Duration::ZERO, limits::PLAN_SPAN_MOST));
        if self.non_retryable.len() > limits::NON_RETRYABLE {
            let detail = format!("{} codes, the limit is {}", self.non_retryable.len(), limits::NON_RETRYABLE);
            faults.push(Fault::new(format!("{pointer}/nonRetryable"), detail));
        }
        faults
    }
}

/// How long a node and its attempts may take. The clocks stand still while the plan is paused.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Timeouts {
    /// From the beginning of an attempt to its end; absent: 5 minutes, for executors that have no time of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_attempt: Option<Span>,
    /// From the beginning of the node to its end, over all attempts. An attempt that would not fit is not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Span>,
    /// How long an attempt may wait for a worker. Past it no other attempt is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_to_start: Option<Span>,
    /// How often a worker says that it is still at it. After two times of silence the attempt is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Span>,
    /// How long a worker has to end an attempt once it was told to; absent: 30 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teardown: Option<Span>,
}

/// How long an attempt may take that says nothing else.
pub const PER_ATTEMPT: Duration = Duration::from_mins(5);
/// How long a worker has to end an attempt once it was told to, unless something else is said.
pub const TEARDOWN: Duration = Duration::from_secs(30);

impl Timeouts {
    /// Returns what is wrong with the timeouts, at `pointer`.
    #[must_use]
    pub fn faults(&self, pointer: &str) -> Vec<Fault> {
        let each = [
            ("perAttempt", self.per_attempt),
            ("total", self.total),
            ("scheduleToStart", self.schedule_to_start),
            ("heartbeat", self.heartbeat),
            ("teardown", self.teardown),
        ];
        let each = each.into_iter().filter_map(|(key, span)| Some((key, span?)));
        each.filter_map(|(key, span)| {
            span.fault(format!("{pointer}/{key}"), limits::SPAN_LEAST, limits::PLAN_SPAN_MOST)
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S4-18.
    #[test]
    fn three_attempts_wait_one_second_then_two_and_never_over_ten() {
        let retry = Retry::default();
        let waits: Vec<_> = (1..8).map(|after| retry.longest_wait(after).as_secs()).collect();
        assert_eq!((retry.attempts, waits), (3, vec![1, 2, 4, 8, 10, 10, 10]));
        assert_eq!(retry.longest_wait(u32::MAX), Duration::from_secs(10));
    }

    #[test]
    fn full_jitter_is_anything_up_to_the_longest_wait() {
        let retry = Retry::default();
        assert_eq!(retry.wait(1, 0), Duration::ZERO);
        assert_eq!(retry.wait(1, 1_000_000), Duration::from_secs(1));
        assert_eq!(retry.wait(1, 1_000_001), Duration::ZERO);
        assert!((0..1000).all(|dice| retry.wait(3, dice * 7919) <= Duration::from_secs(4)));
        assert_eq!(Retry { jitter: Jitter::None, ..retry }.wait(2, 5), Duration::from_secs(2));
    }

    #[test]
    fn policies_beyond_their_limits_are_refused() {
        let bad = Retry {
            attempts: limits::ATTEMPTS + 1,
            times: 0.5,
            non_retryable: vec!["x".into(); limits::NON_RETRYABLE + 1],
            ..Retry::default()
        };
        let pointers: Vec<_> = bad.faults("/retry").into_iter().map(|fault| fault.pointer).collect();
        assert_eq!(pointers, ["/retry/attempts", "/retry/times", "/retry/nonRetryable"]);
        assert!(Retry { times: f64::NAN, ..Retry::default() }.faults("").len() == 1);
        let bad = Timeouts { heartbeat: Some(Span(Duration::ZERO)), ..Timeouts::default() };
        assert_eq!(bad.faults("/timeouts")[0].pointer, "/timeouts/heartbeat");
    }
}
