//! What happens to a plan: writes of nodes, what workers say, time.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use titan_api::{
    Code, Name, Problem, limits,
    workplans::{
        AttemptState, Condition, Event, Executor, NodeKind, NodeSpec, NodeState, Outcome, PlanState, WorkPlanSpec,
        attempts::{ResultRequest, Verdict},
        events::Counted,
        nodes::Goal,
    },
};

use super::{
    flow::ITSELF,
    graph,
    plan::{Node, micros},
    signals::Told,
    tally::{self, Link},
    working::{Stop, Todo, Working},
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
        /// The nodes that it declared before: those that are not declared any more are to go.
        before: BTreeSet<Name>,
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
                    self.break_off(node, "interrupted", Some("the control plane was restarted".to_owned()), false);
                    self.failed(node, "interrupted", "the control plane was restarted");
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

    fn make(&mut self, spec: &WorkPlanSpec, author: &str) -> Result<(), Stop> {
        self.need_whole()?;
        graph::check(&normalised(&spec.nodes), &|_| None, "/spec/nodes")?;
        let (author, at) = (author.to_owned(), self.wall);
        self.emit(Event::Made { spec: Box::new(spec.head()), author, at });
        self.write(&spec.nodes, "/spec/nodes")
    }

    fn declare(&mut self, spec: &WorkPlanSpec, before: &BTreeSet<Name>) -> Result<(), Stop> {
        self.need_whole()?;
        let goes = |name: &&Name| before.contains(*name) && !spec.nodes.contains_key(*name);
        let gone: Vec<_> = self.specs.keys().filter(goes).cloned().collect();
        let head = spec.head();
        let changed =
            WorkPlanSpec { start: true, ..head.clone() } != WorkPlanSpec { start: true, ..self.plan.head.clone() };
        if self.plan.state != PlanState::Planning && (changed || !gone.is_empty()) {
            let what = match gone.first() {
                Some(name) => format!("node {name} cannot be taken out"),
                None => "what it says beside its nodes cannot be changed".to_owned(),
            };
            let detail = format!("the plan is {} and {what}", self.plan.state);
            return Err(Problem::new(Code::ImmutableNode, detail)
                .hint("a plan that was started may grow; its values are changed by the signal update")
                .into());
        }
        if self.plan.head != head && self.plan.state == PlanState::Planning {
            self.emit(Event::Declared { spec: Box::new(head) });
        }
        for name in gone {
            self.forget(&name);
            self.emit(Event::Removed { node: name });
        }
        self.write(&spec.nodes, "/spec/nodes")
    }

    /// Takes back what a node counts for others.
    fn forget(&mut self, name: &Name) {
        let Some(node) = self.node(name) else { return };
        for (other, what) in counts(&node.spec) {
            if self.node(&other).is_some() {
                self.emit(Event::Counted { node: other, what, by: -1, failed: false });
            }
        }
    }

    fn write(&mut self, nodes: &BTreeMap<Name, NodeSpec>, pointer: &str) -> Result<(), Stop> {
        let named = |spec: &NodeSpec| {
            let mut named: Vec<Name> = spec.answers.iter().map(|answers| answers.check.clone()).collect();
            named.extend(spec.parent.clone());
            named
        };
        let mut asked: Vec<Name> = nodes.keys().cloned().collect();
        for spec in nodes.values() {
            asked.extend(named(spec));
            if let Some(after) = &spec.after {
                after.each_edge(&mut |edge| asked.push(edge.node.clone()));
            }
        }
        self.need(&asked)?;
        let old = |name: &Name| self.node(name).is_some();
        let deep = |spec: &NodeSpec| named(spec).iter().any(|name| !nodes.contains_key(name) && old(name));
        let deadline = self.plan.head.deadline.filter(|_| self.plan.state != PlanState::Planning);
        if deadline.is_some() || nodes.iter().any(|(name, spec)| old(name) || deep(spec)) {
            self.need_whole()?;
        }
        let mut changed = normalised(nodes);
        for (name, spec) in &mut changed {
            spec.planning |= self.node(name).is_some_and(|node| node.planners > 0);
        }
        changed.retain(|name, spec| self.specs.get(name) != Some(spec));
        if changed.is_empty() {
            return Ok(());
        }
        self.may_write(&changed, pointer)?;
        if let Some(deadline) = deadline {
            let mut all = self.specs.clone();
            all.extend(changed.clone());
            graph::budget(&all, deadline.0)?;
        }
        for (name, spec) in &changed {
            self.forget(name);
            self.emit(Event::Written { node: name.clone(), spec: Box::new(spec.clone()) });
        }
        for (name, spec) in &changed {
            for (other, what) in counts(spec) {
                self.emit(Event::Counted { node: other, what, by: 1, failed: false });
            }
            for link in tally::links(name, spec) {
                if let Some(met) = self.settled(&link) {
                    self.todo.push_back(Todo::Resolve(link, met));
                }
            }
            self.todo.push_back(Todo::Begin(name.clone()));
        }
        Ok(())
    }

    /// Whether an edge is decided already by where its target is.
    fn settled(&self, link: &Link) -> Option<bool> {
        let target = self.node(&link.target)?;
        if link.condition == Condition::Begun {
            let begun = !matches!(target.state, NodeState::Planned | NodeState::Planning);
            return begun.then_some(true);
        }
        target.outcome.map(|outcome| link.condition.met_by(outcome))
    }

    fn may_write(&self, changed: &BTreeMap<Name, NodeSpec>, pointer: &str) -> Result<(), Stop> {
        let immutable = |name: &Name, detail: String| {
            let problem = Problem::new(Code::ImmutableNode, detail.clone()).at(format!("{pointer}/{name}"), detail);
            Err(Stop::from(problem))
        };
        let state = self.plan.state;
        if state.is_final() || self.plan.stops() {
            let detail = format!("the plan is {state}: it takes no nodes any more");
            return Err(Problem::new(Code::ImmutableNode, detail).into());
        }
        for (name, spec) in changed {
            if let Some(node) = self.node(name)
                && state != PlanState::Planning
                && node.state != NodeState::Planning
            {
                return immutable(name, format!("node {name} is {} and cannot be written anew", node.state));
            }
            if let Some(node) = self.node(name).filter(|node| node.spec.kind != spec.kind) {
                return immutable(name, format!("node {name} is a {} and stays one", node.spec.kind));
            }
            if let Some(parent) =
                spec.parent.as_ref().and_then(|parent| self.node(parent)).filter(|node| node.is_final())
            {
                return immutable(name, format!("its parent {} has ended", parent.name));
            }
            for answers in &spec.answers {
                let Some(check) = self.node(&answers.check).filter(|_| !changed.contains_key(&answers.check)) else {
                    continue;
                };
                let open = match answers.goal {
                    Goal::Planned => check.state == NodeState::Planning,
                    Goal::Final => !check.is_final() && check.spec.run.is_none(),
                };
                if check.spec.kind == NodeKind::Stage {
                    let detail = format!("node {} is a stage and asks nothing", check.name);
                    return Err(Problem::new(Code::Invalid, detail.clone())
                        .at(format!("{pointer}/{name}/answers"), detail)
                        .into());
                }
                if !open {
                    return immutable(
                        name,
                        format!("check {} is {} and takes no stage any more", check.name, check.state),
                    );
                }
            }
        }
        let added = changed.keys().filter(|name| self.node(name).is_none()).count();
        let all = usize::try_from(self.plan.nodes).unwrap_or(usize::MAX).saturating_add(added);
        if all > limits::PLAN_NODES {
            let detail = format!("{all} nodes; a plan has up to {}", limits::PLAN_NODES);
            return Err(Problem::new(Code::TooLarge, detail).into());
        }
        for (name, spec) in changed {
            let wrong = spec.answers.iter().find(|answers| {
                changed.get(&answers.check).is_some_and(|check| check.kind == NodeKind::Stage || check.run.is_some())
            });
            if let Some(answers) = wrong {
                let detail = format!("node {} is not a check that stages answer", answers.check);
                return Err(Problem::new(Code::Invalid, detail.clone())
                    .at(format!("{pointer}/{name}/answers"), detail)
                    .into());
            }
        }
        if self.whole {
            let mut all = self.specs.clone();
            all.extend(changed.clone());
            graph::check(&all, &|_| None, pointer)?;
        } else {
            graph::check(changed, &|name| self.node(name).map(|node| node.spec.compensation), pointer)?;
        }
        if state != PlanState::Planning {
            let mut all = if self.whole { self.specs.clone() } else { BTreeMap::new() };
            all.extend(changed.clone());
            if all.values().any(|spec| !spec.compensation) {
                graph::complete(&all, pointer)?;
            }
        }
        Ok(())
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

    /// Checks that an attempt is on its way and this process has it.
    fn held_by(&self, node: &Name, number: u32, uid: &str) -> Result<(), Stop> {
        let found = self.needed(node)?;
        let attempt = found.attempt.as_ref().filter(|attempt| attempt.number == number);
        let Some(attempt) = attempt else {
            return Err(Problem::not_found("attempt", format!("{number} of node {node}, or a later one began")).into());
        };
        match (&attempt.state, &attempt.uid) {
            (AttemptState::Running, Some(held)) if held == uid => Ok(()),
            (AttemptState::Running, _) => Err(taken(node, number)),
            (state, _) => {
                let detail = format!("attempt {number} of node {node} is {state}");
                Err(Problem::new(Code::InvalidTransition, detail).into())
            }
        }
    }

    fn claim(&mut self, node: &Name, number: u32, uid: &str) -> Result<(), Stop> {
        let found = self.needed(node)?;
        match found.attempt.as_ref().filter(|attempt| attempt.number == number) {
            Some(attempt) if attempt.state == AttemptState::Running && attempt.uid.as_deref() == Some(uid) => Ok(()),
            Some(attempt) if attempt.state == AttemptState::Scheduled && self.plan.goes_on() => {
                self.attempted(node, number, AttemptState::Running, |event| {
                    if let Event::Attempt { process_uid, .. } = event {
                        *process_uid = Some(uid.to_owned());
                    }
                });
                Ok(())
            }
            Some(attempt) if attempt.state == AttemptState::Scheduled => {
                Err(wrong_state(self.plan.state, "begin anything"))
            }
            _ => Err(taken(node, number)),
        }
    }

    fn beat(&mut self, node: &Name, number: u32, uid: &str) -> Result<(), Stop> {
        self.held_by(node, number, uid)?;
        let now = self.now();
        if let Some(attempt) = self.node_mut(node).and_then(|node| node.attempt.as_mut()) {
            attempt.beat = now;
        }
        Ok(())
    }

    fn finished(&mut self, finished: &Finished) -> Result<(), Stop> {
        let Finished { node, number, uid, .. } = finished;
        let repeated = self.needed(node)?.attempt.as_ref().is_some_and(|attempt| {
            attempt.number == *number && attempt.state == AttemptState::Complete && attempt.uid.as_ref() == Some(uid)
        });
        if repeated && finished.end.is_ok() {
            return Ok(());
        }
        self.held_by(node, *number, uid)?;
        let answers = self.node(node).map(|node| node.spec.answers.clone()).unwrap_or_default();
        self.need(answers.iter().map(|answers| &answers.check))?;
        self.answers(node, *number, &finished.results)?;
        match &finished.end {
            Ok(verdict) => {
                let given: Vec<_> = finished.results.iter().map(|result| &result.check).collect();
                let answered =
                    self.node(node).and_then(|node| node.attempt.as_ref()).is_some_and(|attempt| attempt.answered);
                let silent =
                    answers.iter().filter(|answers| answers.goal == Goal::Final && !given.contains(&&answers.check));
                let failure = (*verdict != Verdict::Passed)
                    .then(|| finished.message.clone().unwrap_or_else(|| format!("{node} failed")));
                let implied: Vec<_> = silent
                    .filter(|_| !answered || !given.is_empty())
                    .map(|answers| ResultRequest {
                        check: answers.check.clone(),
                        data: Value::Null,
                        failure_message: failure.clone(),
                    })
                    .collect();
                self.answers(node, *number, &implied)?;
                self.complete(node, *number, *verdict, finished.message.clone(), finished.details.clone());
            }
            Err(code) => {
                let message = finished.message.clone().unwrap_or_else(|| code.clone());
                self.break_off(node, code, Some(message.clone()), true);
                self.failed(node, code, &message);
            }
        }
        Ok(())
    }

    /// Takes answers of an attempt. One that comes too late is written down and changes nothing.
    fn answers(&mut self, node: &Name, number: u32, results: &[ResultRequest]) -> Result<(), Stop> {
        self.need(results.iter().map(|result| &result.check))?;
        let assigned = self.node(node).map(|node| node.spec.answers.clone()).unwrap_or_default();
        for result in results {
            let Some(check) = self.node(&result.check) else {
                return Err(Problem::not_found("node", &result.check).into());
            };
            if !assigned.iter().any(|answers| answers.check == result.check) {
                let detail = format!("{node} does not answer {}", result.check);
                return Err(Problem::new(Code::Invalid, detail.clone()).at("/results", detail).into());
            }
            if check.state == NodeState::Planning {
                let detail = format!("check {} is still being planned and takes no results", result.check);
                return Err(Problem::new(Code::InvalidTransition, detail).into());
            }
            let late = check.is_final();
            self.late |= late;
            self.emit(Event::Result {
                node: result.check.clone(),
                owner: format!("{node}/{number}"),
                failure_message: result.failure_message.clone(),
                data: result.data.clone(),
                late,
            });
        }
        if !results.is_empty() {
            self.emit(Event::Answered { node: node.clone() });
        }
        Ok(())
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

    fn lapse(&mut self, name: &Name, code: &str, message: &str, counts: bool) {
        self.break_off(name, code, Some(message.to_owned()), counts);
        self.failed(name, code, message);
    }

    fn child(&mut self, node: &Name, number: u32, state: PlanState, reason: Option<&String>) -> Result<(), Stop> {
        self.need([node])?;
        let running = |attempt: &&super::Attempt| {
            attempt.number == number && attempt.state == AttemptState::Running && attempt.uid.as_deref() == Some(ITSELF)
        };
        if self.node(node).and_then(Node::live).filter(running).is_none() {
            return Ok(());
        }
        let (verdict, message) = match state {
            PlanState::Succeeded => (Verdict::Passed, None),
            state => {
                let because = reason.map_or_else(String::new, |reason| format!(": {reason}"));
                (Verdict::Failed, Some(format!("its plan is {state}{because}")))
            }
        };
        self.complete(node, number, verdict, message, None);
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

/// Returns whom a node counts for, and what.
fn counts(spec: &NodeSpec) -> Vec<(Name, Counted)> {
    let what = |goal: Goal| if goal == Goal::Planned { Counted::Planners } else { Counted::Answerers };
    let mut counts: Vec<_> = spec.answers.iter().map(|answers| (answers.check.clone(), what(answers.goal))).collect();
    counts.extend(spec.parent.clone().map(|parent| (parent, Counted::Children)));
    counts
}

/// Returns nodes in their canonical form: groups normalised, checks that stages put together still in planning.
fn normalised(nodes: &BTreeMap<Name, NodeSpec>) -> BTreeMap<Name, NodeSpec> {
    let planned = |name: &Name| {
        let plans =
            |answers: &titan_api::workplans::nodes::Answers| answers.goal == Goal::Planned && answers.check == *name;
        nodes.values().any(|spec| spec.answers.iter().any(plans))
    };
    let some_plan = nodes.values().any(|spec| spec.answers.iter().any(|answers| answers.goal == Goal::Planned));
    let each = nodes.iter().map(|(name, spec)| {
        let mut spec = spec.clone();
        spec.after = spec.after.map(titan_api::workplans::Group::normalised);
        spec.planning |= spec.kind == NodeKind::Check && some_plan && planned(name);
        (name.clone(), spec)
    });
    each.collect()
}

pub(super) fn wrong_state(state: PlanState, what: &str) -> Stop {
    Problem::new(Code::InvalidTransition, format!("the plan is {state} and cannot {what}")).into()
}

fn taken(node: &Name, number: u32) -> Stop {
    Problem::new(Code::AttemptTaken, format!("attempt {number} of node {node} is not free, or another process has it"))
        .into()
}
