//! How many bytes the table takes.

use roaring::RoaringBitmap;
use titan_api::hosts::HostSpec;

use super::{
    Hosts,
    chunks::Chunk,
    lookup::Lookup,
    members::Members,
    pairs::{Key, Pair, Stored},
    slab::Slab,
    specs::Entry,
};

/// What one allocation takes: its size, and what the allocator adds to it and rounds it up to.
const fn allocation(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        bytes if bytes <= 24 => 32,
        bytes => (bytes + 8).next_multiple_of(16),
    }
}

/// What an `Arc` adds to its content.
const COUNTS: usize = 16;

fn bitmap(bitmap: &RoaringBitmap) -> usize {
    let statistics = bitmap.statistics();
    let content =
        statistics.n_bytes_array_containers + statistics.n_bytes_run_containers + statistics.n_bytes_bitset_containers;
    // A container is a few words in a list, and an allocation.
    usize::try_from(content).unwrap_or(usize::MAX) + statistics.n_containers as usize * 56 + 64
}

fn members(members: &Members) -> usize {
    match members {
        Members::One(_) => 0,
        Members::Few(list) => allocation(list.capacity() * size_of::<u32>()),
        Members::Many(many) => bitmap(many),
    }
}

fn slab<T>(slab: &Slab<T>, content: impl Fn(&T) -> usize) -> usize {
    let (chunks, slots, free) = slab.allocations();
    let chunk = allocation(COUNTS + size_of::<Vec<Option<T>>>());
    let slots: usize = slots.map(|slots| allocation(slots * size_of::<Option<T>>()) + chunk).sum();
    let content: usize = slab.values().map(content).sum();
    allocation(chunks * size_of::<usize>()) + slots + content + bitmap(free)
}

fn lookup(lookup: &Lookup) -> usize {
    lookup.allocations().map(|bytes| allocation(bytes) + allocation(COUNTS + 32) + size_of::<usize>()).sum()
}

impl Hosts {
    /// Returns the bytes that the table takes on the heap, shared ones included: everything it allocated, counted as the
    /// allocator of glibc hands it out. Of specs, whose values are maps of maps, and of facts that are lists or maps, it is
    /// an estimate from their length as JSON. It looks at each pair, but not at each host: milliseconds for a million.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let chunk = |chunk: &Chunk| -> usize {
            allocation(COUNTS + size_of::<Chunk>()) + chunk.allocations().into_iter().map(allocation).sum::<usize>()
        };
        let records: usize = self.chunks.iter().map(|records| chunk(records)).sum();
        let pair = |pair: &Pair| {
            let value = match &pair.value {
                Stored::Text(text) => allocation(text.len()),
                Stored::Json(value) if value.is_array() || value.is_object() => value.to_string().len() * 4,
                Stored::Json(value) => allocation(size_of_val(&**value)),
            };
            value + members(&pair.members)
        };
        let key = |key: &Key| allocation(key.name.len()) + members(&key.members);
        let spec = |entry: &Entry| allocation(COUNTS + size_of::<HostSpec>()) + entry.length as usize * 4;
        let indexes: usize =
            self.specs.indexes().map(|(key, hosts)| allocation(key) + members(hosts) + 2 * size_of_val(hosts)).sum();
        allocation(self.chunks.capacity() * size_of::<usize>())
            + records
            + [&*self.live, &*self.free, self.specs.cordoned()].into_iter().map(bitmap).sum::<usize>()
            + [&self.uids, &self.names, &self.pairs.key_names, &self.pairs.values, &self.specs.lookup]
                .into_iter()
                .map(lookup)
                .sum::<usize>()
            + slab(&self.pairs.pairs, pair)
            + slab(&self.pairs.keys, key)
            + slab(&self.specs.entries, spec)
            + indexes
    }

    /// Gives back what was reserved for growth, after many hosts were added at once.
    pub(super) fn shrink(&mut self) {
        self.pairs.shrink();
        self.specs.shrink();
        self.chunks.shrink_to_fit();
        if let Some(last) = self.chunks.last_mut() {
            std::sync::Arc::make_mut(last).shrink();
        }
        std::sync::Arc::make_mut(&mut self.live).optimize();
    }
}
