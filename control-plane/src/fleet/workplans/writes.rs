//! Nodes that are written: when a plan is made, by its document, by workers.

use std::collections::BTreeMap;

use titan_api::{
    Code, Name, Problem, limits,
    workplans::{
        Condition, Event, NodeKind, NodeSpec, NodeState, PlanState, WorkPlanSpec, events::Counted, nodes::Goal,
    },
};

use super::{
    graph,
    steps::Stop,
    tally::{self, Link},
    working::{Todo, Working},
};

/// What to do where a plan takes something no more.
pub const AGAIN: &str = "delete the plan and apply it again, or give it another name";

impl Working {
    pub(super) fn make(&mut self, spec: &WorkPlanSpec, author: &str) -> Result<(), Stop> {
        self.need_whole()?;
        graph::check(&normalised(&spec.nodes), &|_| None, "/spec/nodes")?;
        let (author, at) = (author.to_owned(), self.wall);
        self.emit(Event::Made { spec: Box::new(spec.head()), author, at });
        self.write(&spec.nodes, "/spec/nodes")
    }

    pub(super) fn declare(&mut self, spec: &WorkPlanSpec, before: &WorkPlanSpec) -> Result<(), Stop> {
        self.need_whole()?;
        let goes = |name: &&Name| before.nodes.contains_key(*name) && !spec.nodes.contains_key(*name);
        let gone: Vec<_> = self.specs.keys().filter(goes).cloned().collect();
        // What signals changed meanwhile is not what the document says, and is left alone unless that changes.
        let (mut head, said) = (spec.head(), before.head());
        let changed = WorkPlanSpec { start: true, ..head.clone() } != WorkPlanSpec { start: true, ..said.clone() };
        if head.values == said.values {
            head.values.clone_from(&self.plan.head.values);
        }
        if head.deadline == said.deadline {
            head.deadline = self.plan.head.deadline;
        }
        if self.plan.state != PlanState::Planning && (changed || !gone.is_empty()) {
            let what = match gone.first() {
                Some(name) => format!("node {name} cannot be taken out"),
                None => "what it says beside its nodes cannot be changed".to_owned(),
            };
            let detail = format!("the plan is {} and {what}", self.plan.state);
            return Err(Problem::new(Code::ImmutableNode, detail)
                .hint(match self.plan.state.is_final() {
                    true => AGAIN.to_owned(),
                    false => {
                        format!("a plan that was started may grow, and update changes its values; otherwise {AGAIN}")
                    }
                })
                .into());
        }
        if head != self.plan.head && self.plan.state == PlanState::Planning {
            self.emit(Event::Declared { spec: Box::new(head) });
        }
        if !gone.is_empty() {
            // What others wrote meanwhile may wait for what goes.
            let mut left = self.specs.clone();
            left.retain(|name, _| !gone.contains(name));
            left.extend(normalised(&spec.nodes));
            graph::check(&left, &|_| None, "/spec/nodes")?;
        }
        for name in gone {
            self.forget(&name);
            self.emit(Event::Removed { node: name });
        }
        self.write(&spec.nodes, "/spec/nodes").map_err(|stop| match stop {
            Stop::Refused(problem) if problem.code == Code::ImmutableNode && problem.hint.is_none() => {
                problem.hint(AGAIN).into()
            }
            stop => stop,
        })
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

    pub(super) fn write(&mut self, nodes: &BTreeMap<Name, NodeSpec>, pointer: &str) -> Result<(), Stop> {
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
                    Goal::Final => !check.is_final(),
                };
                if !open && check.is_check() {
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
        if self.whole {
            let mut all = self.specs.clone();
            all.extend(changed.clone());
            graph::check(&all, &|_| None, pointer)?;
        } else {
            graph::check(changed, &|name| self.node(name).map(|node| &node.spec), pointer)?;
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
