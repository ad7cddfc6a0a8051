//! Numbered slots in chunks that clones share until one of them writes.

use std::sync::Arc;

use roaring::RoaringBitmap;

/// Slots of one chunk: what a write copies at most while a clone is held.
pub(super) const CHUNK: usize = 256;

/// Values by number. Numbers of what was removed are given out again, the lowest first.
#[derive(Debug, Clone)]
pub(super) struct Slab<T> {
    chunks: Vec<Arc<Vec<Option<T>>>>,
    length: u32,
    free: Arc<RoaringBitmap>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), length: 0, free: Arc::default() }
    }
}

/// Returns the chunk of a number, and its place there.
pub(super) const fn place(number: u32) -> (usize, usize) {
    (number as usize / CHUNK, number as usize % CHUNK)
}

impl<T> Slab<T> {
    /// Returns the value of a number.
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        let (chunk, slot) = place(number);
        self.chunks.get(chunk)?.get(slot)?.as_ref()
    }

    /// Returns every value.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().flatten())
    }

    /// Returns the capacity of each chunk and the set of free numbers, for counting bytes.
    pub(super) fn allocations(&self) -> (usize, impl Iterator<Item = usize>, &RoaringBitmap) {
        (self.chunks.capacity(), self.chunks.iter().map(|chunk| chunk.capacity()), &self.free)
    }
}

impl<T: Clone> Slab<T> {
    /// Returns the value of a number, to be changed.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let (chunk, slot) = place(number);
        Arc::make_mut(self.chunks.get_mut(chunk)?).get_mut(slot)?.as_mut()
    }

    /// Returns every value, to be changed.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.chunks.iter_mut().flat_map(|chunk| Arc::make_mut(chunk).iter_mut().flatten())
    }

    /// Takes a value in and returns its number.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(number) = self.free.min() {
            Arc::make_mut(&mut self.free).remove(number);
            let (chunk, slot) = place(number);
            Arc::make_mut(&mut self.chunks[chunk])[slot] = Some(value);
            return number;
        }
        let number = self.length;
        if place(number).1 == 0 {
            self.chunks.push(Arc::default());
        }
        Arc::make_mut(&mut self.chunks[place(number).0]).push(Some(value));
        self.length += 1;
        number
    }

    /// Takes a value out.
    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let (chunk, slot) = place(number);
        let value = Arc::make_mut(self.chunks.get_mut(chunk)?).get_mut(slot)?.take()?;
        let free = Arc::make_mut(&mut self.free);
        free.insert(number);
        // What ends in nothing is shortened, so that a fleet that shrinks gives its memory back.
        while let Some(last) = self.length.checked_sub(1).filter(|last| free.contains(*last)) {
            free.remove(last);
            self.length = last;
            let (chunk, slot) = place(last);
            if slot == 0 {
                self.chunks.truncate(chunk);
            } else {
                Arc::make_mut(&mut self.chunks[chunk]).truncate(slot);
            }
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_out_again_and_the_end_is_cut() {
        let mut slab = Slab::default();
        let numbers: Vec<_> = (0..600).map(|value| slab.insert(value)).collect();
        assert_eq!(slab.remove(3), Some(3));
        assert_eq!(slab.remove(3), None);
        let before = slab.clone();
        assert_eq!(slab.insert(7), 3);
        assert_eq!((before.get(3), slab.get(3)), (None, Some(&7)));
        for number in &numbers[1..] {
            slab.remove(*number);
        }
        assert_eq!((slab.length, slab.chunks.len(), slab.values().count()), (1, 1, 1));
        assert_eq!(before.values().count(), 599);
    }
}
