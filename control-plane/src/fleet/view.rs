//! FleetView: what each host should have, in memory, and whoever waits for it to move.

mod slot;

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{Hash, Hasher},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
};

use titan_api::{Name, Revision, SetDigest};
use uuid::Uuid;

pub use slot::Slot;

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

/// Lists of hosts that were seen, so that polls do not queue up for one.
const SEEN_LISTS: usize = 16;

/// A slot that is found by its host's id.
#[derive(Debug, Clone)]
struct ByUid(Arc<Slot>);

/// A slot that is found by its host's name.
#[derive(Debug, Clone)]
struct ByName(Arc<Slot>);

impl Borrow<Uuid> for ByUid {
    fn borrow(&self) -> &Uuid {
        self.0.uid_ref()
    }
}

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        self.0.name().map_or("", Name::as_str)
    }
}

macro_rules! keyed {
    ($key:ty, $borrowed:ty) => {
        impl PartialEq for $key {
            fn eq(&self, other: &Self) -> bool {
                Borrow::<$borrowed>::borrow(self) == Borrow::<$borrowed>::borrow(other)
            }
        }

        impl Eq for $key {}

        impl Hash for $key {
            fn hash<H: Hasher>(&self, state: &mut H) {
                Borrow::<$borrowed>::borrow(self).hash(state);
            }
        }
    };
}
keyed!(ByUid, Uuid);
keyed!(ByName, str);

/// What every host should have, as of one revision.
///
/// Readers never wait. One task moves it along: first the hosts' sets, then the revision, so that whoever reads the
/// revision first and a set after it has everything up to that revision.
#[derive(Debug, Default)]
pub struct FleetView {
    hosts: papaya::HashSet<ByUid>,
    /// The hosts that have shown a credential.
    names: papaya::HashSet<ByName>,
    revision: AtomicI64,
    /// Counts how often all credentials were ended.
    epoch: AtomicU32,
    /// Hosts that were seen since that was last written down.
    seen: [Mutex<Vec<Arc<Slot>>>; SEEN_LISTS],
    /// Hosts that have tombstones.
    leaving: Mutex<BTreeSet<Uuid>>,
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
        let hosts = self.hosts.pin();
        loop {
            if let Some(found) = hosts.get(&host) {
                return Arc::clone(&found.0);
            }
            hosts.insert(ByUid(Arc::new(Slot::new(host))));
        }
    }

    /// Returns the place of the host of this name, if it has shown its credential before.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Arc<Slot>> {
        self.names.pin().get(name).map(|found| Arc::clone(&found.0))
    }

    /// Makes a host's place known by its name.
    pub fn name(&self, slot: &Arc<Slot>, name: &Name) {
        slot.set_name(name.clone());
        let names = self.names.pin();
        // Another host may have had the name before.
        if names.get(name.as_str()).is_none_or(|known| known.0.uid() != slot.uid()) {
            names.remove(name.as_str());
            names.insert(ByName(Arc::clone(slot)));
        }
    }

    /// Returns how often all credentials were ended, for [`Slot::stamp`] and [`Slot::trusts`].
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Ends the trust in every credential.
    pub fn distrust_all(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Ends the trust in a host's credential.
    pub fn distrust(&self, host: Uuid) {
        if let Some(found) = self.hosts.pin().get(&host) {
            found.0.distrust();
        }
    }

    /// Notes that a host was seen.
    pub fn see(&self, slot: &Arc<Slot>, now: Revision) {
        if slot.see(now) {
            self.list_seen(slot);
        }
    }

    fn list_seen(&self, slot: &Arc<Slot>) {
        let list = &self.seen[slot.uid().as_bytes()[15] as usize % SEEN_LISTS];
        list.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(slot));
    }

    /// Takes the hosts that were seen since the last time: to be written down now.
    pub fn take_seen(&self) -> Vec<Arc<Slot>> {
        let lists =
            self.seen.iter().map(|list| std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner)));
        lists.flatten().filter(|slot| slot.take_seen()).collect()
    }

    /// Puts back a host of which it could not be written down that it was seen.
    pub fn put_back_seen(&self, slot: &Arc<Slot>) {
        if slot.unwritten() {
            self.list_seen(slot);
        }
    }

    /// Returns when this process saw a host last.
    #[must_use]
    pub fn seen(&self, host: Uuid) -> Option<Revision> {
        self.hosts.pin().get(&host)?.0.seen()
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
            self.change(&slot, |set| {
                for assignment in &assignments {
                    set.put(Arc::clone(assignment));
                }
            });
            wake.push(slot);
        }
        self.revision.fetch_max(revision.micros(), Ordering::AcqRel);
        for slot in wake {
            slot.moved().notify_waiters();
        }
    }

    /// Takes out a tombstone that its host has confirmed.
    pub fn forget(&self, host: Uuid, assignment: Uuid, revision: Revision) {
        let Some(slot) = self.hosts.pin().get(&host).map(|found| Arc::clone(&found.0)) else { return };
        self.change(&slot, |set| {
            let known = set.assignments.get(&assignment);
            if known.is_some_and(|known| known.revision <= revision && !known.present) {
                set.remove(assignment);
            }
        });
    }

    /// Changes a host's set. A tombstone may come and another be forgotten at the same moment.
    fn change(&self, slot: &Slot, change: impl Fn(&mut HostSet)) {
        let mut leaving = false;
        slot.set.rcu(|set| {
            let mut set = HostSet::clone(set);
            change(&mut set);
            leaving = set.assignments().any(|assignment| !assignment.present);
            set
        });
        let mut hosts = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        if leaving {
            hosts.insert(slot.uid());
        } else if !slot.set.load().assignments().any(|assignment| !assignment.present) {
            hosts.remove(&slot.uid());
        }
    }

    /// Takes out a host that is gone.
    pub fn forget_host(&self, host: Uuid) {
        let hosts = self.hosts.pin();
        let Some(slot) = hosts.get(&host).map(|found| Arc::clone(&found.0)) else { return };
        slot.distrust();
        if let Some(name) = slot.name() {
            let names = self.names.pin();
            if names.get(name.as_str()).is_some_and(|known| known.0.uid() == host) {
                names.remove(name.as_str());
            }
        }
        hosts.remove(&host);
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner).remove(&host);
    }

    /// Returns the hosts that have tombstones.
    #[must_use]
    pub fn leaving(&self) -> Vec<Uuid> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Returns how many hosts have a place.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.hosts.pin().len()
    }

    /// Returns every host's set, for comparison with the database.
    #[must_use]
    pub fn sets(&self) -> BTreeMap<Uuid, Arc<HostSet>> {
        self.hosts.pin().iter().map(|found| (found.0.uid(), found.0.set())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[test]
    fn a_host_is_found_by_name_once_it_is_known_and_no_longer_than_it_is_there() {
        let view = FleetView::default();
        let first = view.slot(Uuid::from_u128(1));
        assert!(view.named("tim-pi").is_none());
        view.name(&first, &name("tim-pi"));
        assert_eq!(view.named("tim-pi").map(|slot| slot.uid()), Some(first.uid()));
        // It is set up anew under its name, and the one before is forgotten after that.
        let second = view.slot(Uuid::from_u128(2));
        view.name(&second, &name("tim-pi"));
        assert_eq!(view.named("tim-pi").map(|slot| slot.uid()), Some(second.uid()));
        view.forget_host(first.uid());
        assert_eq!(view.named("tim-pi").map(|slot| slot.uid()), Some(second.uid()));
        view.forget_host(second.uid());
        assert!(view.named("tim-pi").is_none());
        assert_eq!(view.hosts(), 0);
    }

    #[test]
    fn a_host_that_was_seen_often_is_told_once_with_the_last_time() {
        let view = FleetView::default();
        let slot = view.slot(Uuid::from_u128(1));
        view.see(&slot, Revision::from_micros(5));
        view.see(&slot, Revision::from_micros(7));
        assert_eq!(view.seen(slot.uid()), Some(Revision::from_micros(7)));
        let uids = |seen: Vec<Arc<Slot>>| seen.iter().map(|slot| slot.uid()).collect::<Vec<_>>();
        assert_eq!(uids(view.take_seen()), [slot.uid()]);
        assert!(view.take_seen().is_empty());
        assert_eq!(view.seen(slot.uid()), Some(Revision::from_micros(7)), "it is still known");
        view.put_back_seen(&slot);
        view.put_back_seen(&slot);
        assert_eq!(uids(view.take_seen()), [slot.uid()]);
        view.see(&slot, Revision::from_micros(9));
        assert_eq!(uids(view.take_seen()), [slot.uid()]);
        assert_eq!(view.seen(slot.uid()), Some(Revision::from_micros(9)));
    }
}
