//! What a worker knows.

use std::collections::BTreeMap;

use titan_api::digests::Digest;

use crate::render::frames::SLOTS;

/// Which template lies in which slot of a worker; the one unused for longest makes room.
#[derive(Debug, Default)]
pub(super) struct Slots {
    held: BTreeMap<Digest, (u8, u64)>,
    uses: u64,
}

impl Slots {
    pub(super) fn holds(&self, template: Digest) -> bool {
        self.held.contains_key(&template)
    }

    /// Says that `template` does not lie in its slot after all.
    pub(super) fn forget(&mut self, template: Digest) {
        self.held.remove(&template);
    }

    /// Returns a slot for `template` and whether it lies there already.
    pub(super) fn take(&mut self, template: Digest) -> (u8, bool) {
        self.uses += 1;
        let uses = self.uses;
        if let Some((slot, used)) = self.held.get_mut(&template) {
            *used = uses;
            return (*slot, true);
        }
        let free = (0..SLOTS as u8).find(|slot| self.held.values().all(|(held, _)| held != slot));
        let slot = free.unwrap_or_else(|| {
            let oldest =
                self.held.iter().min_by_key(|(_, (_, used))| *used).map(|(digest, (slot, _))| (*digest, *slot));
            oldest.map_or(0, |(digest, slot)| {
                self.held.remove(&digest);
                slot
            })
        });
        self.held.insert(template, (slot, uses));
        (slot, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_unused_for_longest_makes_room() {
        let mut slots = Slots::default();
        let digest = |n: usize| Digest::of(&n.to_le_bytes());
        for n in 0..SLOTS {
            assert_eq!(slots.take(digest(n)), (n as u8, false));
        }
        assert_eq!(slots.take(digest(0)), (0, true));
        assert_eq!(slots.take(digest(99)), (1, false));
        assert!(!slots.holds(digest(1)) && slots.holds(digest(0)));
    }
}
