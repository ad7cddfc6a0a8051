//! How plans, nodes and what happened look.

use serde_json::json;
use titan_api::workplans::{AttemptState, Event, EventView, NodeState, NodeView, Outcome, PlanState, PlanStatus};

use super::{
    follow::Follow,
    picture::{bare, hands, waits_for},
};
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

/// Returns how far a plan is, and what people can type now.
pub(super) fn status(follow: &Follow) -> View {
    let (now, plan) = (ages::now(), &follow.status);
    let mut view = View::new(plan).name(format!("workplan/{}", plan.name)).text(head(plan));
    for node in follow.nodes.values().filter(|node| node.is_no_op()) {
        let said = node.message.as_deref().map_or("nothing to do", |message| bare(node, message));
        view = view.text(Tone::Faint.paint(&format!("– {}: {said}", node.name)));
    }
    if !plan.current.is_empty() {
        view = view.table(table(&plan.current, |node| waits_for(follow, node, Some(now))));
    }
    for line in hands(follow, now) {
        view = view.text(line.render(true));
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
    let view = View::new(&json!({ "items": nodes })).table(table(nodes, |_| None));
    nodes.iter().fold(view, |view, node| view.name(format!("node/{}", node.name)))
}

/// Returns the table of nodes; `waits` tells whom one waits for.
fn table(nodes: &[NodeView], waits: impl Fn(&NodeView) -> Option<String>) -> Table {
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
            Cell::maybe(waits(node).filter(|_| !node.held).or_else(|| node.message.clone()).or(failure)),
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
            let (said, by) = (event.event.summary(), format!(" by {}", event.actor));
            // What says itself who it was does not say it twice.
            let told = said
                .match_indices(&by)
                .any(|(at, by)| said.get(at + by.len()..).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')));
            let text = format!("{} {node} {said}{}", event.at, if told { "" } else { &by });
            format!("{}\n", text.replace(['\n', '\r'], " "))
        }
    }
}

#[cfg(test)]
mod tests {
    use titan_api::{Name, Revision, client::Client};

    use super::*;

    #[test]
    fn a_gate_says_whom_it_waits_for_and_what_to_type() {
        let gate = json!({ "name": "gate", "kind": "check", "state": "waiting", "generation": 1,
            "updatedAt": Revision::from_micros(0), "executor": "approval",
            "spec": { "kind": "check", "run": { "approval": { "minimum": 2 } } } });
        let status = json!({ "id": uuid::Uuid::nil(), "name": "web#2", "workspace": "default", "state": "running",
            "version": 7, "author": "token:admin", "createdAt": Revision::from_micros(0), "counts": {},
            "current": [gate] });
        let client = Client::new("http://127.0.0.1:1", None).expect("a client");
        let name = |text: &str| Name::new(text).expect("a name");
        for (deployment, command) in [
            (Some((name("default"), name("web"))), "titan rollout approve web gate".to_owned()),
            (None, format!("titan workplan approve {} gate", uuid::Uuid::nil())),
        ] {
            let status = serde_json::from_value(status.clone()).expect("a status");
            let mut plan = Follow::of(&client, status, deployment);
            plan.nodes = plan.status.current.iter().map(|node| (node.name.clone(), node.clone())).collect();
            plan.approvals.entry(name("gate")).or_default().insert("token:ann".to_owned());
            let text = super::status(&plan).render(Format::Table, None);
            let text = anstream::adapter::strip_str(&text).to_string();
            let row = text.lines().find(|line| line.starts_with("gate ")).unwrap_or_default();
            assert!(row.contains("waits for approval, 1 of 2"), "{text}");
            assert!(text.contains(&command), "{text}");
        }
    }

    #[test]
    fn who_it_was_is_said_once() {
        let said = |actor: &str, event: serde_json::Value| {
            let event = serde_json::from_value(event).expect("an event");
            let event = EventView { number: 1, at: Revision::from_micros(0), actor: actor.to_owned(), event };
            line(&event, Format::Table).split_once(' ').expect("a time").1.trim_end().to_owned()
        };
        let ann = "token:ann";
        let made = json!({ "type": "made", "spec": {}, "author": ann, "at": 0 });
        assert_eq!(said(ann, made), "plan made by token:ann");
        let approved = json!({ "type": "approved", "node": "gate", "by": ann });
        assert_eq!(said(ann, approved), "gate approved by token:ann");
        let paused = json!({ "type": "plan", "state": "paused", "reason": "paused by token:ann: lunch", "wall": 0 });
        assert_eq!(said(ann, paused), "plan paused: paused by token:ann: lunch");
        // Another of whom the name begins alike, or nobody, is said.
        let told = json!({ "type": "signalled", "signal": "skip", "requestId": "r", "node": "gate",
            "reason": "asked by token:anna" });
        assert_eq!(said(ann, told.clone()), "gate told to skip: asked by token:anna by token:ann");
        assert_eq!(said("system", told), "gate told to skip: asked by token:anna by system");
    }

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
        let client = Client::new("http://127.0.0.1:1", None).expect("a client");
        let mut follow = Follow::of(&client, plan, None);
        follow.nodes = nodes.iter().map(|node| (node.name.clone(), node.clone())).collect();
        let text = plain(super::status(&follow));
        assert!(text.ends_with("\n– canary: nothing to do, all 1 hosts are offline\n"), "{text}");
        let text = plain(super::nodes(&nodes));
        assert_eq!((text.matches(" nothing to do ").count(), text.matches(" passed ").count()), (1, 1), "{text}");
    }
}
