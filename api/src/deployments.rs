//! Deployments: a workload with its template, target and values.

use serde::{Deserialize, Serialize};

use crate::{Name, selectors::Selector, values::Values};

/// A workload on the hosts of a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeploymentSpec {
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The workload, of the same workspace.
    pub workload: Name,
    /// The template, of the same workspace or else of `default`; absent: the workload's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Name>,
    /// The target, of the same workspace.
    pub target: Name,
    /// How many of the matching hosts; absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// Values, stronger than the workload's.
    #[serde(default, skip_serializing_if = "Values::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub values: Values,
    /// Values for some of the hosts; a later entry is stronger than an earlier one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
    /// Deployments of the same workspace that are applied before it on a host that has both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Name>,
    /// What a host does with the files when the deployment leaves it.
    #[serde(default)]
    pub on_remove: OnRemove,
}

/// Values for the hosts that a selector matches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Override {
    /// Which hosts.
    #[serde(rename = "match")]
    pub selector: Selector,
    /// The values.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub values: Values,
}

/// What a host does when a deployment leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnRemove {
    /// Removes what the deployment owns.
    #[default]
    Delete,
    /// Leaves everything where it is and forgets about it.
    Orphan,
}

impl OnRemove {
    /// Returns it as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Orphan => "orphan",
        }
    }
}
