//! Drift: what on a host is not as it was applied, and what is done about it.

use serde::{Deserialize, Serialize};

/// What a host does when something that it applied was changed by others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DriftPolicy {
    /// Reports it and puts it right.
    #[default]
    Enforce,
    /// Reports it and leaves it.
    Report,
    /// Applies each bundle once and does not look again.
    Once,
}

impl DriftPolicy {
    /// Whether it is what holds unless told.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One thing on a host that is not as it was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Drift {
    /// The path below the agent's root, or the unit, container or object.
    pub what: String,
    /// How it differs, in a few words: `content`, `missing`, `mode`, `stopped`.
    pub how: String,
    /// The difference line by line, as `diff -u` writes it; empty if there is none to show.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub diff: String,
    /// What was found in the place of a text file, so that it can be adopted. Absent for files that not everybody on the
    /// host may read, and for large ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// Whether it was put right.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repaired: bool,
}
