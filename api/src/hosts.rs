//! Hosts: what accepts workloads as a unit, a device or a whole cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Revision, values::Values};

/// What people say of a host. Its labels are the document's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostSpec {
    /// A device or a cluster.
    #[serde(default)]
    pub kind: HostKind,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The workspaces that may deploy onto it; `*` stands for all.
    #[serde(default = "everyone")]
    pub workspaces: Vec<String>,
    /// Whether it takes no new deployments; it keeps those it has, but gives up replicas.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cordoned: bool,
    /// The strongest layer of values for whatever is deployed here.
    #[serde(default, skip_serializing_if = "Values::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub values: Values,
}

/// What sort of host it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum HostKind {
    /// One machine.
    #[default]
    Device,
    /// A cluster that accepts workloads as a unit.
    Cluster,
}

fn everyone() -> Vec<String> {
    vec!["*".to_owned()]
}

impl Default for HostSpec {
    fn default() -> Self {
        Self {
            kind: HostKind::default(),
            description: None,
            workspaces: everyone(),
            cordoned: false,
            values: Values::new(),
        }
    }
}

impl HostSpec {
    /// Whether `workspace` may deploy onto the host.
    #[must_use]
    pub fn admits(&self, workspace: &str) -> bool {
        self.workspaces.iter().any(|admitted| admitted == "*" || admitted == workspace)
    }
}

/// Facts of a host by name, as its agent reports them: text, numbers and booleans.
pub type Facts = BTreeMap<String, Value>;

/// What was observed of a host; `status` of its document.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostStatus {
    /// Whether an agent has enrolled, and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled_at: Option<Revision>,
    /// When the agent last polled or reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Revision>,
    /// Whether it was seen within three poll intervals.
    #[serde(default)]
    pub online: bool,
    /// The facts.
    #[serde(default, skip_serializing_if = "Facts::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub facts: Facts,
    /// Deployments that the host runs though nobody declared them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<crate::reports::Orphan>,
    /// Set while the host is being deleted: it waits for its agent to remove what it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleting_since: Option<Revision>,
}

/// `POST /v1/hosts:bulkCreate`: all the hosts and a task for each, or nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BulkCreate {
    /// The hosts; documents of kind `Host`.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<crate::Document>))]
    pub hosts: Vec<Value>,
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
