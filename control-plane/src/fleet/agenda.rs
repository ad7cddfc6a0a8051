//! The agenda: which pairs of deployment and host are still to be decided, the quickest to finish first.

use std::collections::{BTreeMap, BTreeSet};

use roaring::RoaringBitmap;
use uuid::Uuid;

use crate::fleet::{
    absences::Absences,
    bookings::Bookings,
    causes::Affected,
    holders::Holders,
    model::Model,
    placements::{self, Footing, Placement},
};

/// What is to be decided of one deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    /// Which hosts have it; whoever has it and stays need not be looked at.
    Hosts,
    /// Everything on every host.
    Everything,
}

/// What is left of one deployment, as numbers of the model's table.
#[derive(Debug, Clone, Default)]
struct Left {
    /// Hosts that are to have it.
    present: RoaringBitmap,
    /// Hosts that are not.
    absent: RoaringBitmap,
}

/// Hosts of one deployment that are to be decided now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The deployment, which may be gone.
    pub deployment: Uuid,
    /// The hosts, each once and in order; they may be gone too.
    pub hosts: Vec<Uuid>,
    /// Whether this is the last of a decision about the deployment on all its hosts.
    pub last: bool,
}

impl Item {
    const fn of(deployment: Uuid) -> Self {
        Self { deployment, hosts: Vec::new(), last: false }
    }

    /// Whether a pair of deployment and host is in `others` as well.
    #[must_use]
    pub fn meets(&self, others: &[Self]) -> bool {
        let same = others.iter().filter(|other| other.deployment == self.deployment);
        // Both are in order.
        same.into_iter().any(|other| self.hosts.iter().any(|host| other.hosts.binary_search(host).is_ok()))
    }
}

/// Which pairs of deployment and host are still to be decided.
#[derive(Debug, Clone, Default)]
pub struct Agenda {
    hosts: BTreeSet<Uuid>,
    /// Hosts of which more or less is taken than before: others may find room there, or have too little.
    shifted: BTreeSet<Uuid>,
    deployments: BTreeMap<Uuid, Scope>,
    begun: BTreeMap<Uuid, Left>,
}

/// What the agenda is drawn from.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// What is declared.
    pub model: &'a Model,
    /// Who has what.
    pub holders: &'a Holders,
    /// The deployments that a host has, whether it is in the model or not.
    pub held: &'a dyn Held,
    /// Pairs of host and deployment that cannot be rendered.
    pub problems: &'a BTreeSet<(Uuid, Uuid)>,
    /// What is taken of the hosts.
    pub bookings: &'a Bookings,
    /// Who is missed.
    pub absences: &'a Absences,
}

impl<'a> Ground<'a> {
    const fn footing(self) -> Footing<'a> {
        Footing { model: self.model, bookings: self.bookings, absences: self.absences }
    }
}

/// Tells what a host has.
pub trait Held: std::fmt::Debug + Sync {
    /// Returns the deployments that a host has.
    fn deployments(&self, host: Uuid) -> Vec<Uuid>;
}

impl Held for crate::fleet::view::FleetView {
    fn deployments(&self, host: Uuid) -> Vec<Uuid> {
        let Some(slot) = self.find(host) else { return Vec::new() };
        let set = slot.set();
        set.entries().iter().filter(|entry| entry.present()).map(crate::fleet::view::Entry::deployment).collect()
    }
}

impl Agenda {
    /// Whether everything is decided.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.shifted.is_empty() && self.deployments.is_empty() && self.begun.is_empty()
    }

    /// Whether all that is left are hosts of deployments on which it was begun to decide.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.hosts.is_empty() && self.shifted.is_empty() && self.deployments.is_empty() && !self.begun.is_empty()
    }

    /// Adds what is affected.
    pub fn add(&mut self, affected: &Affected) {
        self.hosts.extend(&affected.hosts);
        for (deployments, scope) in [(&affected.targets, Scope::Hosts), (&affected.deployments, Scope::Everything)] {
            for deployment in deployments {
                self.ask(*deployment, scope);
            }
        }
    }

    /// Adds hosts, as numbers of the model's table, for which one deployment alone is to be decided.
    pub fn add_hosts(&mut self, deployment: Uuid, hosts: &RoaringBitmap) {
        if !hosts.is_empty() {
            self.begun.entry(deployment).or_default().present |= hosts;
        }
    }

    /// Adds hosts of which more or less is taken than before.
    pub fn shift(&mut self, hosts: impl IntoIterator<Item = Uuid>) {
        self.shifted.extend(hosts);
    }

    /// What was begun for less begins anew.
    fn ask(&mut self, deployment: Uuid, scope: Scope) {
        let asked = self.deployments.entry(deployment).or_insert(scope);
        *asked = (*asked).max(scope);
    }

    /// Takes up to about `limit` pairs that are to be decided next: those of single hosts, then those of the deployments
    /// with the fewest left.
    pub fn take(&mut self, ground: Ground<'_>, limit: usize) -> Vec<Item> {
        let mut items: BTreeMap<Uuid, Item> = BTreeMap::new();
        let mut taken = 0;
        if !self.hosts.is_empty() {
            // Where replicas may go depends on which values of a label there are, on whatever host.
            for deployment in ground.model.deployments_skewed() {
                if placements::is_short(ground.footing(), deployment) {
                    self.ask(deployment.uid, Scope::Hosts);
                }
            }
        }
        while taken < limit
            && let Some(host) = self.shifted.pop_first()
        {
            for deployment in self.unsettled(ground, host) {
                items.entry(deployment).or_insert_with(|| Item::of(deployment)).hosts.push(host);
                taken += 1;
            }
            taken += 1;
        }
        while taken < limit
            && let Some(host) = self.hosts.pop_first()
        {
            for deployment in self.concerned(ground, host) {
                items.entry(deployment).or_insert_with(|| Item::of(deployment)).hosts.push(host);
                taken += 1;
            }
            taken += 1;
        }
        if taken < limit {
            self.begin(ground);
            self.take_begun(ground, limit - taken, &mut items);
        }
        let mut items: Vec<_> = items.into_values().collect();
        for item in &mut items {
            // A host may be on the agenda by itself and among a deployment's.
            item.hosts.sort_unstable();
            item.hosts.dedup();
        }
        items
    }

    /// Takes up to about `limit` pairs of the deployments with the fewest left.
    fn take_begun(&mut self, ground: Ground<'_>, limit: usize, items: &mut BTreeMap<Uuid, Item>) {
        let mut taken = 0;
        let mut smallest: Vec<_> =
            self.begun.iter().map(|(uid, left)| (left.present.len() + left.absent.len(), *uid)).collect();
        smallest.sort_unstable();
        for (_, deployment) in smallest {
            if taken >= limit {
                break;
            }
            let Some(left) = self.begun.get_mut(&deployment) else { continue };
            let item = items.entry(deployment).or_insert_with(|| Item::of(deployment));
            let before = item.hosts.len();
            // Who is to lose it comes first: a replica leaves before it arrives elsewhere.
            for numbers in [&mut left.absent, &mut left.present] {
                let room = limit.saturating_sub(taken + item.hosts.len() - before);
                let next: RoaringBitmap = numbers.iter().take(room).collect();
                *numbers -= &next;
                item.hosts.extend(ground.model.hosts().among(&next).map(|host| host.uid()));
            }
            taken += item.hosts.len() - before + 1;
            item.last = left.present.is_empty() && left.absent.is_empty();
            if item.last {
                self.begun.remove(&deployment);
            }
        }
    }

    /// Returns the deployments that are to be decided for one host. Where a host may move a replica of others, all hosts
    /// are looked at.
    fn concerned(&mut self, ground: Ground<'_>, host: Uuid) -> BTreeSet<Uuid> {
        let Ground { model, held, problems, .. } = ground;
        let held: BTreeSet<_> = held.deployments(host).into_iter().collect();
        let possible = model.candidates(host).into_iter().filter(|deployment| {
            let placement = placements::place_one(ground.footing(), deployment, host, held.contains(&deployment.uid));
            !matches!(placement, Placement::Absent(_))
        });
        let possible: Vec<_> = possible.map(|deployment| deployment.uid).collect();
        let troubled = problems.range((host, Uuid::nil())..=(host, Uuid::max())).map(|(_, deployment)| *deployment);
        let concerned: BTreeSet<_> = held.into_iter().chain(possible).chain(troubled).collect();
        let (replicated, plain) = concerned.into_iter().partition::<BTreeSet<_>, _>(|uid| {
            model.deployment(*uid).is_some_and(|deployment| deployment.spec.replicas.is_some())
        });
        for deployment in &replicated {
            self.ask(*deployment, Scope::Everything);
        }
        match model.host(host) {
            // The table has no number for it: it is decided here.
            None => plain.into_iter().chain(replicated).collect(),
            // What is to be decided on every host need not be decided here as well.
            Some(_) => {
                let asked = |deployment: &Uuid| self.deployments.get(deployment) == Some(&Scope::Everything);
                plain.into_iter().filter(|deployment| !asked(deployment)).collect()
            }
        }
    }

    /// Returns the deployments that are to be decided for a host of which more or less is taken than before: those that
    /// find room now, and those that have too little. Where it is one of several replicas, all hosts are looked at.
    fn unsettled(&mut self, ground: Ground<'_>, host: Uuid) -> Vec<Uuid> {
        let Some(number) = ground.model.hosts().number(host) else { return Vec::new() };
        let (footing, held) = (ground.footing(), ground.held.deployments(host));
        let mut plain = Vec::new();
        let troubled =
            ground.problems.range((host, Uuid::nil())..=(host, Uuid::max())).map(|(_, deployment)| deployment);
        let there = held.iter().chain(troubled).filter_map(|deployment| ground.model.deployment(*deployment));
        // What was decided to leave is booked no longer, though the host may not have been told yet.
        for deployment in there.filter(|deployment| ground.bookings.is_on(deployment.uid, number)) {
            let stays = placements::place_one(footing, deployment, host, held.contains(&deployment.uid));
            match (stays, deployment.spec.replicas) {
                (Placement::Present, _) => {}
                (_, None) => plain.push(deployment.uid),
                (_, Some(_)) => self.ask(deployment.uid, Scope::Hosts),
            }
        }
        let coming = ground.model.candidates(host).into_iter();
        for deployment in coming.filter(|deployment| !deployment.spec.requests.is_empty()) {
            let comes = || placements::place_one(footing, deployment, host, false) == Placement::Present;
            match deployment.spec.replicas {
                _ if ground.bookings.is_on(deployment.uid, number) => {}
                None if comes() => plain.push(deployment.uid),
                Some(_) if placements::is_short(footing, deployment) && comes() => {
                    self.ask(deployment.uid, Scope::Hosts)
                }
                None | Some(_) => {}
            }
        }
        plain
    }

    /// Works out what is left of each deployment that was asked for. What was left before stays left, though the model may
    /// have moved on: each pair is decided by the model of its moment.
    fn begin(&mut self, ground: Ground<'_>) {
        for (uid, scope) in std::mem::take(&mut self.deployments) {
            let (mut present, absent) = wanted(ground, uid);
            if scope == Scope::Hosts {
                present -= ground.holders.of(uid);
            }
            let left = self.begun.entry(uid).or_default();
            left.present |= present;
            left.absent |= absent;
        }
    }
}

/// Returns the hosts that are to have a deployment, and those that have it and are not to.
fn wanted(ground: Ground<'_>, deployment: Uuid) -> (RoaringBitmap, RoaringBitmap) {
    let held = ground.holders.of(deployment);
    let Some(deployment) = ground.model.deployment(deployment) else { return (RoaringBitmap::new(), held) };
    match placements::place_set(ground.footing(), deployment, &held) {
        Some(present) => {
            let absent = held - &present;
            (present, absent)
        }
        // It cannot be told: whoever has it keeps it, with the reason.
        None => (held, RoaringBitmap::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(deployment: u128, hosts: &[u128]) -> Item {
        let hosts = hosts.iter().map(|host| Uuid::from_u128(*host)).collect();
        Item { hosts, ..Item::of(Uuid::from_u128(deployment)) }
    }

    #[test]
    fn items_meet_where_a_host_of_the_same_deployment_is_in_both() {
        let before = [item(1, &[2, 4, 6]), item(2, &[5])];
        for (deployment, hosts, meets) in
            [(1, &[1, 3, 5][..], false), (1, &[1, 6], true), (2, &[4, 6], false), (2, &[5], true), (3, &[2, 5], false)]
        {
            assert_eq!(item(deployment, hosts).meets(&before), meets, "{deployment} on {hosts:?}");
        }
        assert!(!item(1, &[2]).meets(&[]));
    }

    #[test]
    fn it_goes_on_while_only_hosts_of_deployments_that_were_begun_are_left() {
        let (uid, mut agenda) = (Uuid::from_u128(1), Agenda::default());
        assert!(!agenda.goes_on(), "nothing is left");
        agenda.add_hosts(uid, &RoaringBitmap::from_iter([1, 2]));
        assert!(agenda.goes_on());
        let one = BTreeSet::from([uid]);
        for affected in [
            Affected { hosts: one.clone(), ..Affected::default() },
            Affected { targets: one.clone(), ..Affected::default() },
            Affected { deployments: one, ..Affected::default() },
        ] {
            let mut agenda = agenda.clone();
            agenda.add(&affected);
            assert!(!agenda.goes_on(), "{affected:?}");
        }
        agenda.shift([uid]);
        assert!(!agenda.goes_on(), "what a host has is read from the view");
    }
}
