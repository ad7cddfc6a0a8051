//! Nodes as they stand, and what each event makes of one.
//!
//! [`Node::apply`] is the only place that changes one, a heartbeat aside.

use serde::{Deserialize, Serialize};
use titan_api::{
    Name,
    workplans::{
        AttemptState, Event, Executor, NodeKind, NodeSpec, NodeState, Outcome, attempts::Verdict, events::Counted,
        nodes::OnNodeFailure, policies,
    },
};
use uuid::Uuid;

use super::{
    attempts::Attempt,
    plan::micros,
    tally::{self, Tally},
};

/// A node of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: Name,
    /// What it says, without what it waits for. Kept beside the rest: it seldom changes.
    #[serde(skip)]
    pub spec: NodeSpec,
    /// How far it is.
    pub state: NodeState,
    /// What came of it.
    pub outcome: Option<Outcome>,
    /// Why.
    pub message: Option<String>,
    /// Counts how often it was opened or written anew.
    pub generation: u32,
    /// What it waits for, counted; the first is the whole. Empty: nothing.
    pub groups: Vec<Tally>,
    /// Stages that put it together and have not ended.
    pub planners: u32,
    /// Stages that answer it and have not ended.
    pub answerers: u32,
    /// Stages that were to answer it and could not.
    pub unanswered: u32,
    /// Who said yes.
    pub yes: u32,
    /// Who said no, and the first that did.
    pub no: u32,
    /// Why the first no.
    pub first_no: Option<String>,
    /// Children that have not ended.
    pub children: u32,
    /// Whether a child failed.
    pub child_failed: bool,
    /// Attempts that count for the retry policy.
    pub tries: u32,
    /// When it was begun, by the plan's clock: what its total timeout counts from.
    pub begun_at: Option<i64>,
    /// Its last attempt.
    pub attempt: Option<Attempt>,
    /// Who approved.
    pub votes: Vec<String>,
    /// What its own work came to while children are waited for.
    pub own: Option<(bool, Option<String>)>,
    /// Whether it waits for a person.
    pub held: bool,
    /// The plan that it runs.
    pub child: Option<Uuid>,
}

impl Node {
    /// Returns a node that was just written.
    #[must_use]
    pub fn new(name: &Name, spec: &NodeSpec) -> Self {
        Self {
            name: name.clone(),
            groups: tally::of(spec),
            state: if spec.planning { NodeState::Planning } else { NodeState::Planned },
            spec: NodeSpec { after: None, ..spec.clone() },
            outcome: None,
            message: None,
            generation: 1,
            planners: 0,
            answerers: 0,
            unanswered: 0,
            yes: 0,
            no: 0,
            first_no: None,
            children: 0,
            child_failed: false,
            tries: 0,
            begun_at: None,
            attempt: None,
            votes: Vec::new(),
            own: None,
            held: false,
            child: None,
        }
    }

    /// Whether nothing follows.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self.state, NodeState::Final)
    }

    /// Whether all that it waits for came about.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.groups.first().is_none_or(Tally::is_met)
    }

    /// Returns its attempt, if that is on its way.
    #[must_use]
    pub fn live(&self) -> Option<&Attempt> {
        self.attempt.as_ref().filter(|attempt| attempt.is_live())
    }

    /// Returns how long one attempt may take, in microseconds.
    #[must_use]
    pub fn limit(&self) -> i64 {
        let limit =
            self.spec.run.as_ref().map_or(std::time::Duration::ZERO, |run| run.limit(self.spec.timeouts.per_attempt));
        micros(limit)
    }

    /// Returns when its time is over, by the plan's clock.
    #[must_use]
    pub fn total(&self) -> Option<i64> {
        Some(self.begun_at?.saturating_add(micros(self.spec.timeouts.total?.0)))
    }

    /// Returns when something happens to it by itself, by the plan's clock.
    #[must_use]
    pub fn timer(&self) -> Option<i64> {
        let attempt = self.live()?;
        let timeouts = &self.spec.timeouts;
        let after = |at: i64, span: titan_api::spans::Span| at.saturating_add(micros(span.0));
        let own = match attempt.state {
            AttemptState::Pending => return Some(attempt.due),
            AttemptState::Scheduled => timeouts.schedule_to_start.map(|span| after(attempt.at, span)),
            AttemptState::Running => {
                if let Some(since) = attempt.cancelling {
                    return Some(since.saturating_add(self.teardown()));
                }
                let beat = timeouts.heartbeat.filter(|_| !self.runs_by_itself());
                let beat = beat.map(|span| attempt.beat.saturating_add(micros(span.0 * 2)));
                let end = attempt.at.saturating_add(self.limit());
                Some(beat.map_or(end, |beat| beat.min(end)))
            }
            _ => None,
        };
        own.into_iter().chain(self.total()).min()
    }

    pub(super) fn teardown(&self) -> i64 {
        micros(self.spec.timeouts.teardown.map_or(policies::TEARDOWN, |span| span.0))
    }

    /// Whether time, people or a plan of its own bring its end.
    #[must_use]
    pub fn runs_by_itself(&self) -> bool {
        self.spec.run.as_ref().is_some_and(Executor::runs_by_itself)
    }

    /// Whether it waits for a person when it failed for good.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.spec.on_failure == OnNodeFailure::Pause
    }

    /// Takes in an event about it.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Written { spec, .. } => {
                let before = std::mem::replace(self, Self::new(&self.name.clone(), spec));
                self.generation = before.generation + 1;
                (self.planners, self.answerers, self.children) = (before.planners, before.answerers, before.children);
            }
            Event::Node { state, outcome, message, at, .. } => {
                self.state = *state;
                if matches!(state, NodeState::Attempting | NodeState::Waiting) {
                    self.begun_at = Some(*at);
                }
                if *state == NodeState::Final {
                    self.outcome = *outcome;
                    self.held = false;
                }
                if message.is_some() {
                    self.message.clone_from(message);
                }
                if *state == NodeState::AwaitingGroup {
                    self.own = Some((*outcome != Some(Outcome::Failed), message.clone()));
                }
            }
            Event::Edge { group, met, .. } => tally::resolve(&mut self.groups, *group as usize, *met),
            Event::Counted { what, by, failed, .. } => {
                let counter = match what {
                    Counted::Planners => &mut self.planners,
                    Counted::Answerers => &mut self.answerers,
                    Counted::Children => &mut self.children,
                };
                *counter = counter.saturating_add_signed(*by);
                match what {
                    Counted::Answerers => self.unanswered += u32::from(*failed),
                    Counted::Children => self.child_failed |= *failed,
                    Counted::Planners => {}
                }
            }
            Event::Attempt { .. } => self.attempted(event),
            Event::Cancelling { at, .. } => {
                if let Some(attempt) = &mut self.attempt {
                    attempt.cancelling = Some(*at);
                }
            }
            Event::Result { failure_message, late: false, .. } => match failure_message {
                None => self.yes += 1,
                Some(message) => {
                    self.no += 1;
                    self.first_no.get_or_insert_with(|| message.clone());
                }
            },
            Event::Answered { checks, .. } => {
                if let Some(attempt) = &mut self.attempt {
                    attempt.answered = true;
                    let new = checks.iter().filter(|check| !attempt.given.contains(check)).cloned();
                    attempt.given.extend(new.collect::<Vec<_>>());
                }
            }
            Event::Approved { by, .. } => self.votes.push(by.clone()),
            Event::Held { held, message, .. } => {
                self.held = *held;
                if *held {
                    self.message.clone_from(message);
                } else {
                    // Opened again: what was said about it before no longer counts.
                    self.generation += 1;
                    self.votes.clear();
                    (self.tries, self.begun_at) = (0, None);
                }
            }
            Event::Child { plan, .. } => self.child = Some(*plan),
            _ => {}
        }
    }

    fn attempted(&mut self, event: &Event) {
        let Event::Attempt { number, state, at, due, process_uid, counts, .. } = event else { return };
        self.tries += u32::from(*counts);
        if *state == AttemptState::Pending {
            self.begun_at.get_or_insert(*at);
            self.attempt = Some(Attempt {
                number: *number,
                state: *state,
                at: *at,
                due: due.unwrap_or(*at),
                uid: None,
                cancelling: None,
                beat: *at,
                answered: false,
                given: Vec::new(),
            });
        } else if let Some(attempt) = &mut self.attempt {
            (attempt.state, attempt.at) = (*state, *at);
            if *state == AttemptState::Running {
                attempt.beat = *at;
                attempt.uid.clone_from(process_uid);
            }
        }
    }

    /// Whether it asks something.
    #[must_use]
    pub const fn is_check(&self) -> bool {
        matches!(self.spec.kind, NodeKind::Check)
    }
}

/// Returns what a verdict makes of a node; `None` if it cannot be told.
pub(super) const fn outcome(verdict: Verdict) -> Option<Outcome> {
    match verdict {
        Verdict::Passed => Some(Outcome::Passed),
        Verdict::Failed => Some(Outcome::Failed),
        Verdict::Inconclusive => None,
    }
}
