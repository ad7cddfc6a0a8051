//! Deployments: a workload with its template, target and values.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    Name, labels,
    limits::{FAILOVER_DEFAULT, FAILOVER_LEAST, FAILOVER_MOST, SKEW_MOST, TAINTS},
    problems::Fault,
    resources::Resources,
    selectors::Selector,
    spans::Span,
    strategies::Strategy,
    taints::{self, Toleration},
    values::Values,
};

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
    /// What it needs on each host that it is on. A host without that much left does not get it.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub requests: Resources,
    /// Taints of hosts that it does not mind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// How replicas are spread over the fleet; only with `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
    /// How long a host must not have been seen for its replica to be placed elsewhere, while the control plane was up and
    /// others were seen: `30s` to `720h`, or `0s` for never; only with `replicas`. Default: `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover_after: Option<Span>,
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
    /// How a new release reaches its hosts; absent: all at once up to 20 hosts, else a canary, a tenth, then all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Box<Strategy>>,
}

/// How replicas are spread over the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Spread {
    /// A label, or a fact as `fact/<name>`: each replica goes where the fewest have the same value. Hosts without it count
    /// as if they had one of their own, in common.
    pub label: String,
    /// By how much the values may differ in replicas before no more are placed where most are, 1 to 1 000 000; absent: by
    /// any number, if there is no room elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_skew: Option<u32>,
}

impl DeploymentSpec {
    /// Returns how long a host must not have been seen for its replica to be placed elsewhere; `None` for never.
    #[must_use]
    pub fn failover(&self) -> Option<Duration> {
        let after = self.failover_after.map_or(FAILOVER_DEFAULT, |span| span.0);
        (self.replicas.is_some() && !after.is_zero()).then_some(after)
    }

    /// Returns what is wrong with how it is placed, at `pointer`.
    #[must_use]
    pub fn placement_faults(&self, pointer: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (index, toleration) in self.tolerations.iter().enumerate() {
            let at = format!("{pointer}/tolerations/{index}");
            faults.extend(taints::fault(toleration.key.as_ref(), toleration.value.as_ref(), &at));
        }
        if self.tolerations.len() > TAINTS {
            let detail = format!("{} tolerations, the limit is {TAINTS}", self.tolerations.len());
            faults.push(Fault::new(format!("{pointer}/tolerations"), detail));
        }
        if let Some(Spread { label, max_skew }) = &self.spread {
            if !labels::is_key(label) {
                let detail = format!("{label:?} is not the key of a label, nor fact/<name>");
                faults.push(Fault::new(format!("{pointer}/spread/label"), detail));
            }
            if max_skew.is_some_and(|skew| !(1..=SKEW_MOST).contains(&skew)) {
                let detail = format!("maxSkew is 1 to {SKEW_MOST}");
                faults.push(Fault::new(format!("{pointer}/spread/maxSkew"), detail));
            }
        }
        if let Some(after) = self.failover_after
            && !after.0.is_zero()
        {
            faults.extend(after.fault(format!("{pointer}/failoverAfter"), FAILOVER_LEAST, FAILOVER_MOST));
        }
        let only = [("spread", self.spread.is_some()), ("failoverAfter", self.failover_after.is_some())];
        for (field, _) in only.into_iter().filter(|(_, given)| *given && self.replicas.is_none()) {
            let detail = format!("{field} is only for deployments with replicas; say how many, or leave it out");
            faults.push(Fault::new(format!("{pointer}/{field}"), detail));
        }
        faults
    }
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
    use serde_json::json;

    use super::*;

    #[test]
    fn placement_is_refused_where_it_says_nothing_sensible() {
        let faults = |change: serde_json::Value| -> Vec<String> {
            let mut spec = json!({"workload": "w", "target": "t", "replicas": 2});
            spec.as_object_mut().expect("a map").extend(change.as_object().expect("a map").clone());
            let spec: DeploymentSpec = serde_json::from_value(spec).expect("spec");
            spec.placement_faults("").into_iter().map(|fault| fault.pointer).collect()
        };
        let good = json!({"spread": {"label": "zone", "maxSkew": 1}, "failoverAfter": "0s",
            "tolerations": [{}, {"key": "gpu", "effect": "NoExecute"}], "requests": {"cpu": "500m"}});
        assert_eq!(faults(good), [""; 0]);
        for (bad, pointer) in [
            (json!({"spread": {"label": "a b"}}), "/spread/label"),
            (json!({"spread": {"label": "zone", "maxSkew": 0}}), "/spread/maxSkew"),
            (json!({"spread": {"label": "zone", "maxSkew": SKEW_MOST + 1}}), "/spread/maxSkew"),
            (json!({"spread": {"label": "zone"}, "replicas": null}), "/spread"),
            (json!({"failoverAfter": "29s"}), "/failoverAfter"),
            (json!({"failoverAfter": "721h"}), "/failoverAfter"),
            (json!({"failoverAfter": "5m", "replicas": null}), "/failoverAfter"),
            (json!({"tolerations": [{"key": "a b"}]}), "/tolerations/0/key"),
            (json!({"tolerations": vec![json!({}); TAINTS + 1]}), "/tolerations"),
        ] {
            assert_eq!(faults(bad.clone()), [pointer], "{bad}");
        }
    }

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
