//! Placements: which hosts a deployment goes to.
//!
//! First whatever keeps it away from a host ([`obstacles`]), then a choice among the rest ([`choice`]). Both depend on
//! nothing but what is declared, who has what and who is missed, so that the same question has the same answer.

pub mod choice;
pub mod obstacles;
pub mod shortfalls;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use roaring::RoaringBitmap;
use titan_api::{poll::RemovalReason, resources, taints::TaintEffect};
use uuid::Uuid;

use crate::fleet::{
    absences::Absences,
    bookings::Bookings,
    matchers::Matcher,
    model::{Deployment, Model},
};
use obstacles::obstacle;

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

/// What placements stand on.
#[derive(Debug, Clone, Copy)]
pub struct Footing<'a> {
    /// What is declared.
    pub model: &'a Model,
    /// What is taken of the hosts.
    pub bookings: &'a Bookings,
    /// Who is missed.
    pub absences: &'a Absences,
}

/// Returns the placement of a deployment on one host, other replicas aside; `held`: whether the host has it now.
#[must_use]
pub fn place_one(footing: Footing<'_>, deployment: &Deployment, host: Uuid, held: bool) -> Placement {
    match (footing.model.host(host), footing.model.target(deployment)) {
        (None, _) => Placement::Absent(RemovalReason::HostDeleted),
        (_, None) => Placement::Undecided(format!("there is no target {}", deployment.spec.target)),
        (Some(host), Some(target)) => match obstacle(footing, deployment, target, host, held) {
            None => Placement::Present,
            Some(obstacle) => Placement::Absent(obstacle.removal(deployment)),
        },
    }
}

/// Returns the hosts on which nothing that is declared of them keeps a deployment away. `held`: the hosts that have it now.
fn eligible(model: &Model, deployment: &Deployment, target: &Matcher, held: &RoaringBitmap) -> RoaringBitmap {
    let (spec, hosts) = (&deployment.spec, model.hosts());
    let mut eligible = hosts.matching(target);
    eligible &= hosts.admitting(&deployment.workspace);
    // A cordoned host keeps what it has, but gives up replicas.
    match spec.replicas {
        None => eligible -= hosts.cordoned() - held,
        Some(_) => eligible -= hosts.cordoned(),
    }
    eligible -= hosts.repelling(&spec.tolerations, None) - held;
    eligible -= hosts.repelling(&spec.tolerations, Some(TaintEffect::NoExecute));
    eligible
}

/// Returns the hosts that a deployment could have a replica on, if they had room and nobody missed them.
#[must_use]
pub fn possible(model: &Model, deployment: &Deployment) -> RoaringBitmap {
    let target = model.target(deployment);
    target.map_or_else(RoaringBitmap::new, |target| eligible(model, deployment, target, &RoaringBitmap::new()))
}

/// Returns the hosts that a deployment could be on if it had them all now, room and absences aside.
#[must_use]
pub fn conceivable(model: &Model, deployment: &Deployment) -> RoaringBitmap {
    let target = model.target(deployment);
    target.map_or_else(RoaringBitmap::new, |target| eligible(model, deployment, target, model.hosts().all()))
}

/// Returns those of the hosts that have what a deployment asks for, now that others have taken their part.
fn roomy(footing: Footing<'_>, deployment: &Deployment, mut among: RoaringBitmap) -> RoaringBitmap {
    let (requests, hosts) = (&deployment.spec.requests, footing.model.hosts());
    if requests.is_empty() {
        return among;
    }
    // What has to be named is found by name.
    for (resource, _) in
        requests.iter().filter(|(name, needs)| *needs > 0 && ![resources::CPU, resources::MEMORY].contains(name))
    {
        among &= hosts.naming(resource);
    }
    let roomy = hosts.among(&among).filter(|host| footing.bookings.shortage(deployment, *host).is_none());
    roomy.map(|host| host.number().0).collect()
}

/// Returns the numbers of the hosts that a deployment is to be on, or `None` if that cannot be told. `held`: the hosts that
/// have it now.
#[must_use]
pub fn place_set(footing: Footing<'_>, deployment: &Deployment, held: &RoaringBitmap) -> Option<RoaringBitmap> {
    let target = footing.model.target(deployment)?;
    let eligible = eligible(footing.model, deployment, target, held);
    Some(match deployment.spec.replicas {
        None => roomy(footing, deployment, eligible),
        Some(replicas) => choice::choose(footing, deployment, &eligible, held, replicas),
    })
}

/// Returns the placement of a deployment on one host, given the hosts that were chosen for its replicas, if it has some.
#[must_use]
pub fn place_chosen(
    footing: Footing<'_>,
    deployment: &Deployment,
    chosen: Option<&RoaringBitmap>,
    host: Uuid,
    held: bool,
) -> Placement {
    let number = || footing.model.hosts().number(host);
    let is_chosen = chosen.map(|chosen| number().is_some_and(|number| chosen.contains(number.0)));
    match (is_chosen, place_one(footing, deployment, host, held)) {
        (Some(true), _) => Placement::Present,
        // It could be there, and others were picked.
        (Some(false), Placement::Present) => Placement::Absent(RemovalReason::ReplicaMoved),
        (_, placement) => placement,
    }
}

/// Whether a deployment has fewer replicas than it is to have, those on hosts that are missed aside.
#[must_use]
pub fn is_short(footing: Footing<'_>, deployment: &Deployment) -> bool {
    let Some(replicas) = deployment.spec.replicas else { return false };
    let booked = footing.bookings.hosts(deployment.uid);
    let missed = footing.absences.hosts().filter(|host| footing.absences.misses(deployment, *host));
    let missed =
        missed.filter_map(|host| footing.model.hosts().number(host)).filter(|host| booked.contains(host.0)).count();
    booked.len() < u64::from(replicas) + missed as u64
}

/// Returns the placement of a deployment on every host that is to have it or has it. `held`: the hosts that have it now.
#[must_use]
pub fn place_all(footing: Footing<'_>, deployment: &Deployment, held: &BTreeSet<Uuid>) -> BTreeMap<Uuid, Placement> {
    let hosts = footing.model.hosts();
    let Some(present) = place_set(footing, deployment, &hosts.numbers(held)) else {
        let concerned = held.iter().map(|host| (*host, place_one(footing, deployment, *host, true)));
        return concerned.collect();
    };
    let mut placements: BTreeMap<_, _> = hosts.among(&present).map(|host| (host.uid(), Placement::Present)).collect();
    for host in held {
        placements.entry(*host).or_insert_with(|| place_chosen(footing, deployment, Some(&present), *host, true));
    }
    placements
}
