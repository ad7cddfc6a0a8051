//! Records of hosts, some hundred at a time: fixed parts side by side, names and pairs of all of them end to end.

use std::ops::Range;

use uuid::Uuid;

use super::slab::CHUNK;

/// The fixed part of a record. Where its name and pairs begin is where those of the record before it end.
#[derive(Debug, Clone, Copy)]
struct Fixed {
    uid: Uuid,
    spec: u32,
    pairs_end: u32,
    name_end: u16,
    /// How many of the pairs are labels; the rest are facts.
    labels: u16,
}

/// One host's record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) uid: Uuid,
    pub(super) name: &'a str,
    pub(super) spec: u32,
    pub(super) labels: &'a [u32],
    pub(super) facts: &'a [u32],
}

/// Records by slot.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunk {
    fixed: Vec<Fixed>,
    names: String,
    pairs: Vec<u32>,
}

impl Chunk {
    fn name_range(&self, slot: usize) -> Range<usize> {
        let start = slot.checked_sub(1).map_or(0, |before| self.fixed[before].name_end.into());
        start..self.fixed[slot].name_end.into()
    }

    fn pair_range(&self, slot: usize) -> Range<usize> {
        let start = slot.checked_sub(1).map_or(0, |before| self.fixed[before].pairs_end as usize);
        start..self.fixed[slot].pairs_end as usize
    }

    /// Returns the record of a slot; of one that was cleared, an empty one.
    pub(super) fn get(&self, slot: usize) -> Option<Record<'_>> {
        let fixed = self.fixed.get(slot)?;
        let (labels, facts) = self.pairs[self.pair_range(slot)].split_at_checked(fixed.labels.into())?;
        Some(Record { uid: fixed.uid, name: &self.names[self.name_range(slot)], spec: fixed.spec, labels, facts })
    }

    /// Writes the record of a slot; `slot` is at most one past the last.
    pub(super) fn set(&mut self, slot: usize, record: Record<'_>) {
        if slot == self.fixed.len() {
            let (name_end, pairs_end) = (self.names.len() as u16, self.pairs.len() as u32);
            self.fixed.push(Fixed { uid: record.uid, spec: record.spec, pairs_end, name_end, labels: 0 });
        }
        let (names, pairs) = (self.name_range(slot), self.pair_range(slot));
        let (name_before, pairs_before) = (names.len(), pairs.len());
        self.names.replace_range(names, record.name);
        self.pairs.splice(pairs, record.labels.iter().chain(record.facts).copied());
        // 256 names of 63 bytes fit into 16 bits.
        for fixed in &mut self.fixed[slot..] {
            fixed.name_end = (usize::from(fixed.name_end) + record.name.len() - name_before) as u16;
            let pairs_end = fixed.pairs_end as usize + record.labels.len() + record.facts.len() - pairs_before;
            fixed.pairs_end = pairs_end as u32;
        }
        let fixed = &mut self.fixed[slot];
        (fixed.uid, fixed.spec, fixed.labels) = (record.uid, record.spec, record.labels.len() as u16);
        if slot + 1 == CHUNK && self.fixed.capacity() > CHUNK {
            self.shrink();
        }
    }

    /// Clears a slot.
    pub(super) fn clear(&mut self, slot: usize) {
        self.set(slot, Record { uid: Uuid::nil(), name: "", spec: 0, labels: &[], facts: &[] });
    }

    /// Gives back what was reserved for growth.
    pub(super) fn shrink(&mut self) {
        self.fixed.shrink_to_fit();
        self.names.shrink_to_fit();
        self.pairs.shrink_to_fit();
    }

    /// Returns the bytes of each of the chunk's allocations.
    pub(super) fn allocations(&self) -> [usize; 3] {
        let fixed = self.fixed.capacity() * size_of::<Fixed>();
        [fixed, self.names.capacity(), self.pairs.capacity() * size_of::<u32>()]
    }
}
