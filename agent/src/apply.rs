//! Appliers: what brings a bundle onto the host. Applying makes no choices, and every step may run twice.
//!
//! Every bundle is files first: [`files`] switches them from old to new in the deployment's own directory, journalled.
//! What lives beside files (units, pods, objects) is the business of an [`Applier`]: it makes links to those files or sends
//! what they say to whoever runs it. What a deployment owns of that kind are its [`Claims`], which the ledger writes down
//! in the same step as the files, before anything is started: whatever is cut short is done again, and nothing is owned
//! by nobody.

pub(crate) mod accounts;
pub(crate) mod appliers;
pub(crate) mod changes;
pub(crate) mod compose;
pub(crate) mod files;
mod kept;
#[cfg(feature = "kubernetes")]
pub(crate) mod kubernetes;
pub(crate) mod podman;
pub(crate) mod root;
pub(crate) mod stage;
pub(crate) mod step;
pub(crate) mod switch;
pub(crate) mod systemd;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::SystemTime,
};

use titan_api::{Digest, Name, Revision, deployments::Dependency, drift::Drift, templates};
use uuid::Uuid;

use crate::{
    bundles::{Bundle, BundleError},
    claims::{Claim, Claims},
    desired::DesiredEntry,
    ledger::LedgerEntry,
    spaces::{Need, NoRoom},
};

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
    /// There is no room for it.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// A file of the bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The host's owner does not allow this applier.
    #[error("the host's configuration does not allow the applier \"{name}\"; add appliers.{name} to agent.yaml", name = .0.as_str())]
    NotAllowed(templates::Applier),
    /// The agent was built without it.
    #[cfg(not(feature = "kubernetes"))]
    #[error("this agent was built without the applier \"{}\"", .0.as_str())]
    NotBuilt(templates::Applier),
    /// The bundle asks for more than the host's owner allows.
    #[error("{what} is not allowed on this host; {key} in agent.yaml says what is")]
    Beyond {
        /// What was asked for, such as "the unit sshd.service".
        what: String,
        /// The key that would have to allow it.
        key: &'static str,
    },
    /// A file of the bundle does not say what the applier needs.
    #[error("{path}: {message}")]
    Malformed {
        /// The file, below the deployment's directory.
        path: String,
        /// What is wrong with it, and where.
        message: String,
    },
    /// Something that nobody owns is in the place of what would be made.
    #[error("{0} exists and was not made by the agent; remove it, or allow the agent to adopt it in agent.yaml")]
    Foreign(Claim),
    /// Whoever runs it refused or failed.
    #[error("{what}: {message}")]
    Platform {
        /// What was being done, such as "starting app.service".
        what: String,
        /// What it said.
        message: String,
    },
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
    pub(crate) depends_on: Vec<Dependency>,
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

    /// Returns the target that is in place.
    pub(crate) fn in_place(id: Uuid, entry: &LedgerEntry) -> Self {
        let LedgerEntry { workspace, name, release, revision, digest, depends_on, .. } = entry.clone();
        Self { id, workspace, name, release, revision, digest, depends_on }
    }

    /// Returns the deployment's own directory below the root, `workspace/name`.
    pub(crate) fn home(&self) -> String {
        format!("{}/{}", self.workspace, self.name)
    }
}

/// Changes of files, or of what lives beside them.
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

/// Files of a bundle whose content others changed, by path below the root, with the time since when they are as they are.
pub(crate) type Strays = BTreeMap<String, SystemTime>;

/// One deployment as an applier sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work<'a> {
    /// Which deployment.
    pub(crate) target: &'a Target,
    /// The deployment's own directory, absolute.
    pub(crate) home: &'a Path,
    /// The bundle that is in place, or on its way there; absent when the deployment leaves.
    pub(crate) bundle: Option<&'a Bundle>,
    /// What the deployment owned before.
    pub(crate) before: &'a Claims,
    /// What it is to own. Whatever is in `before` with the same digest need not be touched.
    pub(crate) after: &'a Claims,
}

/// Whether something that may take long is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It is.
    Ready,
    /// It is under way in the background; the agent is woken when there is more to say. The text is for people, such as
    /// "pulling quay.io/x (34 %)".
    Underway(String),
}

/// How one claim does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observation {
    /// The claim.
    pub(crate) claim: Claim,
    /// How it does.
    pub(crate) condition: Condition,
    /// How it differs from what was applied, if it does. Enforcing means [`Applier::apply`] with this claim left out of
    /// `before`. A claim that is not in `after` is somebody else's: its drift is told, and nothing is done about it.
    pub(crate) drift: Option<Drift>,
}

/// How something does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// As it should.
    Well,
    /// Not yet, which is usual after a change; why, for people.
    Starting(String),
    /// Not well, which may pass; why, with the last lines that it said.
    Ill(String),
    /// Not well, and it will not become so by itself; why, with the last lines that it said.
    Failed(String),
}

/// What looks after one kind of thing beside files: the way between claims and what runs.
///
/// No call takes long: what may (a pull) goes into the background, and what the platform does by itself (a unit starts)
/// is not waited for but observed. Every call may come again after a cut at any instruction of it, so each looks at what
/// is there first. Calls come from a thread that may block; a runtime's handle is at hand for whoever needs one.
pub(crate) trait Applier: std::fmt::Debug + Send {
    /// Plan: returns what the bundle claims, after checking that the owner's configuration allows all that it asks for.
    /// Looks at nothing but its arguments.
    fn plan(&self, target: &Target, bundle: &Bundle) -> Result<Claims, ApplyError>;

    /// Prepares: checks what can be checked and fetches what has to be fetched before the switch. Nothing that runs is
    /// touched. Claims in `after` that are not in `before` and exist already are refused, unless they may be adopted.
    fn prepare(&mut self, work: &Work<'_>) -> Result<Readiness, ApplyError> {
        let _nothing_to_prepare = work;
        Ok(Readiness::Ready)
    }

    /// Room: returns what [`Applier::apply`] is to write outside of the deployment's own directory, at most, and where.
    /// Looks at nothing but its arguments.
    fn room(&self, work: &Work<'_>) -> Vec<(PathBuf, Need)> {
        let _nothing = work;
        Vec::new()
    }

    /// Apply: the files are in place; takes what is only in `before` down, and makes, changes or restarts what differs.
    fn apply(&mut self, work: &Work<'_>) -> Result<(), ApplyError>;

    /// Observe: returns how each claim of `after` does.
    fn observe(&mut self, work: &Work<'_>) -> Result<Vec<Observation>, ApplyError>;

    /// Returns what of `after` runs as it was made though others changed files of it, which are still as they left them. It
    /// is what [`Applier::apply`] gets as `before` once they are put right: what is left out is made again, and what took
    /// in what others wrote has another digest.
    fn untouched(&mut self, work: &Work<'_>, strays: &Strays) -> Result<Claims, ApplyError> {
        let _anything_may_have_taken_it_in = (work, strays);
        Ok(Claims::new())
    }

    /// Remove: takes down what is in `before` and not in `after`, while the files are still there.
    fn remove(&mut self, work: &Work<'_>) -> Result<Readiness, ApplyError>;

    /// Returns the files of the bundle, by path below the agent's root, that `claims` rest on: what is left to another
    /// deployment rests on them until that one has it in its own way. Looks at nothing but its arguments.
    fn rests_on(&self, target: &Target, bundle: &Bundle, claims: &Claims) -> Result<BTreeSet<String>, ApplyError> {
        let _files_are_read_when_it_is_made = (target, bundle, claims);
        Ok(BTreeSet::new())
    }

    /// Release: what is in `before` stays as it is, and is nobody's from now on. Whatever says that it is this deployment's, and
    /// would keep others from having it, goes.
    fn release(&mut self, work: &Work<'_>) -> Result<Readiness, ApplyError> {
        let _nothing_says_so = work;
        Ok(Readiness::Ready)
    }

    /// Adopt: returns what files of the bundle would have to say for what is there now to be right, by path below the
    /// deployment's directory. What is in files anyway is not this applier's to tell.
    fn adopt(&mut self, work: &Work<'_>) -> Result<Vec<(String, String)>, ApplyError> {
        let _files_say_it_all = work;
        Ok(Vec::new())
    }

    /// Keep: whatever was fetched for bundles other than these is not needed again, and may go.
    fn keep(&mut self, bundles: &BTreeSet<Digest>) -> Result<(), ApplyError> {
        let _nothing_was_fetched = bundles;
        Ok(())
    }

    /// Whether something that it began is still being done, which ends with the process.
    fn is_busy(&self) -> bool {
        false
    }

    /// Watches what it looks after from now on, and wakes the agent when something may have changed.
    fn watch(&mut self) {}
}
