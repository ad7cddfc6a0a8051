//! Bringing the host to what is desired: the journal first, then the plan step by step, then Git, then the outbox.
//!
//! All of it blocks; the agent runs it off its async thread. A deployment that fails stays as it was, says why, and
//! is tried again later; all others go on (law 8).

mod commits;
mod done;
mod notes;
mod pushes;
mod recovery;
mod removals;
mod retries;
mod steps;

pub use done::{Action, Done};

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    path::PathBuf,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use titan_api::{Digest, Revision, deployments::OnRemove, reports::Phase};
use uuid::Uuid;

use crate::{
    apply::{files::Files, switch::Stuck},
    bundles::Bundles,
    config::{FilesSettings, Settings},
    desired::Desired,
    disk::{self, DiskError},
    faults::fault,
    git::Sink,
    ledger::Ledger,
    outbox::Outbox,
    state::{StateDir, StateError, StateLock},
};
use pushes::Pushes;
use retries::Failure;

const DESIRED: &str = "desired.json";

/// Why the host cannot be brought to anything.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file of the state directory.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The root is another one than before.
    #[error(
        "the ledger speaks of files below {}, the configuration of {}; set appliers.files.root back", 
        .ledger.display(), .config.display()
    )]
    RootMoved {
        /// The root that the ledger speaks of.
        ledger: PathBuf,
        /// The root as configured.
        config: PathBuf,
    },
}

/// One pass over everything: what is asked for, and what came of it.
#[derive(Debug, Default)]
struct Pass<'a> {
    all: bool,
    unfetched: Option<&'a BTreeMap<Digest, String>>,
    tried: BTreeSet<Uuid>,
    failed: BTreeMap<Uuid, (Phase, String)>,
    done: Vec<Done>,
}

/// Everything the agent remembers, and what acts on it.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) state: StateDir,
    pub(crate) desired: Desired,
    pub(crate) ledger: Ledger,
    pub(crate) bundles: Bundles,
    pub(crate) outbox: Outbox,
    saved: Desired,
    settings: Option<FilesSettings>,
    files: Option<Files>,
    git: Option<Sink>,
    pushes: Pushes,
    failures: BTreeMap<Uuid, Failure>,
    lacking: BTreeMap<Digest, Instant>,
    stuck: BTreeMap<Uuid, Stuck>,
    halted: Option<String>,
    _lock: StateLock,
}

impl Worker {
    /// Takes the state directory and finishes what was interrupted, if it can be.
    pub(crate) fn open(settings: &Settings) -> Result<Self, SettleError> {
        let state = StateDir::new(&settings.state_dir);
        let lock = state.lock()?;
        let ledger = Ledger::read(&state)?;
        let saved: Desired = disk::read_json(&state.file(DESIRED))?.unwrap_or_default();
        let mut worker = Self {
            bundles: Bundles::open(&state)?,
            outbox: Outbox::read(&state)?,
            git: settings.git.as_ref().map(|git| Sink::new(git, state.path())),
            pushes: Pushes::default(),
            failures: BTreeMap::new(),
            lacking: BTreeMap::new(),
            stuck: BTreeMap::new(),
            halted: None,
            state,
            desired: saved.clone(),
            saved,
            ledger,
            settings: settings.files.clone(),
            files: None,
            _lock: lock,
        };
        worker.recover();
        adopt(&mut worker.desired, &worker.ledger);
        if let Some(files) = settings.files.as_ref()
            && !worker.ledger.entries.is_empty()
            && files.root != worker.ledger.root
        {
            return Err(SettleError::RootMoved { ledger: worker.ledger.root, config: files.root.clone() });
        }
        Ok(worker)
    }

    /// Returns the cursor that is written down.
    pub(crate) const fn saved_cursor(&self) -> Option<Revision> {
        self.saved.cursor
    }

    /// Writes the desired set down, if anything but the cursor changed in it or `cursor` says that it matters too.
    pub(crate) fn save_desired(&mut self, cursor: bool) -> Result<(), DiskError> {
        let same = self.saved.entries == self.desired.entries && self.saved.removals == self.desired.removals;
        if !same || (cursor && self.saved.cursor != self.desired.cursor) {
            disk::write_json(&self.state.file(DESIRED), &self.desired)?;
            self.saved = self.desired.clone();
            fault!("desired-saved");
        }
        Ok(())
    }

    /// Returns the digests of bundles that are needed and not there. Nobody has those of orphans any more.
    pub(crate) fn missing_bundles(&self) -> BTreeSet<Digest> {
        let entries = self.desired.entries.values().filter(|entry| !entry.orphan).map(|entry| entry.digest);
        entries.filter(|digest| !self.bundles.holds(digest)).collect()
    }

    /// Returns why nothing can be changed on this host for now, if so.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.halted.clone()
    }

    /// Brings the host to what is desired. With `all`, deployments that are settled are checked for drift too.
    /// `unfetched` says why bundles could not be had.
    pub(crate) fn settle(&mut self, all: bool, unfetched: &BTreeMap<Digest, String>) -> Vec<Done> {
        let mut pass = Pass { all, unfetched: Some(unfetched), ..Pass::default() };
        if self.recover().is_some() {
            match self.save_desired(false).and_then(|()| self.succeed()) {
                Ok(()) => self.take_steps(&mut pass),
                // What is done and then forgotten would be undone after a restart.
                Err(error) => self.halt(format!("what is declared cannot be noted: {}", chain(&error))),
            }
        }
        self.tell_halted(&mut pass);
        self.remember_failures(&pass);
        for (id, (phase, message)) in &pass.failed {
            if *phase == Phase::Pending
                && let Some(entry) = self.desired.entries.get(id)
            {
                pass.done.push(Done::of(*id, entry, Action::Waiting, message.clone()));
            }
        }
        let git_errors = if self.halted.is_none() { self.commit() } else { BTreeMap::new() };
        self.pushes.due |= all;
        self.note(&pass.failed, &git_errors, &mut pass.done);
        // Whoever waits for a bundle may wait for room.
        if pass.done.iter().any(|done| done.action != Action::Unchanged) {
            self.collect_garbage();
        }
        pass.done
    }

    /// Changes nothing on this host until the next pass.
    fn halt(&mut self, why: String) {
        tracing::warn!("nothing is changed on this host until that is mended: {why}");
        self.halted = Some(why);
    }

    /// Removes orphans from this host: those of `ids`, or all. Returns what was removed.
    pub(crate) fn prune(&mut self, ids: Option<&[Uuid]>) -> Result<Vec<Uuid>, SettleError> {
        let orphans: Vec<Uuid> = self.desired.orphans().map(|(id, _)| id).collect();
        let chosen: Vec<Uuid> = orphans.into_iter().filter(|id| ids.is_none_or(|ids| ids.contains(id))).collect();
        for id in &chosen {
            self.desired.prune(*id);
        }
        self.save_desired(false)?;
        Ok(chosen)
    }

    fn collect_garbage(&self) {
        let desired = self.desired.entries.values().map(|entry| entry.digest);
        let owned = self.ledger.entries.values().flat_map(|entry| [Some(entry.digest), entry.previous]);
        if let Err(error) = self.bundles.keep(&desired.chain(owned.flatten()).collect()) {
            tracing::warn!("bundles that nobody needs cannot be removed yet: {}", chain(&error));
        }
    }
}

/// Takes what the ledger owns and nobody declared into the desired set, as orphans.
fn adopt(desired: &mut Desired, ledger: &Ledger) {
    for (id, owned) in &ledger.entries {
        if !desired.entries.contains_key(id) && !desired.removals.contains_key(id) {
            let entry = crate::desired::DesiredEntry {
                name: owned.name.clone(),
                workspace: owned.workspace.clone(),
                release: owned.release.clone(),
                revision: owned.revision,
                digest: owned.digest,
                depends_on: owned.depends_on.clone(),
                on_remove: OnRemove::Delete,
                orphan: true,
            };
            desired.entries.insert(*id, entry);
        }
    }
}

/// Returns the present time by the host's clock.
pub(crate) fn now() -> Revision {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    Revision::from_micros(micros.try_into().unwrap_or(i64::MAX))
}

/// Returns an error with all its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
