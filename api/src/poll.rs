//! The poll: what a host asks and what it is told. Section 5 of the protocol.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    Digest, Name, Revision, SetDigest,
    deployments::{Dependency, OnRemove},
    drift::DriftPolicy,
    health::Health,
    hooks::Hooks,
    templates::{Applier, FileMode},
};

/// The header of a 204 that carries the cursor.
pub const CURSOR_HEADER: &str = "titan-cursor";
/// The header of a 204 that carries `pollAfterSeconds`. It is absent after a poll that was held to its end and after
/// which the host may ask again at once, which is the usual one: every byte of it is paid for each time.
pub const POLL_AFTER_HEADER: &str = "titan-poll-after";

/// The answer to `GET /v1/hosts/{host}/changes`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PollAnswer {
    /// Ask from here next. It moves on even when nothing changed.
    pub cursor: Revision,
    /// Whether the answer holds every assignment of the host.
    pub full: bool,
    /// Of the complete desired set at the cursor.
    pub digest: SetDigest,
    /// What is present, new or moved.
    pub deployments: Vec<DesiredDeployment>,
    /// What is to be removed.
    pub tombstones: Vec<Tombstone>,
    /// When to ask again.
    pub poll_after_seconds: u32,
}

/// A deployment that the host is to have.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DesiredDeployment {
    /// The assignment's id: the same deployment on the same host has the same id for ever.
    pub id: Uuid,
    /// The deployment's name.
    pub name: Name,
    /// Its workspace.
    pub workspace: Name,
    /// The release, such as `prod#7`.
    pub release: String,
    /// When the assignment last moved.
    pub revision: Revision,
    /// SHA-256 of the bundle's bytes.
    pub digest: Digest,
    /// Deployments of the same workspace that go first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub depends_on: Vec<Dependency>,
    /// What to do with the files when the deployment leaves.
    #[serde(default)]
    pub on_remove: OnRemove,
    /// A [`Bundle`], byte for byte; absent if it is large: fetch it by digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Bundle>))]
    pub bundle: Option<Box<RawValue>>,
}

/// A deployment that the host is to remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tombstone {
    /// The assignment's id.
    pub id: Uuid,
    /// The deployment's name.
    pub name: Name,
    /// Its workspace.
    pub workspace: Name,
    /// When the assignment became absent.
    pub revision: Revision,
    /// The same, as a time for people.
    pub deleted_at: Revision,
    /// Why.
    pub reason: RemovalReason,
    /// What to do with the files.
    #[serde(default)]
    pub on_remove: OnRemove,
}

/// Why a deployment leaves a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RemovalReason {
    /// The deployment was deleted.
    DeploymentDeleted,
    /// The host is being deleted.
    HostDeleted,
    /// The target no longer matches the host, or the host drives it off: by a taint, or for want of room.
    Unmatched,
    /// The host no longer admits the workspace.
    AccessWithdrawn,
    /// A replica moved to another host.
    ReplicaMoved,
    /// A person removed an orphan.
    Pruned,
    /// The release was taken back, and there was none before it.
    RolledBack,
    /// One that only a newer control plane knows. The removal is no less meant.
    #[serde(other)]
    Other,
}

impl RemovalReason {
    /// Returns the reason as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeploymentDeleted => "deploymentDeleted",
            Self::HostDeleted => "hostDeleted",
            Self::Unmatched => "unmatched",
            Self::AccessWithdrawn => "accessWithdrawn",
            Self::ReplicaMoved => "replicaMoved",
            Self::Pruned => "pruned",
            Self::RolledBack => "rolledBack",
            Self::Other => "other",
        }
    }
}

/// What a release renders to on one host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Bundle {
    /// What applies it.
    pub applier: Applier,
    /// What has to hold for it to be healthy.
    #[serde(default, skip_serializing_if = "Health::is_default")]
    pub health: Health,
    /// Commands around what the applier does.
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// What the host does when others change what was applied.
    #[serde(default, skip_serializing_if = "DriftPolicy::is_default")]
    pub drift: DriftPolicy,
    /// The files, by path.
    pub files: Vec<BundleFile>,
}

/// One file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BundleFile {
    /// Path below the deployment's directory, or below the agent's root if `rooted`.
    pub path: String,
    /// Whether `path` begins at the agent's root rather than at `<workspace>/<deployment>`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rooted: bool,
    /// Permissions.
    pub mode: FileMode,
    /// The owning user's name; absent: the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The owning group's name; absent: the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The content of a text file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The content of any other file, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_base64: Option<String>,
}

impl BundleFile {
    /// Returns the content's bytes, or `None` if it is not valid.
    #[must_use]
    pub fn bytes(&self) -> Option<std::borrow::Cow<'_, [u8]>> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        match (&self.content, &self.content_base64) {
            (Some(text), None) => Some(text.as_bytes().into()),
            (None, Some(text)) => STANDARD.decode(text).ok().map(Into::into),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_of_a_newer_control_plane_is_still_a_removal() {
        let read = |text: &str| serde_json::from_str::<RemovalReason>(text).expect("a reason");
        assert_eq!(read("\"rolledBack\""), RemovalReason::RolledBack);
        assert_eq!(read("\"movedToTheMoon\""), RemovalReason::Other);
    }
}
