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

    /// Takes in how long a transaction took that wrote `moved` assignments.
    pub(super) fn took(&mut self, moved: usize, span: Duration) {
        if span > Self::GOAL {
            self.pairs = (self.pairs / 2).max(self.least);
        } else if span < Self::GOAL / 3 && moved * 2 > self.pairs {
            self.pairs = (self.pairs * 2).min(self.most);
        }
    }
}
