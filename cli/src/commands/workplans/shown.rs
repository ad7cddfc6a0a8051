//! How plans, nodes and what happened look.

use serde_json::json;
use titan_api::workplans::{AttemptState, Event, EventView, NodeState, NodeView, Outcome, PlanState, PlanStatus};

use super::picture::bare;
use crate::output::{
    Format, Tone, View, ages,
    tables::{Cell, Table},
    yaml,
};

/// How wide the bar of a plan is.
const BAR: usize = 40;

pub(crate) const fn plan_tone(state: PlanState) -> Tone {
    match state {
        PlanState::Succeeded => Tone::Good,
        PlanState::Failed | PlanState::Aborted => Tone::Bad,
        PlanState::Planning | PlanState::Superseded => Tone::Faint,
        _ => Tone::Care,
    }
}

const fn outcome_tone(outcome: Outcome) -> Tone {
    match outcome {
        Outcome::Passed | Outcome::Overridden => Tone::Good,
        Outcome::Failed => Tone::Bad,
        Outcome::Skipped | Outcome::Cancelled => Tone::Faint,
    }
}

/// Returns the table of plans.
pub(super) fn plans(plans: &[PlanStatus]) -> View {
    let now = ages::now();
    let mut table = Table::new(&["NAME", "STATE", "DONE", "FAILED", "RETRIES", "+ID", "AUTHOR", "AGE"]);
    let mut view = View::new(&json!({ "items": plans }));
    for plan in plans {
        let (done, all, failed) = progress(plan);
        table.row([
            plan.name.as_str().into(),
            Cell::toned(plan.state.as_str(), plan_tone(plan.state)),
            format!("{done}/{all}").into(),
            failed.to_string().into(),
            plan.retries.to_string().into(),
            plan.id.to_string().into(),
            plan.author.as_str().into(),
            ages::age(plan.created_at, now).into(),
        ]);
        view = view.name(format!("workplan/{}", plan.name));
    }
    view.table(table)
}

/// Returns how many nodes are final, how many there are, and how many failed.
fn progress(plan: &PlanStatus) -> (u64, u64, u64) {
    let count = |outcome: Outcome| plan.counts.get(outcome.as_str()).copied().unwrap_or_default();
    let done = Outcome::ALL.into_iter().map(count).sum();
    (done, plan.counts.values().sum(), count(Outcome::Failed))
}

/// Returns the first lines about a plan: what it is, how far, why.
fn head(plan: &PlanStatus) -> String {
    let now = ages::now();
    let (done, all, failed) = progress(plan);
    let filled = (done * BAR as u64).checked_div(all).map_or(0, |filled| usize::try_from(filled).unwrap_or(BAR));
    let tone = if failed > 0 { Tone::Bad } else { plan_tone(plan.state) };
    let bar = format!("{}{}", tone.paint(&"█".repeat(filled)), Tone::Faint.paint(&"░".repeat(BAR - filled)));
    let mut text = format!(
        "{} in {}: {}\n{bar} {done}/{all} nodes, {failed} failed, {} retries",
        Tone::Strong.paint(&plan.name),
        plan.workspace,
        plan_tone(plan.state).paint(plan.state.as_str()),
        plan.retries
    );
    if let Some(reason) = &plan.reason {
        text.push_str(&format!("\n{reason}"));
    }
    match (plan.started_at, plan.finished_at, plan.deadline_at) {
        (Some(started), Some(finished), _) => {
            text.push_str(&format!("\ntook {}", ages::age(started, finished)));
        }
        (Some(started), None, deadline) => {
            text.push_str(&format!("\nstarted {} ago", ages::age(started, now)));
            if let Some(deadline) = deadline {
                text.push_str(&format!(", its time is over in {}", ages::age(now, deadline)));
            }
        }
        _ => {}
    }
    text
}

/// Returns how far a plan is. `nodes`: those that have ended, as far as anything is to be said of them.
pub(super) fn status(plan: &PlanStatus, nodes: &[NodeView]) -> View {
    let now = ages::now();
    let mut view = View::new(plan).name(format!("workplan/{}", plan.name)).text(head(plan));
    for node in nodes.iter().filter(|node| node.is_no_op()) {
        let said = node.message.as_deref().map_or("nothing to do", |message| bare(node, message));
        view = view.text(Tone::Faint.paint(&format!("– {}: {said}", node.name)));
    }
    if !plan.current.is_empty() {
        view = view.table(table(&plan.current));
    }
    if !plan.recent_errors.is_empty() {
        let mut errors = Table::new(&["NODE", "ATTEMPT", "CODE", "ERROR", "AGE"]);
        for error in &plan.recent_errors {
            errors.row([
                error.node.as_str().into(),
                error.number.to_string().into(),
                Cell::toned(error.code.as_str(), Tone::Bad),
                error.message.as_str().into(),
                ages::age(error.at, now).into(),
            ]);
        }
        view = view.table(errors);
    }
    view
}

/// Returns nodes.
pub(super) fn nodes(nodes: &[NodeView]) -> View {
    let view = View::new(&json!({ "items": nodes })).table(table(nodes));
    nodes.iter().fold(view, |view, node| view.name(format!("node/{}", node.name)))
}

fn table(nodes: &[NodeView]) -> Table {
    let now = ages::now();
    let mut table = Table::new(&["NODE", "KIND", "STATE", "DOES", "ATTEMPT", "+GENERATION", "MESSAGE", "AGE"]);
    for node in nodes {
        let state = match (node.outcome, node.held) {
            (Some(_), _) if node.is_no_op() => Cell::toned("nothing to do", Tone::Faint),
            (Some(outcome), _) => Cell::toned(outcome.as_str(), outcome_tone(outcome)),
            (None, true) => Cell::toned("waits for a person", Tone::Care),
            (None, false) if node.state == NodeState::Planned => Cell::toned("planned", Tone::Faint),
            (None, false) => Cell::toned(node.state.as_str(), Tone::Care),
        };
        let last = node.attempts.last();
        let attempt = last.map(|attempt| format!("{} {}", attempt.number, attempt.state));
        let failure = last.filter(|attempt| attempt.state == AttemptState::Incomplete || node.outcome.is_none());
        let failure = failure.and_then(|attempt| attempt.failure_message.clone());
        table.row([
            node.name.as_str().into(),
            node.kind.as_str().into(),
            state,
            Cell::maybe(node.executor.clone()),
            Cell::maybe(attempt),
            node.generation.to_string().into(),
            Cell::maybe(node.message.clone().or(failure)),
            ages::age(node.updated_at, now).into(),
        ]);
    }
    table
}

/// Whether an event is one that people follow: not the bookkeeping of edges and counts.
pub(crate) const fn matters(event: &Event) -> bool {
    !matches!(event, Event::Edge { .. } | Event::Counted { .. } | Event::Answered { .. } | Event::Written { .. })
}

/// Returns what happened in one line.
pub(super) fn line(event: &EventView, format: Format) -> String {
    match format {
        Format::Json => format!("{}\n", json!(event)),
        Format::Yaml => format!("---\n{}", yaml(&json!(event))),
        Format::Name => format!("{}\n", event.number),
        Format::Table | Format::Wide => {
            let node = event.event.node().map_or("plan", titan_api::Name::as_str);
            let text = format!("{} {node} {} by {}", event.at, event.event.summary(), event.actor);
            format!("{}\n", text.replace(['\n', '\r'], " "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_had_nothing_to_do_is_said_beside_how_far_it_is() {
        let at = "2026-11-20T15:00:00Z";
        let plan: PlanStatus = serde_json::from_value(json!({
            "id": "00000000-0000-7000-8000-000000000001", "name": "web#2", "workspace": "default", "state": "succeeded",
            "version": 7, "author": "token:admin", "createdAt": at, "counts": { "passed": 2 },
        }))
        .expect("a status");
        let node = |name: &str, no_op: bool| -> NodeView {
            let back = json!({ "release": { "preflight": { "maxFailures": "0" } } });
            let attempt = json!({ "number": 1, "state": "complete", "createdAt": at, "updatedAt": at,
                "details": { "noOp": no_op } });
            serde_json::from_value(json!({
                "name": name, "kind": "stage", "state": "final", "outcome": "passed", "generation": 1, "updatedAt": at,
                "message": format!("stage {name}: nothing to do, all 1 hosts are offline"),
                "attempts": [attempt], "spec": { "run": back },
            }))
            .expect("a node")
        };
        let nodes = [node("canary", true), node("all", false)];
        let plain = |view: View| anstream::adapter::strip_str(&view.render(Format::Table, None)).to_string();
        let text = plain(status(&plan, &nodes));
        assert!(text.ends_with("\n– canary: nothing to do, all 1 hosts are offline\n"), "{text}");
        let text = plain(super::nodes(&nodes));
        assert_eq!((text.matches(" nothing to do ").count(), text.matches(" passed ").count()), (1, 1), "{text}");
    }
}
