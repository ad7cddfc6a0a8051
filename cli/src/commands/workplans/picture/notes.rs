//! Notes below the rows: who has to do what, and why it does not go on.

use titan_api::{
    Name, Revision,
    workplans::{NodeView, Outcome, PlanState},
};

use super::{rows::Row, words};
use crate::{
    commands::workplans::follow::Follow,
    output::{Tone, lines::Line},
};

/// Hosts that are named; the others are counted.
const HOSTS: usize = 3;
/// Nodes that failed and are named.
const NAMED: usize = 3;
/// Nodes that wait for people and are named.
const GATES: usize = 3;

/// Returns what to say below the rows, a blank line first if there is anything.
pub(super) fn notes(plan: &Follow, now: Revision, rows: &[Row]) -> Vec<Line> {
    let mut notes = faults(plan);
    notes.extend(why(plan));
    notes.extend(hands(plan, now));
    if !notes.is_empty() && !rows.is_empty() {
        notes.insert(0, Line::new());
    }
    notes
}

/// What the hosts said on which it failed.
fn faults(plan: &Follow) -> Vec<Line> {
    let said = |(host, said): (&Name, &String)| Line::new().add(Tone::Bad, "✗ ").text(format!("{host}: {said}"));
    let mut lines: Vec<Line> = plan.faults.iter().take(HOSTS).map(said).collect();
    if plan.faults.len() > HOSTS {
        lines.push(Line::new().text(format!("  and {} more", plan.faults.len() - HOSTS)));
    }
    lines
}

/// Why it stopped, or does not begin.
fn why(plan: &Follow) -> Vec<Line> {
    let tone = match plan.status.state {
        PlanState::Succeeded | PlanState::Superseded | PlanState::Running => Tone::Plain,
        PlanState::Planning | PlanState::Paused => Tone::Care,
        _ => Tone::Bad,
    };
    let Some(reason) = &plan.status.reason else { return Vec::new() };
    let failed = |node: &&NodeView| node.outcome == Some(Outcome::Failed) && !node.spec.optional;
    let failed: Vec<&str> = plan.nodes.values().filter(failed).map(|node| node.name.as_str()).collect();
    // What decided it begins with the name of its node; beside it stand the others.
    let named = |name: &str| {
        let rest = reason.strip_prefix("stage ").unwrap_or(reason).strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(' '))
    };
    let others: Vec<&str> = failed.iter().copied().filter(|name| !named(name)).collect();
    let more = match others.as_slice() {
        [] => String::new(),
        all if all.len() <= NAMED => all.join(", "),
        all => format!("{} and {} more", all[..NAMED].join(", "), all.len() - NAMED),
    };
    let line = Line::new().add(tone, format!("because {reason}"));
    vec![match (more.is_empty(), others.len() < failed.len()) {
        (true, _) => line,
        (false, true) => line.add(tone, format!("; {more} failed too")),
        (false, false) => line.add(tone, format!(": {more}")),
    }]
}

/// What people can type now.
pub(crate) fn hands(plan: &Follow, now: Revision) -> Vec<Line> {
    let id = plan.status.id.to_string();
    let (noun, name) = match &plan.deployment {
        Some((_, deployment)) => ("rollout", deployment.as_str()),
        None if Name::new(&*plan.status.name).is_ok() => ("workplan", plan.status.name.as_str()),
        // The plan of a release, or one inside of another, has no document of its name.
        None => ("workplan", id.as_str()),
    };
    let command = |text: String| Line::new().text("  ").add(Tone::Strong, text);
    let open = || plan.nodes.values().filter(|node| node.outcome.is_none());
    let mut lines = Vec::new();
    match plan.status.state {
        PlanState::Planning if plan.deployment.is_some() => {
            lines.push(
                Line::new()
                    .add(Tone::Care, "◆ ")
                    .text("this release was taken back before; it begins if somebody says so"),
            );
            lines.push(command(format!("titan rollout retry {name} --reason '...'")));
        }
        PlanState::Planning => lines.push(command(format!("titan workplan start {name}"))),
        // Nodes that wait for a person are decided first: resuming the plan moves none of them.
        PlanState::Paused if !open().any(|node| node.held) => {
            lines.push(command(format!("titan {noun} resume {name}")));
        }
        _ => {}
    }
    let gates = |node: &&NodeView| node.held || words::waits_for(plan, node, None).is_some();
    for node in open().filter(gates).take(GATES) {
        let said = match words::waits_for(plan, node, Some(now)) {
            Some(waits) if !node.held => format!("{} {waits}; {} may not", node.name, plan.status.author),
            _ => format!("{} waits for a person", node.name),
        };
        lines.push(Line::new().add(Tone::Care, "◆ ").text(said));
        let (first, others) = if node.held {
            ("retry", "  or skip, reject --reason '...'")
        } else {
            ("approve", "  or reject --reason '...'")
        };
        lines.push(command(format!("titan {noun} {first} {name} {}", node.name)).add(Tone::Faint, others));
    }
    lines
}
