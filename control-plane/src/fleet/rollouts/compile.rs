//! Compiling: the plan that follows from a strategy.
//!
//! `preflight`, then for each stage a node of its name and its checks `NAME-check-1`, `NAME-check-2`, each waiting for what
//! is before it; and a compensation `roll-back`, which also a person may ask for.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use titan_api::{
    Name, limits,
    selectors::{Operator, Requirement, Selector},
    shares::Share,
    spans::Span,
    strategies::{
        OnFailure, ReleaseStage, ReleaseStep, Stage, Strategy,
        releases::{Back, Preflight},
    },
    workplans::{
        Condition, Edge, Executor, Group, NodeKind, NodeSpec, OnPlanFailure, WorkPlanSpec,
        nodes::OnNodeFailure,
        policies::{Retry, Timeouts},
    },
};

/// The name of the check that comes before all stages.
pub const PREFLIGHT: &str = "preflight";
/// The name of the compensation that takes the release back.
pub const ROLL_BACK: &str = "roll-back";

/// Returns the plan of a strategy for a deployment on `hosts` hosts; without a strategy, that of
/// [the usual one](Strategy::usual). `values` returns the values in use of a label among these hosts.
///
/// A stage ends by its own rules, so without a deadline its timeout is the longest there is. With one, each stage may take
/// `progressDeadline` and `minReadySeconds` once for as often as `maxUnavailable` goes into its hosts; the time in which
/// windows are closed counts.
#[must_use]
pub fn compile(strategy: Option<&Strategy>, hosts: u64, values: impl Fn(&str) -> Vec<String>) -> WorkPlanSpec {
    let usual;
    let strategy = match strategy {
        Some(strategy) => strategy,
        None => {
            usual = Strategy::usual(hosts);
            &usual
        }
    };
    let mut plan =
        Compiler { strategy, hosts, names: BTreeSet::new(), nodes: BTreeMap::new(), after: None, reached: 0 };
    plan.reserve();
    plan.preflight();
    for (index, stage) in strategy.stages.iter().enumerate() {
        match &stage.by {
            Some(label) => plan.by(stage, label, values(label), index + 1 == strategy.stages.len()),
            None => plan.stage(stage, &stage.name, stage.selector.clone()),
        }
    }
    plan.roll_back();
    let on_failure = match strategy.on_failure {
        OnFailure::Rollback => OnPlanFailure::Rollback,
        OnFailure::Pause | OnFailure::Continue => OnPlanFailure::Fail,
    };
    WorkPlanSpec { deadline: strategy.deadline, on_failure, nodes: plan.nodes, ..WorkPlanSpec::default() }
}

struct Compiler<'a> {
    strategy: &'a Strategy,
    hosts: u64,
    names: BTreeSet<Name>,
    nodes: BTreeMap<Name, NodeSpec>,
    /// What the next stage waits for.
    after: Option<Group>,
    /// How many hosts the stages before reach at least.
    reached: u64,
}

impl Compiler<'_> {
    /// Keeps the names that people gave for what they named.
    fn reserve(&mut self) {
        self.names.extend([PREFLIGHT, ROLL_BACK].map(|name| Name::like(name, limits::NAME_BYTES)));
        self.names.extend(self.strategy.stages.iter().map(|stage| stage.name.clone()));
    }

    /// Returns a name like `text` that is free.
    fn name(&mut self, text: &str, most: usize) -> Name {
        let mut name = Name::like(text, most);
        let mut number = 1;
        while !self.names.insert(name.clone()) {
            number += 1;
            let ending = format!("-{number}");
            name = Name::like(&format!("{}{ending}", Name::like(text, most - ending.len())), most);
        }
        name
    }

    fn preflight(&mut self) {
        let max_failures = self.strategy.max_failures;
        // What cannot fail need not be asked.
        if max_failures == Share::ALL {
            return;
        }
        let name = Name::like(PREFLIGHT, limits::NAME_BYTES);
        let step = ReleaseStep::Preflight(Preflight { max_failures });
        let limit = self.strategy.progress_deadline;
        self.node(&name, NodeKind::Check, Executor::Release(step), Some(limit));
        self.after = Some(self.once_over(&name));
    }

    /// One stage for each value of a label, in their order; as the last stage, one more for all other hosts.
    fn by(&mut self, stage: &Stage, label: &str, mut values: Vec<String>, last: bool) {
        values.sort_unstable();
        values.dedup();
        values.truncate(limits::STAGE_VALUES);
        for value in &values {
            let name = self.name(&format!("{}-{value}", stage.name), limits::STAGE_NAME_BYTES);
            let selector = Selector::labels(BTreeMap::from([(label.to_owned(), value.clone())]));
            self.stage(stage, &name, Some(selector));
        }
        if last {
            let (operator, values) = (Operator::NotIn, values);
            let others = Requirement { key: label.to_owned(), operator, values };
            let selector = (!others.values.is_empty())
                .then(|| Selector { match_expressions: vec![others], ..Selector::default() });
            let name = self.name(&format!("{}-others", stage.name), limits::STAGE_NAME_BYTES);
            self.stage(stage, &name, selector);
        }
    }

    fn stage(&mut self, stage: &Stage, name: &Name, selector: Option<Selector>) {
        let hosts = stage.hosts.unwrap_or(Share::ALL);
        // Of how many of the hosts a selector speaks is known when the stage begins.
        let members = if selector.is_none() {
            let reached = hosts.at_least(self.hosts).max(self.reached);
            let members = reached - self.reached;
            self.reached = reached;
            Some(members)
        } else {
            None
        };
        let strategy = self.strategy;
        let limit = match strategy.deadline {
            None => limits::PLAN_SPAN_MOST,
            Some(_) => {
                let once = strategy.progress_deadline.0 + Duration::from_secs(stage.min_ready_seconds.into());
                let waves = waves(stage.max_unavailable, members, self.hosts);
                once.saturating_mul(waves).min(limits::PLAN_SPAN_MOST)
            }
        };
        let windows = if stage.windows.is_empty() { &strategy.windows } else { &stage.windows };
        let step = ReleaseStage {
            stage: name.clone(),
            selector,
            hosts,
            min_ready_seconds: stage.min_ready_seconds,
            max_unavailable: stage.max_unavailable,
            max_failures: stage.max_failures.unwrap_or(strategy.max_failures),
            progress_deadline: strategy.progress_deadline,
            offline: strategy.offline,
            windows: windows.clone(),
        };
        let run = Executor::Release(ReleaseStep::Stage(Box::new(step)));
        self.node(name, NodeKind::Stage, run, Some(Span(limit)));
        let over = self.once_over(name);
        if stage.checks.is_empty() {
            self.after = Some(over);
            return;
        }
        // What a check refused stays closed, whatever becomes of stages.
        let mut edges = Vec::new();
        self.after = Some(over);
        for (number, check) in (1..).zip(&stage.checks) {
            let name = self.name(&format!("{name}-check-{number}"), limits::NAME_BYTES);
            self.node(&name, NodeKind::Check, check.clone(), None);
            edges.push(Edge::from(name));
        }
        self.after = Some(Group { edges, ..Group::default() });
    }

    /// Returns what is met once a node has passed, or with `onFailure: continue` once it has passed or failed. One that was
    /// left out, since a check before it refused, is neither.
    fn once_over(&self, name: &Name) -> Group {
        let passed = Edge::from(name.clone());
        if self.strategy.on_failure != OnFailure::Continue {
            return Group { edges: vec![passed], ..Group::default() };
        }
        let failed = Edge { node: name.clone(), condition: Condition::Failed };
        Group { edges: vec![passed, failed], threshold: Some(1), ..Group::default() }
    }

    /// Adds a node that begins once all before it is over. `limit` is that of a step of the release, which is made once: a
    /// stage judges its hosts itself.
    fn node(&mut self, name: &Name, kind: NodeKind, run: Executor, limit: Option<Span>) {
        let on_failure = match self.strategy.on_failure {
            OnFailure::Pause => OnNodeFailure::Pause,
            OnFailure::Rollback | OnFailure::Continue => OnNodeFailure::Fail,
        };
        let retry = if limit.is_some() { Retry { attempts: 1, ..Retry::default() } } else { Retry::default() };
        let timeouts = Timeouts { per_attempt: limit, ..Timeouts::default() };
        let node = NodeSpec {
            kind,
            after: self.after.clone(),
            run: Some(run),
            retry,
            timeouts,
            on_failure,
            ..NodeSpec::default()
        };
        self.nodes.insert(name.clone(), node);
    }

    fn roll_back(&mut self) {
        let back = Back { progress_deadline: self.strategy.progress_deadline, offline: self.strategy.offline };
        let node = NodeSpec {
            run: Some(Executor::Release(ReleaseStep::Back(back))),
            retry: Retry { attempts: 1, ..Retry::default() },
            timeouts: Timeouts { per_attempt: Some(Span(limits::PLAN_SPAN_MOST)), ..Timeouts::default() },
            compensation: true,
            ..NodeSpec::default()
        };
        self.nodes.insert(Name::like(ROLL_BACK, limits::NAME_BYTES), node);
    }
}

/// Returns how often `maxUnavailable` goes into the hosts of a stage, at most if it is not known how many they are.
fn waves(max_unavailable: Share, members: Option<u64>, hosts: u64) -> u32 {
    let of = |members: u64| members.div_ceil(max_unavailable.at_most(members).max(1)).max(1);
    let waves = match (members, max_unavailable) {
        (Some(members), _) => of(members),
        (None, Share::Count(_)) => of(hosts),
        // Of a few hosts a part is rounded down to one: just below twice a hundredth part it goes in most often.
        (None, Share::Percent(percent)) => {
            let most = 200_u64.div_ceil(u64::from(percent.max(1))).saturating_sub(1).max(1);
            (1..=hosts.min(most)).map(of).max().unwrap_or(1).max(of(hosts))
        }
    };
    u32::try_from(waves).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
