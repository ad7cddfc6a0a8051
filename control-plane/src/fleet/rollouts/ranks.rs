//! Ranks: the order in which the hosts of a deployment get a release.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher24;
use uuid::Uuid;

/// A host and its place in the order; ranks first, those of one rank by their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ranked {
    /// The rank.
    pub rank: u64,
    /// The host.
    pub host: Uuid,
}

/// Returns the rank of a host among those of a deployment. It depends on the two alone, so that the hosts that come and go
/// do not move the others, and the canary of one deployment is not that of all.
#[must_use]
pub fn rank(deployment: Uuid, host: Uuid) -> u64 {
    // Not against anybody's will: the ids are made by the control plane. The keys stay as they are for ever.
    let mut hasher = SipHasher24::new_with_keys(0, 0);
    hasher.write(deployment.as_bytes());
    hasher.write(host.as_bytes());
    hasher.finish()
}

/// Returns the hosts in the order in which they get a release of the deployment.
#[must_use]
pub fn ranked(deployment: Uuid, hosts: impl IntoIterator<Item = Uuid>) -> Vec<Ranked> {
    let mut ranked: Vec<_> = hosts.into_iter().map(|host| Ranked { rank: rank(deployment, host), host }).collect();
    ranked.sort_unstable();
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(count: u128) -> impl Iterator<Item = Uuid> {
        (0..count).map(Uuid::from_u128)
    }

    /// Another number here would give hosts of running rollouts another place.
    #[test]
    fn ranks_are_the_same_in_every_version() {
        assert_eq!(rank(Uuid::from_u128(1), Uuid::from_u128(2)), 9_153_500_676_531_214_536);
        assert_ne!(rank(Uuid::from_u128(1), Uuid::from_u128(2)), rank(Uuid::from_u128(2), Uuid::from_u128(1)));
    }

    #[test]
    fn growth_reshuffles_nobody() {
        let deployment = Uuid::from_u128(7);
        let (before, mut after) = (ranked(deployment, hosts(100)), ranked(deployment, hosts(150)));
        after.retain(|ranked| ranked.host.as_u128() < 100);
        assert_eq!(before, after);
        assert!(before.is_sorted());
    }

    #[test]
    fn the_first_host_of_one_deployment_is_not_that_of_all() {
        let firsts: std::collections::BTreeSet<_> =
            (0..50).map(|deployment| ranked(Uuid::from_u128(deployment), hosts(100))[0].host).collect();
        assert!(firsts.len() > 30, "{}", firsts.len());
    }
}
