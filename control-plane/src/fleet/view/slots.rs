//! Where the places of hosts are found, by id and by name.

use std::{
    borrow::Borrow,
    hash::{BuildHasher as _, Hash, Hasher, RandomState},
    sync::Arc,
};

use hashbrown::HashTable;
use titan_api::Name;
use uuid::Uuid;

use super::Slot;

/// A slot that is found by its host's name.
#[derive(Debug, Clone)]
pub(super) struct ByName(pub(super) Arc<Slot>);

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        self.0.name().map_or("", Name::as_str)
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        Borrow::<str>::borrow(self) == Borrow::<str>::borrow(other)
    }
}

impl Eq for ByName {}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrow::<str>::borrow(self).hash(state);
    }
}

/// The places of all hosts, by id.
#[derive(Debug, Default)]
pub(super) struct Slots {
    table: HashTable<Arc<Slot>>,
    hasher: RandomState,
}

impl Slots {
    pub(super) fn get(&self, host: Uuid) -> Option<&Arc<Slot>> {
        self.table.find(self.hasher.hash_one(host), |slot| slot.uid() == host)
    }

    pub(super) fn get_or_add(&mut self, host: Uuid) -> &Arc<Slot> {
        let Self { table, hasher } = self;
        table
            .entry(hasher.hash_one(host), |slot| slot.uid() == host, |slot| hasher.hash_one(slot.uid()))
            .or_insert_with(|| Arc::new(Slot::new(host)))
            .into_mut()
    }

    pub(super) fn remove(&mut self, host: Uuid) -> Option<Arc<Slot>> {
        let entry = self.table.find_entry(self.hasher.hash_one(host), |slot| slot.uid() == host);
        entry.ok().map(|entry| entry.remove().0)
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.table.iter()
    }
}
