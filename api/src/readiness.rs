//! Readiness: how each component of a control plane is.

use serde::{Deserialize, Serialize};

use crate::Revision;

/// How the components of a control plane are. A planner or a queue that is behind keeps nobody from being answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Readiness {
    /// The database.
    pub database: DatabaseReadiness,
    /// What polls are answered from.
    pub view: ViewReadiness,
    /// What decides.
    pub planner: PlannerReadiness,
    /// Tasks that the control plane does itself.
    pub tasks: QueueReadiness,
    /// Steps of plans that are due, and attempts that the control plane takes itself.
    pub workplans: QueueReadiness,
    /// Whether it is being stopped.
    pub draining: bool,
    /// The version of the control plane.
    pub version: String,
}

/// Whether the database answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DatabaseReadiness {
    /// Whether it does.
    pub ready: bool,
}

/// How far the view is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewReadiness {
    /// Whether it is loaded.
    pub ready: bool,
    /// Up to where it is complete.
    pub revision: Revision,
    /// How far that is behind the newest commit.
    pub behind_microseconds: i64,
}

/// How far the planner is, whichever replica it runs on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlannerReadiness {
    /// Whether no change has waited for a minute to be decided.
    pub ready: bool,
    /// Up to where everything is decided.
    pub revision: Revision,
    /// How long the oldest change has waited to be decided; 0 if none does.
    pub behind_seconds: f64,
    /// Whether it leads here.
    pub leads: bool,
}

/// How a queue is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueueReadiness {
    /// Whether nothing in it has waited for a minute.
    pub ready: bool,
    /// How long what is due has waited to be taken, at the most; 0 if nothing is due.
    pub oldest_pending_seconds: f64,
}
