//! FleetView: what each host should have, in memory, and whoever waits for it to move.

mod everything;
mod set;
mod slot;
mod slots;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering},
    },
};

use titan_api::{Name, Revision};
use uuid::Uuid;

pub use everything::Everything;
pub use set::{Entry, HostSet};
pub use slot::Slot;

use self::slots::{ByName, Slots};
use crate::store::Assignment;

/// Lists of hosts that were seen, so that polls do not queue up for one.
const SEEN_LISTS: usize = 16;

/// How exactly it is known when any host was seen last, in microseconds.
const HEARD: i64 = 1_000_000;

/// What every host should have, as of one revision.
///
/// Readers never wait. One task moves it along: first the hosts' sets, then the revision, so that whoever reads the
/// revision first and a set after it has everything up to that revision.
#[derive(Debug, Default)]
pub struct FleetView {
    /// Polls find their host by name; this is for whoever moves the view along, and for what is rare.
    slots: RwLock<Slots>,
    /// The hosts that have shown a credential.
    names: papaya::HashSet<ByName>,
    revision: AtomicI64,
    /// How many assignments there are.
    entries: AtomicUsize,
    /// Counts how often all credentials were ended.
    epoch: AtomicU32,
    /// Hosts that were seen since that was last written down.
    seen: [Mutex<Vec<Arc<Slot>>>; SEEN_LISTS],
    /// When any host was seen last, to within [`HEARD`], in microseconds; 0 for never.
    heard: AtomicI64,
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
        if let Some(found) = self.find(host) {
            return found;
        }
        Arc::clone(self.slots.write().unwrap_or_else(PoisonError::into_inner).get_or_add(host))
    }

    /// Returns a host's place, if it has one.
    #[must_use]
    pub fn find(&self, host: Uuid) -> Option<Arc<Slot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    /// Returns the places of hosts, of each if it has one, in their order.
    #[must_use]
    pub fn find_all(&self, hosts: impl IntoIterator<Item = Uuid>) -> Vec<Option<Arc<Slot>>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        // First where all of them are, then a hold on each: what is asked of the memory without a lock in between, it
        // fetches for several at once.
        let found: Vec<_> = hosts.into_iter().map(|host| slots.get(host)).collect();
        found.into_iter().map(Option::<&_>::cloned).collect()
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
        if let Some(slot) = self.find(host) {
            slot.distrust();
        }
    }

    /// Notes that a host was seen.
    pub fn see(&self, slot: &Arc<Slot>, now: Revision) {
        // Read by all, and so written seldom.
        if now.micros().saturating_sub(self.heard.load(Ordering::Relaxed)) >= HEARD {
            self.heard.store(now.micros(), Ordering::Relaxed);
        }
        if slot.see(now) {
            self.list_seen(slot);
        }
    }

    /// Returns when this process saw any host last, to within a second.
    #[must_use]
    pub fn heard(&self) -> Option<Revision> {
        match self.heard.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Revision::from_micros(at)),
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
        self.find(host)?.seen()
    }

    /// Takes in every assignment there is as of `revision`, while nobody polls yet.
    pub fn load(&self, all: &Everything, revision: Revision) {
        for (host, entries) in all.by_host() {
            let set = HostSet::new(host, entries);
            let slot = self.slot(host);
            self.entries.fetch_add(set.entries().len(), Ordering::Relaxed);
            if set.has_tombstone() {
                self.leaving.lock().unwrap_or_else(PoisonError::into_inner).insert(host);
            }
            slot.set.store(Arc::new(set));
        }
        self.revision.fetch_max(revision.micros(), Ordering::AcqRel);
    }

    /// Takes in the assignments that moved up to `revision` and wakes whoever waits for them.
    pub fn advance(&self, mut moved: Vec<Assignment>, revision: Revision) {
        moved.sort_by_key(|assignment| assignment.host);
        let mut wake = Vec::new();
        let groups = || moved.chunk_by(|one, other| one.host == other.host);
        let found = self.find_all(groups().map(|group| group[0].host));
        for (group, found) in groups().zip(found) {
            let slot = found.unwrap_or_else(|| self.slot(group[0].host));
            let entries: Vec<_> = group.iter().cloned().map(Entry::from).collect();
            self.change(&slot, |set| set.moved(slot.uid(), &entries));
            wake.push(slot);
        }
        self.revision.fetch_max(revision.micros(), Ordering::AcqRel);
        for slot in wake {
            slot.moved().notify_waiters();
        }
    }

    /// Takes out the tombstone of a deployment that its host has confirmed.
    pub fn forget(&self, host: Uuid, deployment: Uuid, revision: Revision) {
        if let Some(slot) = self.find(host) {
            self.change(&slot, |set| set.without_tombstone(deployment, revision));
        }
    }

    /// Changes a host's set. A tombstone may come and another be forgotten at the same moment.
    fn change(&self, slot: &Slot, change: impl Fn(&HostSet) -> HostSet) {
        let mut after = (0, false);
        let before = slot.set.rcu(|set| {
            let set = change(set);
            after = (set.entries().len(), set.has_tombstone());
            set
        });
        self.entries.fetch_add(after.0.wrapping_sub(before.entries().len()), Ordering::Relaxed);
        if after.1 || before.has_tombstone() {
            let mut hosts = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
            // As it is now: another change may have come between.
            if slot.set.load().has_tombstone() {
                hosts.insert(slot.uid());
            } else {
                hosts.remove(&slot.uid());
            }
        }
    }

    /// Takes out a host that is gone.
    pub fn forget_host(&self, host: Uuid) {
        let removed = self.slots.write().unwrap_or_else(PoisonError::into_inner).remove(host);
        let Some(slot) = removed else { return };
        slot.distrust();
        if let Some(name) = slot.name() {
            let names = self.names.pin();
            if names.get(name.as_str()).is_some_and(|known| known.0.uid() == host) {
                names.remove(name.as_str());
            }
        }
        let entries = slot.set().entries().len();
        self.entries.fetch_sub(entries, Ordering::Relaxed);
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
        self.slots.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Returns how many assignments there are, present ones and tombstones.
    #[must_use]
    pub fn assignments(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Returns the bytes that the view takes, counted: a place, a set, two table entries and a name for each host, and an
    /// entry for each assignment, each with what the allocator adds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        /// What the allocator and a reference count add to an allocation.
        const ADDED: usize = 24;
        /// Of a table of pointers, filled to two thirds, and of the other one's node.
        const FOUND: usize = (8 + 1) * 3 / 2 + (8 + 4) * 3 / 2 + 32;
        /// Of an average name.
        const NAME: usize = 32;
        let host = size_of::<Slot>() + ADDED + size_of::<HostSet>() + ADDED + 8 + FOUND + NAME;
        self.hosts() * host + self.assignments() * size_of::<Entry>()
    }

    /// Returns every host's place.
    #[must_use]
    pub fn slots(&self) -> Vec<Arc<Slot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Returns every host's set, for comparison with the database.
    #[must_use]
    pub fn sets(&self) -> BTreeMap<Uuid, Arc<HostSet>> {
        self.slots().into_iter().map(|slot| (slot.uid(), slot.set())).collect()
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
