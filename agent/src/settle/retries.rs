//! When a deployment is looked at: what is not settled at once, what failed after a pause.

use std::time::{Duration, Instant};

use titan_api::{Digest, reports::Phase};
use uuid::Uuid;

use super::{Pass, Worker};
use crate::pace;

/// The pause before a deployment that failed is tried again: doubled each time, up to the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(15), Duration::from_mins(10));

/// The first pause while what is in place has yet to prove itself: its time is short.
const ON_TRIAL: Duration = Duration::from_secs(2);

/// A deployment that could not be applied.
#[derive(Debug)]
pub(super) struct Failure {
    digest: Digest,
    count: u32,
    pub(super) again: Instant,
}

impl Worker {
    /// Whether something moves, so that what failed may have its path free now, or is to inherit one.
    pub(super) fn is_stirred(&self, postponed: bool) -> bool {
        let moves = |id: &Uuid, digest: &Digest| {
            let idle = self.failures.contains_key(id) || self.waiting.contains(id);
            !idle && !self.is_settled(*id) && self.bundles.holds(digest)
        };
        (!postponed && !self.desired.removals.is_empty())
            || self.desired.entries.iter().any(|(id, entry)| moves(id, &entry.digest))
    }

    /// Whether a deployment is to be brought to what is desired now.
    pub(super) fn is_due(&self, id: Uuid, now: Instant, stirred: bool) -> bool {
        let known = |failure: &&Failure| self.desired.entries.get(&id).is_some_and(|e| e.digest == failure.digest);
        match self.failures.get(&id).filter(known) {
            Some(failure) => stirred || now >= failure.again,
            None => !self.is_settled(id),
        }
    }

    /// Returns when something that failed is tried again. What was due in the last pass and did not fail anew waits for
    /// something that comes with word of itself: a hook that ends, a window, a bundle, the next beat.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        let ahead = |again: &Instant| self.passed.is_none_or(|passed| *again > passed);
        self.failures.values().map(|failure| failure.again).filter(ahead).min()
    }

    /// Takes note of what failed in a pass, and of what did not any more.
    pub(super) fn remember_failures(&mut self, pass: &Pass<'_>) {
        let waits = |(_, (phase, _)): &(&Uuid, &(Phase, String))| *phase != Phase::Failed;
        self.waiting = pass.held.iter().filter(waits).map(|(id, _)| *id).collect();
        let entries = &self.desired.entries;
        self.failures.retain(|id, failure| entries.get(id).is_some_and(|entry| entry.digest == failure.digest));
        for id in pass.tried.iter().filter(|id| !pass.held.contains_key(*id)) {
            self.failures.remove(id);
        }
        for id in pass.held.iter().filter(|(_, (phase, _))| *phase == Phase::Failed).map(|(id, _)| id) {
            let Some(digest) = self.desired.entries.get(id).map(|entry| entry.digest) else { continue };
            if self.stuck.contains_key(id) || self.halted.is_some() {
                continue;
            }
            let count = self.failures.get(id).filter(|known| known.digest == digest).map_or(0, |known| known.count);
            let first = if self.is_on_trial(*id) { ON_TRIAL } else { RETRY.0 };
            let pause = pace::doubled((first, RETRY.1), count);
            self.failures.insert(*id, Failure { digest, count: count + 1, again: Instant::now() + pause });
        }
    }
}
