//! Pace: how much is written at a time.

use std::time::Duration;

/// How many pairs of deployment and host are decided in one transaction: few enough not to keep other writers waiting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) pairs: usize,
    pub(super) least: usize,
    pub(super) most: usize,
}

impl Pace {
    /// How long a transaction may take; half of what others may be kept waiting.
    const GOAL: Duration = Duration::from_millis(50);
    /// How long one is to take: some take twice as long as the one before, which is known only afterwards.
    const AIM: Duration = Duration::from_millis(30);

    /// Takes in how long a transaction took that wrote `moved` assignments.
    pub(super) fn took(&mut self, moved: usize, span: Duration) {
        if span > Self::GOAL {
            self.pairs = (self.pairs / 2).max(self.least);
        } else if moved * 2 > self.pairs {
            let fit = Self::AIM.div_duration_f64(span.max(Duration::from_micros(1))).clamp(0.5, 2.0);
            self.pairs = ((self.pairs as f64 * fit) as usize).clamp(self.least, self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_is_written_at_a_time_as_others_can_wait_for() {
        let mut pace = Pace { pairs: 1000, least: 100, most: 3000 };
        for (moved, millis, pairs) in [
            (1000, 15, 2000),
            (2000, 24, 2500),
            (2500, 40, 1875),
            (1875, 1, 3000),
            (10, 1, 3000),
            (3000, 51, 1500),
            (10, 80, 750),
            (750, 500, 375),
            (375, 500, 187),
            (187, 500, 100),
        ] {
            pace.took(moved, Duration::from_millis(millis));
            assert_eq!(pace.pairs, pairs, "after {moved} in {millis} ms");
        }
    }
}
