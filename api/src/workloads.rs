//! Workloads: sets of declarative resources deployed as a unit.

use serde::{Deserialize, Serialize};

use crate::{Name, values::Values};

/// What is deployed as a unit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkloadSpec {
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where its source is kept; read by templates as `workload.repository`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Its version; read by templates as `workload.version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The template of deployments that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Name>,
    /// Values, stronger than the template's.
    #[serde(default, skip_serializing_if = "Values::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub values: Values,
}
