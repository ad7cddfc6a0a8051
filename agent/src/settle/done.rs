//! What settling did, deployment by deployment.

use uuid::Uuid;

use crate::desired::DesiredEntry;

/// What was done with one deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The assignment's id.
    pub id: Uuid,
    /// `workspace/name`.
    pub title: String,
    /// The release; empty for a removal.
    pub release: String,
    /// What was done.
    pub action: Action,
    /// What a person should know.
    pub message: String,
    /// The Git commit, if any.
    pub commit: Option<String>,
}

impl Done {
    pub(super) fn of(id: Uuid, entry: &DesiredEntry, action: Action, message: String) -> Self {
        let title = format!("{}/{}", entry.workspace, entry.name);
        Self { id, title, release: entry.release.clone(), action, message, commit: None }
    }
}

/// What was done with a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Files were written or removed for a new bundle.
    Applied,
    /// What had drifted was put right.
    Repaired,
    /// Nothing on disk changed.
    Unchanged,
    /// It proved bad, and the bundle before is in place again.
    RolledBack,
    /// It was removed.
    Removed,
    /// Its files were left where they are, and forgotten.
    Released,
    /// It could not be done; what was there before still is.
    Failed,
    /// It could not be done, and could not be taken back either; that is tried again.
    Stuck,
    /// It waits for its bundle, or for something that goes first.
    Waiting,
}

impl Action {
    /// Returns the action as a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Repaired => "repaired",
            Self::Unchanged => "unchanged",
            Self::RolledBack => "rolled back",
            Self::Removed => "removed",
            Self::Released => "released",
            Self::Failed => "failed",
            Self::Stuck => "stuck",
            Self::Waiting => "waiting",
        }
    }
}
