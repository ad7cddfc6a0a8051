//! FleetView: what each host should have, in memory, and whoever waits for it to move.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use arc_swap::ArcSwap;
use titan_api::{Revision, SetDigest};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::store::Assignment;

/// What one host should have: its assignments, present ones and tombstones.
#[derive(Debug, Clone, Default)]
pub struct HostSet {
    assignments: BTreeMap<Uuid, Arc<Assignment>>,
    digest: SetDigest,
}

impl HostSet {
    /// Returns the digest over the present assignments.
    #[must_use]
    pub const fn digest(&self) -> SetDigest {
        self.digest
    }

    /// Returns the assignments, present ones and tombstones, by id.
    pub fn assignments(&self) -> impl Iterator<Item = &Arc<Assignment>> {
        self.assignments.values()
    }

    /// Takes in an assignment as it stands now. An older state than the known one is passed over.
    pub fn put(&mut self, assignment: Arc<Assignment>) {
        let known = self.assignments.get(&assignment.id).map(|known| known.revision);
        if known.is_some_and(|known| known > assignment.revision) {
            return;
        }
        self.remove(assignment.id);
        if assignment.present {
            self.digest = self.digest.with(assignment.id, assignment.revision);
        }
        self.assignments.insert(assignment.id, assignment);
    }

    /// Takes an assignment out.
    pub fn remove(&mut self, id: Uuid) {
        if let Some(gone) = self.assignments.remove(&id)
            && gone.present
        {
            self.digest = self.digest.without(gone.id, gone.revision);
        }
    }
}

/// A host's place in the view.
#[derive(Debug, Default)]
pub struct Slot {
    set: ArcSwap<HostSet>,
    moved: Notify,
}

impl Slot {
    /// Returns the set as it is now.
    #[must_use]
    pub fn set(&self) -> Arc<HostSet> {
        self.set.load_full()
    }

    /// Returns what completes when the set moves. Subscribe, then read, then wait.
    pub const fn moved(&self) -> &Notify {
        &self.moved
    }
}

/// What every host should have, as of one revision.
///
/// Readers never wait. One task moves it along: first the hosts' sets, then the revision, so that whoever reads the
/// revision first and a set after it has everything up to that revision.
#[derive(Debug, Default)]
pub struct FleetView {
    hosts: papaya::HashMap<Uuid, Arc<Slot>>,
    revision: AtomicI64,
}

impl FleetView {
    /// Returns the revision up to which the view is complete.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision::from_micros(self.revision.load(Ordering::Acquire))
    }

    /// Returns a host's place, making it if there is none.
    #[must_use]
    pub fn slot(&self, host: Uuid) -> Arc<Slot> {
        Arc::clone(self.hosts.pin().get_or_insert_with(host, Arc::default))
    }

    /// Takes in the assignments that moved up to `revision` and wakes whoever waits for them.
    pub fn advance(&self, moved: Vec<Assignment>, revision: Revision) {
        let mut by_host: HashMap<Uuid, Vec<Arc<Assignment>>> = HashMap::new();
        for assignment in moved {
            by_host.entry(assignment.host).or_default().push(Arc::new(assignment));
        }
        let mut wake = Vec::with_capacity(by_host.len());
        for (host, assignments) in by_host {
            let slot = self.slot(host);
            // A tombstone may be forgotten at the same moment.
            slot.set.rcu(|set| {
                let mut set = HostSet::clone(set);
                for assignment in &assignments {
                    set.put(Arc::clone(assignment));
                }
                set
            });
            wake.push(slot);
        }
        self.revision.fetch_max(revision.micros(), Ordering::AcqRel);
        for slot in wake {
            slot.moved.notify_waiters();
        }
    }

    /// Takes out a tombstone that its host has confirmed.
    pub fn forget(&self, host: Uuid, assignment: Uuid, revision: Revision) {
        if let Some(slot) = self.hosts.pin().get(&host) {
            slot.set.rcu(|set| {
                let mut set = HostSet::clone(set);
                let stale =
                    set.assignments.get(&assignment).is_some_and(|known| known.revision <= revision && !known.present);
                if stale {
                    set.remove(assignment);
                }
                set
            });
        }
    }

    /// Takes out a host that is gone.
    pub fn forget_host(&self, host: Uuid) {
        self.hosts.pin().remove(&host);
    }

    /// Returns how many hosts have a place.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.hosts.pin().len()
    }

    /// Returns every host's set, for comparison with the database.
    #[must_use]
    pub fn sets(&self) -> BTreeMap<Uuid, Arc<HostSet>> {
        self.hosts.pin().iter().map(|(host, slot)| (*host, slot.set())).collect()
    }
}
