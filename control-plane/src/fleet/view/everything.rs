//! A whole fleet's assignments, gathered host by host while nobody polls yet.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use uuid::Uuid;

use super::Entry;
use crate::store::Assignment;

/// Every assignment there is, on its way into the view.
#[derive(Debug, Default)]
pub struct Everything {
    places: HashMap<Uuid, u32, BuildHasherDefault<LastBytes>>,
    /// The hosts by their place, with how many assignments they have.
    hosts: Vec<(Uuid, u32)>,
    /// With the place of their host. In one piece, so that all of it goes back to the system in the end.
    entries: Vec<(u32, Entry)>,
}

/// Hashes ids by their last bytes, which are random in all that the control plane makes.
#[derive(Debug, Default, Clone, Copy)]
struct LastBytes(u64);

impl Hasher for LastBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*last).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
    }
}

impl Everything {
    /// Takes in an assignment.
    pub fn take(&mut self, assignment: Assignment) {
        let Self { places, hosts, entries } = self;
        let place = *places.entry(assignment.host).or_insert_with(|| {
            hosts.push((assignment.host, 0));
            u32::try_from(hosts.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some((_, count)) = hosts.get_mut(place as usize) {
            *count += 1;
        }
        entries.push((place, Entry::from(assignment)));
    }

    /// Returns the hosts, each with its entries.
    pub(super) fn by_host(&self) -> impl Iterator<Item = (Uuid, Box<[Entry]>)> {
        let mut ends: Vec<usize> = Vec::with_capacity(self.hosts.len());
        let mut end = 0;
        for (_, count) in &self.hosts {
            ends.push(end);
            end += *count as usize;
        }
        let mut order = vec![0_u32; self.entries.len()];
        for (number, (place, _)) in self.entries.iter().enumerate() {
            if let Some(at) = ends.get_mut(*place as usize) {
                if let Some(slot) = order.get_mut(*at) {
                    *slot = u32::try_from(number).unwrap_or(u32::MAX);
                }
                *at += 1;
            }
        }
        self.hosts.iter().zip(ends).map(move |((host, count), end)| {
            let numbers = order.get(end - *count as usize..end).unwrap_or_default();
            let entries = numbers.iter().filter_map(|number| self.entries.get(*number as usize));
            (*host, entries.map(|(_, entry)| entry.clone()).collect())
        })
    }
}
