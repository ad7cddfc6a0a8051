//! Gates: how far a release is open.

use serde::{Deserialize, Serialize};
use titan_api::{Name, selectors::Selector};
use uuid::Uuid;

/// How far a release of a deployment is open. No host gets it unless an opening lets it; all others have the release
/// before it, or nothing if there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gate {
    /// The deployment.
    pub deployment: Uuid,
    /// The plan that opens it.
    pub plan: Uuid,
    /// The number of the release that it is about.
    pub to: i64,
    /// The number of the release that all others have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<i64>,
    /// The numbers between the two that were taken back: nobody keeps one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken_back: Vec<i64>,
    /// Whom it lets through, by stage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub openings: Vec<Opening>,
}

/// Whom a stage lets through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Opening {
    /// The stage.
    pub stage: Name,
    /// Only hosts that match; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// The highest rank that is in; absent: everybody whom the selector matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to: Option<u64>,
    /// How far the stage reaches, as was found when it first let somebody through; absent: it reaches everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<u64>,
}

impl Gate {
    /// Returns a gate that lets nobody through.
    #[must_use]
    pub const fn closed(deployment: Uuid, plan: Uuid, to: i64, from: Option<i64>) -> Self {
        Self { deployment, plan, to, from, taken_back: Vec::new(), openings: Vec::new() }
    }

    /// Whether the release is proven: all hosts have it, whenever they come.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.from == Some(self.to)
    }

    /// Whether it lets a host of this rank through; `matcher` says whether a selector matches the host.
    pub fn is_open(&self, rank: u64, matcher: impl Fn(&Selector) -> bool) -> bool {
        self.openings.iter().any(|opening| opening.lets(rank, &matcher))
    }

    /// Returns the number of the release that a host of this rank has.
    pub fn release(&self, rank: u64, matcher: impl Fn(&Selector) -> bool) -> Option<i64> {
        if self.is_open(rank, matcher) { Some(self.to) } else { self.from }
    }

    /// Returns the opening of a stage.
    #[must_use]
    pub fn opening(&self, stage: &str) -> Option<&Opening> {
        self.openings.iter().find(|opening| opening.stage == *stage)
    }

    /// Opens it as far as `opening` says; one of the same stage that is wider stays. Returns whether anything changed.
    pub fn open(&mut self, opening: &Opening) -> bool {
        let Some(known) = self.openings.iter_mut().find(|known| known.stage == opening.stage) else {
            self.openings.push(opening.clone());
            return true;
        };
        let wider = match (known.up_to, opening.up_to) {
            (Some(known), Some(new)) => new > known,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if wider {
            known.up_to = opening.up_to;
        }
        wider
    }

    /// Lets nobody through any more, as when the release is taken back. Returns whether anything changed.
    pub fn close(&mut self) -> bool {
        let changed = !self.openings.is_empty();
        self.openings.clear();
        changed
    }

    /// Lets everybody through: the release is the one that hosts have from now on.
    pub fn open_for_all(&mut self, stage: &Name) -> bool {
        let all = Opening { stage: stage.clone(), selector: None, up_to: None, reach: None };
        let known = self.openings == [all.clone()];
        self.openings = vec![all];
        !known
    }
}

impl Opening {
    /// Whether it lets a host of this rank through.
    pub fn lets(&self, rank: u64, matcher: impl Fn(&Selector) -> bool) -> bool {
        self.up_to.is_none_or(|up_to| rank <= up_to) && self.selector.as_ref().is_none_or(matcher)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn gate() -> Gate {
        Gate::closed(Uuid::from_u128(1), Uuid::from_u128(2), 8, Some(7))
    }

    fn opening(stage: &str, zone: Option<&str>, up_to: Option<u64>) -> Opening {
        let labels = |zone: &str| Selector::labels(BTreeMap::from([("zone".to_owned(), zone.to_owned())]));
        Opening { stage: Name::new(stage).expect("name"), selector: zone.map(labels), up_to, reach: None }
    }

    fn in_zone(zone: &'static str) -> impl Fn(&Selector) -> bool {
        move |selector| selector.rules_match(|key| (key == "zone").then_some(zone.into()))
    }

    #[test]
    fn a_closed_gate_leaves_everybody_on_the_release_before() {
        assert_eq!(gate().release(0, |_| true), Some(7));
        assert_eq!(Gate { from: None, ..gate() }.release(0, |_| true), None, "or on nothing");
    }

    #[test]
    fn openings_let_through_by_rank_and_selector() {
        let mut gate = gate();
        assert!(gate.open(&opening("canary", None, Some(10))));
        assert!(gate.open(&opening("north", Some("north"), None)));
        assert!(gate.open(&opening("south", Some("south"), Some(20))));
        for (rank, zone, open) in [
            (10, "east", true),
            (11, "east", false),
            (u64::MAX, "north", true),
            (20, "south", true),
            (21, "south", false),
        ] {
            assert_eq!(gate.is_open(rank, in_zone(zone)), open, "{rank} {zone}");
            assert_eq!(gate.release(rank, in_zone(zone)), Some(if open { 8 } else { 7 }));
        }
    }

    #[test]
    fn gates_are_opened_wider_and_never_narrower() {
        let mut gate = gate();
        assert!(gate.open(&opening("a", None, Some(10))));
        assert!(!gate.open(&opening("a", None, Some(10))) && !gate.open(&opening("a", None, Some(9))));
        assert!(gate.open(&opening("a", None, Some(11))) && gate.open(&opening("a", None, None)));
        assert!(!gate.open(&opening("a", None, Some(12))));
        assert_eq!(gate.openings, [opening("a", None, None)]);
        assert!(gate.close() && !gate.close() && !gate.is_open(0, |_| true));
        let name = Name::new("all").expect("name");
        assert!(gate.open_for_all(&name) && !gate.open_for_all(&name) && gate.is_open(u64::MAX, |_| false));
    }

    #[test]
    fn gates_survive_their_json() {
        let mut gate = gate();
        gate.open(&opening("canary", None, Some(u64::MAX)));
        gate.open(&Opening { reach: Some(7), ..opening("north", Some("north"), Some(5)) });
        // What is known of the reach stays.
        gate.open(&Opening { reach: Some(9), ..opening("north", Some("north"), Some(6)) });
        let value = serde_json::to_value(&gate).expect("value");
        assert_eq!(
            value["openings"],
            json!([
                {"stage": "canary", "upTo": u64::MAX},
                {"stage": "north", "selector": {"matchLabels": {"zone": "north"}}, "upTo": 6, "reach": 7},
            ])
        );
        assert_eq!(serde_json::from_str::<Gate>(&value.to_string()).expect("gate"), gate);
    }
}
