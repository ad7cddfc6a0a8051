//! What each deployment is to be on this host: what is declared, unless that proved bad here.

use titan_api::{Digest, Revision};
use uuid::Uuid;

use super::Worker;
use crate::{apply::Target, disk::DiskError, ledger::LedgerEntry};

/// What a deployment is to be.
#[derive(Debug, Clone)]
pub(super) struct Course {
    /// The bundle, and the release that it came with.
    pub(super) target: Target,
    /// Whether that is not what is declared, since what is declared proved bad.
    pub(super) returns: bool,
}

impl Worker {
    /// Returns what a declared deployment, or an orphan, is to be.
    pub(super) fn course(&self, id: Uuid) -> Option<Course> {
        let entry = self.desired.entries.get(&id)?;
        let target = Target::new(id, entry);
        let Some(owned) = self.ledger.entries.get(&id).filter(|owned| owned.bad.contains_key(&entry.digest)) else {
            return Some(Course { target, returns: false });
        };
        if owned.digest != entry.digest {
            // It is back already: it stays what it is.
            let LedgerEntry { digest, release, revision, .. } = owned.clone();
            return Some(Course { target: Target { digest, release, revision, ..target }, returns: true });
        }
        match owned.previous.clone() {
            Some(previous) => {
                let crate::ledger::Previous { digest, release, revision } = previous;
                Some(Course { target: Target { digest, release, revision, ..target }, returns: true })
            }
            // There is nothing to return to.
            None => Some(Course { target, returns: false }),
        }
    }

    /// Returns the digest of the bundle that is in place.
    pub(super) fn in_place(&self, id: Uuid) -> Option<Digest> {
        self.ledger.entries.get(&id).map(|owned| owned.digest)
    }

    /// Whether what is in place is what it is to be, and brought to life.
    pub(super) fn is_settled(&self, id: Uuid) -> bool {
        let (Some(course), Some(owned)) = (self.course(id), self.ledger.entries.get(&id)) else { return false };
        let target = &course.target;
        owned.unfinished.is_none()
            && (!self.ledger.is_left(id) || self.bears(id))
            && (owned.digest, owned.revision, &owned.release) == (target.digest, target.revision, &target.release)
    }

    /// Forgets of bundles that they proved bad once they are neither declared nor in place: another one was declared since,
    /// and whoever declares them again wants them tried again. So does whoever declares one anew that was gone back from.
    pub(super) fn reconsider(&mut self) -> Result<(), DiskError> {
        let entries = self.ledger.entries.iter().filter(|(id, _)| !self.stuck.contains_key(*id));
        let over: Vec<_> = entries
            .filter_map(|(id, owned)| {
                let declared = self.desired.entries.get(id)?;
                let is_anew = |at: &Revision| declared.revision > *at;
                let again = owned.digest != declared.digest && owned.bad_at.get(&declared.digest).is_some_and(is_anew);
                let matters = [(!again).then_some(declared.digest), Some(owned.digest)];
                owned.bad.keys().any(|bad| !matters.contains(&Some(*bad))).then_some((*id, matters))
            })
            .collect();
        for (id, matters) in over {
            self.amend(id, |entry| {
                entry.bad.retain(|bad, _| matters.contains(&Some(*bad)));
                entry.bad_at.retain(|bad, _| matters.contains(&Some(*bad)));
            })?;
        }
        Ok(())
    }

    /// Returns why the declared bundle is not applied, if it proved bad on this host.
    pub(super) fn proved_bad(&self, id: Uuid) -> Option<&str> {
        let entry = self.desired.entries.get(&id)?;
        self.ledger.entries.get(&id)?.bad.get(&entry.digest).map(String::as_str)
    }
}
