//! Stages: which hosts one is about.

use titan_api::{selectors::Selector, strategies::ReleaseStage};
use uuid::Uuid;

use super::{
    gates::{Gate, Opening},
    ranks::Ranked,
};

/// The hosts of a stage as they were when it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// Those that the gate did not let through before, in their order.
    pub members: Vec<Ranked>,
    /// How far the stage opens the gate once it has passed; `None`: for everybody whom it is about.
    pub reach: Option<u64>,
}

impl Frozen {
    /// Returns the hosts of a stage that begins. `hosts` are those of the deployment in their order; `matches` says whether a
    /// selector matches one of them.
    ///
    /// A stage that goes on after a restart reaches as far as it was found to when it began, and what it has opened itself is
    /// not taken from it: it has the same hosts, those aside that came and went; whoever it let through stays one of them.
    #[must_use]
    pub fn of(stage: &ReleaseStage, gate: &Gate, hosts: &[Ranked], matches: impl Fn(&Selector, Uuid) -> bool) -> Self {
        let about = |host: &&Ranked| stage.selector.as_ref().is_none_or(|selector| matches(selector, host.host));
        let about: Vec<Ranked> = hosts.iter().filter(about).copied().collect();
        let own = gate.opening(&stage.stage);
        let open = || own.map_or(Some(0), |own| own.up_to);
        let known = own.and_then(|own| own.reach);
        let reach = known.or_else(|| reach(stage, &about).zip(open()).map(|(reach, open)| reach.max(open)));
        let earlier: Vec<&Opening> = gate.openings.iter().filter(|opening| opening.stage != stage.stage).collect();
        let closed = |host: &Ranked| {
            !earlier.iter().any(|opening| opening.lets(host.rank, |selector| matches(selector, host.host)))
        };
        let inside = |host: &Ranked| reach.is_none_or(|reach| host.rank <= reach);
        let members = about.into_iter().filter(|host| inside(host) && closed(host)).collect();
        Self { members, reach }
    }
}

/// Returns how far along `about`, in their order, a stage reaches.
fn reach(stage: &ReleaseStage, about: &[Ranked]) -> Option<u64> {
    if stage.hosts == titan_api::shares::Share::ALL {
        return None;
    }
    let count = stage.hosts.at_least(about.len() as u64);
    let last = usize::try_from(count).unwrap_or(usize::MAX).checked_sub(1);
    // Of no hosts the stage reaches none, whoever comes later.
    Some(last.and_then(|last| about.get(last)).map_or(0, |last| last.rank))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use titan_api::{Name, shares::Share, spans::Span, strategies::Offline};

    use super::*;

    fn stage(name: &str, zone: Option<u128>, hosts: Share) -> ReleaseStage {
        let labels = |zone: u128| Selector::labels(BTreeMap::from([("zone".to_owned(), zone.to_string())]));
        ReleaseStage {
            stage: Name::new(name).expect("name"),
            selector: zone.map(labels),
            hosts,
            min_ready_seconds: 0,
            max_unavailable: Share::ALL,
            max_failures: Share::NONE,
            progress_deadline: Span(Duration::from_mins(10)),
            offline: Offline::default(),
            windows: Vec::new(),
        }
    }

    fn hosts(count: u128) -> Vec<Ranked> {
        (0..count).map(|n| Ranked { rank: 100 + 10 * n as u64, host: Uuid::from_u128(n) }).collect()
    }

    /// Hosts are in the zone that their number leaves when it is divided by three.
    fn zones(selector: &Selector, host: Uuid) -> bool {
        selector.rules_match(|key| (key == "zone").then(|| (host.as_u128() % 3).to_string().into()))
    }

    fn members(stage: &ReleaseStage, gate: &mut Gate, hosts: &[Ranked]) -> Vec<u128> {
        let frozen = Frozen::of(stage, gate, hosts, zones);
        let (stage, selector) = (stage.stage.clone(), stage.selector.clone());
        gate.open(&Opening { stage, selector, up_to: frozen.reach, reach: frozen.reach });
        frozen.members.iter().map(|member| member.host.as_u128()).collect()
    }

    #[test]
    fn shares_count_the_hosts_of_earlier_stages_in() {
        let mut gate = Gate::closed(Uuid::nil(), Uuid::nil(), 2, Some(1));
        let hosts = hosts(12);
        assert_eq!(members(&stage("canary", None, Share::Count(1)), &mut gate, &hosts), [0]);
        assert_eq!(members(&stage("few", None, Share::Percent(20)), &mut gate, &hosts), [1, 2], "three of twelve");
        assert_eq!(members(&stage("zone", Some(0), Share::Percent(60)), &mut gate, &hosts), [3, 6], "three of four");
        assert_eq!(members(&stage("half", None, Share::Percent(50)), &mut gate, &hosts), [4, 5]);
        assert_eq!(members(&stage("less", None, Share::Count(3)), &mut gate, &hosts), [0; 0]);
        assert_eq!(members(&stage("all", None, Share::ALL), &mut gate, &hosts), [7, 8, 9, 10, 11]);
    }

    #[test]
    fn a_stage_that_goes_on_has_the_hosts_that_it_began_with() {
        let mut gate = Gate::closed(Uuid::nil(), Uuid::nil(), 2, Some(1));
        let (half, hosts) = (stage("half", None, Share::Percent(50)), hosts(10));
        let before = Frozen::of(&half, &gate, &hosts, zones);
        gate.open(&Opening { stage: half.stage.clone(), selector: None, up_to: Some(120), reach: before.reach });
        assert_eq!(Frozen::of(&half, &gate, &hosts, zones), before);
        // Meanwhile some came who stand before them all, and some went.
        let early = (20..23).map(|n| Ranked { rank: n as u64, host: Uuid::from_u128(n) });
        let changed: Vec<Ranked> = early.chain(hosts.iter().filter(|host| host.rank != 110).copied()).collect();
        let after = Frozen::of(&half, &gate, &changed, zones);
        let stay: Vec<_> = after.members.iter().map(|member| member.host.as_u128()).filter(|host| *host < 20).collect();
        assert_eq!((after.reach, stay), (before.reach, vec![0, 2, 3, 4]));
    }

    /// The canary is looked after though a host that comes before it joined while nobody looked.
    #[test]
    fn whoever_a_stage_let_through_stays_one_of_its_hosts() {
        let mut gate = Gate::closed(Uuid::nil(), Uuid::nil(), 2, Some(1));
        let (canary, grown) = (stage("canary", None, Share::Count(1)), hosts(3));
        let alone = Frozen::of(&canary, &gate, &grown[1..], zones);
        assert_eq!(alone, Frozen { members: grown[1..2].to_vec(), reach: Some(110) });
        gate.open(&Opening { stage: canary.stage.clone(), selector: None, up_to: Some(110), reach: None });
        assert_eq!(
            Frozen::of(&canary, &gate, &grown, zones),
            Frozen { members: grown[..2].to_vec(), reach: Some(110) }
        );
        gate.open(&Opening { stage: canary.stage.clone(), selector: None, up_to: None, reach: None });
        assert_eq!(Frozen::of(&canary, &gate, &grown, zones), Frozen { members: grown, reach: None });
    }

    #[test]
    fn a_stage_of_no_hosts_reaches_nobody_who_comes_later() {
        let gate = Gate::closed(Uuid::nil(), Uuid::nil(), 2, Some(1));
        let frozen = Frozen::of(&stage("canary", None, Share::Count(1)), &gate, &[], zones);
        assert_eq!(frozen, Frozen { members: Vec::new(), reach: Some(0) });
    }
}
