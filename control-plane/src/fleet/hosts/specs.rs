//! What is declared of hosts, each distinct spec stored once, and which hosts a workspace may use.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::Arc,
};

use roaring::RoaringBitmap;
use titan_api::{
    hosts::HostSpec,
    taints::{Taint, TaintEffect, Toleration},
};

use super::{lookup::Lookup, members::Members, slab::Slab};

/// A spec that at least one host has.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) spec: Arc<HostSpec>,
    hash: u64,
    hosts: u32,
    /// Bytes of the spec as JSON.
    pub(super) length: u32,
}

/// Hosts by something that their specs have in common.
#[derive(Debug, Clone)]
pub(super) struct Index<K>(Arc<HashMap<K, Members>>);

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Eq + Hash + Clone> Index<K> {
    fn join(&mut self, key: K, hosts: &Members) {
        let all = Arc::make_mut(&mut self.0);
        match all.get_mut(&key) {
            Some(known) => known.join(hosts),
            None => {
                all.insert(key, hosts.clone());
            }
        }
    }

    fn leave<Q: Eq + Hash + ?Sized>(&mut self, key: &Q, host: u32)
    where
        K: Borrow<Q>,
    {
        let all = Arc::make_mut(&mut self.0);
        if let Some(hosts) = all.get_mut(key) {
            hosts.remove(host);
            if hosts.is_empty() {
                all.remove(key);
            }
        }
    }

    fn of<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> RoaringBitmap
    where
        K: Borrow<Q>,
    {
        self.0.get(key).map(|hosts| hosts.bitmap().into_owned()).unwrap_or_default()
    }

    /// Returns the hosts by key.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &Members)> {
        self.0.iter()
    }

    fn shrink(&mut self) {
        Arc::make_mut(&mut self.0).values_mut().for_each(Members::shrink);
    }
}

/// Every spec in use.
#[derive(Debug, Clone, Default)]
pub(super) struct Specs {
    pub(super) entries: Slab<Entry>,
    pub(super) lookup: Lookup,
    admitted: Index<Box<str>>,
    /// Hosts by the resources that their capacity names.
    named: Index<Box<str>>,
    tainted: Index<Taint>,
    cordoned: Arc<RoaringBitmap>,
    hasher: RandomState,
}

impl Specs {
    pub(super) fn get(&self, spec: u32) -> Option<&Arc<HostSpec>> {
        self.entries.get(spec).map(|entry| &entry.spec)
    }

    /// Returns the number of a spec, new or known. A new one is to be attached to a host.
    pub(super) fn intern(&mut self, spec: HostSpec) -> u32 {
        // Specs are maps with text keys; writing them cannot fail.
        let text = serde_json::to_string(&spec).unwrap_or_default();
        let hash = self.hasher.hash_one(&text);
        let entries = &self.entries;
        let known = |number| entries.get(number).is_some_and(|entry| entry.hash == hash && *entry.spec == spec);
        if let Some(number) = self.lookup.find(hash, known) {
            return number;
        }
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let number = self.entries.insert(Entry { spec: Arc::new(spec), hash, hosts: 0, length });
        let entries = &self.entries;
        self.lookup.insert(hash, number, |number| entries.get(number).map_or(0, |entry| entry.hash));
        number
    }

    /// Adds hosts to those of a spec.
    pub(super) fn attach(&mut self, spec: u32, hosts: &Members) {
        let Some(entry) = self.entries.get_mut(spec) else { return };
        entry.hosts += u32::try_from(hosts.len()).unwrap_or(u32::MAX);
        for workspace in &entry.spec.workspaces {
            self.admitted.join(workspace.as_str().into(), hosts);
        }
        for (resource, _) in entry.spec.capacity.iter() {
            self.named.join(resource.into(), hosts);
        }
        for taint in &entry.spec.taints {
            self.tainted.join(taint.clone(), hosts);
        }
        if entry.spec.cordoned {
            *Arc::make_mut(&mut self.cordoned) |= &*hosts.bitmap();
        }
    }

    /// Takes a host out of those of a spec, and the spec with its last host.
    pub(super) fn detach(&mut self, spec: u32, host: u32) {
        let Some(entry) = self.entries.get_mut(spec) else { return };
        entry.hosts -= 1;
        for workspace in &entry.spec.workspaces {
            self.admitted.leave(workspace.as_str(), host);
        }
        for (resource, _) in entry.spec.capacity.iter() {
            self.named.leave(resource, host);
        }
        for taint in &entry.spec.taints {
            self.tainted.leave(taint, host);
        }
        if entry.spec.cordoned {
            Arc::make_mut(&mut self.cordoned).remove(host);
        }
        if entry.hosts == 0 {
            self.lookup.remove(entry.hash, spec);
            self.entries.remove(spec);
        }
    }

    /// Returns the hosts that a workspace may deploy onto.
    pub(super) fn admitting(&self, workspace: &str) -> RoaringBitmap {
        self.admitted.of("*") | self.admitted.of(workspace)
    }

    pub(super) fn cordoned(&self) -> &RoaringBitmap {
        &self.cordoned
    }

    /// Returns the hosts whose capacity names a resource.
    pub(super) fn naming(&self, resource: &str) -> RoaringBitmap {
        self.named.of(resource)
    }

    /// Returns the hosts that have a taint which is not tolerated; with `effect`, one of that effect.
    pub(super) fn repelling(&self, tolerations: &[Toleration], effect: Option<TaintEffect>) -> RoaringBitmap {
        let repels =
            |taint: &Taint| effect.is_none_or(|effect| effect == taint.effect) && !taint.tolerated(tolerations);
        self.tainted.iter().filter(|(taint, _)| repels(taint)).fold(RoaringBitmap::new(), |mut all, (_, hosts)| {
            all |= &*hosts.bitmap();
            all
        })
    }

    /// Returns the indexes, for counting bytes.
    pub(super) fn indexes(&self) -> impl Iterator<Item = (usize, &Members)> {
        let words = self.admitted.iter().chain(self.named.iter()).map(|(word, hosts)| (word.len(), hosts));
        let taint = |taint: &Taint| size_of::<Taint>() + taint.key.len() + taint.value.as_ref().map_or(0, String::len);
        words.chain(self.tainted.iter().map(move |(key, hosts)| (taint(key), hosts)))
    }

    /// Gives back what was reserved for growth.
    pub(super) fn shrink(&mut self) {
        self.admitted.shrink();
        self.named.shrink();
        self.tainted.shrink();
    }
}
