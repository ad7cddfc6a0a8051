//! Places: where hosts stand in the order of a stage, and which of them were given the release.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;
use uuid::Uuid;

use super::{Class, Progress, Ranked, Standing};

/// The places of the members of a stage, by host: the table holds numbers alone, so a million of them are some 6 MB.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    table: HashTable<u32>,
    hasher: RandomState,
}

impl Places {
    /// Returns the places of hosts in their order, each of which is there once.
    pub(super) fn of(members: &[Ranked]) -> Self {
        let hasher = RandomState::new();
        let hash = |place: &u32| members.get(*place as usize).map_or(0, |member| hasher.hash_one(member.host));
        let mut table = HashTable::with_capacity(members.len());
        for place in (0..).take(members.len()) {
            table.insert_unique(hash(&place), place, hash);
        }
        Self { table, hasher }
    }
}

/// A member of a stage, as it was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// Its place in the order.
    pub place: u32,
    /// The host.
    pub host: Uuid,
    /// How it stands.
    pub standing: Standing,
    /// Whether it was given the release.
    pub given: bool,
}

impl Progress {
    /// Returns the place of a host, if it is a member.
    #[must_use]
    pub fn place(&self, host: Uuid) -> Option<u32> {
        let is = |place: &u32| self.members.get(*place as usize).is_some_and(|member| member.ranked.host == host);
        self.places.table.find(self.places.hasher.hash_one(host), is).copied()
    }

    /// Returns the member of a place, unless it is gone.
    #[must_use]
    pub fn seat(&self, place: u32) -> Option<Seat> {
        let member = self.members.get(place as usize).filter(|member| member.class != Class::Gone)?;
        let given = (place as usize) < self.opened;
        Some(Seat { place, host: member.ranked.host, standing: member.standing, given })
    }

    /// Returns a member, unless it is gone.
    #[must_use]
    pub fn seat_of(&self, host: Uuid) -> Option<Seat> {
        self.seat(self.place(host)?)
    }

    /// Returns the members of so many places from `first` on, but for those that are gone.
    pub fn seats(&self, first: usize, count: usize) -> impl Iterator<Item = Seat> {
        let end = first.saturating_add(count).min(self.members.len());
        (first..end).filter_map(|place| self.seat(u32::try_from(place).ok()?))
    }

    /// Returns how many hosts were given the release.
    #[must_use]
    pub const fn given(&self) -> usize {
        self.opened
    }

    /// Returns the hosts that were given the release after the first `before`.
    pub fn given_after(&self, before: usize) -> impl Iterator<Item = Uuid> {
        let given = self.members.get(before..self.opened).unwrap_or_default();
        given.iter().map(|member| member.ranked.host)
    }

    /// Takes back what was opened after the first `before` hosts: it could not be written, so nobody was given anything.
    pub fn close_after(&mut self, before: usize) {
        while self.opened > before {
            self.opened -= 1;
            let Some(class) = self.members.get(self.opened).map(|member| member.class as usize) else { continue };
            self.tally[1][class] -= 1;
            self.tally[0][class] += 1;
        }
        self.begun = self.opened > 0;
    }

    /// Returns how many places there are.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.members.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use titan_api::{
        spans::Span,
        strategies::{Offline, releases::Back},
    };

    use super::*;
    use crate::fleet::rollouts::{Doors, Frozen, Rules, Said, standing::Standing};

    const fn host(n: u64) -> Uuid {
        Uuid::from_u128(n as u128)
    }

    #[test]
    fn members_have_seats_until_they_are_gone_in_order_of_their_ranks() {
        let back = Back { progress_deadline: Span(Duration::from_mins(10)), offline: Offline::default() };
        let rules = Rules::back(&titan_api::Name::new("back").expect("name"), &back);
        // The order is not that of the hosts, and one is named twice.
        let members = [3, 1, 2, 3, 0].map(|n: u64| Ranked { rank: 10 - n, host: host(n) });
        let mut stage = Progress::new(rules, Frozen { members: members.into(), reach: None }, None, 0);
        let hosts = |stage: &Progress, first, count| {
            stage.seats(first, count).map(|seat| (seat.place, seat.host.as_u128())).collect::<Vec<_>>()
        };
        assert_eq!(stage.size(), 4);
        assert_eq!(hosts(&stage, 0, usize::MAX), [(0, 3), (1, 2), (2, 1), (3, 0)]);
        assert_eq!(hosts(&stage, 1, 2), [(1, 2), (2, 1)]);
        assert_eq!(hosts(&stage, 4, 1), []);
        assert!(stage.seats(0, 4).all(|seat| !seat.given && Some(seat) == stage.seat_of(seat.host)));
        stage.advance(0, Doors::Open);
        let said = Standing { said: Said::Failed, unseen_since: Some(1) };
        stage.tell(host(2), said, 2);
        assert_eq!(stage.seat_of(host(2)), Some(Seat { place: 1, host: host(2), standing: said, given: true }));
        stage.remove(host(2), 3);
        assert_eq!((stage.seat_of(host(2)), stage.seat(1)), (None, None));
        assert_eq!(hosts(&stage, 0, 3), [(0, 3), (2, 1)]);
        assert_eq!((stage.place(host(2)), stage.place(host(7))), (Some(1), None));
    }
}
