//! Groups: when a node may begin. A threshold over edges and groups.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::{Name, limits, problems::Fault};

/// What has to be before a node begins: all of the edges and groups, or at least `threshold` of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Group {
    /// Nodes and what has to become of them: `build`, `build:final` or `build:failed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub edges: Vec<Edge>,
    /// Groups inside this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(no_recursion))]
    pub groups: Vec<Self>,
    /// How many of them; absent: all, 1: any of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<i64>,
}

/// A node that is waited for, and what has to become of it. Written as its name alone, or `name:condition`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Edge {
    /// The node.
    pub node: Name,
    /// What has to become of it.
    pub condition: Condition,
}

/// What has to become of a node that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Condition {
    /// It passed, or a person said to go on without it.
    #[default]
    Passed,
    /// It is final, whatever came of it.
    Final,
    /// It failed.
    Failed,
    /// It has begun. Between a stage and the children it makes; not to be written.
    #[serde(skip_deserializing)]
    Begun,
}

impl Condition {
    /// Returns the condition as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Final => "final",
            Self::Failed => "failed",
            Self::Begun => "begun",
        }
    }

    /// Returns the condition of this word, the one that people do not write included.
    #[must_use]
    pub fn from_word(text: &str) -> Option<Self> {
        [Self::Passed, Self::Final, Self::Failed, Self::Begun].into_iter().find(|condition| condition.as_str() == text)
    }

    /// Whether a node that ended with `outcome` meets the condition. One that ended has begun unless it was left out.
    #[must_use]
    pub const fn met_by(self, outcome: Outcome) -> bool {
        match self {
            Self::Passed => outcome.is_success(),
            Self::Final => true,
            Self::Failed => matches!(outcome, Outcome::Failed),
            Self::Begun => false,
        }
    }
}

/// Why a text is not an [`Edge`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the name of a node, alone or with :passed, :final or :failed behind it: {why}")]
pub struct EdgeError {
    text: String,
    why: String,
}

impl From<Name> for Edge {
    fn from(node: Name) -> Self {
        Self { node, condition: Condition::default() }
    }
}

impl FromStr for Edge {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        let fault = |why: String| EdgeError { text: text.to_owned(), why };
        let (node, condition) = text.split_once(':').unwrap_or((text, "passed"));
        let condition = match condition {
            "passed" => Condition::Passed,
            "final" => Condition::Final,
            "failed" => Condition::Failed,
            other => return Err(fault(format!("there is no condition {other:?}"))),
        };
        Ok(Self { node: Name::new(node).map_err(|error| fault(error.to_string()))?, condition })
    }
}

impl TryFrom<String> for Edge {
    type Error = EdgeError;

    fn try_from(text: String) -> Result<Self, EdgeError> {
        text.parse()
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.condition {
            Condition::Passed => f.write_str(&self.node),
            condition => write!(f, "{}:{}", self.node, condition.as_str()),
        }
    }
}

impl From<Edge> for String {
    fn from(edge: Edge) -> Self {
        edge.to_string()
    }
}

/// What is wrong with a group: the first word is the problem's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupFault {
    /// It has neither edges nor groups.
    Empty(Fault),
    /// Its threshold is below zero or above the number of its members.
    Threshold(Fault),
    /// It is too large or too deep.
    Size(Fault),
    /// It waits for the same of a node more than once.
    Twice(Fault),
}

impl Group {
    /// Returns how many members have to be met: the threshold, where 0 and the number of members mean all.
    #[must_use]
    pub fn needed(&self) -> usize {
        let members = self.edges.len() + self.groups.len();
        match self.threshold.map(usize::try_from) {
            Some(Ok(threshold)) if threshold > 0 => threshold,
            _ => members,
        }
    }

    /// Returns the group in its canonical form: a threshold of 0 or of all members is left out.
    #[must_use]
    pub fn normalised(mut self) -> Self {
        let members = self.edges.len() + self.groups.len();
        self.threshold = self.threshold.filter(|threshold| {
            usize::try_from(*threshold).is_ok_and(|threshold| threshold > 0 && threshold != members)
        });
        self.groups = self.groups.into_iter().map(Self::normalised).collect();
        self
    }

    /// Calls `each` with every edge, here and in the groups inside.
    pub fn each_edge<'a>(&'a self, each: &mut impl FnMut(&'a Edge)) {
        self.edges.iter().for_each(&mut *each);
        self.groups.iter().for_each(|group| group.each_edge(each));
    }

    /// Returns everything that is wrong with the group, at `pointer`.
    #[must_use]
    pub fn faults(&self, pointer: &str) -> Vec<GroupFault> {
        let mut faults = Vec::new();
        self.collect(pointer, 1, &mut faults);
        faults
    }

    fn collect(&self, pointer: &str, depth: usize, faults: &mut Vec<GroupFault>) {
        let members = self.edges.len() + self.groups.len();
        if depth > limits::GROUP_DEPTH {
            let detail = format!("more than {} groups inside each other", limits::GROUP_DEPTH);
            faults.push(GroupFault::Size(Fault::new(pointer, detail)));
            return;
        }
        if members > limits::GROUP_MEMBERS {
            let detail = format!("{members} members, the limit is {}", limits::GROUP_MEMBERS);
            faults.push(GroupFault::Size(Fault::new(pointer, detail)));
        }
        if members == 0 {
            faults.push(GroupFault::Empty(Fault::new(pointer, "a group has edges or groups; leave it out instead")));
        }
        if let Some(threshold) = self.threshold
            && usize::try_from(threshold).map_or(true, |threshold| threshold > members)
        {
            let detail = format!("a threshold of {threshold} over {members}; it is 0 to {members}");
            faults.push(GroupFault::Threshold(Fault::new(format!("{pointer}/threshold"), detail)));
        }
        let mut seen = BTreeSet::new();
        for (index, edge) in self.edges.iter().enumerate().take(limits::GROUP_MEMBERS) {
            if !seen.insert(edge) {
                let detail = format!("{edge} is in this group before; an edge counts once, leave this one out");
                faults.push(GroupFault::Twice(Fault::new(format!("{pointer}/edges/{index}"), detail)));
            }
        }
        for (index, group) in self.groups.iter().enumerate() {
            group.collect(&format!("{pointer}/groups/{index}"), depth + 1, faults);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(edges: usize, threshold: Option<i64>) -> Group {
        let edges = (0..edges).map(|index| format!("n{index}").parse().expect("edge")).collect();
        Group { edges, groups: Vec::new(), threshold }
    }

    /// S3-10.
    #[test]
    fn a_threshold_is_between_none_and_all() {
        for (threshold, needed) in [(None, 3), (Some(0), 3), (Some(1), 1), (Some(2), 2), (Some(3), 3)] {
            let group = group(3, threshold);
            assert!(group.faults("/after").is_empty());
            assert_eq!(group.needed(), needed);
            assert_eq!(group.clone().normalised().threshold, threshold.filter(|n| *n != 0 && *n != 3));
        }
        for threshold in [-1, 4] {
            assert!(matches!(&group(3, Some(threshold)).faults("/after")[..],
                [GroupFault::Threshold(fault)] if fault.pointer == "/after/threshold"));
        }
        assert!(matches!(&group(0, None).faults("/after")[..], [GroupFault::Empty(_)]));
    }

    #[test]
    fn groups_are_neither_too_deep_nor_too_wide() {
        let nested =
            |depth| (1..depth).fold(group(1, None), |inner, _| Group { groups: vec![inner], ..Group::default() });
        assert!(nested(limits::GROUP_DEPTH).faults("").is_empty());
        assert!(matches!(nested(limits::GROUP_DEPTH + 1).faults("")[0], GroupFault::Size(_)));
        assert!(group(limits::GROUP_MEMBERS, None).faults("").is_empty());
        assert!(matches!(group(limits::GROUP_MEMBERS + 1, None).faults("")[0], GroupFault::Size(_)));
    }

    /// Two of the same would be counted twice and come about once: whoever waits for both waits for ever.
    #[test]
    fn an_edge_is_in_a_group_once() {
        let group = |edges: [&str; 2]| Group {
            edges: edges.map(|edge| edge.parse().expect("edge")).into(),
            ..Group::default()
        };
        for twice in [["a", "a"], ["a", "a:passed"], ["a:final", "a:final"]] {
            assert!(
                matches!(&group(twice).faults("/after")[..],
                [GroupFault::Twice(fault)] if fault.pointer == "/after/edges/1"),
                "{twice:?}"
            );
        }
        assert!(group(["a", "a:final"]).faults("").is_empty());
        let apart = Group { groups: vec![group(["a", "b"]), group(["a", "c"])], ..Group::default() };
        assert!(apart.faults("").is_empty());
    }

    #[test]
    fn edges_are_names_with_a_condition_behind_them() {
        for text in ["build", "build:final", "build:failed"] {
            assert_eq!(text.parse::<Edge>().expect(text).to_string(), text);
        }
        assert_eq!("build:passed".parse::<Edge>().expect("edge").to_string(), "build");
        for bad in ["", "a:", "a:begun", "A", "a:b:c"] {
            assert!(bad.parse::<Edge>().is_err(), "{bad}");
        }
    }

    /// S3-11: that a node is final is not that it passed.
    #[test]
    fn conditions_ask_for_what_came_of_a_node() {
        let met = |condition: Condition| Outcome::ALL.map(|outcome| condition.met_by(outcome));
        assert_eq!(met(Condition::Passed), [true, true, false, false, false]);
        assert_eq!(met(Condition::Final), [true; 5]);
        assert_eq!(met(Condition::Failed), [false, false, true, false, false]);
    }
}
