//! What is declared of hosts, each distinct spec stored once, and which hosts a workspace may use.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use roaring::RoaringBitmap;
use titan_api::hosts::HostSpec;

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

/// Every spec in use.
#[derive(Debug, Clone, Default)]
pub(super) struct Specs {
    pub(super) entries: Slab<Entry>,
    pub(super) lookup: Lookup,
    admitted: Arc<HashMap<Box<str>, Members>>,
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
        let admitted = Arc::make_mut(&mut self.admitted);
        for workspace in &entry.spec.workspaces {
            match admitted.get_mut(workspace.as_str()) {
                Some(known) => known.join(hosts),
                None => {
                    admitted.insert(workspace.as_str().into(), hosts.clone());
                }
            }
        }
        if entry.spec.cordoned {
            *Arc::make_mut(&mut self.cordoned) |= &*hosts.bitmap();
        }
    }

    /// Takes a host out of those of a spec, and the spec with its last host.
    pub(super) fn detach(&mut self, spec: u32, host: u32) {
        let Some(entry) = self.entries.get_mut(spec) else { return };
        entry.hosts -= 1;
        let admitted = Arc::make_mut(&mut self.admitted);
        for workspace in &entry.spec.workspaces {
            if let Some(hosts) = admitted.get_mut(workspace.as_str()) {
                hosts.remove(host);
                if hosts.is_empty() {
                    admitted.remove(workspace.as_str());
                }
            }
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
        let hosts = |workspace| self.admitted.get(workspace).map(|hosts: &Members| hosts.bitmap().into_owned());
        hosts("*").unwrap_or_default() | hosts(workspace).unwrap_or_default()
    }

    pub(super) fn cordoned(&self) -> &RoaringBitmap {
        &self.cordoned
    }

    /// Returns the hosts by workspace, for counting bytes.
    pub(super) fn admitted(&self) -> &HashMap<Box<str>, Members> {
        &self.admitted
    }

    /// Gives back what was reserved for growth.
    pub(super) fn shrink(&mut self) {
        Arc::make_mut(&mut self.admitted).values_mut().for_each(Members::shrink);
    }
}
