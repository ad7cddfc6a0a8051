//! Bookings: how much of each host is taken by the deployments that are on it.
//!
//! A deployment is booked on a host from the moment that it is decided to be there, whether it can be rendered or not, so
//! that whoever is decided next finds what is left. All of it follows from who has what, and can be counted anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use roaring::RoaringBitmap;
use titan_api::resources::{Resources, shown};
use uuid::Uuid;

use crate::fleet::{
    holders::Holders,
    hosts::{Host, HostNumber},
    model::{Deployment, Model},
};

/// What one deployment takes.
#[derive(Debug, Clone, Default)]
struct Booking {
    requests: Resources,
    hosts: RoaringBitmap,
}

/// What a host has too little of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// The resource.
    pub resource: String,
    /// How much is needed.
    pub needs: u64,
    /// How much is left.
    pub left: u64,
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { resource, needs, left } = self;
        write!(f, "not enough {resource} (needs {}, {} left)", shown(resource, *needs), shown(resource, *left))
    }
}

/// What is taken of the hosts, by the deployments that ask for resources or have replicas. The others are not booked.
#[derive(Debug, Clone, Default)]
pub struct Bookings {
    /// In the order in which they have a right to their place: whoever was made first goes first.
    of: BTreeMap<Uuid, Booking>,
    /// By resource and host, the sum.
    taken: HashMap<Box<str>, HashMap<u32, u64>>,
}

/// Whether a deployment is booked where it is.
#[must_use]
pub fn is_booked(deployment: &Deployment) -> bool {
    deployment.spec.replicas.is_some() || !deployment.spec.requests.is_empty()
}

impl Bookings {
    /// Returns what is taken, given who has what and which pairs of host and deployment cannot be rendered.
    #[must_use]
    pub fn of(model: &Model, holders: &Holders, problems: &BTreeSet<(Uuid, Uuid)>) -> Self {
        let mut bookings = Self::default();
        for deployment in model.deployments_that_book() {
            for host in holders.of(deployment.uid) {
                bookings.book(deployment, HostNumber(host));
            }
        }
        for (host, deployment) in problems {
            if let (Some(number), Some(deployment)) = (model.hosts().number(*host), model.deployment(*deployment)) {
                bookings.book(deployment, number);
            }
        }
        bookings
    }

    /// Whether a deployment is booked on any host.
    #[must_use]
    pub fn has(&self, deployment: Uuid) -> bool {
        self.of.contains_key(&deployment)
    }

    /// Whether a deployment is booked on a host.
    #[must_use]
    pub fn is_on(&self, deployment: Uuid, host: HostNumber) -> bool {
        self.of.get(&deployment).is_some_and(|booking| booking.hosts.contains(host.0))
    }

    /// Returns the hosts on which a deployment is booked.
    #[must_use]
    pub fn hosts(&self, deployment: Uuid) -> RoaringBitmap {
        self.of.get(&deployment).map(|booking| booking.hosts.clone()).unwrap_or_default()
    }

    /// Returns how much of a resource is taken on a host.
    #[must_use]
    pub fn taken(&self, resource: &str, host: HostNumber) -> u64 {
        self.taken.get(resource).and_then(|hosts| hosts.get(&host.0)).copied().unwrap_or_default()
    }

    /// Books a deployment on a host, if it is one that is booked.
    pub fn book(&mut self, deployment: &Deployment, host: HostNumber) {
        if !is_booked(deployment) {
            return;
        }
        let booking = self
            .of
            .entry(deployment.uid)
            .or_insert_with(|| Booking { requests: deployment.spec.requests.clone(), hosts: RoaringBitmap::new() });
        if booking.hosts.insert(host.0) {
            add(&mut self.taken, &booking.requests, host.0);
        }
    }

    /// Ends the booking of a deployment on a host; returns whether anything is free that was not.
    pub fn release(&mut self, deployment: Uuid, host: HostNumber) -> bool {
        let Some(booking) = self.of.get_mut(&deployment) else { return false };
        let released = booking.hosts.remove(host.0);
        if released {
            take(&mut self.taken, &booking.requests, host.0);
        }
        let freed = released && !booking.requests.is_empty();
        if booking.hosts.is_empty() {
            self.of.remove(&deployment);
        }
        freed
    }

    /// Books a deployment anew on all `hosts`, as it is declared now. Returns the hosts on which it takes another amount than
    /// before.
    pub fn rebook(&mut self, deployment: &Deployment, hosts: &RoaringBitmap) -> RoaringBitmap {
        let (uid, wanted) = (deployment.uid, Some(deployment).filter(|deployment| is_booked(deployment)));
        let known = self.of.get(&uid);
        let requests = |booking: Option<&Booking>| booking.map(|booking| booking.requests.clone()).unwrap_or_default();
        let (before, after) = (requests(known), wanted.map(|wanted| wanted.spec.requests.clone()).unwrap_or_default());
        if known.is_some() == wanted.is_some() && before == after {
            return RoaringBitmap::new();
        }
        let known = self.of.remove(&uid).unwrap_or_default();
        for host in &known.hosts {
            take(&mut self.taken, &known.requests, host);
        }
        if let Some(deployment) = wanted {
            for host in hosts {
                self.book(deployment, HostNumber(host));
            }
        }
        if before == after { RoaringBitmap::new() } else { known.hosts | hosts }
    }

    /// Takes a host out whose number will be another's.
    pub fn remove_host(&mut self, host: HostNumber) {
        let on: Vec<_> =
            self.of.iter().filter(|(_, booking)| booking.hosts.contains(host.0)).map(|(uid, _)| *uid).collect();
        for deployment in on {
            self.release(deployment, host);
        }
    }

    /// Returns the first thing that a host has too little of for a deployment, if there is one.
    #[must_use]
    pub fn shortage(&self, deployment: &Deployment, host: Host<'_>) -> Option<Shortage> {
        self.shortages(deployment, host).into_iter().next()
    }

    /// Returns all that a host has too little of for a deployment.
    ///
    /// One that is booked there needs what those leave that were made before it, as long as they have room themselves; one
    /// that is not needs what all leave.
    #[must_use]
    pub fn shortages(&self, deployment: &Deployment, host: Host<'_>) -> Vec<Shortage> {
        let requests = &deployment.spec.requests;
        if requests.is_empty() {
            return Vec::new();
        }
        let number = host.number();
        let booked = self.is_on(deployment.uid, number);
        let left =
            |resource: &str| host.capacity(resource).map(|capacity| capacity.checked_sub(self.taken(resource, number)));
        if !booked {
            return short(requests, |resource| left(resource).map(Option::unwrap_or_default));
        }
        // Almost always there is room for all.
        if requests.iter().all(|(resource, _)| left(resource).is_none_or(|left| left.is_some())) {
            return Vec::new();
        }
        let mut used: HashMap<&str, u64> = HashMap::new();
        for (uid, booking) in self.of.iter().filter(|(_, booking)| booking.hosts.contains(number.0)) {
            let rest = |resource: &str| {
                let used = used.get(resource).copied().unwrap_or_default();
                host.capacity(resource).map(|capacity| capacity.saturating_sub(used))
            };
            let short = short(&booking.requests, rest);
            if *uid == deployment.uid {
                return short;
            }
            if short.is_empty() {
                for (resource, amount) in booking.requests.iter() {
                    let used = used.entry(resource).or_default();
                    *used = used.saturating_add(amount);
                }
            }
        }
        Vec::new()
    }

    /// Returns how much of a host is taken of what a deployment asks for, in thousandths of the scarcest.
    #[must_use]
    pub fn share(&self, requests: &Resources, host: Host<'_>) -> u64 {
        let share = |resource: &str| {
            let taken = u128::from(self.taken(resource, host.number()));
            let capacity = u128::from(host.capacity(resource)?.max(1));
            u64::try_from(taken * 1000 / capacity).ok()
        };
        requests.iter().filter_map(|(resource, _)| share(resource)).max().unwrap_or_default()
    }
}

/// Returns what there is too little of, given what is left of each resource; `None` is any amount.
fn short(requests: &Resources, left: impl Fn(&str) -> Option<u64>) -> Vec<Shortage> {
    let short = |(resource, needs): (&str, u64)| {
        let left = left(resource)?;
        (needs > left).then(|| Shortage { resource: resource.to_owned(), needs, left })
    };
    requests.iter().filter_map(short).collect()
}

type Taken = HashMap<Box<str>, HashMap<u32, u64>>;

fn add(taken: &mut Taken, requests: &Resources, host: u32) {
    for (resource, amount) in requests.iter() {
        let hosts = match taken.get_mut(resource) {
            Some(hosts) => hosts,
            None => taken.entry(resource.into()).or_default(),
        };
        let known = hosts.entry(host).or_default();
        // An amount is limited so that ten thousand of the largest are far from the end.
        *known = known.saturating_add(amount);
    }
}

fn take(taken: &mut Taken, requests: &Resources, host: u32) {
    for (resource, amount) in requests.iter() {
        let Some(hosts) = taken.get_mut(resource) else { continue };
        if let Some(known) = hosts.get_mut(&host) {
            *known = known.saturating_sub(amount);
            if *known == 0 {
                hosts.remove(&host);
            }
        }
        if hosts.is_empty() {
            taken.remove(resource);
        }
    }
}
