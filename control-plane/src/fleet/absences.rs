//! Absences: hosts that were not seen for long, as far as the control plane could have seen them.
//!
//! Nothing of it is kept: it begins anew with each start, so that no host is missed because the control plane was away.

use std::{collections::HashMap, time::Duration};

use titan_api::Revision;
use uuid::Uuid;

use crate::fleet::model::Deployment;

/// Looks further apart than this are no watch: whoever watches was held up, or the clock was set.
const LAPSE: Duration = Duration::from_secs(30);

/// Hosts that were not seen for some time, with how long.
#[derive(Debug, Clone, Default)]
pub struct Absences(HashMap<Uuid, Duration>);

impl Absences {
    /// Returns how long a host was not seen; nothing for those that nobody misses.
    #[must_use]
    pub fn unseen(&self, host: Uuid) -> Duration {
        self.0.get(&host).copied().unwrap_or_default()
    }

    /// Whether a deployment is to leave a host because it was not seen for as long as the deployment says.
    #[must_use]
    pub fn misses(&self, deployment: &Deployment, host: Uuid) -> bool {
        !self.0.is_empty() && deployment.spec.failover().is_some_and(|after| self.unseen(host) >= after)
    }

    /// Returns the hosts that are missed.
    pub fn hosts(&self) -> impl Iterator<Item = Uuid> {
        self.0.keys().copied()
    }

    /// Notes how long a host was not seen; nothing if it is missed no longer.
    pub fn set(&mut self, host: Uuid, unseen: Duration) {
        if unseen.is_zero() {
            self.0.remove(&host);
        } else {
            self.0.insert(host, unseen);
        }
    }
}

/// Since when somebody watches without a lapse, and when any host was seen last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watch {
    since: Revision,
    looked: Revision,
    heard: Revision,
}

impl Watch {
    /// Notes a look at `now`, when any host was seen last at `heard`; after a lapse the watch begins anew.
    pub fn look(&mut self, now: Revision, heard: Option<Revision>) {
        let gap = now.micros().checked_sub(self.looked.micros()).filter(|gap| *gap >= 0);
        if gap.is_none_or(|gap| u128::from(gap.unsigned_abs()) > LAPSE.as_micros()) {
            (self.since, self.heard) = (now, now);
        }
        self.looked = now;
        self.heard = self.heard.max(heard.unwrap_or_default().min(now));
    }

    /// Returns for how long a host was not seen that was seen last at `seen`: up to when another was, for while nobody is
    /// seen it is the control plane that cannot be reached.
    #[must_use]
    pub fn unseen(&self, seen: Option<Revision>) -> Duration {
        let from = seen.unwrap_or_default().max(self.since).micros();
        Duration::from_micros(u64::try_from(self.heard.micros().saturating_sub(from)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Option<Revision> = None;

    fn at(seconds: i64) -> Revision {
        Revision::from_micros(1_000_000_000_000 + seconds * 1_000_000)
    }

    /// Looks each second, hearing somebody each time.
    fn watched(watch: &mut Watch, from: i64, to: i64) {
        (from..=to).for_each(|second| watch.look(at(second), Some(at(second))));
    }

    #[test]
    fn a_host_is_missed_only_for_as_long_as_somebody_watched() {
        let mut watch = Watch::default();
        watched(&mut watch, 0, 100);
        let unseen = |watch: &Watch, seen| watch.unseen(seen).as_secs();
        assert_eq!(unseen(&watch, Some(at(-5000))), 100, "what was before the start does not count");
        assert_eq!((unseen(&watch, NOBODY), unseen(&watch, Some(at(70)))), (100, 30));
        // The process was stopped for an hour.
        watched(&mut watch, 3700, 3710);
        assert_eq!(unseen(&watch, Some(at(70))), 10, "nor does what was before a lapse");
        // The clock was set back.
        watched(&mut watch, 50, 55);
        assert_eq!(unseen(&watch, NOBODY), 5);
    }

    #[test]
    fn nobody_is_missed_while_nobody_is_heard() {
        let mut watch = Watch::default();
        watched(&mut watch, 0, 10);
        (11..1000).for_each(|second| watch.look(at(second), Some(at(10))));
        assert_eq!(watch.unseen(Some(at(9))).as_secs(), 1);
    }
}
