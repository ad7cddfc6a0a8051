//! Attempts: what a worker takes, how it says that it is still at it, and how it ends.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::AttemptState;
use crate::{Name, Revision, spans::Span, values::Values};

/// An attempt as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttemptView {
    /// Counts the attempts of the node, from 1.
    pub number: u32,
    /// How far it is.
    pub state: AttemptState,
    /// Who took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_uid: Option<String>,
    /// The code of what went wrong: `timeout`, `heartbeat`, `cancelled`, or a worker's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_message: Option<String>,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
    /// What its worker said meanwhile, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub progress: Vec<Value>,
    /// When it was made.
    pub created_at: Revision,
    /// When it last changed.
    pub updated_at: Revision,
}

/// The body of `POST /v1/attempts:claim`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimRequest {
    /// The queues to take from.
    pub queues: Vec<Name>,
    /// Who takes it: unique to the process, so that the same one may ask again.
    pub process_uid: String,
    /// Seconds to wait for an attempt, up to 60.
    #[serde(default)]
    pub wait: u64,
}

/// The answer: an attempt that is the caller's, or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimAnswer {
    /// The attempt; absent if none came up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Claimed>,
}

/// An attempt that was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Claimed {
    /// The plan.
    pub plan: Uuid,
    /// The plan's name.
    pub plan_name: String,
    /// The node.
    pub node: Name,
    /// The number of the attempt.
    pub number: u32,
    /// The queue that it came from.
    pub queue: Name,
    /// The node's input.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub input: Values,
    /// The plan's values as they are now.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub values: Values,
    /// The same for every attempt of the node: what it names is to be done once.
    pub idempotency_key: String,
    /// How often to say that it is still being done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Span>,
    /// How long it may take.
    pub per_attempt: Span,
}

/// The body of a heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Heartbeat {
    /// Who took it.
    pub process_uid: String,
    /// What to tell people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Value>,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeartbeatAnswer {
    /// Whether to stop, clean up and complete.
    pub cancel: bool,
}

/// The body with which a worker ends an attempt. With `code` the job was not done, else it was, whatever came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Completion {
    /// Who took it.
    pub process_uid: String,
    /// What came of it, if the job was done; absent: it passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Why the job was not done: a word that the retry policy knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What to tell people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What came of it, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
    /// Results of checks that the stage answers, kept together with its end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<ResultRequest>,
}

/// What came of a job that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Verdict {
    /// Good.
    Passed,
    /// Not good.
    Failed,
    /// It cannot be told: a person decides.
    Inconclusive,
}

/// The body with which a worker answers checks while it is at it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResultsRequest {
    /// Who took the attempt.
    pub process_uid: String,
    /// The answers.
    pub results: Vec<ResultRequest>,
}

/// An answer to a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResultRequest {
    /// The check.
    pub check: Name,
    /// What was found.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
    /// Why the answer is no; absent: it is yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_message: Option<String>,
}
