//! Rows: the nodes of a plan in the order in which they come, many of the same kind as one.

use std::collections::{BTreeMap, HashMap, VecDeque};

use titan_api::{
    Name, Revision,
    strategies::{ReleaseStep, releases::Counts},
    workplans::{AttemptState, Executor, Group, NodeState, NodeView, Outcome, PlanState},
};

use super::{
    bars::{Bar, Sort},
    words,
};
use crate::{
    commands::workplans::follow::{Follow, counts},
    output::{Tone, ages, lines::Line},
};

/// From so many on, nodes that differ by a number alone are one row.
const FAMILY: usize = 4;

/// One row of the picture.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    tone: Tone,
    mark: &'static str,
    pub(super) indent: usize,
    pub(super) name: String,
    pub(super) bar: Option<Bar>,
    words: Line,
    pub(super) time: Option<String>,
    /// What is left out last where there is too little room: the lower, the longer it stays.
    pub(super) weight: u8,
}

impl Row {
    /// Returns it as a line with columns of these widths.
    pub(super) fn line(&self, (name, bar, time): (usize, usize, usize), columns: usize) -> Line {
        let indent = " ".repeat(self.indent);
        let named = Line::new().text(indent).add(self.tone, self.mark).text(" ");
        let strong = if self.weight == 0 { Tone::Strong } else { Tone::Plain };
        let mut line = named.add(strong, &self.name).fit(name + 2).pad(name + 4);
        if let Some(own) = &self.bar {
            line = line.and(own.line(bar)).text("  ");
        }
        let words = columns.saturating_sub(line.width() + time + 2);
        line = line.and(self.words.clone().fit(words).pad(words));
        match &self.time {
            Some(text) => line.add(Tone::Faint, format!("  {text:>time$}")),
            None => line,
        }
    }
}

/// Whether a node hands a release to hosts.
pub(super) fn is_stage(node: &NodeView) -> bool {
    matches!(node.spec.run, Some(Executor::Release(ReleaseStep::Stage(_))))
}

/// Returns the rows of a plan.
pub(super) fn rows(plan: &Follow, now: Revision) -> Vec<Row> {
    let undone = matches!(plan.status.state, PlanState::RollingBack | PlanState::RolledBack | PlanState::Failed);
    // What would undo something is of no interest while nothing is undone.
    let shown = |node: &&NodeView| {
        !node.spec.compensation || (undone && !matches!(node.outcome, Some(Outcome::Skipped | Outcome::Cancelled)))
    };
    let order = ordered(&plan.nodes);
    let nodes: Vec<&NodeView> = order.into_iter().filter(shown).collect();
    let mut families: HashMap<(&str, Option<&str>, usize), Vec<&NodeView>> = HashMap::new();
    for node in &nodes {
        families.entry(family(node)).or_default().push(node);
    }
    let mut rows = Vec::new();
    for node in nodes {
        match families.get(&family(node)) {
            Some(members) if members.len() >= FAMILY => {
                if members.first().is_some_and(|first| first.name == node.name) {
                    rows.push(together(plan, members, now));
                }
            }
            _ => {
                rows.push(row(plan, node, now, false));
                let inside = plan.children.get(&node.name).map(ordered).unwrap_or_default();
                rows.extend(inside.into_iter().map(|child| Row { indent: 2, ..row(plan, child, now, true) }));
            }
        }
    }
    rows
}

/// What nodes have in common that are shown as one: their name but for the number at its end, what they do, and whom for.
fn family(node: &NodeView) -> (&str, Option<&str>, usize) {
    let name = node.name.as_str();
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let stem = if stem.len() < name.len() && !is_stage(node) { stem } else { name };
    (stem, node.executor.as_deref(), node.spec.answers.len())
}

/// Returns the nodes so that each comes after those that it waits for, and otherwise by name.
fn ordered(nodes: &BTreeMap<Name, NodeView>) -> Vec<&NodeView> {
    let mut before: HashMap<&Name, usize> = nodes.keys().map(|name| (name, 0)).collect();
    let mut after: HashMap<&Name, Vec<&Name>> = HashMap::new();
    let mut add = |first: &'_ Name, then: &'_ Name| {
        if let (Some((first, _)), Some((then, _))) = (nodes.get_key_value(first), nodes.get_key_value(then)) {
            *before.entry(then).or_default() += 1;
            after.entry(first).or_default().push(then);
        }
    };
    for node in nodes.values() {
        let mut groups: Vec<&Group> = node.spec.after.iter().collect();
        while let Some(group) = groups.pop() {
            group.edges.iter().for_each(|edge| add(&edge.node, &node.name));
            groups.extend(&group.groups);
        }
        node.spec.answers.iter().for_each(|answers| add(&node.name, &answers.check));
        node.spec.parent.iter().for_each(|parent| add(parent, &node.name));
    }
    let first = nodes.keys().filter(|name| before.get(name) == Some(&0));
    let mut ready: VecDeque<&Name> = first.collect();
    let mut order = Vec::new();
    while let Some(name) = ready.pop_front() {
        order.extend(nodes.get(name));
        for next in after.remove(name).unwrap_or_default() {
            let left = before.entry(next).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 {
                ready.push_back(next);
            }
        }
    }
    // What undoes something comes last.
    order.sort_by_key(|node| node.spec.compensation);
    order
}

/// Returns the row of one node; of one `inside` of another plan less is known.
fn row(plan: &Follow, node: &NodeView, now: Revision, inside: bool) -> Row {
    let waits = words::waits_for(plan, node, None).is_some();
    let (tone, mark, weight) = match (node.outcome, waits || node.held) {
        (Some(Outcome::Passed), _) if node.is_no_op() => (Tone::Faint, "–", 3),
        (Some(Outcome::Passed | Outcome::Overridden), _) => (Tone::Good, "✓", 2),
        (Some(Outcome::Failed), _) => (Tone::Bad, "✗", 0),
        (Some(Outcome::Skipped | Outcome::Cancelled), _) => (Tone::Faint, "–", 3),
        (None, true) => (Tone::Care, "◆", 0),
        (None, false) => match node.state {
            NodeState::Planning | NodeState::Planned => (Tone::Faint, "○", 1),
            _ => (Tone::Care, "●", 0),
        },
    };
    let times = if inside { None } else { plan.times.get(&node.name) };
    let time = times.map(|(begun, ended)| ages::age(*begun, ended.unwrap_or(now)));
    let said = words::words(plan, node, Some(now));
    let tone_of_words = match (node.outcome, weight) {
        (Some(Outcome::Failed), _) => Tone::Bad,
        (_, 1 | 3) => Tone::Faint,
        _ => Tone::Plain,
    };
    let words = Line::new().add(tone_of_words, said);
    Row { tone, mark, indent: 0, name: node.name.to_string(), bar: bar(node), words, time, weight }
}

/// Returns the bar of a node that is about hosts.
fn bar(node: &NodeView) -> Option<Bar> {
    let Some(Executor::Release(step)) = &node.spec.run else { return None };
    if matches!(step, ReleaseStep::Preflight(_)) {
        return None;
    }
    let parts = match (counts(node), node.outcome) {
        (Some(counts), _) if counts.members > 0 => hosts(counts),
        (_, Some(Outcome::Passed | Outcome::Overridden)) => vec![(Sort::LeftOut, 1)],
        _ => vec![(Sort::Waiting, 1)],
    };
    Some(Bar { parts, hosts: true })
}

fn hosts(counts: Counts) -> Vec<(Sort, u64)> {
    let Counts { members, proven, settling, moving, failed, offline, excluded, .. } = counts;
    let seen = [proven, settling, moving, failed, offline].into_iter().fold(0, u64::saturating_add);
    vec![
        (Sort::Done, proven),
        (Sort::Settling, settling),
        (Sort::Moving, moving),
        (Sort::Failed, failed),
        (Sort::Offline, offline.saturating_sub(excluded)),
        (Sort::LeftOut, excluded),
        (Sort::Waiting, members.saturating_sub(seen)),
    ]
}

/// Whether somebody is at it, or was.
fn is_begun(node: &NodeView) -> bool {
    let taken = |state| !matches!(state, AttemptState::Pending | AttemptState::Scheduled);
    let planned = matches!(node.state, NodeState::Planning | NodeState::Planned);
    !planned && node.attempts.last().is_none_or(|attempt| taken(attempt.state))
}

/// Returns the row of many nodes of the same kind.
fn together(plan: &Follow, nodes: &[&NodeView], now: Revision) -> Row {
    let of = |wanted: &dyn Fn(&NodeView) -> bool| nodes.iter().filter(|node| wanted(node)).count() as u64;
    let done = of(&|node| node.outcome.is_some_and(Outcome::is_success));
    let failed = of(&|node| node.outcome == Some(Outcome::Failed));
    let left_out = of(&|node| matches!(node.outcome, Some(Outcome::Skipped | Outcome::Cancelled)));
    let waiting = of(&|node| node.outcome.is_none() && !is_begun(node));
    let total = nodes.len() as u64;
    let moving = total.saturating_sub(done + failed + left_out + waiting);
    let over = waiting + moving == 0;
    let mut said = format!("{done} of {total} passed");
    for (count, what) in [(moving, "on the way"), (failed, "failed"), (left_out, "left out")] {
        if count > 0 {
            said.push_str(&format!(", {count} {what}"));
        }
    }
    let (tone, mark, weight) = match (failed, over, waiting == total) {
        (1.., ..) => (Tone::Bad, "✗", 0),
        (0, true, _) if done == 0 => (Tone::Faint, "–", 3),
        (0, true, _) => (Tone::Good, "✓", 2),
        (0, false, true) => (Tone::Faint, "○", 1),
        (0, false, false) => (Tone::Care, "●", 0),
    };
    let times = || nodes.iter().filter_map(|node| plan.times.get(&node.name));
    let begun = times().map(|(begun, _)| *begun).min();
    let ended = times().filter_map(|(_, ended)| *ended).max().filter(|_| over);
    let bar = Bar {
        parts: vec![
            (Sort::Done, done),
            (Sort::Moving, moving),
            (Sort::Failed, failed),
            (Sort::LeftOut, left_out),
            (Sort::Waiting, waiting),
        ],
        hosts: false,
    };
    let name = match (nodes.first(), nodes.last()) {
        (Some(first), Some(_)) => format!("{} × {total}", family(first).0.trim_end_matches('-')),
        _ => String::new(),
    };
    Row {
        tone,
        mark,
        indent: 0,
        name,
        bar: Some(bar),
        words: Line::new().text(said),
        time: begun.map(|begun| ages::age(begun, ended.unwrap_or(now))),
        weight,
    }
}
