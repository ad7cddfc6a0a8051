//! Graphs: the way of a deployment's newest release from a commit of its source to the hosts.

use std::collections::{BTreeMap, BTreeSet};

use titan_api::{
    Kind, Name, Revision,
    changes::Operation,
    pipelines::{Build, BuildState, PipelineLog, Source},
    status::graph::{Step, StepKind, StepState},
    workplans::{Group, NodeKind, NodeState, NodeView, Outcome, PlanState, PlanStatus},
};

use crate::{
    fleet::pipelines::{self, Origin},
    store::Release,
};

/// How many characters of a commit name it.
const SHORT: usize = 12;

/// Who last changed a document, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch {
    /// The document's kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What happened to it.
    pub operation: Operation,
    /// Who did it.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// When.
    pub revision: Revision,
}

/// What is known of a deployment.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// What pipelines reported of its workload.
    pub log: &'a PipelineLog,
    /// The newest change that went into its newest release, or that will go into its first.
    pub change: Option<&'a Touch>,
    /// The newest release and its name.
    pub release: Option<(&'a Release, &'a str)>,
    /// The plan that hands it out.
    pub plan: Option<&'a PlanStatus>,
    /// The plan's nodes.
    pub nodes: &'a [NodeView],
    /// When this is asked.
    pub now: Revision,
}

/// Returns how long ago something was, in seconds.
#[must_use]
pub fn age(at: Revision, now: Revision) -> u64 {
    u64::try_from((now.micros() - at.micros()) / 1_000_000).unwrap_or_default()
}

/// Returns the steps in order: what a step follows from comes before it.
#[must_use]
pub fn steps(known: Known<'_>) -> Vec<Step> {
    let inputs: serde_json::Value =
        known.release.and_then(|(release, _)| serde_json::from_str(&release.inputs).ok()).unwrap_or_default();
    let origin = if known.release.is_some() { pipelines::origin(known.log, &inputs) } else { Origin::default() };
    let mut steps = made(known.log, origin);
    let made = match (origin.build, origin.source) {
        (Some(build), _) => Some(build_id(build)),
        (None, Some(source)) => Some(source_id(source)),
        (None, None) => None,
    };
    let change = known.change.map(|touch| {
        let reason = touch.reason.as_deref().map_or_else(String::new, |reason| format!(": {reason}"));
        let done = if known.release.is_some() { StepState::Done } else { StepState::Running };
        let mut step = step(StepKind::Change, format!("{}/{}", touch.kind, touch.name), done, Some(touch.revision));
        step.after.extend(made.clone());
        let what = match touch.operation {
            Operation::Create => "created",
            Operation::Delete => "deleted",
            _ => "changed",
        };
        step.message = Some(format!("{what} by {}{reason}", touch.actor));
        step
    });
    let before = change.as_ref().map(|change| change.id.clone()).or(made);
    steps.extend(change);
    if let Some((release, name)) = known.release {
        let at = known.plan.map_or(release.revision, |plan| plan.finished_at.unwrap_or(plan.created_at));
        let state = known.plan.map_or(StepState::Done, |plan| of_plan(plan.state));
        let mut step = step(StepKind::Release, name.to_owned(), state, Some(at));
        step.after.extend(before);
        step.version = inputs["context"]["workload"]["version"].as_str().map(str::to_owned);
        step.message = known.plan.and_then(|plan| match (&plan.reason, plan.state) {
            (None, PlanState::Paused) => Some("paused".to_owned()),
            (reason, _) => reason.clone(),
        });
        let id = step.id.clone();
        steps.push(step);
        steps.extend(of_nodes(known.nodes, &id));
    }
    for step in &mut steps {
        step.age_seconds = step.at.map(|at| age(at, known.now));
    }
    steps
}

/// The steps that gave hosts the newest release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Givers {
    /// The stages by their end, those that go on last; each with its end and its id.
    stages: Vec<(Option<Revision>, String)>,
    /// The id of the release, for hosts that no stage gave it.
    release: String,
}

impl Givers {
    /// Returns the steps, or nothing if there is no release.
    #[must_use]
    pub fn of(known: Known<'_>) -> Option<Self> {
        let (_, release) = known.release?;
        let gives = |node: &&NodeView| node.kind == NodeKind::Stage && !node.spec.compensation && has_begun(node);
        let mut stages: Vec<(Option<Revision>, String)> = known
            .nodes
            .iter()
            .filter(gives)
            .map(|node| (node.outcome.map(|_| node.updated_at), node_id(node)))
            .collect();
        stages.sort_by(|(one, a), (other, b)| (one.is_none(), one, a).cmp(&(other.is_none(), other, b)));
        Some(Self { stages, release: StepKind::Release.id(release) })
    }

    /// Returns the id of the step that gave a host the release at `revision`: stages go one after the other, so it is the
    /// first that had not ended by then.
    #[must_use]
    pub fn at(&self, revision: Revision) -> &str {
        let open = self.stages.partition_point(|(end, _)| end.is_some_and(|end| end < revision));
        self.stages.get(open).or(self.stages.last()).map_or(&self.release, |(_, id)| id)
    }
}

fn step(kind: StepKind, name: String, state: StepState, at: Option<Revision>) -> Step {
    Step {
        id: kind.id(&name),
        kind,
        name,
        state,
        no_op: false,
        left_out: 0,
        after: Vec::new(),
        at,
        age_seconds: None,
        message: None,
        commit: None,
        version: None,
        artifact: None,
        url: None,
    }
}

fn short(commit: &str) -> String {
    commit.chars().take(SHORT).collect()
}

fn source_id(source: &Source) -> String {
    StepKind::Source.id(&short(&source.report.commit))
}

fn build_id(build: &Build) -> String {
    StepKind::Build.id(&build.report.id)
}

/// Returns the commits and builds that matter: what the release runs, and the newest of each.
fn made(log: &PipelineLog, origin: Origin<'_>) -> Vec<Step> {
    let newest = log.sources.first();
    let its = newest.and_then(|source| {
        log.builds.iter().find(|build| pipelines::source_of(log, &build.report.commit) == Some(source))
    });
    let mut builds: Vec<&Build> = [origin.build, log.builds.first(), its].into_iter().flatten().collect();
    builds.sort_by(|one, other| (one.began_at, &one.report.id).cmp(&(other.began_at, &other.report.id)));
    builds.dedup();
    let of_builds = builds.iter().filter_map(|build| pipelines::source_of(log, &build.report.commit));
    let mut sources: Vec<&Source> = [origin.source, newest].into_iter().flatten().chain(of_builds).collect();
    sources.sort_by(|one, other| (one.seen_at, &one.report.commit).cmp(&(other.seen_at, &other.report.commit)));
    sources.dedup();
    let mut steps = Vec::new();
    for source in sources {
        let report = &source.report;
        let mut step = step(StepKind::Source, short(&report.commit), StepState::Done, Some(source.seen_at));
        step.commit = Some(report.commit.clone());
        step.url.clone_from(&report.url);
        let by = report.author.as_ref().map(|author| format!("by {author}"));
        let on = report.branch.as_ref().map(|branch| format!("on {branch}"));
        let says = report.message.as_ref().and_then(|message| message.lines().next()).map(str::to_owned);
        let told: Vec<String> = [says, by, on].into_iter().flatten().collect();
        step.message = (!told.is_empty()).then(|| told.join(", "));
        steps.push(step);
    }
    for build in builds {
        let report = &build.report;
        let state = match report.state {
            BuildState::Running => StepState::Running,
            BuildState::Succeeded => StepState::Done,
            BuildState::Failed => StepState::Failed,
            BuildState::Cancelled => StepState::Skipped,
        };
        let at = build.ended_at.unwrap_or(build.began_at);
        let mut step = step(StepKind::Build, report.id.clone(), state, Some(at));
        step.after.extend(pipelines::source_of(log, &report.commit).map(source_id));
        step.commit = Some(report.commit.clone());
        step.version.clone_from(&report.version);
        step.artifact.clone_from(&report.artifact);
        step.message.clone_from(&report.message);
        step.url.clone_from(&report.url);
        steps.push(step);
    }
    steps
}

const fn of_plan(state: PlanState) -> StepState {
    match state {
        PlanState::Planning => StepState::Waiting,
        PlanState::Running | PlanState::Paused | PlanState::Aborting | PlanState::RollingBack => StepState::Running,
        PlanState::Succeeded => StepState::Done,
        PlanState::Failed | PlanState::RolledBack => StepState::Failed,
        PlanState::Aborted | PlanState::Superseded => StepState::Skipped,
    }
}

/// Whether a node did anything: one that was left out, or stopped before its first attempt, did not.
fn has_begun(node: &NodeView) -> bool {
    match node.outcome {
        Some(Outcome::Skipped) => false,
        Some(Outcome::Cancelled) => !node.attempts.is_empty(),
        Some(_) => true,
        None => !matches!(node.state, NodeState::Planned | NodeState::Planning),
    }
}

fn node_id(node: &NodeView) -> String {
    let kind = if node.kind == NodeKind::Check { StepKind::Check } else { StepKind::Stage };
    kind.id(&node.name)
}

fn edges<'a>(group: &'a Group, all: &mut BTreeSet<&'a Name>) {
    all.extend(group.edges.iter().map(|edge| &edge.node));
    group.groups.iter().for_each(|group| edges(group, all));
}

/// Returns a step for each node, those without others before them after `release`. The way back is shown once it is taken.
fn of_nodes(nodes: &[NodeView], release: &str) -> Vec<Step> {
    let taken = nodes.iter().filter(|node| !node.spec.compensation || has_begun(node));
    let shown: BTreeMap<&Name, &NodeView> = taken.map(|node| (&node.name, node)).collect();
    let before = |node: &NodeView| {
        let mut names = BTreeSet::new();
        node.spec.after.iter().for_each(|group| edges(group, &mut names));
        names.extend(&node.spec.parent);
        names.retain(|name| shown.contains_key(*name));
        names.into_iter().cloned().collect::<BTreeSet<Name>>()
    };
    let mut left: BTreeMap<&Name, BTreeSet<Name>> = shown.iter().map(|(name, node)| (*name, before(node))).collect();
    let mut steps = Vec::with_capacity(left.len());
    let mut done: BTreeSet<Name> = BTreeSet::new();
    // A plan has no cycles; if one had, its nodes would be left out rather than waited for.
    loop {
        let next: Vec<&Name> =
            left.iter().filter(|(_, before)| before.is_subset(&done)).map(|(name, _)| *name).collect();
        if next.is_empty() {
            return steps;
        }
        for name in next {
            let (Some(before), Some(node)) = (left.remove(name), shown.get(name)) else { continue };
            let ids = before.iter().filter_map(|name| shown.get(name)).map(|node| node_id(node));
            let mut step = of_node(node);
            step.after = ids.collect();
            if step.after.is_empty() {
                step.after.push(release.to_owned());
            }
            steps.push(step);
            done.insert(name.clone());
        }
    }
}

fn of_node(node: &NodeView) -> Step {
    let kind = if node.kind == NodeKind::Check { StepKind::Check } else { StepKind::Stage };
    let approval = node.executor.as_deref() == Some("approval");
    let state = match (node.outcome, node.state) {
        (Some(Outcome::Passed | Outcome::Overridden), _) => StepState::Done,
        (Some(Outcome::Failed), _) => StepState::Failed,
        (Some(Outcome::Skipped | Outcome::Cancelled), _) => StepState::Skipped,
        (None, NodeState::Planned | NodeState::Planning) => StepState::Waiting,
        (None, _) if node.held || approval => StepState::Waiting,
        (None, _) => StepState::Running,
    };
    let begun = has_begun(node);
    let known = begun || node.outcome.is_some();
    let mut step = step(kind, node.name.to_string(), state, known.then_some(node.updated_at));
    step.no_op = node.is_no_op();
    step.left_out = if state == StepState::Done { node.left_out() } else { 0 };
    let last = node.attempts.last().and_then(|attempt| attempt.progress.last());
    let told = last.and_then(|progress| progress["message"].as_str()).map(str::to_owned);
    step.message = match node.outcome {
        Some(_) => node.message.clone().or(told),
        None if begun && approval => Some("waits for somebody to approve it".to_owned()),
        None if node.held => Some(node.message.clone().unwrap_or_else(|| "waits for a person".to_owned())),
        None => told.or_else(|| node.message.clone()),
    };
    step
}

#[cfg(test)]
mod tests;
