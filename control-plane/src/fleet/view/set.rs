//! A host's set: what it should have.

use std::sync::Arc;

use titan_api::{Digest, Revision, SetDigest};
use uuid::Uuid;

use crate::store::{Assignment, Description, told_id};

/// One assignment in a host's set. 48 bytes: there are millions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What the host is told of it.
    pub description: Arc<Description>,
    /// When it last moved.
    pub revision: Revision,
    /// What was rendered; a tombstone has none.
    bundle: [u8; 32],
}

/// Stands for no bundle: nothing has this digest.
const NO_BUNDLE: [u8; 32] = [0; 32];

impl Entry {
    /// Returns what the host is to have, unless this is a tombstone.
    #[must_use]
    pub fn bundle(&self) -> Option<Digest> {
        if self.present() { Digest::from_bytes(&self.bundle) } else { None }
    }

    /// Whether the host is to have it; if not, this is a tombstone.
    #[must_use]
    pub fn present(&self) -> bool {
        self.bundle != NO_BUNDLE
    }

    /// Returns the id of the assignment on `host`.
    #[must_use]
    pub fn id(&self, host: Uuid) -> Uuid {
        told_id(&self.description, self.description.deployment, host)
    }

    /// Returns the deployment; for a pruned orphan the assignment's id.
    #[must_use]
    pub fn deployment(&self) -> Uuid {
        self.description.deployment
    }

    /// Returns the assignment on `host`.
    #[must_use]
    pub fn assignment(&self, host: Uuid) -> Assignment {
        Assignment {
            deployment: self.deployment(),
            host,
            description: Arc::clone(&self.description),
            revision: self.revision,
            bundle: self.bundle(),
        }
    }
}

impl From<Assignment> for Entry {
    fn from(assignment: Assignment) -> Self {
        Self {
            description: assignment.description,
            revision: assignment.revision,
            bundle: assignment.bundle.map_or(NO_BUNDLE, |bundle| *bundle.as_bytes()),
        }
    }
}

/// What one host should have: its assignments, present ones and tombstones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostSet {
    digest: SetDigest,
    entries: Box<[Entry]>,
}

impl HostSet {
    /// Returns the set of `host` with these entries, one for each deployment.
    #[must_use]
    pub fn new(host: Uuid, entries: impl Into<Box<[Entry]>>) -> Self {
        let entries = entries.into();
        let present = entries.iter().filter(|entry| entry.present());
        let digest = SetDigest::of(present.map(|entry| (entry.id(host), entry.revision)));
        Self { digest, entries }
    }

    /// Returns the digest over the present assignments.
    #[must_use]
    pub const fn digest(&self) -> SetDigest {
        self.digest
    }

    /// Returns the assignments, present ones and tombstones.
    #[must_use]
    pub const fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the assignment of a deployment.
    #[must_use]
    pub fn of_deployment(&self, deployment: Uuid) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.deployment() == deployment)
    }

    /// Whether there is a tombstone.
    #[must_use]
    pub fn has_tombstone(&self) -> bool {
        self.entries.iter().any(|entry| !entry.present())
    }

    /// Returns the set after these moved. An older state than the known one is passed over.
    #[must_use]
    pub fn moved(&self, host: Uuid, moved: &[Entry]) -> Self {
        let mut entries = Vec::with_capacity(self.entries.len() + moved.len());
        entries.extend_from_slice(&self.entries);
        let mut digest = self.digest;
        for entry in moved {
            let known = entries.iter().position(|known| known.deployment() == entry.deployment());
            if let Some(known) = known.map(|index| &mut entries[index]) {
                if known.revision > entry.revision {
                    continue;
                }
                if known.present() {
                    digest = digest.without(known.id(host), known.revision);
                }
                known.clone_from(entry);
            } else {
                entries.push(entry.clone());
            }
            if entry.present() {
                digest = digest.with(entry.id(host), entry.revision);
            }
        }
        Self { digest, entries: entries.into() }
    }

    /// Returns the set without the tombstone of a deployment, if it is still the one of `revision` or older.
    #[must_use]
    pub fn without_tombstone(&self, deployment: Uuid, revision: Revision) -> Self {
        let confirmed =
            |entry: &Entry| entry.deployment() == deployment && !entry.present() && entry.revision <= revision;
        let entries = self.entries.iter().filter(|entry| !confirmed(entry)).cloned().collect();
        Self { digest: self.digest, entries }
    }
}
