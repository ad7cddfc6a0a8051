//! Reports: what the agent says it observed.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Digest, Name, Revision, drift::Drift, hosts::Facts};

/// The body of `POST /v1/hosts/{host}/report`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Report {
    /// Counts the host's reports; one older than the newest that was taken in is refused with `stale`.
    pub seq: u64,
    /// The newest cursor that the host has accepted and written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acked_cursor: Option<Revision>,
    /// Whether all that was reported before still stands; of what follows only `usage` is told then. Refused with `stale` at
    /// `/unchanged` unless `seq` follows directly on the newest report that was taken in: the host then reports everything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
    /// All facts, when one changed since the last report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub facts: Option<Facts>,
    /// Each deployment whose state changed, or all of them: in the first report of an agent's process, after an answer that
    /// was full, after one that was refused, and once a day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deployments: Vec<DeploymentReport>,
    /// What runs though the last full answer left it out. Absent: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphans: Option<Vec<Orphan>>,
    /// What the agent itself uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// The state of one deployment on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeploymentReport {
    /// The assignment's id.
    pub id: Uuid,
    /// The release, such as `prod#7`; empty for a removal.
    #[serde(default)]
    pub release: String,
    /// The assignment's revision that this is about.
    pub revision: Revision,
    /// The digest of the bundle that is in place, if any is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// How far it is.
    pub phase: Phase,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Since when it is healthy, by the host's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_since: Option<Revision>,
    /// The Git commit of what was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Where the commit stands towards the remote: `pushed`, or why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<String>,
    /// What on the host is or was not as it was applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<Drift>,
}

/// How far a deployment is on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Phase {
    /// Accepted, not begun.
    Pending,
    /// Being applied.
    Applying,
    /// In place and well.
    Healthy,
    /// In place, not well.
    Degraded,
    /// Could not be applied; what was there before still is.
    Failed,
    /// Applied, found bad, and taken back.
    RolledBack,
    /// Being removed.
    Removing,
    /// Gone.
    Removed,
}

impl Phase {
    /// Returns the phase as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Applying => "applying",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::RolledBack => "rolledBack",
            Self::Removing => "removing",
            Self::Removed => "removed",
        }
    }
}

/// A deployment that runs on a host though nobody declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Orphan {
    /// The assignment's id.
    pub id: Uuid,
    /// The deployment's name.
    pub name: Name,
    /// Its workspace.
    pub workspace: Name,
    /// The revision that the host has.
    pub revision: Revision,
}

/// What the agent uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// Bytes resident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Bytes of the state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_bytes: Option<u64>,
}

/// The body of `POST /v1/hosts/{host}:prune`: orphans to remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PruneRequest {
    /// The orphans' ids; absent: all that the host reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<Uuid>>,
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The answer to a prune: what was told to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PruneAnswer {
    /// The orphans that the host will remove.
    pub pruned: Vec<Orphan>,
}
