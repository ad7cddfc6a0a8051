//! Drift: what on a host is not as it was applied, and what is done about it.

use serde::{Deserialize, Serialize};

use crate::{
    Digest, Name, Revision,
    limits::{DRIFT_BYTES, DRIFT_NAME_BYTES, DRIFTS},
    problems::Fault,
    reports::Phase,
};

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

impl Drift {
    /// Returns it without the parts that may be long.
    #[must_use]
    pub fn brief(&self) -> Self {
        Self {
            what: self.what.clone(),
            how: self.how.clone(),
            diff: String::new(),
            found: None,
            repaired: self.repaired,
        }
    }

    /// Returns what is beyond a limit in what a host says, at `pointer`.
    #[must_use]
    pub fn faults(drift: &[Self], pointer: &str) -> Vec<Fault> {
        if drift.len() > DRIFTS {
            return vec![Fault::new(pointer, format!("{} things, the limit is {DRIFTS}", drift.len()))];
        }
        let each = drift.iter().enumerate().flat_map(|(index, drift)| {
            let parts = [
                ("what", drift.what.len(), DRIFT_NAME_BYTES),
                ("how", drift.how.len(), DRIFT_NAME_BYTES),
                ("diff", drift.diff.len(), DRIFT_BYTES),
                ("found", drift.found.as_ref().map_or(0, String::len), DRIFT_BYTES),
            ];
            parts.map(|(key, bytes, limit)| {
                let detail = || format!("{bytes} bytes, the limit is {limit}");
                (bytes > limit).then(|| Fault::new(format!("{pointer}/{index}/{key}"), detail()))
            })
        });
        each.flatten().collect()
    }
}

/// The answer to `GET /v1/hosts/{host}/drift`: what the host said last of its deployments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostDrift {
    /// The host.
    pub host: Name,
    /// Each deployment of which something is or was not as it was applied, by workspace and name.
    pub deployments: Vec<DeploymentDrift>,
}

/// What of one deployment is or was not as it was applied on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeploymentDrift {
    /// The deployment's workspace.
    pub workspace: Name,
    /// The deployment.
    pub deployment: Name,
    /// The release that the host spoke of.
    pub release: String,
    /// The bundle that is in place, if any is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// How far it is.
    pub phase: Phase,
    /// When the host said so first, by the control plane's clock.
    pub reported_at: Revision,
    /// What has drifted.
    pub drift: Vec<Drift>,
}

/// The body of `POST /v1/hosts/{host}/drift:adopt`, which makes what was found on the host the declared state there, and of
/// `drift:unadopt`, which undoes that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AdoptRequest {
    /// The deployment, as `workspace/name`.
    pub deployment: String,
    /// Paths as a bundle has them, or as the drift names them; absent: every file of which the content was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<String>>,
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The answer to an adoption or its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AdoptAnswer {
    /// When the host's document changed; absent if it said so already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// What of the deployment is adopted now, as the host's document has it.
    pub paths: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drift(bytes: usize) -> Drift {
        Drift {
            what: "a/b/c".to_owned(),
            how: "content".to_owned(),
            diff: "x".repeat(bytes),
            found: Some(String::new()),
            repaired: false,
        }
    }

    #[test]
    fn hosts_cannot_say_too_much() {
        let pointers =
            |drift: &[Drift]| Drift::faults(drift, "/d").into_iter().map(|fault| fault.pointer).collect::<Vec<_>>();
        assert_eq!(pointers(&vec![drift(DRIFT_BYTES); DRIFTS]), [""; 0]);
        assert_eq!(pointers(&vec![drift(0); DRIFTS + 1]), ["/d"]);
        assert_eq!(pointers(&[drift(0), drift(DRIFT_BYTES + 1)]), ["/d/1/diff"]);
        let found = Drift { found: Some("x".repeat(DRIFT_BYTES + 1)), ..drift(0) };
        let named = Drift { what: "x".repeat(DRIFT_NAME_BYTES + 1), ..drift(0) };
        let how = Drift { how: "x".repeat(DRIFT_NAME_BYTES + 1), ..drift(0) };
        assert_eq!(pointers(&[found, named, how]), ["/d/0/found", "/d/1/what", "/d/2/how"]);
    }
}
