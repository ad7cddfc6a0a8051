//! The picture of a plan: what a person wants to see of it at a glance, as often as something changes.
//!
//! A head, a row for each node with a bar where there are several of something, what waits for whom, why it stopped, and
//! what happened last. It is a plain function of what is known; [`Canvas`](crate::output::canvas::Canvas) paints it.

pub(crate) mod bars;
mod notes;
mod rows;
mod words;

use titan_api::{
    Revision,
    workplans::{NodeState, PlanState},
};

use self::{bars::Bar, rows::Row};
pub(crate) use self::{
    notes::hands,
    words::{bare, sentence, spoken, waits_for, words},
};
use super::{follow::Follow, shown::plan_tone};
use crate::output::{Tone, ages, lines::Line};

/// Events are shown where there is room, up to so many.
const EVENTS: usize = 6;
/// How wide names may be, and bars.
const NAME: usize = 24;
const BAR: usize = 32;

/// Returns the picture of a plan, at most so many columns wide and rows high.
pub(crate) fn picture(plan: &Follow, now: Revision, (columns, height): (usize, usize)) -> Vec<Line> {
    let rows = rows::rows(plan, now);
    let bars = rows.iter().any(|row| row.bar.is_some());
    let mut lines = head(plan, now);
    lines.push(Line::new());
    let notes = notes::notes(plan, now, &rows);
    let legend = usize::from(bars);
    let room = height.saturating_sub(lines.len() + legend + notes.len()).max(3);
    lines.extend(body(&rows, columns, room));
    if bars {
        lines.push(Bar::legend(&rows));
    }
    lines.extend(notes);
    let left = height.saturating_sub(lines.len() + 1).min(EVENTS);
    let told: Vec<_> =
        plan.events.iter().rev().filter_map(|event| Some((event, sentence(plan, event)?))).take(left).collect();
    if left > 1 && !told.is_empty() {
        lines.push(Line::new());
        for (event, said) in told.into_iter().rev() {
            let at = event.at.to_string();
            let time = at.get(11..19).unwrap_or_default().to_owned();
            lines.push(Line::new().add(Tone::Faint, format!("  {time}Z {said}")));
        }
    }
    lines.into_iter().map(|line| line.fit(columns)).collect()
}

/// What it is and how far: its name, its state and since when.
fn head(plan: &Follow, now: Revision) -> Vec<Line> {
    let status = &plan.status;
    let state = status.state;
    let mut line = Line::new()
        .add(plan_tone(state), mark(state))
        .text(" ")
        .add(Tone::Strong, &status.name)
        .text(format!(" in {}  ", status.workspace))
        .add(plan_tone(state), spoken(state));
    line = match (status.started_at, status.finished_at) {
        (Some(started), Some(finished)) => line.text(format!(" after {}", ages::age(started, finished))),
        (Some(started), None) if state == PlanState::Running => line.text(format!(" for {}", ages::age(started, now))),
        // Since when it is paused or being taken back is another question than since when it is on its way.
        (Some(_), None) => match plan.stated.filter(|(stated, _)| *stated == state) {
            Some((_, since)) => line.text(format!(" for {}", ages::age(since, now))),
            None => line,
        },
        _ => line,
    };
    let stages: Vec<_> = plan.nodes.values().filter(|node| rows::is_stage(node)).collect();
    let over = stages.iter().filter(|node| node.state == NodeState::Final).count();
    if stages.len() > 1 && !state.is_final() {
        let begun = stages.iter().any(|node| node.state == NodeState::Attempting);
        let number = (over + usize::from(begun)).max(1);
        line = line.add(Tone::Faint, format!(", stage {number} of {}", stages.len()));
    }
    if let Some(deadline) = status.deadline_at.filter(|_| !state.is_final()) {
        line = line.text(", ").add(Tone::Care, format!("{} left", ages::age(now, deadline)));
    }
    if status.retries > 0 {
        let again = if status.retries == 1 { "retry" } else { "retries" };
        line = line.add(Tone::Faint, format!(", {} {again}", status.retries));
    }
    vec![line.add(Tone::Faint, format!(", by {}", status.author))]
}

const fn mark(state: PlanState) -> &'static str {
    match state {
        PlanState::Succeeded => "✓",
        PlanState::Failed | PlanState::Aborted | PlanState::RolledBack => "✗",
        PlanState::Superseded => "–",
        PlanState::Planning | PlanState::Paused => "◆",
        PlanState::Running | PlanState::Aborting | PlanState::RollingBack => "●",
    }
}

/// Returns the rows as lines; of more than there is room for those that go on or failed come first.
fn body(rows: &[Row], columns: usize, room: usize) -> Vec<Line> {
    let longest = |rows: &[Row]| rows.iter().map(|row| row.name.chars().count() + row.indent).max().unwrap_or(0);
    let name = longest(rows).clamp(8, NAME);
    // Names, marks and times are needed; the words get at least half of what is left.
    let bar = if rows.iter().any(|row| row.bar.is_some()) {
        (columns.saturating_sub(name + 12) / 2).clamp(8, BAR)
    } else {
        0
    };
    let time = rows.iter().filter_map(|row| row.time.as_ref()).map(String::len).max().unwrap_or(0);
    let line = |row: &Row| row.line((name, bar, time), columns);
    if rows.len() <= room {
        return rows.iter().map(line).collect();
    }
    let mut kept: Vec<usize> = (0..rows.len()).collect();
    kept.sort_by_key(|at| rows.get(*at).map(|row| row.weight));
    kept.truncate(room.saturating_sub(1));
    kept.sort_unstable();
    let mut lines: Vec<Line> = kept.iter().filter_map(|at| rows.get(*at)).map(line).collect();
    lines.push(Line::new().add(Tone::Faint, format!("… and {} more", rows.len() - kept.len())));
    lines
}

#[cfg(test)]
mod tests;
