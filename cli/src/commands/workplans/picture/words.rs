//! Words: how a node is, and what happened, as people say it.

use titan_api::{
    Revision,
    strategies::{ReleaseStage, ReleaseStep, releases::Counts},
    windows::{Opening, Windows},
    workplans::{AttemptState, Event, EventView, Executor, Group, NodeState, NodeView, Outcome, PlanState},
};

use crate::{
    commands::workplans::follow::{Follow, counts},
    output::ages,
};

/// How many nodes are named that one waits for.
const EDGES: usize = 4;

/// Returns how a node is. Without `now` times are left out, so that it changes only when something else does.
pub(crate) fn words(plan: &Follow, node: &NodeView, now: Option<Revision>) -> String {
    if node.held {
        let why = node.message.as_deref().map_or_else(String::new, |message| format!(": {}", bare(node, message)));
        return format!("waits for a person{why}");
    }
    if let Some(outcome) = node.outcome {
        return ended(node, outcome);
    }
    if matches!(node.state, NodeState::Planning | NodeState::Planned) {
        return planned(node);
    }
    if let Some(waits) = waits_for(plan, node, now) {
        return waits;
    }
    match &node.spec.run {
        Some(Executor::Release(step)) => released(plan, node, step, now),
        Some(Executor::Approval(_)) | None => node.message.clone().unwrap_or_else(|| "waits for answers".to_owned()),
        Some(Executor::Wait(wait)) => format!("waits for {}", ages::length(wait.span.0)),
        Some(_) => attempted(node),
    }
}

/// Returns whom a node waits for, and until when, if a person has to do something.
pub(crate) fn waits_for(plan: &Follow, node: &NodeView, now: Option<Revision>) -> Option<String> {
    let Some(Executor::Approval(approval)) = &node.spec.run else { return None };
    if node.state != NodeState::Waiting {
        return None;
    }
    let given = plan.approvals.get(&node.name).map_or(0, std::collections::BTreeSet::len);
    let until = now.zip(node.due_at).filter(|_| plan.status.state != PlanState::Paused);
    let until = until.map_or_else(String::new, |(now, due)| format!(", {} left", ages::age(now, due)));
    Some(format!("waits for approval, {given} of {}{until}", approval.minimum))
}

/// Returns a message without what the row says already.
pub(crate) fn bare<'a>(node: &NodeView, message: &'a str) -> &'a str {
    let name = node.name.as_str();
    let rest = message.strip_prefix("stage ").and_then(|rest| rest.strip_prefix(name)).unwrap_or(message);
    let rest = rest.strip_prefix(" failed").unwrap_or(rest);
    rest.strip_prefix(": ").unwrap_or(rest)
}

fn ended(node: &NodeView, outcome: Outcome) -> String {
    let message = node.message.as_deref().map(|message| bare(node, message)).unwrap_or_default();
    let stage = matches!(node.spec.run, Some(Executor::Release(ReleaseStep::Stage(_) | ReleaseStep::Back(_))));
    let text = match (outcome, counts(node)) {
        (Outcome::Passed, Some(counts)) if stage && !node.is_no_op() && counts.members > 0 => numbers(counts, None),
        _ if message.is_empty() => outcome.as_str().to_owned(),
        (Outcome::Passed, _) => message.to_owned(),
        _ => format!("{outcome}: {message}"),
    };
    text.strip_suffix("; passed").unwrap_or(&text).to_owned()
}

fn planned(node: &NodeView) -> String {
    match &node.spec.run {
        Some(Executor::Release(ReleaseStep::Stage(stage))) => {
            let hosts = stage.hosts.to_string();
            let which = if stage.selector.is_some() { " of those that match" } else { "" };
            let reach = match hosts.as_str() {
                "1" => format!("1 host{which}"),
                "100%" if which.is_empty() => "all hosts".to_owned(),
                _ => format!("{hosts} of the hosts{which}"),
            };
            match stage.min_ready_seconds {
                0 => reach,
                seconds => format!("{reach}, healthy for {seconds} s"),
            }
        }
        Some(Executor::Approval(approval)) => match approval.minimum {
            1 => "a person approves".to_owned(),
            minimum => format!("{minimum} people approve"),
        },
        _ => match (&node.spec.description, &node.spec.after) {
            (Some(description), _) => description.clone(),
            (None, Some(after)) => after_words(after),
            (None, None) => String::new(),
        },
    }
}

/// Returns what a node waits for, as far as its group is a plain one.
fn after_words(after: &Group) -> String {
    let edges: Vec<String> = after.edges.iter().take(EDGES).map(ToString::to_string).collect();
    if edges.is_empty() || !after.groups.is_empty() {
        return String::new();
    }
    let more = after.edges.len() - edges.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    match after.threshold {
        Some(threshold) => format!("after {threshold} of {}{more}", edges.join(", ")),
        None => format!("after {}{more}", edges.join(", ")),
    }
}

fn released(plan: &Follow, node: &NodeView, step: &ReleaseStep, now: Option<Revision>) -> String {
    let (counts, ReleaseStep::Stage(stage)) = (counts(node), step) else {
        return counts(node).map_or_else(|| attempted(node), |counts| numbers(counts, None));
    };
    let Some(counts) = counts else { return "is being handed out".to_owned() };
    let said = numbers(counts, Some(stage));
    let idle = counts.opened < counts.members && counts.moving + counts.settling == 0;
    if plan.status.state == PlanState::Paused {
        return format!("{said}; paused");
    }
    match now.filter(|_| idle).and_then(|now| Some((now, closed(stage, now)?))) {
        Some((now, Some(next))) => format!("{said}; no window is open for {}", ages::age(now, next)),
        Some((_, None)) => format!("{said}; no window is open"),
        None => said,
    }
}

/// Returns when the next window of a stage opens, if none is open and that is known.
fn closed(stage: &ReleaseStage, now: Revision) -> Option<Option<Revision>> {
    if stage.windows.is_empty() {
        return None;
    }
    match Windows::parse(&stage.windows).ok()?.opening(now, None) {
        Opening::Open => None,
        Opening::Closed { next, .. } => Some(next),
    }
}

fn numbers(counts: Counts, stage: Option<&ReleaseStage>) -> String {
    let Counts { members, proven, settling, moving, failed, offline, excluded, .. } = counts;
    let mut text = format!("{proven} of {members} proven");
    let mut add = |count: u64, what: &str| {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    };
    add(settling, "settling");
    add(moving, "on the way");
    match stage {
        Some(stage) => add(failed, &format!("failed ({} may)", stage.max_failures)),
        None => add(failed, "failed"),
    }
    add(offline.saturating_sub(excluded), "offline");
    add(excluded, "left out");
    let seen = [proven, settling, moving, failed, offline].into_iter().fold(0, u64::saturating_add);
    if stage.is_some() {
        add(members.saturating_sub(seen), "not yet open");
    }
    text
}

fn attempted(node: &NodeView) -> String {
    let Some(attempt) = node.attempts.last() else { return node.state.as_str().to_owned() };
    let state = match attempt.state {
        AttemptState::Pending => "waits for its time",
        AttemptState::Scheduled => "waits for a worker",
        _ => "on the way",
    };
    let number = if attempt.number > 1 { format!("attempt {} ", attempt.number) } else { String::new() };
    let said = attempt.failure_message.as_deref().or(attempt.code.as_deref());
    let said = said.map_or_else(String::new, |said| format!(", {said}"));
    format!("{number}{state}{said}")
}

/// Returns the state of a plan, as people say it.
pub(crate) const fn spoken(state: PlanState) -> &'static str {
    match state {
        PlanState::Planning => "not started",
        PlanState::RollingBack => "being taken back",
        PlanState::RolledBack => "taken back",
        PlanState::Aborting => "being stopped",
        PlanState::Aborted => "stopped",
        other => other.as_str(),
    }
}

/// Returns what happened in a sentence, if people care for it.
pub(crate) fn sentence(plan: &Follow, event: &EventView) -> Option<String> {
    let because = |text: &Option<String>| text.as_ref().map_or_else(String::new, |text| format!(": {text}"));
    let by = &event.actor;
    Some(match &event.event {
        Event::Plan { state: PlanState::Succeeded, .. } => "the plan succeeded".to_owned(),
        Event::Plan { state: PlanState::Failed, reason, .. } => format!("the plan failed{}", because(reason)),
        Event::Plan { state, reason, .. } => format!("the plan is {}{}", spoken(*state), because(reason)),
        Event::Signalled { signal, node, reason, .. } => {
            let about = node.as_ref().map_or_else(String::new, |node| format!(" {node}"));
            format!("{by} says {signal}{about}{}", because(reason))
        }
        Event::Approved { node, by } => format!("{node} was approved by {by}"),
        Event::Updated { .. } => format!("{by} changed values or the deadline"),
        Event::Node { node, state: NodeState::Attempting | NodeState::Waiting, .. } => format!("{node} began"),
        // Nothing was undone, and nobody thought that.
        Event::Node { node, outcome: Some(Outcome::Skipped), .. }
            if plan.nodes.get(node).is_some_and(|node| node.spec.compensation) =>
        {
            return None;
        }
        Event::Node { node, outcome: Some(outcome), message, .. } => {
            let message = message.as_deref().unwrap_or_default();
            let named = format!("stage {node}");
            match (message.strip_prefix(named.as_str()), message) {
                (Some(rest), _) => format!("{node}{}", rest.strip_suffix("; passed").unwrap_or(rest)),
                (None, "") => format!("{node} {outcome}"),
                (None, message) if plan.nodes.get(node).is_some_and(NodeView::is_no_op) => format!("{node}: {message}"),
                (None, message) => format!("{node} {outcome}: {message}"),
            }
        }
        Event::Attempt { node, number, state: AttemptState::Incomplete, code, message, .. } => {
            let said = message.as_deref().or(code.as_deref()).unwrap_or("it came to nothing");
            format!("{node} attempt {number} came to nothing: {said}")
        }
        Event::Held { node, held: true, message } => format!("{node} waits for a person{}", because(message)),
        Event::Held { node, .. } => format!("{node} goes on"),
        Event::Result { node, owner, failure_message: Some(why), .. } => {
            format!("{owner} answered {node} with no: {why}")
        }
        _ => return None,
    })
}
