//! When a deployment is looked at: what is not settled at once, what failed after a pause.

use std::time::{Duration, Instant};

use titan_api::{Digest, reports::Phase};
use uuid::Uuid;

use super::{Pass, Worker};

/// The pause before a deployment that failed is tried again: doubled each time, up to the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(15), Duration::from_mins(10));

/// A deployment that could not be applied.
#[derive(Debug)]
pub(super) struct Failure {
    digest: Digest,
    count: u32,
    again: Instant,
}

impl Failure {
    /// Returns when it is tried again.
    pub(super) const fn again(&self) -> Instant {
        self.again
    }
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

    /// Takes note of what failed in a pass, and of what did not any more.
    pub(super) fn remember_failures(&mut self, pass: &Pass<'_>) {
        let waits = |(_, (phase, _)): &(&Uuid, &(Phase, String))| *phase != Phase::Failed;
        self.waiting = pass.held.iter().filter(waits).map(|(id, _)| *id).collect();
        for id in pass.tried.iter().filter(|id| !pass.held.contains_key(*id)) {
            self.failures.remove(id);
        }
        for id in pass.held.iter().filter(|(_, (phase, _))| *phase == Phase::Failed).map(|(id, _)| id) {
            let Some(digest) = self.desired.entries.get(id).map(|entry| entry.digest) else { continue };
            if self.stuck.contains_key(id) || self.halted.is_some() {
                continue;
            }
            let count = self.failures.get(id).filter(|known| known.digest == digest).map_or(0, |known| known.count);
            let pause = RETRY.0.saturating_mul(2_u32.saturating_pow(count.min(10))).min(RETRY.1);
            self.failures.insert(*id, Failure { digest, count: count + 1, again: Instant::now() + pause });
        }
    }
}
