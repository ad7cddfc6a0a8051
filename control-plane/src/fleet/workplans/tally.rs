//! Tallies: the groups of a node as counters, so that one edge more costs the depth of its group and not its width.

use serde::{Deserialize, Serialize};
use titan_api::{
    Name,
    workplans::{Condition, Group, NodeSpec},
};

/// A group, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The group that it is in; the first is in none.
    pub parent: Option<u32>,
    /// How many members have to be met.
    pub need: u32,
    /// How many members there are.
    pub of: u32,
    /// How many are met.
    pub met: u32,
    /// How many never will be.
    pub lost: u32,
}

impl Tally {
    /// Whether enough is met.
    #[must_use]
    pub const fn is_met(&self) -> bool {
        self.met >= self.need
    }

    /// Whether what is still possible is too little.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        !self.is_met() && self.of - self.lost < self.need
    }
}

/// Returns the groups of a node, none met: what it waits for, and as the first member of all that its parent has begun.
#[must_use]
pub fn of(spec: &NodeSpec) -> Vec<Tally> {
    let mut tallies = Vec::new();
    match (&spec.parent, &spec.after) {
        (None, None) => {}
        (None, Some(after)) => add(&mut tallies, after, None),
        (Some(_), after) => {
            let members = 1 + u32::from(after.is_some());
            tallies.push(Tally { parent: None, need: members, of: members, met: 0, lost: 0 });
            if let Some(after) = after {
                add(&mut tallies, after, Some(0));
            }
        }
    }
    tallies
}

fn add(tallies: &mut Vec<Tally>, group: &Group, parent: Option<u32>) {
    let here = number(tallies.len());
    let of = number(group.edges.len() + group.groups.len());
    tallies.push(Tally { parent, need: number(group.needed()), of, met: 0, lost: 0 });
    for inner in &group.groups {
        add(tallies, inner, Some(here));
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// One edge: whom a node waits for, what for, and in which of its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The node that waits.
    pub source: Name,
    /// Whom for.
    pub target: Name,
    /// What for.
    pub condition: Condition,
    /// In which of its groups.
    pub group: u32,
}

/// Returns the edges of a node, in the order of the groups of [`of`].
#[must_use]
pub fn links(name: &Name, spec: &NodeSpec) -> Vec<Link> {
    let mut links = Vec::new();
    let mut next = 0;
    if let Some(parent) = &spec.parent {
        let condition = Condition::Begun;
        links.push(Link { source: name.clone(), target: parent.clone(), condition, group: 0 });
        next = 1;
    }
    if let Some(after) = &spec.after {
        link(&mut links, name, after, &mut next);
    }
    links
}

fn link(links: &mut Vec<Link>, name: &Name, group: &Group, next: &mut u32) {
    let here = *next;
    *next += 1;
    for edge in &group.edges {
        let (source, target) = (name.clone(), edge.node.clone());
        links.push(Link { source, target, condition: edge.condition, group: here });
    }
    for inner in &group.groups {
        link(links, name, inner, next);
    }
}

/// Counts a member of a group as met or lost, and what follows for the groups around it. What a group came to is never
/// taken back.
pub fn resolve(tallies: &mut [Tally], group: usize, met: bool) {
    let (mut at, mut met) = (group, met);
    while let Some(tally) = tallies.get_mut(at) {
        let before = (tally.is_met(), tally.is_lost());
        if met {
            tally.met += 1;
        } else {
            tally.lost += 1;
        }
        let after = (tally.is_met(), tally.is_lost());
        if before != (false, false) || after == (false, false) {
            return;
        }
        met = after.0;
        let Some(parent) = tally.parent else { return };
        at = parent as usize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(after: &serde_json::Value) -> NodeSpec {
        serde_json::from_value(serde_json::json!({ "after": after })).expect("node")
    }

    /// S3-10: 2 of 3, one of them an OR of two.
    #[test]
    fn thresholds_of_groups_in_groups_are_counted() {
        let spec = spec(&serde_json::json!({"edges": ["a", "b"], "groups": [{"edges": ["c", "d"], "threshold": 1}],
            "threshold": 2}));
        let name = Name::new("n").expect("name");
        let groups: Vec<_> =
            links(&name, &spec).into_iter().map(|link| (link.target.to_string(), link.group)).collect();
        assert_eq!(groups, [("a".into(), 0), ("b".into(), 0), ("c".into(), 1), ("d".into(), 1)]);
        let run = |edges: &[(usize, bool)]| {
            let mut tallies = of(&spec);
            edges.iter().for_each(|(group, met)| resolve(&mut tallies, *group, *met));
            (tallies[0].is_met(), tallies[0].is_lost())
        };
        assert_eq!(run(&[(0, true)]), (false, false));
        assert_eq!(run(&[(0, true), (1, true)]), (true, false));
        assert_eq!(run(&[(0, true), (1, false)]), (false, false));
        assert_eq!(run(&[(0, true), (1, false), (1, false)]), (false, false));
        assert_eq!(run(&[(0, false), (1, false), (1, false)]), (false, true));
        assert_eq!(run(&[(0, false), (0, false)]), (false, true));
        // What came to be is not taken back by what follows.
        assert_eq!(run(&[(0, true), (0, true), (1, false), (1, false)]), (true, false));
        assert_eq!(run(&[(1, true), (1, true), (0, true)]), (true, false));
    }

    #[test]
    fn children_wait_for_their_parent_to_begin() {
        let spec: NodeSpec =
            serde_json::from_value(serde_json::json!({"parent": "p", "after": {"edges": ["a"]}})).expect("node");
        let mut tallies = of(&spec);
        resolve(&mut tallies, 1, true);
        assert!(!tallies[0].is_met());
        resolve(&mut tallies, 0, true);
        assert!(tallies[0].is_met());
    }
}
