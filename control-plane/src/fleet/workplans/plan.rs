//! Plans as they stand, and what each event makes of one.
//!
//! [`Plan::apply`] and [`Node::apply`] are the only places that change either, so that the events alone give the state.

use serde::{Deserialize, Serialize};
use titan_api::workplans::{AttemptState, Event, NodeState, Outcome, PlanState, WorkPlanSpec};
use uuid::Uuid;

use super::{failures::Failure, nodes::Node};

/// A plan without its nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The id.
    pub id: Uuid,
    /// How far it is.
    pub state: PlanState,
    /// Why.
    pub reason: Option<String>,
    /// Whose it is.
    pub author: String,
    /// What was declared, without nodes; its values and deadline are the present ones.
    pub head: WorkPlanSpec,
    /// When it was made.
    pub made_at: i64,
    /// When it was started, by its own clock.
    pub started_at: Option<i64>,
    /// When it came to its end, by the wall clock.
    pub finished_at: Option<i64>,
    /// Since when it is paused, by the wall clock.
    pub paused_at: Option<i64>,
    /// How long it was paused before, in microseconds.
    pub frozen: i64,
    /// What it ends as once it is stopped.
    pub ending: Option<PlanState>,
    /// Its nodes.
    pub nodes: u64,
    /// Nodes that are not final, compensations left out.
    pub open: u64,
    /// Compensations that are not final.
    pub compensations: u64,
    /// Nodes that failed and had to pass.
    pub failures: u64,
    /// The one of these that people are told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Compensations that failed.
    pub undone_badly: u64,
    /// Nodes that wait for a person.
    pub held: u64,
    /// Whether it is paused because nodes wait for a person.
    pub by_hold: bool,
    /// Attempts that came after a first one.
    pub retries: u64,
}

impl Plan {
    /// Returns a plan that nothing has happened to.
    #[must_use]
    pub fn new(id: Uuid) -> Self {
        Self {
            id,
            state: PlanState::Planning,
            reason: None,
            author: String::new(),
            head: WorkPlanSpec::default(),
            made_at: 0,
            started_at: None,
            finished_at: None,
            paused_at: None,
            frozen: 0,
            ending: None,
            nodes: 0,
            open: 0,
            compensations: 0,
            failures: 0,
            failure: None,
            undone_badly: 0,
            held: 0,
            by_hold: false,
            retries: 0,
        }
    }

    /// Returns the time of the plan's own clock.
    #[must_use]
    pub fn clock(&self, wall: i64) -> i64 {
        self.paused_at.unwrap_or(wall).saturating_sub(self.frozen)
    }

    /// Returns the wall clock's time at which the plan's own clock shows `at`; `None` while it stands still.
    #[must_use]
    pub fn wall(&self, at: i64) -> Option<i64> {
        (self.paused_at.is_none() && !self.state.is_final()).then(|| at.saturating_add(self.frozen))
    }

    /// Returns when the plan's time is over, by its own clock.
    #[must_use]
    pub fn deadline(&self) -> Option<i64> {
        let ends = matches!(self.state, PlanState::Running | PlanState::Paused);
        let span = self.head.deadline.filter(|_| ends)?;
        Some(self.started_at?.saturating_add(micros(span.0)))
    }

    /// Whether nodes may begin.
    #[must_use]
    pub const fn goes_on(&self) -> bool {
        matches!(self.state, PlanState::Running | PlanState::RollingBack)
    }

    /// Whether it is being stopped.
    #[must_use]
    pub const fn stops(&self) -> bool {
        matches!(self.state, PlanState::Aborting | PlanState::RollingBack)
    }

    /// Takes in an event; `node` is the node that it is about, before it.
    pub fn apply(&mut self, event: &Event, node: Option<&Node>) {
        match event {
            Event::Made { spec, author, at } => {
                self.head = spec.head();
                self.author.clone_from(author);
                self.made_at = *at;
            }
            Event::Declared { spec } => self.head = spec.head(),
            Event::Updated { values, deadline } => {
                self.head.values = values.clone();
                self.head.deadline = *deadline;
            }
            Event::Written { spec, .. } => {
                if let Some(before) = node {
                    *self.opened(before.spec.compensation) -= 1;
                } else {
                    self.nodes += 1;
                }
                *self.opened(spec.compensation) += 1;
            }
            Event::Removed { .. } => {
                if let Some(before) = node {
                    *self.opened(before.spec.compensation) -= 1;
                    self.nodes -= 1;
                }
            }
            Event::Plan { state, reason, wall, ending } => self.go_on(*state, reason.as_ref(), *wall, *ending),
            Event::Node { state: NodeState::Final, outcome, message, .. } => {
                let Some(node) = node else { return };
                *self.opened(node.spec.compensation) -= 1;
                self.held -= u64::from(node.held);
                if *outcome == Some(Outcome::Failed) {
                    if node.spec.compensation {
                        self.undone_badly += 1;
                    } else if !node.spec.optional {
                        self.failures += 1;
                        let failure = Failure::of(node, message.as_deref().or(node.message.as_deref()));
                        if failure.outweighs(self.failure.as_ref()) {
                            self.failure = Some(failure);
                        }
                    }
                }
            }
            Event::Held { held, .. } => {
                if let Some(node) = node
                    && node.held != *held
                {
                    self.held = if *held { self.held + 1 } else { self.held - 1 };
                }
            }
            Event::Attempt { state: AttemptState::Pending, number, .. } => self.retries += u64::from(*number > 1),
            _ => {}
        }
    }

    const fn opened(&mut self, compensation: bool) -> &mut u64 {
        if compensation { &mut self.compensations } else { &mut self.open }
    }

    fn go_on(&mut self, state: PlanState, reason: Option<&String>, wall: i64, ending: Option<PlanState>) {
        if let Some(since) = self.paused_at.take() {
            self.frozen = self.frozen.saturating_add(wall.saturating_sub(since).max(0));
        }
        match state {
            PlanState::Paused => {
                self.paused_at = Some(wall);
                self.by_hold = self.held > 0;
            }
            PlanState::Running if self.state == PlanState::Planning => self.started_at = Some(self.clock(wall)),
            _ if state.is_final() => self.finished_at = Some(wall),
            _ => {}
        }
        self.state = state;
        if let Some(reason) = reason {
            self.reason = Some(reason.clone());
        } else if matches!(state, PlanState::Running) {
            self.reason = None;
        }
        self.ending = ending.or(self.ending);
    }
}

pub(super) fn micros(span: std::time::Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}
