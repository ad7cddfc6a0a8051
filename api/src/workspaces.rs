//! Workspaces: scopes of work.

use serde::{Deserialize, Serialize};

use crate::values::Values;

/// The workspace that exists from the start.
pub const DEFAULT: &str = "default";

/// A scope of work with an owner and members.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkspaceSpec {
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who initiates and manages the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Who else works in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// Settings that templates read as `workspace.config`.
    #[serde(default, skip_serializing_if = "Values::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub config: Values,
}
