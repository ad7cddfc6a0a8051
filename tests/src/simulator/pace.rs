//! When an agent asks again, and which agents are away. Pure: chance and time come in as arguments.

use std::time::Duration;

use crate::dice::Dice;

/// How far agents that were all told of the same change spread their next polls.
const SPREAD: Duration = Duration::from_millis(500);
/// The first pause after a failure, before jitter.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// A pause that the control plane may ask for at most.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// Returns the pause after a poll that succeeded, `elapsed` after it began, as `titan-agent` makes it: what is left of the
/// cadence, jittered fully around its mean; after a held poll that came to its end or brought something, nearly none.
#[must_use]
pub fn after_success(cadence: Duration, elapsed: Duration, held: bool, changed: bool, chance: f64) -> Duration {
    let left = cadence.saturating_sub(elapsed);
    if left.is_zero() || (held && changed) {
        // Compressed time is compressed here too.
        return SPREAD.min(cadence).mul_f64(chance);
    }
    left.mul_f64(2.0 * chance)
}

/// Returns the pause after `failures` failures in a row (at least one), with full jitter; at least what was asked for.
#[must_use]
pub fn after_failure(failures: u8, longest: Duration, asked: Option<Duration>, chance: f64) -> Duration {
    let factor = 2_u32.saturating_pow(u32::from(failures).saturating_sub(1).min(20));
    let jittered = FIRST_BACKOFF.saturating_mul(factor).min(longest).mul_f64(chance);
    asked.map_or(jittered, |asked| asked.min(LONGEST_ASKED) + jittered)
}

/// A share of the fleet that is away, another one in each period.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Absence {
    /// How many are away at a time, 0 to 1.
    pub share: f64,
    /// For how long.
    pub period: Duration,
}

impl Absence {
    /// Returns for how much longer an agent is away, `now` after the beginning; `None` if it is there.
    #[must_use]
    pub fn left(&self, agent: u32, now: Duration) -> Option<Duration> {
        const SIDES: u64 = 1 << 20;
        if self.share <= 0.0 || self.period.is_zero() {
            return None;
        }
        let period = now.div_duration_f64(self.period).floor();
        let seed = (period as u64).wrapping_mul(0x1_0000_0001) ^ u64::from(agent);
        let mut dice = Dice::new(seed);
        let away = (dice.roll(SIDES) as f64) < self.share * SIDES as f64;
        away.then(|| self.period.mul_f64(period + 1.0).saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn the_mean_of_the_jitter_is_the_cadence() {
        assert_eq!(after_success(S(30), S(0), false, false, 0.5), S(30));
        assert_eq!(after_success(S(30), S(0), false, false, 1.0), S(60));
        assert_eq!(after_success(S(300), S(30), true, false, 0.5), S(270));
        assert!(after_success(S(30), S(31), true, false, 1.0) <= SPREAD);
        assert!(after_success(S(30), S(3), true, true, 1.0) <= SPREAD);
        assert!(after_success(Duration::from_millis(20), S(0), false, true, 1.0) <= Duration::from_millis(40));
    }

    #[test]
    fn retry_after_is_kept_and_backoff_is_bounded() {
        assert!(after_failure(1, S(300), Some(S(60)), 0.0) >= S(60));
        assert_eq!(after_failure(200, S(300), None, 1.0), S(300));
        assert_eq!(after_failure(1, S(300), Some(S(1_000_000)), 0.0), S(3600));
    }

    #[test]
    fn as_many_are_away_as_was_said_and_others_the_next_time() {
        let absence = Absence { share: 0.1, period: S(10) };
        let away = |now: u64| -> Vec<u32> { (0..10_000).filter(|n| absence.left(*n, S(now)).is_some()).collect() };
        let (first, second) = (away(3), away(13));
        assert!((900..1100).contains(&first.len()) && (900..1100).contains(&second.len()), "{}", first.len());
        assert!(first.iter().filter(|agent| second.contains(agent)).count() < 200);
        assert_eq!(absence.left(first[0], S(3)), Some(S(7)));
        assert_eq!(Absence { share: 0.0, period: S(10) }.left(1, S(3)), None);
    }

    proptest! {
        #[test]
        fn pauses_stay_within_twice_the_cadence(cadence in 1_u64..600, elapsed in 0_u64..600, chance in 0.0..=1.0_f64) {
            prop_assert!(after_success(S(cadence), S(elapsed), false, false, chance) <= S(cadence) * 2);
        }
    }
}
