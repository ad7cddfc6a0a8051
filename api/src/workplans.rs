//! WorkPlans: graphs of stages, which do something, and checks, which ask something.
//!
//! What people write is [`WorkPlanSpec`]; how far a plan is, [`PlanStatus`]; everything that ever happened to it are its
//! [`events`]. States and their transitions are in [`states`].

pub mod attempts;
pub mod events;
pub mod executors;
pub mod groups;
pub mod nodes;
pub mod policies;
pub mod signals;
pub mod states;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

pub use self::{
    events::{Event, EventView},
    executors::Executor,
    groups::{Condition, Edge, Group, GroupFault},
    nodes::{NodeSpec, NodeView},
    signals::{Signal, SignalAnswer, SignalRequest},
    states::{AttemptState, NodeKind, NodeState, Outcome, PlanState},
};
use crate::{
    Name, Revision, limits,
    problems::{Code, Fault, Problem},
    spans::Span,
    values::Values,
};

/// A graph of stages and checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkPlanSpec {
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How long it may take from its start. A plan whose worst case takes longer is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
    /// What executors and workers read.
    #[serde(skip_serializing_if = "Values::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub values: Values,
    /// JSON Schema of the values: what they are changed to has to fit it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// Whether it begins as soon as it is written.
    pub start: bool,
    /// What happens when something that had to pass did not.
    #[serde(skip_serializing_if = "is_fail")]
    pub on_failure: OnPlanFailure,
    /// The nodes by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub nodes: BTreeMap<Name, NodeSpec>,
}

fn is_fail(on_failure: &OnPlanFailure) -> bool {
    *on_failure == OnPlanFailure::Fail
}

impl Default for WorkPlanSpec {
    fn default() -> Self {
        Self {
            description: None,
            deadline: None,
            values: Values::new(),
            schema: None,
            start: true,
            on_failure: OnPlanFailure::default(),
            nodes: BTreeMap::new(),
        }
    }
}

/// What happens when something that had to pass did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnPlanFailure {
    /// What does not depend on it goes on; then the plan has failed.
    #[default]
    Fail,
    /// What does not depend on it goes on; then what was done is undone by the compensations.
    Rollback,
}

impl WorkPlanSpec {
    /// Returns what is wrong with the plan, whatever the store holds, at `pointer`.
    #[must_use]
    pub fn faults(&self, pointer: &str) -> Vec<Fault> {
        self.faults_inside(pointer, 1)
    }

    fn faults_inside(&self, pointer: &str, depth: usize) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Some(deadline) = self.deadline {
            faults.extend(deadline.fault(format!("{pointer}/deadline"), limits::SPAN_LEAST, limits::PLAN_SPAN_MOST));
        }
        if self.nodes.len() > limits::WRITTEN_NODES {
            let detail = format!(
                "{} nodes, the limit of one write is {}; write the rest to /v1/workplans/ID/nodes",
                self.nodes.len(),
                limits::WRITTEN_NODES
            );
            faults.push(Fault::new(format!("{pointer}/nodes"), detail));
            return faults;
        }
        for (name, node) in &self.nodes {
            faults.extend(node.faults(&format!("{pointer}/nodes/{name}"), depth));
        }
        faults
    }

    /// Returns the plan without its nodes.
    #[must_use]
    pub fn head(&self) -> Self {
        Self { nodes: BTreeMap::new(), ..self.clone() }
    }
}

/// Returns the problem of the groups of these nodes, at `pointer`, each with its own code.
pub fn check_groups<'a>(
    nodes: impl IntoIterator<Item = (&'a Name, &'a NodeSpec)>,
    pointer: &str,
) -> Result<(), Problem> {
    for (name, spec) in nodes {
        if let Some(Executor::Plan(plan)) = &spec.run {
            check_groups(&plan.nodes, &format!("{pointer}/{name}/run/plan/nodes"))?;
        }
        let Some(after) = &spec.after else { continue };
        let here = format!("{pointer}/{name}/after");
        let Some(fault) = after.faults(&here).into_iter().next() else { continue };
        let (code, fault) = match fault {
            GroupFault::Empty(fault) => (Code::EmptyGroup, fault),
            GroupFault::Threshold(fault) => (Code::ThresholdTooLarge, fault),
            GroupFault::Size(fault) | GroupFault::Twice(fault) => (Code::Invalid, fault),
        };
        return Err(Problem::new(code, format!("node {name}: {}", fault.detail)).with([fault]));
    }
    Ok(())
}

/// The body of `POST /v1/workplans`: a plan without a document of its own kind of writing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewPlan {
    /// Its name.
    pub name: Name,
    /// Its workspace.
    #[serde(default = "default_workspace")]
    pub workspace: Name,
    /// The plan; without `start` it is put together first.
    #[serde(default)]
    pub spec: WorkPlanSpec,
}

fn default_workspace() -> Name {
    Name::default_workspace()
}

/// The body of `POST /v1/workplans/{id}/nodes`: all of them are written, or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WriteNodes {
    /// The nodes by name.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub nodes: BTreeMap<Name, NodeSpec>,
}

/// How far a plan is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlanStatus {
    /// Its id; that of its document, if it has one.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its workspace.
    pub workspace: Name,
    /// How far it is.
    pub state: PlanState,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Counts its steps; its `ETag`.
    pub version: i64,
    /// Whose it is: nobody approves his own.
    pub author: String,
    /// The values as they are now.
    #[serde(default, skip_serializing_if = "Values::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub values: Values,
    /// How long it may take, from its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
    /// When it was made.
    pub created_at: Revision,
    /// When it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Revision>,
    /// When it came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Revision>,
    /// When its time is over; absent while it is paused or without a deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_at: Option<Revision>,
    /// The plan and stage that it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentView>,
    /// How many nodes are in which state; those that are final by what came of them.
    pub counts: BTreeMap<String, u64>,
    /// What is going on: nodes that have begun and are not final, up to 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub current: Vec<NodeView>,
    /// How many attempts came after a first one.
    #[serde(default)]
    pub retries: u64,
    /// The last things that went wrong, newest first, up to 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent_errors: Vec<RecentError>,
}

/// The plan and stage that a plan was made for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ParentView {
    /// The plan.
    pub plan: Uuid,
    /// The stage.
    pub node: Name,
    /// Its attempt.
    pub number: u32,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecentError {
    /// The node.
    pub node: Name,
    /// The attempt.
    pub number: u32,
    /// The code.
    pub code: String,
    /// What to tell people.
    pub message: String,
    /// When.
    pub at: Revision,
}

/// The answer to a write of nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WrittenNodes {
    /// The plan's version after it.
    pub version: i64,
}
