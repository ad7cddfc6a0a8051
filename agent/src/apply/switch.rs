//! The switch from old to new, and its journal (law 7).
//!
//! All new content is staged and synced on the same file system first, in `.titan/<assignment>/` at the root (or at
//! the mount point that the destination is on). Then the journal gets the list of steps, every one of them a rename,
//! and is synced: from here on the switch goes forward. Then the steps, then the ledger, then the journal goes.
//!
//! What is guaranteed: after a stop at any instruction, a power cut included, the next start brings the deployment to
//! the old bundle (if the journal had not got its steps) or to the new one (if it had), before anything else is done.
//! A step that fails is undone with all before it. To other programs a deployment's own directory changes in a
//! single step (`RENAME_EXCHANGE`) as long as it holds nothing but the agent's files and plain files of others, and
//! the file system can do it; the directory is then a new inode. Otherwise (directories, links or sockets of others
//! inside it, `switch: file`, files with a `destination` elsewhere) each file changes in one step of its own, so
//! another program may see some files new and others still old for the time that a few renames take.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::root::{Root, RootError};
use crate::{
    disk::{self, DiskError},
    faults::{self, fault},
    ledger::Ledger,
    state::StateDir,
};

const FILE: &str = "journal.json";

/// Why a switch did not happen.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The journal or the ledger.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A step; it and those before it were undone.
    #[error(transparent)]
    Step(#[from] RootError),
    /// An earlier switch has not come to its end.
    #[error("an earlier switch is still to be brought to its end, which is tried again")]
    Unfinished,
    /// A step failed, and undoing failed too; it is tried again before anything else is done.
    #[error("{step}; undoing it failed as well and is tried again")]
    Stuck {
        /// The step's failure.
        step: String,
        /// The undoing's failure.
        #[source]
        source: RootError,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Phase {
    Staging,
    Switching,
    Undoing,
}

/// The switch that is under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Journal {
    phase: Phase,
    root: PathBuf,
    stages: BTreeSet<String>,
    steps: Vec<Step>,
    ledger: Option<Ledger>,
}

/// What a start found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovered {
    /// No switch was under way.
    Nothing,
    /// The old state stands.
    Old,
    /// The new state stands.
    New,
}

/// One switch, from staging to the ledger.
#[derive(Debug)]
pub(crate) struct Switch<'a> {
    root: &'a Root,
    state: &'a StateDir,
    journal: Journal,
    staged: BTreeSet<String>,
    count: usize,
}

impl<'a> Switch<'a> {
    /// Begins a switch that stages under `name` at each of `mounts`.
    pub(crate) fn begin(
        root: &'a Root,
        state: &'a StateDir,
        path: &Path,
        name: &str,
        mounts: &BTreeSet<String>,
    ) -> Result<Self, SwitchError> {
        if state.file(FILE).exists() {
            return Err(SwitchError::Unfinished);
        }
        let stages: BTreeSet<_> = mounts.iter().map(|mount| stage(mount, name)).collect();
        let journal = Journal { phase: Phase::Staging, root: path.to_owned(), stages, steps: Vec::new(), ledger: None };
        disk::write_json(&state.file(FILE), &journal)?;
        fault!("journal-staging");
        let switch = Self { root, state, journal, staged: BTreeSet::new(), count: 0 };
        switch.or_forget(|switch| {
            for stage in &switch.journal.stages {
                clear(switch.root, stage)?;
                let above = stage.rsplit_once('/').map_or("", |(above, _)| above);
                switch.root.make_dir(above, 0o700)?;
                switch.root.make_dir(stage, 0o700)?;
            }
            Ok(())
        })?;
        Ok(switch)
    }

    /// Returns a new name in the stage at `mount`.
    pub(crate) fn fresh(&mut self, mount: &str, name: &str) -> String {
        self.count += 1;
        let stage = stage(mount, name);
        let path = format!("{stage}/{}", self.count);
        self.staged.insert(stage);
        path
    }

    /// Notes that a directory inside the stage has to be synced.
    pub(crate) fn staged_dir(&mut self, path: &str) {
        self.staged.insert(path.to_owned());
    }

    /// Adds a step.
    pub(crate) fn step(&mut self, step: Step) {
        self.journal.steps.push(step);
    }

    /// Adds the step that makes a directory, once.
    pub(crate) fn make_dir(&mut self, path: &str) {
        let step = Step::MakeDir { path: path.to_owned() };
        if !self.journal.steps.contains(&step) {
            self.journal.steps.push(step);
        }
    }

    /// Gives up a switch whose staging failed; nothing that matters was touched.
    pub(crate) fn abandon(self) -> Result<(), SwitchError> {
        forget(self.root, self.state, &self.journal)
    }

    fn or_forget(&self, act: impl FnOnce(&Self) -> Result<(), RootError>) -> Result<(), SwitchError> {
        act(self).map_err(|error| {
            let _forgotten = forget(self.root, self.state, &self.journal);
            error.into()
        })
    }

    /// Does the steps and makes `ledger` the ledger.
    pub(crate) fn commit(mut self, ledger: &Ledger) -> Result<(), SwitchError> {
        self.or_forget(|switch| {
            for dir in switch.staged.iter().rev().chain(switch.journal.stages.iter().rev()) {
                switch.root.sync_dir(dir)?;
            }
            Ok(())
        })?;
        fault!("stage-synced");
        self.journal.phase = Phase::Switching;
        self.journal.ledger = Some(ledger.clone());
        disk::write_json(&self.state.file(FILE), &self.journal)?;
        fault!("journal-switching");
        forward(self.root, self.state, self.journal)
    }
}

/// Brings a switch that was interrupted to its end, one way or the other, and `ledger` to what holds then.
pub(crate) fn recover(state: &StateDir, ledger: &mut Ledger) -> Result<Recovered, SwitchError> {
    let Some(journal) = disk::read_json::<Journal>(&state.file(FILE))? else { return Ok(Recovered::Nothing) };
    let root = Root::open(&journal.root)?;
    match journal.phase {
        Phase::Staging => forget(&root, state, &journal).map(|()| Recovered::Old),
        Phase::Undoing => backward(&root, state, &journal).map(|()| Recovered::Old),
        // The switch was done, only its traces were not gone: the steps must not meet what came to be since.
        Phase::Switching if journal.ledger.as_ref() == Some(ledger) => {
            finish(&root, state, &journal).map(|()| Recovered::New)
        }
        Phase::Switching => {
            let next = journal.ledger.clone();
            forward(&root, state, journal)?;
            *ledger = next.unwrap_or_default();
            Ok(Recovered::New)
        }
    }
}

fn forward(root: &Root, state: &StateDir, mut journal: Journal) -> Result<(), SwitchError> {
    let steps = journal.steps.iter().try_for_each(|step| {
        if faults::fails("switch-step") {
            let source = io::Error::other("a test asked for it");
            return Err(RootError::Io { what: "put in place", path: root.full(""), source });
        }
        step.forward(root)?;
        fault!("switch-step");
        Ok(())
    });
    if let Err(error) = steps.and_then(|()| sync(root, &journal.steps)) {
        journal.phase = Phase::Undoing;
        disk::write_json(&state.file(FILE), &journal)?;
        fault!("journal-undoing");
        return match backward(root, state, &journal) {
            Ok(()) => Err(SwitchError::Step(error)),
            Err(SwitchError::Step(source)) => Err(SwitchError::Stuck { step: chain(&error), source }),
            Err(other) => Err(other),
        };
    }
    fault!("switch-synced");
    if let Some(ledger) = &journal.ledger {
        ledger.write(state)?;
    }
    // It is done: what cannot be cleared away now is cleared away before the next switch.
    if let Err(error) = finish(root, state, &journal) {
        tracing::warn!("the traces of a switch cannot be removed yet: {}", chain(&error));
    }
    Ok(())
}

fn finish(root: &Root, state: &StateDir, journal: &Journal) -> Result<(), SwitchError> {
    for step in &journal.steps {
        step.tidy(root)?;
    }
    forget(root, state, journal)
}

fn backward(root: &Root, state: &StateDir, journal: &Journal) -> Result<(), SwitchError> {
    // Without any stage it was undone before, and only the journal was left.
    let mut staged = false;
    for stage in &journal.stages {
        staged |= root.stat(stage)?.is_some();
    }
    for step in journal.steps.iter().rev().filter(|_| staged) {
        step.backward(root)?;
        fault!("undo-step");
    }
    sync(root, &journal.steps)?;
    forget(root, state, journal)
}

/// Removes the stages and then the journal.
fn forget(root: &Root, state: &StateDir, journal: &Journal) -> Result<(), SwitchError> {
    for stage in &journal.stages {
        clear(root, stage)?;
        if let Some((above, _)) = stage.rsplit_once('/') {
            root.remove_dir(above)?;
        }
    }
    fault!("stage-removed");
    disk::remove(&state.file(FILE))?;
    fault!("journal-removed");
    Ok(())
}

fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", chain(source)))
}

fn stage(mount: &str, name: &str) -> String {
    let above = if mount.is_empty() { String::new() } else { format!("{mount}/") };
    format!("{above}{}/{name}", super::changes::STAGING)
}

fn sync(root: &Root, steps: &[Step]) -> Result<(), RootError> {
    let touched = steps.iter().map(|step| match step {
        Step::MakeDir { path } | Step::Take { path, .. } => path,
        Step::Put { to, .. } | Step::Swap { to, .. } => to,
    });
    let above = |path: &String| path.rsplit_once('/').map_or_else(String::new, |(above, _)| above.to_owned());
    let dirs: BTreeSet<String> = touched.map(above).collect();
    dirs.iter().rev().try_for_each(|dir| root.sync_dir(dir))
}

/// Removes a directory with everything in it; links are removed, not followed.
fn clear(root: &Root, path: &str) -> Result<(), RootError> {
    for (name, kind) in root.list(path)? {
        let inside = format!("{path}/{name}");
        if kind == FileType::Directory { clear(root, &inside)? } else { root.unlink(&inside)? }
    }
    root.remove_dir(path).map(drop)
}
