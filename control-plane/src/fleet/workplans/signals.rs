//! Signals: what people tell a plan, checked against where it is.

use titan_api::{
    Code, Name, Problem,
    spans::Span,
    workplans::{
        AttemptState, Event, Executor, NodeSpec, NodeState, Outcome, PlanState, Signal, SignalRequest,
        attempts::Verdict,
    },
};

use super::{
    failures::REJECTED,
    graph,
    inputs::wrong_state,
    nodes::Node,
    plan::micros,
    steps::Stop,
    working::{Todo, Working},
};
use crate::patches;

/// What a person tells a plan.
#[derive(Debug, Clone)]
pub struct Told {
    /// What.
    pub request: SignalRequest,
    /// Who.
    pub actor: String,
}

impl Working {
    pub(super) fn told(&mut self, told: &Told) -> Result<(), Stop> {
        let request = &told.request;
        let faults = request.faults();
        if !faults.is_empty() {
            return Err(Problem::new(Code::Invalid, format!("the signal {} is not valid", request.signal))
                .with(faults)
                .into());
        }
        if self.plan.state.is_final() {
            return Err(wrong_state(self.plan.state, "be told anything any more"));
        }
        let because = |what: &str| {
            let reason = request.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            Some(format!("{what} by {}{reason}", told.actor))
        };
        let state = self.plan.state;
        match (request.signal, &request.node) {
            (Signal::Start, _) => {
                self.need_whole()?;
                if state != PlanState::Planning {
                    return Err(wrong_state(state, "be started"));
                }
                self.signalled(request);
                self.start()
            }
            (Signal::Pause, _) => {
                if state != PlanState::Running {
                    return Err(wrong_state(state, "be paused"));
                }
                self.signalled(request);
                let (state, wall) = (PlanState::Paused, self.wall);
                self.emit(Event::Plan { state, reason: because("paused"), wall, ending: None });
                Ok(())
            }
            (Signal::Resume, _) => {
                if state != PlanState::Paused {
                    return Err(wrong_state(state, "be resumed"));
                }
                self.listed(super::Listing::Ready)?;
                self.signalled(request);
                self.resume(None)
            }
            (Signal::Abort, _) | (Signal::Rollback, _) => {
                let undo = request.signal == Signal::Rollback;
                let next = if undo { PlanState::RollingBack } else { PlanState::Aborting };
                if !state.may_become(next) {
                    return Err(wrong_state(state, if undo { "be rolled back" } else { "be aborted" }));
                }
                self.signalled(request);
                let reason = because(if undo { "rolled back" } else { "aborted" });
                self.todo.push_back(Todo::Stop { state: next, reason, ending: None });
                Ok(())
            }
            (Signal::Update, _) => self.update(request),
            (signal, Some(node)) => self.about(signal, node, told, because),
            (signal, None) => Err(Problem::new(Code::Invalid, format!("{signal} names a node")).into()),
        }
    }

    fn signalled(&mut self, request: &SignalRequest) {
        self.emit(Event::Signalled {
            signal: request.signal,
            request_id: request.request_id.clone(),
            node: request.node.clone(),
            reason: request.reason.clone(),
        });
    }

    fn about(
        &mut self,
        signal: Signal,
        name: &Name,
        told: &Told,
        because: impl Fn(&str) -> Option<String>,
    ) -> Result<(), Stop> {
        let node = self.needed(name)?;
        if node.is_final() {
            let detail = format!("node {name} is final: {}", node.outcome.map_or("", Outcome::as_str));
            return Err(Problem::new(Code::InvalidTransition, detail).into());
        }
        if let Some(seen) = told.request.generation
            && seen != node.generation
        {
            let detail =
                format!("the signal speaks of generation {seen} of node {name}, which is at {}", node.generation);
            return Err(Problem::new(Code::StaleSignal, detail).hint("look at it again and decide anew").into());
        }
        let gate = matches!(node.spec.run, Some(Executor::Approval(_)));
        let running = node.live().filter(|attempt| attempt.state == AttemptState::Running);
        let running = running.map(|attempt| attempt.number);
        let holds = node.holds();
        let begun = !matches!(node.state, NodeState::Planned | NodeState::Planning);
        match signal {
            Signal::Approve if gate && node.held => {
                let detail = format!(
                    "gate {name} is closed and waits for a person: {}",
                    node.message.as_deref().unwrap_or("it failed")
                );
                return Err(Problem::new(Code::InvalidTransition, detail)
                    .hint("retry opens it again, then it can be approved")
                    .into());
            }
            Signal::Approve if gate => {
                if told.actor == self.plan.author {
                    let detail = format!("{} made the plan and cannot approve its gate {name}", told.actor);
                    return Err(Problem::new(Code::SelfApproval, detail).hint("let somebody else approve it").into());
                }
                let again = node.votes.contains(&told.actor);
                self.signalled(&told.request);
                if !again {
                    self.emit(Event::Approved { node: name.clone(), by: told.actor.clone() });
                }
                self.todo.push_back(Todo::Votes(name.clone()));
            }
            Signal::Approve => {
                let detail = format!("node {name} is not a gate that people approve");
                return Err(Problem::new(Code::InvalidTransition, detail)
                    .hint("skip goes on as if it had passed")
                    .into());
            }
            Signal::Reject => {
                self.signalled(&told.request);
                let message = because(REJECTED);
                // Whoever rejects it has decided, though it is to wait for a person when it failed.
                match running.filter(|_| gate && begun && !holds) {
                    Some(number) => self.complete(name, number, Verdict::Failed, message, None),
                    None => self.decide(name, Outcome::Failed, message),
                }
            }
            Signal::Skip => {
                self.signalled(&told.request);
                self.decide(name, Outcome::Overridden, because("skipped"));
            }
            _ => {
                self.signalled(&told.request);
                self.try_again(name)?;
            }
        }
        Ok(())
    }

    fn update(&mut self, request: &SignalRequest) -> Result<(), Stop> {
        if self.plan.stops() {
            return Err(wrong_state(self.plan.state, "be changed"));
        }
        if request.deadline.is_some() {
            self.need_whole()?;
        }
        let mut values = self.plan.head.values.clone();
        if let Some(patch) = &request.values {
            patches::merge_maps(&mut values, patch);
        }
        if let Some(deadline) = request.deadline {
            graph::budget(&self.specs, deadline.0)
                .map_err(|problem| self.without_deadline(deadline).unwrap_or(problem))?;
            let over = self.plan.started_at.map(|at| at.saturating_add(micros(deadline.0)));
            if over.is_some_and(|over| over <= self.now()) {
                let detail = format!("a deadline of {deadline} has passed already");
                return Err(Problem::new(Code::Invalid, detail.clone()).at("/deadline", detail).into());
            }
        }
        self.signalled(request);
        let deadline = request.deadline.or(self.plan.head.deadline);
        self.emit(Event::Updated { values, deadline });
        Ok(())
    }

    /// Says what a release that began without a deadline would have needed for one: its stages may take as long as they like,
    /// so that no deadline is ever long enough for them.
    fn without_deadline(&self, deadline: Span) -> Option<Problem> {
        let releases = |spec: &NodeSpec| matches!(spec.run, Some(Executor::Release(_)));
        if self.plan.head.deadline.is_some() || !self.specs.values().any(releases) {
            return None;
        }
        let detail = "the rollout began without a deadline, so its stages may take as long as they like and none can be \
                      given to it now";
        let hint = format!(
            "write `deadline: {deadline}` into spec.strategy of the deployment, beside its stages (titan edit deployment \
             NAME): its next release goes by it, and can be given more or less time then; this one is ended with titan \
             rollout abort or rollback"
        );
        Some(Problem::new(Code::BudgetExceeded, detail).at("/deadline", detail).hint(hint))
    }

    /// Returns a node as it stands, for those who look at what a step did.
    #[must_use]
    pub fn seen(&self, name: &Name) -> Option<&Node> {
        self.node(name)
    }
}
