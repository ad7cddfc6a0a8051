//! Plans and nodes as they stand, and what each event makes of them.
//!
//! [`Plan::apply`] and [`Node::apply`] are the only places that change either, so that the events alone give the state.

use serde::{Deserialize, Serialize};
use titan_api::{
    Name,
    workplans::{
        AttemptState, Event, Executor, NodeKind, NodeSpec, NodeState, Outcome, PlanState, WorkPlanSpec,
        attempts::Verdict, events::Counted, nodes::OnNodeFailure, policies,
    },
};
use uuid::Uuid;

use super::{
    failures::Failure,
    tally::{self, Tally},
};

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

/// An attempt of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counts the attempts of the node, from 1.
    pub number: u32,
    /// How far it is.
    pub state: AttemptState,
    /// Since when, by the plan's clock.
    pub at: i64,
    /// When it may begin, if it is pending.
    pub due: i64,
    /// Who took it.
    pub uid: Option<String>,
    /// When its worker was told to stop.
    pub cancelling: Option<i64>,
    /// When its worker last said that it is at it. No event tells: it is no transition.
    pub beat: i64,
    /// Whether a result was given with it.
    pub answered: bool,
    /// The checks that it answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given: Vec<Name>,
}

impl Attempt {
    /// Whether it is on its way.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        !self.state.is_final()
    }

    /// Whether it answered a check. One that began before it was kept which ones answered all of them.
    #[must_use]
    pub fn gave(&self, check: &Name) -> bool {
        self.answered && (self.given.is_empty() || self.given.contains(check))
    }
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

pub(super) fn micros(span: std::time::Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}
