//! Turns: attempts that went on in a step, as the log and the counters are told of them.

use std::time::Duration;

use titan_api::{
    Name,
    workplans::{AttemptState, Event, Executor, attempts::Verdict},
};

use super::nodes::Node;

/// An attempt that went on to another state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The node.
    pub node: Name,
    /// Counts the attempts of the node.
    pub number: u32,
    /// What does it.
    pub executor: &'static str,
    /// The state.
    pub state: AttemptState,
    /// What came of it, if the job was done.
    pub verdict: Option<Verdict>,
    /// Why it was not done.
    pub code: Option<String>,
    /// For how long it ran by the plan's clock, if it has ended and had begun.
    pub ran: Option<Duration>,
}

impl Turn {
    /// Returns what an event means for an attempt of the node, as that was before.
    pub(super) fn of(event: &Event, before: Option<&Node>) -> Option<Self> {
        let Event::Attempt { node, number, state, at, verdict, code, .. } = event else { return None };
        let executor = before.and_then(|node| node.spec.run.as_ref()).map_or("none", Executor::name);
        let running = before.and_then(|node| node.attempt.as_ref());
        let running = running.filter(|attempt| attempt.number == *number && attempt.state == AttemptState::Running);
        let ran = running.filter(|_| state.is_final()).map(|attempt| at.saturating_sub(attempt.at).max(0));
        let ran = ran.map(|micros| Duration::from_micros(micros.unsigned_abs()));
        Some(Self {
            node: node.clone(),
            number: *number,
            executor,
            state: *state,
            verdict: *verdict,
            code: code.clone(),
            ran,
        })
    }

    /// Returns how it ended, in a word; `None` if it goes on.
    #[must_use]
    pub const fn outcome(&self) -> Option<&'static str> {
        match (self.state, self.verdict) {
            (AttemptState::Incomplete, _) => Some("incomplete"),
            (AttemptState::Complete, Some(Verdict::Passed)) => Some("passed"),
            (AttemptState::Complete, Some(Verdict::Failed)) => Some("failed"),
            (AttemptState::Complete, _) => Some("inconclusive"),
            _ => None,
        }
    }
}
