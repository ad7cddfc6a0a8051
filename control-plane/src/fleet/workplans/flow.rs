//! The flow: what follows when a node begins or ends, until nothing follows any more.

mod attempts;

use titan_api::{
    Name,
    workplans::{
        AttemptState, Event, Executor, NodeKind, NodeState, Outcome, PlanState, attempts::Verdict, events::Counted,
        nodes::Goal,
    },
};

pub use self::attempts::{INTERRUPTED, ITSELF, child_id, is_reserved};
use super::{
    nodes::Node,
    steps::{Listing, Order, Stop},
    tally::Link,
    working::{Todo, Working},
};

impl Working {
    pub(super) fn perform(&mut self, todo: &Todo) -> Result<(), Stop> {
        match todo {
            Todo::Input(input) => self.input(input),
            Todo::Resolve(link, met) => self.resolve(link, *met),
            Todo::Begin(name) => self.begin(name),
            Todo::End(name, outcome, message) => self.end(name, *outcome, message.as_ref()),
            Todo::Check(name) => self.check(name),
            Todo::Children(name) => self.children(name),
            Todo::Votes(name) => self.votes(name),
            Todo::Stop { state, reason, ending } => self.stop(*state, reason.as_ref(), *ending),
            Todo::Resume(reason) => self.resume(reason.as_ref()),
            Todo::Undo => {
                let ready = self.listed(Listing::Ready)?;
                self.todo.extend(ready.into_iter().map(Todo::Begin));
                Ok(())
            }
            Todo::LeaveOut => {
                for name in self.listed(Listing::Open)? {
                    self.todo.push_back(Todo::End(
                        name,
                        Outcome::Skipped,
                        Some("there was nothing to undo".to_owned()),
                    ));
                }
                Ok(())
            }
        }
    }

    /// Says what the plan comes to when nothing is left to do.
    pub(super) fn settle(&mut self) -> Result<(), Stop> {
        let plan = &self.plan;
        let end = |working: &mut Self, state, reason: Option<String>| {
            let wall = working.wall;
            working.emit(Event::Plan { state, reason, wall, ending: None });
        };
        match plan.state {
            PlanState::Paused if plan.by_hold && plan.held == 0 => {
                self.todo.push_back(Todo::Resume(None));
            }
            PlanState::Running if plan.open == 0 => {
                let undo = plan.failures > 0
                    && plan.compensations > 0
                    && plan.head.on_failure == titan_api::workplans::OnPlanFailure::Rollback;
                // Of what failed before it was kept why, nobody knows it any more.
                let why = || plan.failure.as_ref().map_or("something that had to pass did not", |told| &told.text);
                if undo {
                    let reason = Some(why().to_owned());
                    self.todo.push_back(Todo::Stop { state: PlanState::RollingBack, reason, ending: None });
                } else if plan.compensations > 0 {
                    self.todo.push_back(Todo::LeaveOut);
                } else if plan.failures > 0 {
                    let reason = Some(why().to_owned());
                    end(self, PlanState::Failed, reason);
                } else {
                    end(self, PlanState::Succeeded, None);
                }
            }
            PlanState::Aborting if plan.open == 0 => {
                if plan.compensations > 0 {
                    self.todo.push_back(Todo::LeaveOut);
                } else {
                    let state = plan.ending.unwrap_or(PlanState::Aborted);
                    end(self, state, None);
                }
            }
            PlanState::RollingBack if plan.open == 0 => {
                if plan.compensations == 0 {
                    let state = if plan.undone_badly > 0 { PlanState::Failed } else { PlanState::RolledBack };
                    end(self, state, None);
                } else if self
                    .listed(Listing::Ready)?
                    .iter()
                    .any(|name| self.node(name).is_some_and(|node| self.may_begin(node)))
                {
                    self.todo.push_back(Todo::Undo);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn resolve(&mut self, link: &Link, met: bool) -> Result<(), Stop> {
        self.need([&link.source])?;
        let Some(node) = self.node(&link.source).filter(|node| !node.is_final()) else { return Ok(()) };
        let before = node.groups.first().is_some_and(|root| root.is_met() || root.is_lost());
        self.emit(Event::Edge {
            node: link.source.clone(),
            target: link.target.clone(),
            condition: link.condition,
            group: link.group,
            met,
        });
        let root = self.node(&link.source).and_then(|node| node.groups.first().copied());
        match root {
            _ if before => {}
            Some(root) if root.is_met() => self.todo.push_back(Todo::Begin(link.source.clone())),
            Some(root) if root.is_lost() => {
                let message = format!("{} will never be {}", link.target, link.condition.as_str());
                self.todo.push_back(Todo::End(link.source.clone(), Outcome::Skipped, Some(message)));
            }
            _ => {}
        }
        Ok(())
    }

    fn may_begin(&self, node: &Node) -> bool {
        let turn = match self.plan.state {
            PlanState::Running => !node.spec.compensation,
            PlanState::RollingBack => node.spec.compensation && self.plan.open == 0,
            _ => false,
        };
        turn && node.state == NodeState::Planned && node.is_ready()
    }

    fn begin(&mut self, name: &Name) -> Result<(), Stop> {
        self.need([name])?;
        let Some(node) = self.node(name).filter(|node| self.may_begin(node)) else { return Ok(()) };
        if node.children > 0 {
            self.need_links(name)?;
        }
        let (check, run) = (node.is_check(), node.spec.run.is_some());
        let state = if check { NodeState::Waiting } else { NodeState::Attempting };
        let at = self.now();
        self.emit(Event::Node { node: name.clone(), state, outcome: None, message: None, at });
        let begun: Vec<_> = self.waiting(name, true).into_iter().map(|link| Todo::Resolve(link, true)).collect();
        self.todo.extend(begun);
        match (check, run) {
            (_, true) => self.attempt(name, at),
            (true, false) => self.todo.push_back(Todo::Check(name.clone())),
            (false, false) => self.done(name, true, None),
        }
        Ok(())
    }

    /// The own work of a node is done; a stage still waits for its children.
    pub(super) fn done(&mut self, name: &Name, passed: bool, message: Option<String>) {
        let outcome = if passed { Outcome::Passed } else { Outcome::Failed };
        let Some(node) = self.node(name) else { return };
        if node.spec.kind == NodeKind::Stage && node.children > 0 {
            let at = self.now();
            let (state, outcome) = (NodeState::AwaitingGroup, Some(outcome));
            self.emit(Event::Node { node: name.clone(), state, outcome, message, at });
        } else {
            let failed = node.child_failed && passed;
            let outcome = if failed { Outcome::Failed } else { outcome };
            let message = if failed { Some("a child failed".to_owned()) } else { message };
            self.todo.push_back(Todo::End(name.clone(), outcome, message));
        }
    }

    /// A node waits for a person, and the plan with it.
    pub(super) fn hold(&mut self, name: &Name, message: &str) {
        self.emit(Event::Held { node: name.clone(), held: true, message: Some(message.to_owned()) });
        if self.plan.state == PlanState::Running {
            let reason = Some(format!("{name} waits for a person: {message}"));
            let (state, wall) = (PlanState::Paused, self.wall);
            self.emit(Event::Plan { state, reason, wall, ending: None });
        }
    }

    fn end(&mut self, name: &Name, outcome: Outcome, message: Option<&String>) -> Result<(), Stop> {
        self.need([name])?;
        let Some(node) = self.node(name).filter(|node| !node.is_final()) else { return Ok(()) };
        self.need_links(name)?;
        self.need(node.spec.answers.iter().map(|answers| &answers.check).chain(&node.spec.parent))?;
        let begun = !matches!(node.state, NodeState::Planned | NodeState::Planning);
        let (answers, parent, optional) = (node.spec.answers.clone(), node.spec.parent.clone(), node.spec.optional);
        let failed = outcome == Outcome::Failed;
        if node.live().is_some() {
            let code = if outcome == Outcome::Overridden { "skipped" } else { "cancelled" };
            self.break_off(name, code, None, false);
        }
        let (state, at) = (NodeState::Final, self.now());
        let (node, message) = (name.clone(), message.cloned());
        self.emit(Event::Node { node, state, outcome: Some(outcome), message, at });
        for link in self.waiting(name, false) {
            let met = link.condition.met_by(outcome);
            self.todo.push_back(Todo::Resolve(link, met));
        }
        if !begun {
            let never: Vec<_> = self.waiting(name, true).into_iter().map(|link| Todo::Resolve(link, false)).collect();
            self.todo.extend(never);
        }
        for answers in answers {
            if self.node(&answers.check).is_none_or(Node::is_final) {
                continue;
            }
            let what = if answers.goal == Goal::Planned { Counted::Planners } else { Counted::Answerers };
            let given = self
                .node(name)
                .and_then(|node| node.attempt.as_ref())
                .is_some_and(|attempt| attempt.gave(&answers.check));
            let failed = failed && !given && !optional;
            self.emit(Event::Counted { node: answers.check.clone(), what, by: -1, failed });
            self.todo.push_back(Todo::Check(answers.check));
        }
        if let Some(parent) = parent.filter(|parent| self.node(parent).is_some_and(|node| !node.is_final())) {
            let failed = failed && !optional;
            self.emit(Event::Counted { node: parent.clone(), what: Counted::Children, by: -1, failed });
            self.todo.push_back(Todo::Children(parent));
        }
        Ok(())
    }

    /// A check moves on once no stage is left that would bring it further.
    fn check(&mut self, name: &Name) -> Result<(), Stop> {
        self.need([name])?;
        let Some(node) = self.node(name) else { return Ok(()) };
        match node.state {
            NodeState::Planning if node.planners == 0 => {
                let (state, at) = (NodeState::Planned, self.now());
                self.emit(Event::Node { node: name.clone(), state, outcome: None, message: None, at });
                self.todo.push_back(Todo::Begin(name.clone()));
            }
            NodeState::Waiting if node.spec.run.is_none() && node.answerers == 0 => {
                let (outcome, message) = match (node.no, node.unanswered, node.yes) {
                    (0, 0, 0) => (Outcome::Failed, Some("no stage answered it".to_owned())),
                    (0, 0, _) => (Outcome::Passed, None),
                    (0, ..) => (Outcome::Failed, Some("a stage that was to answer it could not".to_owned())),
                    _ => (Outcome::Failed, node.first_no.clone()),
                };
                self.todo.push_back(Todo::End(name.clone(), outcome, message));
            }
            _ => {}
        }
        Ok(())
    }

    /// A stage ends once its children have.
    fn children(&mut self, name: &Name) -> Result<(), Stop> {
        self.need([name])?;
        let Some(node) = self.node(name) else { return Ok(()) };
        if node.state == NodeState::AwaitingGroup && node.children == 0 {
            let (passed, message) = node.own.clone().unwrap_or((true, None));
            let (outcome, message) = match (self.plan.stops() && !node.spec.compensation, passed, node.child_failed) {
                (true, ..) => (Outcome::Cancelled, message),
                (_, true, false) => (Outcome::Passed, message),
                (_, true, true) => (Outcome::Failed, Some("a child failed".to_owned())),
                _ => (Outcome::Failed, message),
            };
            self.todo.push_back(Todo::End(name.clone(), outcome, message));
        }
        Ok(())
    }

    /// A gate opens once enough people said so and it is its turn.
    fn votes(&mut self, name: &Name) -> Result<(), Stop> {
        self.need([name])?;
        let Some(node) = self.node(name) else { return Ok(()) };
        let Some(Executor::Approval(approval)) = &node.spec.run else { return Ok(()) };
        let running = node.live().filter(|attempt| attempt.state == AttemptState::Running);
        if let Some(attempt) = running
            && node.votes.len() >= approval.minimum as usize
        {
            let (number, message) = (attempt.number, format!("approved by {}", node.votes.join(", ")));
            self.complete(name, number, Verdict::Passed, Some(message), None);
        }
        Ok(())
    }

    fn stop(&mut self, state: PlanState, reason: Option<&String>, ending: Option<PlanState>) -> Result<(), Stop> {
        let open = self.listed(Listing::Open)?;
        self.emit(Event::Plan { state, reason: reason.cloned(), wall: self.wall, ending });
        for name in open {
            let Some(node) = self.node(&name).filter(|node| !node.spec.compensation) else { continue };
            let running = node.live().filter(|attempt| attempt.state == AttemptState::Running);
            let worker = matches!(node.spec.run, Some(Executor::External(_) | Executor::Plan(_)));
            if running.is_some() && worker {
                // Whoever is at it is told, cleans up, and ends it; but not for ever.
                let child = node.child.filter(|_| matches!(node.spec.run, Some(Executor::Plan(_))));
                let at = self.now();
                self.emit(Event::Cancelling { node: name, at });
                self.orders.extend(child.map(Order::StopChild));
            } else {
                self.todo.push_back(Todo::End(name, Outcome::Cancelled, reason.cloned()));
            }
        }
        Ok(())
    }

    pub(super) fn resume(&mut self, reason: Option<&String>) -> Result<(), Stop> {
        let ready = self.listed(Listing::Ready)?;
        let state = PlanState::Running;
        self.emit(Event::Plan { state, reason: reason.cloned(), wall: self.wall, ending: None });
        self.todo.extend(ready.into_iter().map(Todo::Begin));
        Ok(())
    }
}
