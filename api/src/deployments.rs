//! Deployments: a workload with its template, target and values.

use std::{fmt, str::FromStr};

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
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub depends_on: Vec<Dependency>,
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

/// A deployment that goes first, and how far it has to be. Written as its name alone, or `name:state`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Dependency {
    /// The deployment, of the same workspace. One that the host does not have is not waited for.
    pub name: Name,
    /// What it has to be before whoever depends on it is applied.
    pub state: DependencyState,
}

/// How far a deployment has to be for those that depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum DependencyState {
    /// Proven healthy in its present release.
    #[default]
    Healthy,
    /// In place, whether it works or not.
    Applied,
}

/// Why a text is not a [`Dependency`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the name of a deployment, alone or with :healthy or :applied behind it: {why}")]
pub struct DependencyError {
    text: String,
    why: String,
}

impl DependencyState {
    /// Returns the state as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Applied => "applied",
        }
    }
}

impl From<Name> for Dependency {
    fn from(name: Name) -> Self {
        Self { name, state: DependencyState::default() }
    }
}

impl FromStr for Dependency {
    type Err = DependencyError;

    fn from_str(text: &str) -> Result<Self, DependencyError> {
        let fault = |why: String| DependencyError { text: text.to_owned(), why };
        let (name, state) = text.split_once(':').unwrap_or((text, "healthy"));
        let state = match state {
            "healthy" => DependencyState::Healthy,
            "applied" => DependencyState::Applied,
            other => return Err(fault(format!("there is no state {other:?}"))),
        };
        Ok(Self { name: Name::new(name).map_err(|error| fault(error.to_string()))?, state })
    }
}

impl TryFrom<String> for Dependency {
    type Error = DependencyError;

    fn try_from(text: String) -> Result<Self, DependencyError> {
        text.parse()
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state {
            DependencyState::Healthy => f.write_str(&self.name),
            state => write!(f, "{}:{}", self.name, state.as_str()),
        }
    }
}

impl From<Dependency> for String {
    fn from(dependency: Dependency) -> Self {
        dependency.to_string()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_names_with_a_state_behind_them() {
        for text in ["db", "db:applied"] {
            assert_eq!(text.parse::<Dependency>().expect(text).to_string(), text);
        }
        assert_eq!("db:healthy".parse::<Dependency>().expect("state").to_string(), "db");
        for bad in ["", "db:", "db:up", "DB", ":healthy"] {
            assert!(bad.parse::<Dependency>().is_err(), "{bad}");
        }
    }
}
