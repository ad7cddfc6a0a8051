//! Tasks: units of asynchronous work.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{Name, Revision};

/// A task that waits for a host's agent to come.
pub const ENROL: &str = "enrol";
/// The parent of the tasks of hosts that were made at once.
pub const ENROL_ALL: &str = "enrolAll";
/// A task that ends once a deleted deployment or host is gone everywhere.
pub const REMOVE: &str = "remove";
/// A release that is handed out; its id is that of the plan.
pub const ROLLOUT: &str = "rollout";
/// A plan; its id is that of the plan, and its parent that of the plan that it is inside of.
pub const WORKPLAN: &str = "workplan";

/// One unit of asynchronous work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Task {
    /// Its id.
    pub id: Uuid,
    /// What is to be done: `enrol`, `enrolAll`, `remove`, `rollout`, `workplan`.
    pub kind: String,
    /// How far it is.
    pub state: TaskState,
    /// What it is about: `Host tim-pi`, `Deployment default/prod`.
    pub subject: String,
    /// The workspace of what it is about, if that lives in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Name>,
    /// The task that it is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Uuid>,
    /// How many parts it has in which state. A task that has nothing to do itself ends with the last of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub children: BTreeMap<String, u64>,
    /// All that is needed to do it.
    pub payload: Value,
    /// How often it was tried.
    #[serde(default)]
    pub attempts: u32,
    /// Why it was not done the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Who does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// While it is pending, when it is tried next; while it is running, until when its holder has to be heard of, lest
    /// another takes it. Absent if it waits for what comes from outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Revision>,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// When it was made.
    pub created_at: Revision,
    /// When it last changed.
    pub updated_at: Revision,
}

impl Task {
    /// Returns a task that waits for what comes from outside.
    #[must_use]
    pub fn new(id: Uuid, kind: &str, subject: String, payload: Value, now: Revision) -> Self {
        Self {
            id,
            kind: kind.to_owned(),
            state: TaskState::Pending,
            subject,
            workspace: None,
            parent: None,
            children: BTreeMap::new(),
            payload,
            attempts: 0,
            error: None,
            holder: None,
            due_at: None,
            result: None,
            created_at: now,
            updated_at: now,
        }
    }
}

/// Which tasks; what is absent is any.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskFilter {
    /// In this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TaskState>,
    /// Of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Of this workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Name>,
    /// Parts of this one, which may be a plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Uuid>,
    /// About this: `Host tim-pi`, `Deployment default/prod`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// How many at most; 500 unless given, and no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where the page before ended.
    #[serde(default, rename = "continue", skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// How far a task is; the last three are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum TaskState {
    /// Not begun.
    Pending,
    /// Being done.
    Running,
    /// Done.
    Completed,
    /// Could not be done.
    Failed,
    /// No longer wanted.
    Cancelled,
}

impl TaskState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Running, Self::Completed, Self::Failed, Self::Cancelled];

    /// Returns the state as it stands on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing follows.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// Whether a task of this state may come to be in `next`. What has ended stays as it is; what is running is pending again
    /// when it is to be tried again.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Pending, Self::Pending) | (Self::Running, Self::Running) => false,
            (Self::Pending | Self::Running, _) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S1-5.
    #[test]
    fn tasks_go_forward_and_what_has_ended_stays() {
        for state in TaskState::ALL {
            for next in TaskState::ALL {
                let expected = !state.is_final() && state != next;
                assert_eq!(state.may_become(next), expected, "{} {}", state.as_str(), next.as_str());
            }
        }
    }
}
