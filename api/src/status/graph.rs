//! The graph of a deployment's status: from the source to the stages; the hosts are its leaves.

use serde::{Deserialize, Serialize};

use crate::Revision;

/// One step on the way from a commit of the source to the hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Step {
    /// Its id in the graph: kind and name, such as `stage:canary`.
    pub id: String,
    /// What it is.
    pub kind: StepKind,
    /// Its name: the beginning of a commit, a build's id, the document that changed, the release, the stage.
    pub name: String,
    /// How far it is.
    pub state: StepState,
    /// Whether it is done since there was nothing to do.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_op: bool,
    /// How many hosts a stage that is done left out since they were offline.
    #[serde(default, skip_serializing_if = "is_none_of_them")]
    pub left_out: u64,
    /// The ids of the steps that it follows from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// When it came to be what it is, by the control plane's clock; absent before it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Revision>,
    /// How long ago that was when this was answered, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// What there is to say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The commit of the source, for sources and builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The version that a build made, or a release runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What a build made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
    /// Where people look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

fn is_none_of_them(count: &u64) -> bool {
    *count == 0
}

/// What a step is, in the order in which they follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum StepKind {
    /// A commit of the workload's source.
    Source,
    /// A build of it.
    Build,
    /// The newest change of a document that went into the release.
    Change,
    /// The release.
    Release,
    /// A stage of the rollout, which gives hosts the release.
    Stage,
    /// A check between stages.
    Check,
}

impl StepKind {
    /// Returns the kind as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Build => "build",
            Self::Change => "change",
            Self::Release => "release",
            Self::Stage => "stage",
            Self::Check => "check",
        }
    }

    /// Returns the id of a step of this kind and name.
    #[must_use]
    pub fn id(self, name: &str) -> String {
        format!("{}:{name}", self.as_str())
    }
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum StepState {
    /// It has not begun, or waits for a person.
    Waiting,
    /// It goes on.
    Running,
    /// It is done.
    Done,
    /// It failed, or was taken back.
    Failed,
    /// It was left out, stopped, or something newer took its place.
    Skipped,
}

impl StepState {
    /// Returns the state as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}
