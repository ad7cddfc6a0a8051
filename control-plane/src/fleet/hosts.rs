//! The table of hosts: compact records, found by id and by name, indexed by what selectors ask for.
//!
//! A host is some 130 bytes, and 100 more for each label that nobody else has. Clones share them: one copies a few thousand
//! pointers, and whoever writes after that copies the few chunks that it touches. Hosts have dense numbers, so a set of them
//! is a bitmap and a selector is algebra over bitmaps ([`Hosts::matching`]); labels and facts are numbers of pairs of key and
//! value that are stored once.

mod chunks;
mod host;
mod load;
mod lookup;
mod matching;
mod members;
mod pairs;
mod sizes;
mod slab;
mod specs;
#[cfg(test)]
pub(in crate::fleet) mod tests;

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use roaring::RoaringBitmap;
use titan_api::{
    Name,
    hosts::{Facts, HostSpec},
    labels::Labels,
    taints::{TaintEffect, Toleration},
};
use uuid::Uuid;

use self::{
    chunks::{Chunk, Record},
    lookup::Lookup,
    members::Members,
    pairs::{FACT, Given, Pairs},
    slab::place,
    specs::Specs,
};
pub use self::{
    host::Host,
    load::{LoadError, Loader},
    matching::Aspect,
};

/// The number of a host, dense from 0. It means the same host in a table and all that it becomes for as long as the host is
/// in it; the number of a host that was removed is given out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostNumber(pub u32);

/// Every host. Clones share their content until one of them changes.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    chunks: Vec<Arc<Chunk>>,
    /// One past the highest number that was ever given out.
    end: u32,
    live: Arc<RoaringBitmap>,
    free: Arc<RoaringBitmap>,
    uids: Lookup,
    names: Lookup,
    pairs: Pairs,
    specs: Specs,
    hasher: RandomState,
}

impl Hosts {
    /// Takes in a host as it is declared; the facts of one that is known stay.
    pub fn put(&mut self, uid: Uuid, name: &Name, labels: &Labels, spec: HostSpec) -> HostNumber {
        let spec = self.specs.intern(spec);
        let labels: Vec<_> =
            labels.iter().map(|(key, value)| self.pairs.intern(key, Given::Text(value), None)).collect();
        let known = self.number(uid);
        let facts = known.and_then(|number| self.record(number.0)).map(|record| record.facts.to_vec());
        let number = known.unwrap_or_else(|| self.next());
        let facts = facts.unwrap_or_default();
        self.write(number.0, Record { uid, name, spec, labels: &labels, facts: &facts });
        number
    }

    /// Takes in what a host's agent reported. Facts of a host that is not there are passed over.
    pub fn set_facts(&mut self, uid: Uuid, facts: &Facts) {
        let Some((number, record)) = self.number(uid).and_then(|number| Some((number.0, self.record(number.0)?)))
        else {
            return;
        };
        let (name, spec, labels) = (record.name.to_owned(), record.spec, record.labels.to_vec());
        let intern = |(name, value): (&String, _)| self.pairs.intern(&format!("{FACT}{name}"), Given::of(value), None);
        let facts: Vec<_> = facts.iter().map(intern).collect();
        self.write(number, Record { uid, name: &name, spec, labels: &labels, facts: &facts });
    }

    /// Takes a host out.
    pub fn remove(&mut self, uid: Uuid) {
        let Some((number, record)) = self.number(uid).and_then(|number| Some((number.0, self.record(number.0)?)))
        else {
            return;
        };
        let (name, spec) = (record.name.to_owned(), record.spec);
        let pairs: Vec<_> = record.labels.iter().chain(record.facts).copied().collect();
        for pair in pairs {
            self.pairs.detach(pair, number);
        }
        self.specs.detach(spec, number);
        self.names.remove(self.hasher.hash_one(&*name), number);
        self.uids.remove(self.hasher.hash_one(uid), number);
        Arc::make_mut(&mut self.live).remove(number);
        Arc::make_mut(&mut self.free).insert(number);
        let (chunk, slot) = place(number);
        if let Some(chunk) = self.chunks.get_mut(chunk) {
            Arc::make_mut(chunk).clear(slot);
        }
    }

    /// Returns the number for a host that is to come.
    fn next(&mut self) -> HostNumber {
        if let Some(number) = self.free.min() {
            Arc::make_mut(&mut self.free).remove(number);
            return HostNumber(number);
        }
        self.end += 1;
        HostNumber(self.end - 1)
    }

    /// Writes a record, and what is found by it.
    fn write(&mut self, number: u32, record: Record<'_>) {
        let before = self.record(number).filter(|_| self.live.contains(number));
        let before = before.map(|before| {
            let pairs: Vec<_> = before.labels.iter().chain(before.facts).copied().collect();
            (before.name != record.name, before.spec, pairs)
        });
        let (renamed, spec, pairs) = match before {
            Some((renamed, spec, pairs)) => (renamed, Some(spec), pairs),
            None => (true, None, Vec::new()),
        };
        let has = |pair: &u32| record.labels.contains(pair) || record.facts.contains(pair);
        for gone in pairs.iter().filter(|pair| !has(pair)) {
            self.pairs.detach(*gone, number);
        }
        for come in record.labels.iter().chain(record.facts).filter(|pair| !pairs.contains(pair)) {
            self.pairs.attach(*come, number);
        }
        if spec != Some(record.spec) {
            if let Some(spec) = spec {
                self.specs.detach(spec, number);
            }
            self.specs.attach(record.spec, &Members::One(number));
        }
        if renamed && let Some(before) = spec.and_then(|_| self.record(number)) {
            self.names.remove(self.hasher.hash_one(before.name), number);
        }
        self.set(number, record);
        if spec.is_none() {
            Arc::make_mut(&mut self.live).insert(number);
            self.file_uid(number, record.uid);
        }
        if renamed {
            self.file_name(number, record.name);
        }
    }

    /// Writes a record alone; `number` is at most one past the last.
    fn set(&mut self, number: u32, record: Record<'_>) {
        let (chunk, slot) = place(number);
        if chunk == self.chunks.len() {
            self.chunks.push(Arc::default());
        }
        Arc::make_mut(&mut self.chunks[chunk]).set(slot, record);
    }

    /// Lets a host be found by its id.
    fn file_uid(&mut self, number: u32, uid: Uuid) {
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        let rehash = |number| record_of(chunks, number).map_or(0, |record| hasher.hash_one(record.uid));
        self.uids.insert(hasher.hash_one(uid), number, rehash);
    }

    /// Lets a host be found by its name, which belongs to the host that took it last.
    fn file_name(&mut self, number: u32, name: &str) {
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        let hash = hasher.hash_one(name);
        let is = |other| other != number && record_of(chunks, other).is_some_and(|record| record.name == name);
        if let Some(other) = self.names.find(hash, is) {
            self.names.remove(hash, other);
        }
        let rehash = |number| record_of(chunks, number).map_or(0, |record| hasher.hash_one(record.name));
        self.names.insert(hash, number, rehash);
    }

    fn record(&self, number: u32) -> Option<Record<'_>> {
        record_of(&self.chunks, number)
    }

    /// Returns the number of a host.
    #[must_use]
    pub fn number(&self, uid: Uuid) -> Option<HostNumber> {
        let is = |number| self.record(number).is_some_and(|record| record.uid == uid);
        self.uids.find(self.hasher.hash_one(uid), is).map(HostNumber)
    }

    /// Returns the number of the host of a name.
    #[must_use]
    pub fn number_named(&self, name: &str) -> Option<HostNumber> {
        let is = |number| self.record(number).is_some_and(|record| record.name == name);
        self.names.find(self.hasher.hash_one(name), is).map(HostNumber)
    }

    /// Returns a host.
    #[must_use]
    pub fn host(&self, number: HostNumber) -> Option<Host<'_>> {
        let record = self.record(number.0).filter(|_| self.live.contains(number.0))?;
        Some(Host::new(self, number, record))
    }

    /// Returns the id of a host.
    #[must_use]
    pub fn uid(&self, number: HostNumber) -> Option<Uuid> {
        self.host(number).map(|host| host.uid())
    }

    /// Returns every host, by number.
    pub fn iter(&self) -> impl Iterator<Item = Host<'_>> {
        self.live.iter().filter_map(|number| self.host(HostNumber(number)))
    }

    /// Returns the hosts of a set, by number; numbers that are nobody's are passed over.
    pub fn among<'a>(&'a self, set: &'a RoaringBitmap) -> impl Iterator<Item = Host<'a>> {
        set.iter().filter_map(|number| self.host(HostNumber(number)))
    }

    /// Returns the numbers of those of the hosts that are there.
    #[must_use]
    pub fn numbers<'a>(&self, uids: impl IntoIterator<Item = &'a Uuid>) -> RoaringBitmap {
        uids.into_iter().filter_map(|uid| self.number(*uid)).map(|number| number.0).collect()
    }

    /// Returns the numbers of all hosts.
    #[must_use]
    pub fn all(&self) -> &RoaringBitmap {
        &self.live
    }

    /// Returns how many hosts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.live.len()).unwrap_or(usize::MAX)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Returns the numbers of the hosts that a workspace may deploy onto.
    #[must_use]
    pub fn admitting(&self, workspace: &str) -> RoaringBitmap {
        self.specs.admitting(workspace)
    }

    /// Returns the numbers of the hosts whose declared capacity names a resource.
    #[must_use]
    pub fn naming(&self, resource: &str) -> RoaringBitmap {
        self.specs.naming(resource)
    }

    /// Returns the numbers of the hosts with a taint that is not among the tolerated; with `effect`, one of that effect.
    #[must_use]
    pub fn repelling(&self, tolerations: &[Toleration], effect: Option<TaintEffect>) -> RoaringBitmap {
        self.specs.repelling(tolerations, effect)
    }

    /// Returns the numbers of the hosts that take nothing new.
    #[must_use]
    pub fn cordoned(&self) -> &RoaringBitmap {
        self.specs.cordoned()
    }
}

fn record_of(chunks: &[Arc<Chunk>], number: u32) -> Option<Record<'_>> {
    let (chunk, slot) = place(number);
    chunks.get(chunk)?.get(slot)
}
