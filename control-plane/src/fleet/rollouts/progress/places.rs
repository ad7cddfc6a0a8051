//! Places: where hosts stand in the order of a stage, and which of them were given the release.

use uuid::Uuid;

use super::Progress;

impl Progress {
    /// Returns the place of a host, if it is a member.
    #[must_use]
    pub fn place(&self, host: Uuid) -> Option<u32> {
        let of = |place: &u32| self.members.get(*place as usize).map(|member| member.ranked.host);
        let found = self.by_host.binary_search_by(|place| of(place).cmp(&Some(host)));
        found.ok().and_then(|at| self.by_host.get(at)).copied()
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

    /// Returns the hosts of so many places from `first` on, gone ones among them.
    pub fn places(&self, first: usize, count: usize) -> impl Iterator<Item = Uuid> {
        self.members.iter().skip(first).take(count).map(|member| member.ranked.host)
    }

    /// Returns how many places there are.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.members.len()
    }
}
