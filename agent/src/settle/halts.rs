//! Halts: while it is not known what holds on this host, or what is declared cannot be written down, nothing is changed.

use std::time::{Duration, Instant};

use super::Worker;
use crate::pace;

/// The pause before a host that is halted looks again by itself: doubled each time, up to the longest. Most often its disk
/// is full, and looking costs writes too.
const PAUSE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(2));

/// What is known of halts that follow each other.
#[derive(Debug, Default)]
pub(super) struct Halts {
    /// What was said last.
    told: Option<String>,
    count: u32,
    again: Option<Instant>,
}

impl Halts {
    /// Whether a reason is another one than was told last; it counts as told.
    fn is_news(&mut self, why: &str) -> bool {
        let news = self.told.as_deref() != Some(why);
        self.told = Some(why.to_owned());
        news
    }

    /// Notes how a pass ended.
    fn end(&mut self, halted: bool, now: Instant) {
        if !halted {
            *self = Self::default();
        } else if self.again.is_none_or(|again| again <= now) {
            self.again = Some(now + pace::doubled(PAUSE, self.count));
            self.count = self.count.saturating_add(1);
        }
    }

    /// Returns when to look again, if the host is halted.
    pub(super) const fn again(&self) -> Option<Instant> {
        self.again
    }
}

impl Worker {
    /// Changes nothing on this host until the next pass.
    pub(super) fn halt(&mut self, why: String) {
        if self.halts.is_news(&why) {
            tracing::warn!("nothing is changed on this host until that is mended: {why}");
        }
        self.halted = Some(why);
    }

    /// Notes how a pass ended.
    pub(super) fn note_halt(&mut self) {
        self.halts.end(self.halted.is_some(), Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_halted_looks_again_after_pauses_that_grow_and_says_each_reason_once() {
        let (mut halts, mut now) = (Halts::default(), Instant::now());
        assert!(halts.is_news("full") && !halts.is_news("full") && halts.is_news("broken") && halts.is_news("full"));
        let mut pauses = Vec::new();
        for _ in 0..6 {
            halts.end(true, now);
            let again = halts.again().expect("halted");
            halts.end(true, now + Duration::from_secs(1));
            assert_eq!(halts.again(), Some(again), "a look that something else brought about postpones nothing");
            pauses.push((again - now).as_secs());
            now = again;
        }
        assert_eq!(pauses, [10, 20, 40, 80, 120, 120]);
        halts.end(false, now);
        assert!(halts.again().is_none() && halts.is_news("full"), "another time is told again");
    }
}
