//! When to ask again. Pure: chance and time come in as arguments.

use std::time::Duration;

/// The first pause after a failure, before jitter.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The first pause after a push that failed, before jitter, and the longest.
const FIRST_PUSH_BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_PUSH_BACKOFF: Duration = Duration::from_mins(10);
/// A pause that the control plane may ask for at most.
const LONGEST_ASKED: Duration = Duration::from_hours(1);
/// The shortest cadence that is followed, whatever the control plane says.
const LEAST: Duration = Duration::from_secs(1);
/// How far hosts that were all told of the same change spread their next polls.
const SPREAD: Duration = Duration::from_millis(500);

/// Returns the pause before the next poll after one that succeeded.
///
/// `poll_after` is the cadence that the control plane chose, counted from when the poll began `elapsed` ago. What is
/// left of it is jittered fully around its mean, so that hosts that once asked together do not go on doing so. A poll
/// that was held past its cadence, or brought something, is followed by the next one nearly at once: changes that
/// come together must not wait for a whole cadence. `chance` is between 0 and 1.
pub(crate) fn after_success(
    poll_after: Duration,
    elapsed: Duration,
    held: bool,
    changed: bool,
    chance: f64,
) -> Duration {
    let poll_after = poll_after.max(LEAST);
    let left = poll_after.saturating_sub(elapsed);
    if left.is_zero() || (held && changed) {
        return SPREAD.mul_f64(chance);
    }
    left.mul_f64(2.0 * chance)
}

/// Returns the pause after `failures` failures in a row (at least one), with full jitter; at least what the control
/// plane asked for.
pub(crate) fn after_failure(failures: u32, longest: Duration, asked: Option<Duration>, chance: f64) -> Duration {
    let factor = 2_u32.saturating_pow(failures.saturating_sub(1).min(20));
    let most = FIRST_BACKOFF.saturating_mul(factor).min(longest);
    let jittered = most.mul_f64(chance);
    asked.map_or(jittered, |asked| asked.min(LONGEST_ASKED) + jittered)
}

/// Returns the pause after `failures` pushes in a row that failed (at least one): doubled each time, up to the longest,
/// and between half of that and all of it.
pub(crate) fn before_push(failures: u32, chance: f64) -> Duration {
    let factor = 2_u32.saturating_pow(failures.saturating_sub(1).min(20));
    let most = FIRST_PUSH_BACKOFF.saturating_mul(factor).min(LONGEST_PUSH_BACKOFF);
    most.mul_f64(0.5 + chance / 2.0)
}

/// Returns the pause after `count` pauses: the first, doubled each time, up to the longest.
pub(crate) fn doubled((first, longest): (Duration, Duration), count: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(count.min(20))).min(longest)
}

/// Returns a number between 0 and 1, from the system's source of chance.
pub(crate) fn chance() -> f64 {
    let number = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(number) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn what_the_control_plane_asks_for_is_kept() {
        assert!(after_failure(1, S(300), Some(S(60)), 0.0) >= S(60));
        assert_eq!(after_failure(1, S(300), Some(S(1_000_000)), 0.0), S(3600), "within reason");
    }

    #[test]
    fn a_held_poll_is_followed_at_once() {
        assert!(after_success(S(30), S(30), true, false, 1.0) <= SPREAD);
        assert!(after_success(S(30), S(3), true, true, 1.0) <= SPREAD);
        assert_eq!(after_success(S(30), S(0), false, false, 0.5), S(30));
        assert_eq!(after_success(S(300), S(30), true, false, 0.5), S(270));
    }

    proptest! {
        #[test]
        fn pauses_after_failures_grow_and_stay_bounded(failures in 1_u32..1000, chance in 0.0..=1.0_f64) {
            let pause = after_failure(failures, S(300), None, chance);
            prop_assert!(pause <= S(300));
            prop_assert!(after_failure(failures + 1, S(300), None, chance) >= pause);
        }
    }
}
