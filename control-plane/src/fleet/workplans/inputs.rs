//! Inputs: what happens to a plan, and when its time comes.

use std::collections::BTreeMap;

use serde_json::Value;
use titan_api::{
    Code, Name, Problem,
    workplans::{
        AttemptState, Event, Executor, NodeSpec, Outcome, PlanState, WorkPlanSpec,
        attempts::{ResultRequest, Verdict},
    },
};

use super::{
    flow::INTERRUPTED,
    graph,
    nodes::Node,
    plan::micros,
    signals::Told,
    steps::Stop,
    working::{Todo, Working},
};

/// What happens to a plan.
#[derive(Debug, Clone)]
pub enum Input {
    /// It is made, with its nodes.
    Make {
        /// What is declared.
        spec: Box<WorkPlanSpec>,
        /// Whose it is.
        author: String,
    },
    /// Its document changed.
    Declare {
        /// What is declared now.
        spec: Box<WorkPlanSpec>,
        /// What it declared before: nodes that are not declared any more are to go, and what is the same is not changed
        /// though signals changed it meanwhile.
        before: Box<WorkPlanSpec>,
    },
    /// Nodes are written.
    Write(BTreeMap<Name, NodeSpec>),
    /// It is started, because its document says so or its parent's attempt did.
    Start,
    /// It is not to begin by itself, and why: a person may start it.
    Hold(String),
    /// A person tells it something.
    Told(Told),
    /// A process takes an attempt.
    Claim {
        /// The node.
        node: Name,
        /// The attempt.
        number: u32,
        /// Who takes it.
        uid: String,
    },
    /// A process says that it is still at it.
    Beat {
        /// The node.
        node: Name,
        /// The attempt.
        number: u32,
        /// Who has it.
        uid: String,
    },
    /// A process ends an attempt.
    Finish(Box<Finished>),
    /// A process answers checks while it is at it.
    Answer {
        /// The node.
        node: Name,
        /// The attempt.
        number: u32,
        /// Who has it.
        uid: String,
        /// The answers.
        results: Vec<ResultRequest>,
    },
    /// The time of a node has come, or that of the plan.
    Due(Option<Name>),
    /// The plan that a stage runs came to its end.
    Child {
        /// The stage.
        node: Name,
        /// The attempt.
        number: u32,
        /// How it ended.
        state: PlanState,
        /// Why.
        reason: Option<String>,
    },
    /// Whoever was at an attempt inside the control plane is gone.
    Interrupted {
        /// The node.
        node: Name,
        /// The attempt.
        number: u32,
    },
    /// It is stopped by the stage that runs it, or because a newer plan takes its place.
    Halt {
        /// Why.
        reason: String,
        /// Whether a newer plan takes its place.
        superseded: bool,
    },
}

/// How a process ends an attempt.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The node.
    pub node: Name,
    /// The attempt.
    pub number: u32,
    /// Who has it.
    pub uid: String,
    /// The job was done, and this came of it; or it was not, for the reason of this code.
    pub end: Result<Verdict, String>,
    /// What to tell people.
    pub message: Option<String>,
    /// What came of it, for programs.
    pub details: Option<Value>,
    /// What was answered.
    pub results: Vec<ResultRequest>,
}

impl Working {
    pub(super) fn input(&mut self, input: &Input) -> Result<(), Stop> {
        match input {
            Input::Make { spec, author } => self.make(spec, author),
            Input::Declare { spec, before } => self.declare(spec, before),
            Input::Write(nodes) => self.write(nodes, "/nodes"),
            Input::Start => self.start(),
            Input::Hold(reason) => {
                if self.plan.state == PlanState::Planning {
                    let (state, reason, wall) = (PlanState::Planning, Some(reason.clone()), self.wall);
                    self.emit(Event::Plan { state, reason, wall, ending: None });
                }
                Ok(())
            }
            Input::Told(told) => self.told(told),
            Input::Claim { node, number, uid } => self.claim(node, *number, uid),
            Input::Beat { node, number, uid } => self.beat(node, *number, uid),
            Input::Finish(finished) => self.finished(finished),
            Input::Answer { node, number, uid, results } => {
                self.held_by(node, *number, uid)?;
                self.answers(node, *number, results)
            }
            Input::Due(None) => self.plan_due(),
            Input::Due(Some(node)) => self.due(node),
            Input::Child { node, number, state, reason } => self.child(node, *number, *state, reason.as_ref()),
            Input::Interrupted { node, number } => {
                self.need([node])?;
                let running =
                    |attempt: &&super::Attempt| attempt.number == *number && attempt.state == AttemptState::Running;
                if self.node(node).and_then(Node::live).filter(running).is_some() {
                    self.break_off(node, INTERRUPTED, Some("the control plane was restarted".to_owned()), false);
                    self.failed(node, INTERRUPTED, "the control plane was restarted");
                }
                Ok(())
            }
            Input::Halt { reason, superseded } => {
                if !self.plan.state.is_final() && !self.plan.stops() {
                    let ending = superseded.then_some(PlanState::Superseded);
                    let (state, reason) = (PlanState::Aborting, Some(reason.clone()));
                    self.todo.push_back(Todo::Stop { state, reason, ending });
                }
                Ok(())
            }
        }
    }

    pub(super) fn start(&mut self) -> Result<(), Stop> {
        self.need_whole()?;
        if self.plan.state != PlanState::Planning {
            return Err(wrong_state(self.plan.state, "be started"));
        }
        graph::complete(&self.specs, "/spec/nodes")?;
        if let Some(deadline) = self.plan.head.deadline {
            graph::budget(&self.specs, deadline.0)?;
        }
        self.resume(None)
    }

    fn plan_due(&mut self) -> Result<(), Stop> {
        let over = self.plan.deadline().is_some_and(|deadline| deadline <= self.now());
        if over && self.plan.state == PlanState::Running {
            let undo = self.plan.head.on_failure == titan_api::workplans::OnPlanFailure::Rollback;
            let state = if undo { PlanState::RollingBack } else { PlanState::Aborting };
            let deadline = self.plan.head.deadline.map(|span| span.to_string()).unwrap_or_default();
            let reason = Some(format!("its deadline of {deadline} has passed"));
            self.todo.push_back(Todo::Stop { state, reason, ending: Some(PlanState::Failed) });
        }
        Ok(())
    }

    fn due(&mut self, name: &Name) -> Result<(), Stop> {
        self.need([name])?;
        let now = self.now();
        // A clock that stands still brings nothing about.
        if self.plan.paused_at.is_some() {
            return Ok(());
        }
        let Some(node) = self.node(name).filter(|node| node.timer().is_some_and(|timer| timer <= now)) else {
            return Ok(());
        };
        let Some(attempt) = node.live() else { return Ok(()) };
        let (number, at, limit) = (attempt.number, attempt.at, node.limit());
        let over = node.total().is_some_and(|total| total <= now);
        match (attempt.state, &node.spec.run) {
            (AttemptState::Pending, _) => self.schedule(name),
            (AttemptState::Scheduled, _) if over => {
                self.lapse(name, "totalTimeout", "it waited for a worker until its time was over", false)
            }
            (AttemptState::Scheduled, _) => self.lapse(name, "scheduleToStart", "no worker took it in time", true),
            (AttemptState::Running, _) if attempt.cancelling.is_some() => {
                let text = "its worker did not stop in time";
                self.break_off(name, "cancelled", Some(text.to_owned()), false);
                self.failed(name, "cancelled", text);
            }
            (_, Some(Executor::Wait(_))) if at.saturating_add(limit) <= now => {
                self.complete(name, number, Verdict::Passed, None, None)
            }
            (_, Some(Executor::Approval(_))) => {
                let message = Some("nobody approved it in time".to_owned());
                self.complete(name, number, Verdict::Failed, message, None);
            }
            _ if over => self.lapse(name, "totalTimeout", "its time is over", true),
            _ if at.saturating_add(limit) <= now => self.lapse(name, "timeout", "the attempt took too long", true),
            _ => self.lapse(name, "heartbeat", "its worker has fallen silent", true),
        }
        Ok(())
    }

    /// Ends a node that a person decided about, its attempt with it.
    pub(super) fn decide(&mut self, node: &Name, outcome: Outcome, message: Option<String>) {
        self.todo.push_back(Todo::End(node.clone(), outcome, message));
    }

    /// Makes a held node be tried again, or one that waits for its time try at once.
    pub(super) fn try_again(&mut self, name: &Name) -> Result<(), Stop> {
        let node = self.needed(name)?;
        if node.held {
            self.emit(Event::Held { node: name.clone(), held: false, message: None });
            let now = self.now();
            self.attempt(name, now);
            return Ok(());
        }
        let pending = node.live().is_some_and(|attempt| attempt.state == AttemptState::Pending);
        if pending && self.plan.goes_on() {
            self.schedule(name);
            return Ok(());
        }
        let detail = format!("node {name} is {} and has nothing to try again", node.state);
        Err(Problem::new(Code::InvalidTransition, detail)
            .hint("a node is tried again while it waits for its next attempt, or for a person (onFailure: pause)")
            .into())
    }

    /// Returns the time left to the plan from now, in microseconds.
    #[must_use]
    pub fn left(&self) -> Option<i64> {
        Some(self.plan.started_at?.saturating_add(micros(self.plan.head.deadline?.0)).saturating_sub(self.now()))
    }
}

pub(super) fn wrong_state(state: PlanState, what: &str) -> Stop {
    Problem::new(Code::InvalidTransition, format!("the plan is {state} and cannot {what}")).into()
}
