//! The hosts that have something in common, in as few bytes as their number allows.

use std::{borrow::Cow, sync::Arc};

use roaring::RoaringBitmap;

/// Hosts that are kept as a plain list; more are a bitmap, whose containers cost more than the list up to here.
const FEW: usize = 64;

/// A set of hosts.
#[derive(Debug, Clone)]
pub(super) enum Members {
    /// One, as of a serial number: in place.
    One(u32),
    /// Up to [`FEW`], in order.
    Few(Vec<u32>),
    /// More.
    Many(Arc<RoaringBitmap>),
}

impl Default for Members {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Few(list) => list.len() as u64,
            Self::Many(bitmap) => bitmap.len(),
        }
    }

    /// Returns the set as a bitmap.
    pub(super) fn bitmap(&self) -> Cow<'_, RoaringBitmap> {
        match self {
            Self::One(host) => Cow::Owned(RoaringBitmap::from_iter([*host])),
            Self::Few(list) => Cow::Owned(list.iter().copied().collect()),
            Self::Many(bitmap) => Cow::Borrowed(bitmap),
        }
    }

    pub(super) fn insert(&mut self, host: u32) {
        match self {
            Self::One(known) if *known == host => {}
            Self::One(known) => *self = Self::Few(vec![host.min(*known), host.max(*known)]),
            Self::Few(list) if list.is_empty() => *self = Self::One(host),
            Self::Few(list) => {
                if let Err(at) = list.binary_search(&host) {
                    list.insert(at, host);
                    if list.len() > FEW {
                        *self = Self::Many(Arc::new(list.iter().copied().collect()));
                    }
                }
            }
            Self::Many(bitmap) => {
                Arc::make_mut(bitmap).insert(host);
            }
        }
    }

    /// Adds a host whose number is higher than all that are there.
    pub(super) fn push(&mut self, host: u32) {
        match self {
            Self::Many(bitmap) => {
                let bitmap = Arc::make_mut(bitmap);
                if bitmap.try_push(host).is_err() {
                    bitmap.insert(host);
                }
            }
            _ => self.insert(host),
        }
    }

    /// Adds all of another set.
    pub(super) fn join(&mut self, others: &Self) {
        match (&mut *self, others) {
            (_, Self::One(host)) => self.insert(*host),
            (_, Self::Few(list)) => list.iter().for_each(|host| self.insert(*host)),
            (Self::Many(bitmap), Self::Many(others)) => *Arc::make_mut(bitmap) |= &**others,
            (few, Self::Many(others)) => {
                let all = &*few.bitmap() | &**others;
                *few = Self::Many(Arc::new(all));
            }
        }
    }

    pub(super) fn remove(&mut self, host: u32) {
        match self {
            Self::One(known) if *known == host => *self = Self::default(),
            Self::One(_) => {}
            Self::Few(list) => {
                if let Ok(at) = list.binary_search(&host) {
                    list.remove(at);
                }
                if let [last] = list[..] {
                    *self = Self::One(last);
                }
            }
            Self::Many(bitmap) => {
                let bitmap = Arc::make_mut(bitmap);
                bitmap.remove(host);
                // Not at the same size as the other way, so that one host that comes and goes does not turn it each time.
                if bitmap.len() <= FEW as u64 / 2 {
                    *self = Self::Few(bitmap.iter().collect());
                }
            }
        }
    }

    /// Gives back what was reserved for growth, after many were added at once.
    pub(super) fn shrink(&mut self) {
        match self {
            Self::One(_) => {}
            Self::Few(list) => list.shrink_to_fit(),
            Self::Many(bitmap) => {
                Arc::make_mut(bitmap).optimize();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn members_are_a_set_whatever_their_number(changes in prop::collection::vec((any::<bool>(), 0_u32..200), 0..400)) {
            let (mut members, mut set) = (Members::default(), BTreeSet::new());
            for (come, host) in changes {
                if come {
                    members.insert(host);
                    set.insert(host);
                } else {
                    members.remove(host);
                    set.remove(&host);
                }
                prop_assert_eq!(members.len(), set.len() as u64);
                prop_assert_eq!(matches!(members, Members::One(_)), set.len() == 1);
            }
            let mut joined = Members::default();
            joined.join(&members);
            for host in 200..300 {
                members.push(host);
                set.insert(host);
            }
            joined.join(&members);
            prop_assert_eq!(joined.bitmap(), members.bitmap());
            members.shrink();
            prop_assert_eq!(members.bitmap().iter().collect::<Vec<_>>(), set.into_iter().collect::<Vec<_>>());
        }
    }
}
