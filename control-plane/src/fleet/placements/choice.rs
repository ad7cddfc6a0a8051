//! Choice: which of the hosts get a replica.
//!
//! Whoever has one keeps it, unless it is missed and there is another place. The others go where the fewest have the same value of the label that they are spread by, of
//! these where the least is taken, and of these by rendezvous hash, so that a host that comes or goes moves nothing else.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use roaring::RoaringBitmap;
use sha2::{Digest as _, Sha256};
use titan_api::deployments::Spread;
use uuid::Uuid;

use super::{Footing, roomy};
use crate::fleet::model::{Deployment, Host};

/// How a host is ranked among those that have the same value of the label: the least is the first.
type Rank = (u64, Reverse<[u8; 32]>, Uuid, u32);

/// Returns which of the `eligible` hosts get one of the `replicas`. `held`: the hosts that have one now.
#[must_use]
pub fn choose(
    footing: Footing<'_>,
    deployment: &Deployment,
    eligible: &RoaringBitmap,
    held: &RoaringBitmap,
    replicas: u32,
) -> RoaringBitmap {
    let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
    let seen = missed(footing, deployment, eligible);
    // One that was decided and cannot be rendered has its place too.
    let placed = (held | footing.bookings.hosts(deployment.uid)) & &seen;
    let placed = roomy(footing, deployment, placed);
    let mut kept = placed.clone();
    if usize::try_from(kept.len()).is_ok_and(|count| count > replicas) {
        // Some have to go: of those that are left as many as can be are apart.
        let mut domains = Domains::new(footing, deployment, &seen, &RoaringBitmap::new());
        domains.offer(footing, deployment, &placed, replicas, |host| u64::from(!held.contains(host.number().0)));
        kept = domains.pick(replicas, None);
    }
    let missing = replicas - usize::try_from(kept.len()).unwrap_or(replicas);
    if missing == 0 {
        return kept;
    }
    let free = roomy(footing, deployment, &seen - &placed);
    let mut domains = Domains::new(footing, deployment, &seen, &kept);
    let requests = &deployment.spec.requests;
    let share = |host: Host<'_>| if requests.is_empty() { 0 } else { footing.bookings.share(requests, host) };
    domains.offer(footing, deployment, &free, missing, share);
    let picked = domains.pick(missing, deployment.spec.spread.as_ref().and_then(|spread| spread.max_skew));
    // What has no other place stays with a host that is missed: it may well run there.
    let still = missing - usize::try_from(picked.len()).unwrap_or(missing);
    let missed = roomy(footing, deployment, (held & eligible) - &seen);
    kept | picked | missed.iter().take(still).collect::<RoaringBitmap>()
}

/// Returns the hosts without those that are missed.
fn missed(footing: Footing<'_>, deployment: &Deployment, eligible: &RoaringBitmap) -> RoaringBitmap {
    let mut seen = eligible.clone();
    for host in footing.absences.hosts().filter(|host| footing.absences.misses(deployment, *host)) {
        if let Some(number) = footing.model.hosts().number(host) {
            seen.remove(number.0);
        }
    }
    seen
}

/// The hosts that have one value of the label that replicas are spread by.
#[derive(Debug, Default)]
struct Domain {
    replicas: u32,
    /// The best last.
    offers: Vec<Rank>,
}

/// Hosts by the value of the label that replicas are spread by; without one, all in one.
#[derive(Debug)]
struct Domains<'a> {
    spread: Option<&'a Spread>,
    all: Vec<Domain>,
    names: HashMap<Option<String>, usize>,
}

impl<'a> Domains<'a> {
    fn new(footing: Footing<'_>, deployment: &'a Deployment, seen: &RoaringBitmap, kept: &RoaringBitmap) -> Self {
        let spread = deployment.spec.spread.as_ref();
        let mut domains = Self { spread, all: Vec::new(), names: HashMap::new() };
        let hosts = footing.model.hosts();
        // A value that no replica can go to counts too where they may not differ by much.
        let counted = if spread.is_some_and(|spread| spread.max_skew.is_some()) { seen } else { kept };
        for host in hosts.among(counted) {
            let domain = domains.of(host);
            if kept.contains(host.number().0)
                && let Some(domain) = domains.all.get_mut(domain)
            {
                domain.replicas += 1;
            }
        }
        domains
    }

    /// Returns the place of a host's domain.
    fn of(&mut self, host: Host<'_>) -> usize {
        let value = self.spread.and_then(|spread| host.lookup(&spread.label));
        let value = value.map(std::borrow::Cow::into_owned);
        let next = self.all.len();
        let place = *self.names.entry(value).or_insert(next);
        if place == next {
            self.all.push(Domain::default());
        }
        place
    }

    /// Takes in the hosts that could get a replica, of each domain the best `most`: those of the least `share`.
    fn offer(
        &mut self,
        footing: Footing<'_>,
        deployment: &Deployment,
        free: &RoaringBitmap,
        most: usize,
        share: impl Fn(Host<'_>) -> u64,
    ) {
        for host in footing.model.hosts().among(free) {
            let rank = (share(host), Reverse(weight(deployment.uid, host.uid())), host.uid(), host.number().0);
            let domain = self.of(host);
            if let Some(domain) = self.all.get_mut(domain) {
                domain.offers.push(rank);
            }
        }
        for domain in &mut self.all {
            if (1..domain.offers.len()).contains(&most) {
                domain.offers.select_nth_unstable(most);
                domain.offers.truncate(most);
            }
            domain.offers.sort_unstable_by(|a, b| b.cmp(a));
        }
    }

    /// Picks up to `most` hosts, each where the fewest replicas are; with `skew`, none where there are that many more than
    /// elsewhere.
    fn pick(mut self, most: usize, skew: Option<u32>) -> RoaringBitmap {
        let mut picked = RoaringBitmap::new();
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        let mut queue = BTreeSet::new();
        for (place, domain) in self.all.iter().enumerate() {
            *counts.entry(domain.replicas).or_default() += 1;
            queue.extend(domain.offers.last().map(|rank| (domain.replicas, *rank, place)));
        }
        while picked.len() < most as u64
            && let Some((replicas, (.., host), place)) = queue.pop_first()
            && let Some(domain) = self.all.get_mut(place)
        {
            let fewest = counts.first_key_value().map_or(0, |(fewest, _)| *fewest);
            if skew.is_some_and(|skew| replicas + 1 - fewest > skew) {
                break;
            }
            picked.insert(host);
            domain.offers.pop();
            domain.replicas += 1;
            if let Some(count) = counts.get_mut(&replicas) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&replicas);
                }
            }
            *counts.entry(domain.replicas).or_default() += 1;
            queue.extend(domain.offers.last().map(|rank| (domain.replicas, *rank, place)));
        }
        picked
    }
}

/// The rendezvous weight of a host for a deployment.
fn weight(deployment: Uuid, host: Uuid) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(deployment.as_bytes());
    hash.update(host.as_bytes());
    hash.finalize().into()
}
