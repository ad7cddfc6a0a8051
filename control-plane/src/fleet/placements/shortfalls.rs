//! Shortfalls: what keeps a deployment from hosts that its target matches, in words.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use titan_api::{Code, Problem};

use super::{
    Footing,
    obstacles::{Obstacle, obstacle},
};
use crate::fleet::{bookings::Shortage, model::Deployment};

/// Kinds of reasons that are named; the rest are counted together.
const NAMED: usize = 8;

/// Returns why a deployment is on fewer hosts than it could be: fewer than `replicas`, or, without replicas, not on some
/// for want of room. `held`: the hosts that have it now. Nothing if it is where it is to be.
#[must_use]
pub fn problem(footing: Footing<'_>, deployment: &Deployment, held: &RoaringBitmap) -> Option<Problem> {
    let spec = &deployment.spec;
    let has = held.len();
    if spec.replicas.is_some_and(|replicas| has >= u64::from(replicas))
        || (spec.replicas.is_none() && spec.requests.is_empty())
    {
        return None;
    }
    let target = footing.model.target(deployment)?;
    let hosts = footing.model.hosts();
    let mut reasons = Reasons::default();
    let mut possible = 0_u64;
    let without = hosts.matching(target) - held;
    for host in hosts.among(&without) {
        match obstacle(footing, deployment, target, host, false) {
            None => possible += 1,
            Some(obstacle @ Obstacle::Room(_)) => reasons.add(&obstacle),
            // Without replicas it goes to whatever takes it: only room is a shortfall.
            Some(obstacle) if spec.replicas.is_some() => reasons.add(&obstacle),
            Some(_) => {}
        }
    }
    let detail = match (spec.replicas, reasons.shown()) {
        (None, None) => return None,
        (None, Some(reasons)) => format!("it is not on every host that its target matches: {reasons}"),
        (Some(replicas), reasons) => {
            let mut parts: Vec<_> = reasons.into_iter().collect();
            match (&spec.spread, possible) {
                (_, 0) if without.is_empty() => parts.push("its target matches no other host".to_owned()),
                (_, 0) => {}
                (Some(spread), _) if spread.max_skew.is_some() => {
                    let hosts = counted(possible);
                    parts.push(format!("{hosts}: too many replicas with the same {} already", spread.label));
                }
                // They have room: it is about to be placed.
                (..) => return None,
            }
            format!("{has} of {replicas} replicas have a place; {}", parts.join("; "))
        }
    };
    let hint = "make room, add hosts, or ask for less; it is placed as soon as it fits";
    Some(Problem::new(Code::Unschedulable, detail).hint(hint))
}

/// Hosts by the reason that keeps a deployment away.
#[derive(Debug, Default)]
struct Reasons(BTreeMap<String, (u64, Option<Shortage>)>);

impl Reasons {
    fn add(&mut self, obstacle: &Obstacle) {
        let (key, shortage) = match obstacle {
            Obstacle::Room(shortage) => (format!("room {}", shortage.resource), Some(shortage)),
            Obstacle::Unseen(_) => ("not seen for too long".to_owned(), None),
            other => (other.to_string(), None),
        };
        let (count, most) = self.0.entry(key).or_default();
        *count += 1;
        // Of hosts with too little, the one that comes nearest is named.
        if let Some(shortage) = shortage
            && most.as_ref().is_none_or(|most| most.left < shortage.left)
        {
            *most = Some(shortage.clone());
        }
    }

    /// Returns the reasons in words, the one that most hosts have first.
    fn shown(self) -> Option<String> {
        let mut reasons: Vec<_> = self.0.into_iter().collect();
        reasons.sort_by(|(a, (first, _)), (b, (second, _))| second.cmp(first).then_with(|| a.cmp(b)));
        let rest: u64 = reasons.iter().skip(NAMED).map(|(_, (count, _))| count).sum();
        reasons.truncate(NAMED);
        let named = reasons.into_iter().map(|(reason, (count, shortage))| {
            let reason = shortage.map_or(reason, |shortage| shortage.to_string());
            format!("{}: {reason}", counted(count))
        });
        let mut parts: Vec<_> = named.collect();
        if rest > 0 {
            parts.push(format!("{}: other reasons", counted(rest)));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

fn counted(hosts: u64) -> String {
    if hosts == 1 { "1 host".to_owned() } else { format!("{hosts} hosts") }
}
