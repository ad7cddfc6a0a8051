//! Appliers: what brings a bundle onto the host. Applying makes no choices, and every step may run twice.

pub(crate) mod accounts;
pub(crate) mod changes;
pub(crate) mod files;
pub(crate) mod root;
pub(crate) mod stage;
pub(crate) mod step;
pub(crate) mod switch;

use titan_api::{Digest, Name, Revision, poll::Bundle};
use uuid::Uuid;

use crate::{desired::DesiredEntry, ledger::Ledger};

/// Why a bundle cannot be applied or removed. What was there before still is, unless a switch is open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The bundle asks for something that is not allowed.
    #[error(transparent)]
    Refused(#[from] changes::Refusal),
    /// Something below the root.
    #[error(transparent)]
    Root(#[from] root::RootError),
    /// The switch from old to new.
    #[error(transparent)]
    Switch(#[from] switch::SwitchError),
    /// The host's owner does not allow this applier.
    #[error("the host's configuration does not allow the applier \"files\"; add appliers.files to agent.yaml")]
    NotAllowed,
}

/// Which deployment, at which release.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The assignment's id.
    pub(crate) id: Uuid,
    /// The workspace.
    pub(crate) workspace: Name,
    /// The deployment's name.
    pub(crate) name: Name,
    /// The release.
    pub(crate) release: String,
    /// The assignment's revision.
    pub(crate) revision: Revision,
    /// The bundle's digest.
    pub(crate) digest: Digest,
    /// What goes first.
    pub(crate) depends_on: Vec<Name>,
}

impl Target {
    pub(crate) fn new(id: Uuid, entry: &DesiredEntry) -> Self {
        Self {
            id,
            workspace: entry.workspace.clone(),
            name: entry.name.clone(),
            release: entry.release.clone(),
            revision: entry.revision,
            digest: entry.digest,
            depends_on: entry.depends_on.clone(),
        }
    }

    /// Returns the deployment's own directory below the root, `workspace/name`.
    pub(crate) fn home(&self) -> String {
        format!("{}/{}", self.workspace, self.name)
    }
}

/// What applying did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Applied {
    /// Files that were written.
    pub(crate) written: usize,
    /// Files that were removed.
    pub(crate) removed: usize,
    /// What had drifted and was put right, a phrase for each file.
    pub(crate) repaired: Vec<String>,
}

/// Whoever is to take over a path that is given up, if anybody.
pub(crate) type Heir<'a> = &'a dyn Fn(&str) -> Option<Uuid>;

/// What applies bundles of one kind. The ledger that is passed is up to date, in memory and on disk, after every call
/// that succeeds, and untouched after one that fails; whether a switch is open then tells whether that is the last word.
pub(crate) trait Applier {
    /// Brings the host to the bundle, from whatever it finds.
    fn apply(
        &self,
        ledger: &mut Ledger,
        target: &Target,
        bundle: &Bundle,
        heir: Heir<'_>,
        now: Revision,
    ) -> Result<Applied, ApplyError>;

    /// Removes whatever the deployment owns, save what an heir takes over. With `noted`, the tombstone's revision, the
    /// ledger keeps in mind that the removal is to be committed to Git.
    fn remove(
        &self,
        ledger: &mut Ledger,
        id: Uuid,
        noted: Option<Revision>,
        heir: Heir<'_>,
    ) -> Result<Applied, ApplyError>;
}
