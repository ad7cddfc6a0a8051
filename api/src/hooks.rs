//! Hooks: commands of a bundle around what its applier does. A host runs none unless its own configuration allows it.

use serde::{Deserialize, Serialize};

use crate::spans::Span;

/// Commands of a bundle. In `template.yaml` every text may hold expressions. Each may run twice: after a power cut.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hooks {
    /// Before the switch; if it fails nothing is switched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_apply: Option<Hook>,
    /// After the switch and before the first probe; if it fails the deployment is not healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_apply: Option<Hook>,
    /// Before what the deployment owns is removed; if it fails the removal waits and is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_remove: Option<Hook>,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hook {
    /// The program, an absolute path or one below the deployment's directory, and its arguments. No shell.
    pub command: Vec<String>,
    /// How long it may take; one minute unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

impl Hooks {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
