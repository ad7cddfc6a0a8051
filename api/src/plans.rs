//! Plans: what would happen, before anything is written.

use serde::{Deserialize, Serialize};

use crate::{Name, changes::ApplyResult};

/// The answer to `POST /v1/plan`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Plan {
    /// What would be done with each document.
    pub results: Vec<ApplyResult>,
    /// The hosts that would change, grouped by identical changed lines, the largest group first.
    pub groups: Vec<PlanGroup>,
    /// Assignments looked at that would not move.
    pub unchanged: usize,
    /// Deployments that would be on fewer hosts than they are to be; those that are so already and are not concerned are
    /// left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unplaced: Vec<Unplaced>,
}

/// A deployment for which there would be too little room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Unplaced {
    /// The deployment.
    pub deployment: Name,
    /// Its workspace.
    pub workspace: Name,
    /// Why, with the hosts counted by reason.
    pub detail: String,
}

/// Hosts to which the same would happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlanGroup {
    /// The deployment.
    pub deployment: Name,
    /// Its workspace.
    pub workspace: Name,
    /// What would happen.
    pub effect: PlanEffect,
    /// How many hosts.
    pub count: usize,
    /// The first of them, up to 20, by name.
    pub hosts: Vec<Name>,
    /// The difference as a unified diff; for a failure the message; for a removal its reason.
    pub detail: String,
}

/// What would happen to a deployment on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PlanEffect {
    /// It would come onto the host.
    Add,
    /// Its files would change.
    Change,
    /// It would leave the host.
    Remove,
    /// It could not be rendered; the host would keep what it has.
    Fail,
}

impl PlanEffect {
    /// Returns the effect as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Change => "change",
            Self::Remove => "remove",
            Self::Fail => "fail",
        }
    }
}
