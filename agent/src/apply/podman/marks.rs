//! Marks: the labels by which the agent knows again what it made.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use titan_api::Digest;

use crate::apply::Target;

/// The assignment's id.
pub(crate) const DEPLOYMENT: &str = "titan.deployment";
/// `workspace/name` of the deployment.
pub(crate) const HOME: &str = "titan.home";
/// The first half of the digest of everything that it was made from.
pub(crate) const DIGEST: &str = "titan.digest";
/// `delete` on what goes with its deployment, `keep` on what stays.
pub(crate) const ON_REMOVE: &str = "titan.on-remove";

/// Labels as podman tells them.
pub(crate) type Labels = BTreeMap<String, String>;

/// Whose mark something has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The deployment's own.
    Ours,
    /// Another deployment's.
    Another,
    /// Nobody's: the agent did not make it.
    Nobody,
}

/// Reads a value that is `null` where there is nothing, as podman's lists and mappings are.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// The mark of one deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    deployment: String,
    home: String,
}

impl Mark {
    pub(crate) fn of(target: &Target) -> Self {
        Self { deployment: target.id.to_string(), home: target.home() }
    }

    /// Returns the labels of something made from what has this digest.
    pub(crate) fn labels(&self, digest: &Digest) -> Labels {
        Labels::from([
            (DEPLOYMENT.to_owned(), self.deployment.clone()),
            (HOME.to_owned(), self.home.clone()),
            (DIGEST.to_owned(), short(digest)),
        ])
    }

    /// Returns the labels that stay the same when the deployment is made again under another id.
    pub(crate) fn lasting(&self, digest: &Digest) -> Labels {
        Labels::from([(HOME.to_owned(), self.home.clone()), (DIGEST.to_owned(), short(digest))])
    }

    /// Returns the label that everything of the deployment has, whichever assignment made it.
    pub(crate) fn label(&self) -> String {
        format!("{HOME}={}", self.home)
    }

    /// Returns whose something is. A deployment that was made again under the same name has the other's things.
    pub(crate) fn whose(&self, labels: &Labels) -> Whose {
        match (labels.get(DEPLOYMENT), labels.get(HOME)) {
            (None, None) => Whose::Nobody,
            (id, home) if id == Some(&self.deployment) || home == Some(&self.home) => Whose::Ours,
            _ => Whose::Another,
        }
    }
}

/// Whether something was made from what has this digest.
pub(crate) fn fits(labels: &Labels, digest: &Digest) -> bool {
    labels.get(DIGEST).is_some_and(|label| *label == short(digest))
}

/// A label has at most 63 characters.
fn short(digest: &Digest) -> String {
    digest.to_string()[..32].to_owned()
}
