//! What the plan of a strategy does: the steps of its executor `release`.

use serde::{Deserialize, Serialize};

use super::Offline;
use crate::{Name, selectors::Selector, shares::Share, spans::Span};

/// One step of a rollout. Made by the control plane alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ReleaseStep {
    /// Looks whether the hosts can have the release, before any has it.
    Preflight(Preflight),
    /// Hands it to some of them.
    Stage(Box<ReleaseStage>),
    /// Takes it back.
    Back(Back),
}

/// Looks whether the hosts can have the release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Preflight {
    /// How many of them may not.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub max_failures: Share,
}

/// Hands the release to some of the hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleaseStage {
    /// Its name, which is also that of its opening and its node.
    pub stage: Name,
    /// Which hosts it is about; absent: all of the deployment.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// How many of them have the release once it is done.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub hosts: Share,
    /// How long a host has to be healthy before it counts as proven.
    pub min_ready_seconds: u32,
    /// How many may have the release and not be proven.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub max_unavailable: Share,
    /// How many may fail.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub max_failures: Share,
    /// How long it may go without another host that is proven.
    pub progress_deadline: Span,
    /// What becomes of hosts that are not there.
    pub offline: Offline,
    /// When hosts may be given the release; none: always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<String>,
}

/// Takes the release back from whoever has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Back {
    /// How long it may go without another host that is back.
    pub progress_deadline: Span,
    /// What becomes of hosts that are not there.
    pub offline: Offline,
}

/// How the hosts of a stage stand: `counts` in what its attempt says meanwhile, and in what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// All of them, but those that were deleted or no longer match.
    pub members: u64,
    /// Those that were given the release.
    pub opened: u64,
    /// Those that are proven.
    pub proven: u64,
    /// Those that have it and are healthy, not yet for long enough.
    pub settling: u64,
    /// Those that have it and are on their way.
    pub moving: u64,
    /// Those that failed, the ones that it cannot be rendered for and those that were offline for too long among them.
    pub failed: u64,
    /// Those that are not there, and did not fail before.
    pub offline: u64,
    /// Those of them that are left out.
    pub excluded: u64,
}
