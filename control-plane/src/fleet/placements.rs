//! Placements: which hosts a deployment goes to.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use roaring::RoaringBitmap;
use sha2::{Digest as _, Sha256};
use titan_api::poll::RemovalReason;
use uuid::Uuid;

use crate::fleet::{
    matchers::Matcher,
    model::{Deployment, Host, Model},
};

/// What is decided for one deployment on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// The host is to have it.
    Present,
    /// The host is not to have it.
    Absent(RemovalReason),
    /// It cannot be told: whatever is, stays.
    Undecided(String),
}

/// Whether a deployment may be on a host, replicas aside. `held`: whether the host has it now.
fn admissible(deployment: &Deployment, target: &Matcher, host: Host<'_>, held: bool) -> Placement {
    if !host.spec().admits(&deployment.workspace) {
        return Placement::Absent(RemovalReason::AccessWithdrawn);
    }
    if !target.matches(host) {
        return Placement::Absent(RemovalReason::Unmatched);
    }
    if host.spec().cordoned && (!held || deployment.spec.replicas.is_some()) {
        return Placement::Absent(RemovalReason::ReplicaMoved);
    }
    Placement::Present
}

/// Returns the placement of a deployment without `replicas` on one host; `held`: whether the host has it now.
#[must_use]
pub fn place_one(model: &Model, deployment: &Deployment, host: Uuid, held: bool) -> Placement {
    match (model.host(host), model.target(deployment)) {
        (None, _) => Placement::Absent(RemovalReason::HostDeleted),
        (_, None) => Placement::Undecided(format!("there is no target {}", deployment.spec.target)),
        (Some(host), Some(target)) => admissible(deployment, target, host, held),
    }
}

/// Returns the numbers of the hosts that a deployment is to be on, or `None` if that cannot be told. `held`: the hosts that
/// have it now.
#[must_use]
pub fn place_set(model: &Model, deployment: &Deployment, held: &RoaringBitmap) -> Option<RoaringBitmap> {
    let (target, hosts) = (model.target(deployment)?, model.hosts());
    let mut present = hosts.matching(target);
    present &= hosts.admitting(&deployment.workspace);
    match deployment.spec.replicas {
        // A cordoned host keeps what it has, but gives up replicas.
        None => present -= hosts.cordoned() - held,
        Some(replicas) => {
            present -= hosts.cordoned();
            let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
            let possible = hosts.among(&present).map(|host| (host.uid(), held.contains(host.number().0)));
            present = hosts.numbers(&choose(deployment.uid, possible, replicas));
        }
    }
    Some(present)
}

/// Returns the placement of a deployment on every host that is to have it or has it. `held`: the hosts that have it now.
#[must_use]
pub fn place_all(model: &Model, deployment: &Deployment, held: &BTreeSet<Uuid>) -> BTreeMap<Uuid, Placement> {
    let hosts = model.hosts();
    let Some(present) = place_set(model, deployment, &hosts.numbers(held)) else {
        let concerned = held.iter().map(|host| (*host, place_one(model, deployment, *host, true)));
        return concerned.collect();
    };
    let mut placements: BTreeMap<_, _> = hosts.among(&present).map(|host| (host.uid(), Placement::Present)).collect();
    for host in held {
        placements.entry(*host).or_insert_with(|| match place_one(model, deployment, *host, true) {
            // It could stay, and others were picked.
            Placement::Present => Placement::Absent(RemovalReason::ReplicaMoved),
            placement => placement,
        });
    }
    placements
}

/// Picks `replicas` of the possible hosts: first those that hold it (`true`), then by rendezvous hash, so that a host
/// that comes or goes moves nothing else.
fn choose(deployment: Uuid, possible: impl Iterator<Item = (Uuid, bool)>, replicas: usize) -> BTreeSet<Uuid> {
    let rank = |(host, held): (Uuid, bool)| (!held, Reverse(weight(deployment, host)), host);
    let mut ranked: Vec<_> = possible.map(rank).collect();
    if (1..ranked.len()).contains(&replicas) {
        ranked.select_nth_unstable(replicas);
    }
    ranked.into_iter().take(replicas).map(|(_, _, host)| host).collect()
}

/// The rendezvous weight of a host for a deployment.
fn weight(deployment: Uuid, host: Uuid) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(deployment.as_bytes());
    hash.update(host.as_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(hosts: &[u128]) -> BTreeSet<Uuid> {
        hosts.iter().map(|host| Uuid::from_u128(*host)).collect()
    }

    proptest! {
        #[test]
        fn whoever_has_it_keeps_it(
            possible in prop::collection::btree_set(0_u128..40, 0..40),
            gone in prop::collection::btree_set(0_u128..40, 0..10),
            come in prop::collection::btree_set(40_u128..60, 0..10),
            replicas in 0_usize..20,
        ) {
            let deployment = Uuid::from_u128(7);
            let possible = set(&possible.into_iter().collect::<Vec<_>>());
            let first = choose(deployment, possible.iter().map(|host| (*host, false)), replicas);
            prop_assert_eq!(first.len(), replicas.min(possible.len()));
            let gone = set(&gone.into_iter().collect::<Vec<_>>());
            let come = set(&come.into_iter().collect::<Vec<_>>());
            let later: BTreeSet<_> = possible.difference(&gone).chain(&come).copied().collect();
            let second = choose(deployment, later.iter().map(|host| (*host, first.contains(host))), replicas);
            // Nobody who could stay was moved.
            prop_assert!(first.difference(&gone).all(|host| second.contains(host)));
            prop_assert_eq!(second.len(), replicas.min(later.len()));
            // Without a history the choice depends on the set alone.
            let again = choose(deployment, possible.iter().rev().map(|host| (*host, false)), replicas);
            prop_assert_eq!(first, again);
        }
    }
}
