//! Nodes: stages, which do something, and checks, which ask something.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Group, NodeKind, NodeState, Outcome,
    attempts::AttemptView,
    executors::Executor,
    policies::{Retry, Timeouts},
};
use crate::{
    Name, Revision, limits,
    problems::Fault,
    strategies::{ReleaseStep, releases::Counts},
};

/// One node of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeSpec {
    /// Whether it does something or asks something.
    pub kind: NodeKind,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What has to be before it begins; absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Group>,
    /// What it does. A stage without passes at once; a check without is answered by stages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Executor>,
    /// The checks that a stage answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answers>,
    /// The stage that this one is a child of: it waits for its children, and they begin once it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Name>,
    /// When an attempt is made again.
    #[serde(skip_serializing_if = "is_default")]
    pub retry: Retry,
    /// How long it may take.
    #[serde(skip_serializing_if = "is_default")]
    pub timeouts: Timeouts,
    /// A plan succeeds though this one fails.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// What happens when it failed for good.
    #[serde(skip_serializing_if = "is_default")]
    pub on_failure: OnNodeFailure,
    /// It undoes something: it begins only when the plan is rolled back, and is left out otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub compensation: bool,
    /// A check that is still being put together: it stays `planning` until somebody writes it without this.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub planning: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for NodeSpec {
    fn default() -> Self {
        Self {
            kind: NodeKind::Stage,
            description: None,
            after: None,
            run: None,
            answers: Vec::new(),
            parent: None,
            retry: Retry::default(),
            timeouts: Timeouts::default(),
            optional: false,
            on_failure: OnNodeFailure::default(),
            compensation: false,
            planning: false,
        }
    }
}

/// A check that a stage answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Answers {
    /// The check.
    pub check: Name,
    /// How far the stage brings it. Once no stage is left that would, the check moves on.
    #[serde(default)]
    pub goal: Goal,
}

/// How far a stage brings a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Goal {
    /// It is put together.
    Planned,
    /// It has its results.
    #[default]
    Final,
}

/// What happens when a node failed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnNodeFailure {
    /// It is final, and the plan goes on as far as it can.
    #[default]
    Fail,
    /// The plan is paused until a person retries, skips or rejects it.
    Pause,
}

impl NodeSpec {
    /// Returns what is wrong with the node, at `pointer`. `depth`: how many plans its plan is inside of.
    #[must_use]
    pub(super) fn faults(&self, pointer: &str, depth: usize) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut refuse = |key: &str, detail: &str| faults.push(Fault::new(format!("{pointer}/{key}"), detail));
        if self.kind == NodeKind::Check {
            if !self.answers.is_empty() {
                refuse("answers", "a check is answered, it does not answer");
            }
            if self.parent.is_some() {
                refuse("parent", "children are stages");
            }
        } else if self.planning {
            refuse("planning", "only a check can still be planned");
        }
        if self.answers.len() > limits::ANSWERS {
            refuse("answers", &format!("{} checks, the limit is {}", self.answers.len(), limits::ANSWERS));
        }
        if self.kind == NodeKind::Check && matches!(self.run, Some(Executor::Plan(_))) {
            refuse("run/plan", "a plan is run by a stage");
        }
        if self.kind == NodeKind::Stage && matches!(self.run, Some(Executor::Approval(_) | Executor::Metric(_))) {
            refuse("run", "approvals and metrics answer a check; write kind: check");
        }
        if self.retry.attempts == 0 && self.timeouts.total.is_none() {
            refuse("retry/attempts", "0 attempts are as many as the time allows: write timeouts.total");
        }
        faults.extend(self.retry.faults(&format!("{pointer}/retry")));
        faults.extend(self.timeouts.faults(&format!("{pointer}/timeouts")));
        if let Some(run) = &self.run {
            faults.extend(run.faults(&format!("{pointer}/run"), depth));
        }
        faults
    }
}

/// A node as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeView {
    /// Its name, unique in the plan.
    pub name: Name,
    /// What it is.
    pub kind: NodeKind,
    /// How far it is.
    pub state: NodeState,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Counts how often it was opened or written anew, from 1. What a person says about it names this number.
    pub generation: u32,
    /// Whether it waits for a person.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// What it waits for or does: `http`, `approval`; absent if nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor: Option<String>,
    /// The child plan, if it runs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<uuid::Uuid>,
    /// Its attempts, the last one last. In lists only the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptView>,
    /// What was answered, if it is a check.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<CheckResult>,
    /// When something happens to it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Revision>,
    /// When it last changed.
    pub updated_at: Revision,
    /// As it was written.
    pub spec: NodeSpec,
}

impl NodeView {
    /// Whether it is a step of a rollout that found nothing to do, which is said as `noOp` in what came of its last attempt.
    #[must_use]
    pub fn is_no_op(&self) -> bool {
        let said = self.attempts.last().and_then(|attempt| attempt.details.as_ref()?.get("noOp"));
        let release = matches!(self.spec.run, Some(Executor::Release(_)));
        release && self.outcome == Some(Outcome::Passed) && said == Some(&Value::Bool(true))
    }

    /// Returns how many hosts it left out, if it is a stage of a rollout and has ended.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        let said = self.attempts.last().and_then(|attempt| attempt.details.as_ref()?.get("counts"));
        let counts = said.and_then(|counts| serde_json::from_value::<Counts>(counts.clone()).ok());
        let stage = matches!(self.spec.run, Some(Executor::Release(ReleaseStep::Stage(_))));
        counts.filter(|_| stage).map_or(0, |counts| counts.excluded)
    }
}

/// An answer to a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckResult {
    /// Which attempt gave it, `build/1`, or who.
    pub owner: String,
    /// What was found.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
    /// When it was first given.
    pub created_at: Revision,
    /// When it was said to be complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finalized_at: Option<Revision>,
    /// Why the answer is no; absent: it is yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_message: Option<String>,
}
