//! Numbers by hash, in shards that clones share until one of them writes.

use std::sync::Arc;

use hashbrown::HashTable;

/// Shards of one lookup: a write copies one of them at most while a clone is held.
const SHARDS: usize = 256;

/// Numbers by the hash of what they stand for; whoever asks knows what that is and compares it.
#[derive(Debug, Clone)]
pub(super) struct Lookup(Vec<Arc<HashTable<u32>>>);

impl Default for Lookup {
    fn default() -> Self {
        Self(vec![Arc::default(); SHARDS])
    }
}

/// Returns the shard of a hash, made of bits that the shard's own table looks at last.
const fn shard(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

impl Lookup {
    /// Returns the number of this hash that `is` the one.
    pub(super) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        self.0[shard(hash)].find(hash, |number| is(*number)).copied()
    }

    /// Adds a number that is not there yet; `rehash` returns the hash of any number that is.
    pub(super) fn insert(&mut self, hash: u64, number: u32, rehash: impl Fn(u32) -> u64) {
        Arc::make_mut(&mut self.0[shard(hash)]).insert_unique(hash, number, |number| rehash(*number));
    }

    /// Makes room for `more` numbers.
    pub(super) fn reserve(&mut self, more: usize, rehash: impl Fn(u32) -> u64) {
        // Shards are not all equally full.
        let each = more.div_ceil(SHARDS) * 17 / 16;
        if more >= SHARDS {
            self.0.iter_mut().for_each(|shard| Arc::make_mut(shard).reserve(each, |number| rehash(*number)));
        }
    }

    /// Removes a number.
    pub(super) fn remove(&mut self, hash: u64, number: u32) {
        if let Ok(entry) = Arc::make_mut(&mut self.0[shard(hash)]).find_entry(hash, |known| *known == number) {
            entry.remove();
        }
    }

    /// Returns the bytes of each shard.
    pub(super) fn allocations(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|shard| shard.allocation_size())
    }
}
