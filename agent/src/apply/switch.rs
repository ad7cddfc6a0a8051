//! The switch from old to new, and its journal (law 7).
//!
//! All new content is staged and synced on the same file system first, in `.titan/<assignment>/` at the root (or at
//! the mount point that the destination is on). Then the journal gets the list of steps, every one of them a rename,
//! and is synced: from here on the switch goes forward. Then the steps, then the ledger, then the journal goes.
//!
//! There is one journal at a time: while it is there no other switch begins. A switch that cannot be undone, or whose
//! stage cannot be cleared away, would hold up every other deployment for ever, so its journal is put aside under
//! `stuck/`, where it is tried again at every pass. Only that deployment waits for it, and whoever wants its paths.
//!
//! What is guaranteed: after a stop at any instruction, a power cut included, the next start brings the deployment to
//! the old bundle (if the journal had not got its steps) or to the new one (if it had), before anything else is done.
//! A step that fails is undone with all before it. To other programs a deployment's own directory changes in a
//! single step (`RENAME_EXCHANGE`) as long as it holds nothing but the agent's files and plain files of others, and
//! the file system can do it; the directory is then a new inode. Otherwise (directories, links or sockets of others
//! inside it, `switch: file`, files with a `destination` elsewhere) each file changes in one step of its own, so
//! another program may see some files new and others still old for the time that a few renames take.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    root::{Root, RootError},
    step::Step,
};
use crate::{
    disk::{self, DiskError},
    faults::{self, fault},
    ledger::Ledger,
    settle::chain,
    state::StateDir,
};

const FILE: &str = "journal.json";
/// How a journal says which way it goes.
const FORWARD: &str = r#""phase":"switching""#;
/// The other way, in as many bytes.
const BACKWARD: &str = r#""phase":"undoing"  "#;
/// Where the journals of switches go that cannot be brought to an end, so that other deployments can go on.
const STUCK: &str = "stuck";

/// Why a switch did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SwitchError {
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
    /// The assignment's id.
    name: String,
    phase: Phase,
    root: PathBuf,
    stages: BTreeSet<String>,
    steps: Vec<Step>,
    ledger: Option<Ledger>,
}

impl Journal {
    /// Whether the ledger has what the switch led to: the steps must not meet what came to be since.
    fn is_done(&self, ledger: &Ledger) -> bool {
        self.phase == Phase::Switching && self.ledger.as_ref().is_some_and(|next| next.switches <= ledger.switches)
    }
}

/// How a switch that was interrupted ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The old state stands.
    Old,
    /// The new state stands.
    New,
}

/// A switch that can be brought neither forward nor back for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stuck {
    /// Why, for people.
    pub(crate) message: String,
    /// The paths that it is about.
    pub(crate) paths: BTreeSet<String>,
}

/// What came of the switches that were interrupted, by the name under which they staged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Recovery {
    /// Those that have ended.
    pub(crate) ended: BTreeMap<String, Ended>,
    /// Those that have not. The ledger is as before them.
    pub(crate) stuck: BTreeMap<String, Stuck>,
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
        if is_open(state)? || exists(&stuck(state, name))? {
            return Err(SwitchError::Unfinished);
        }
        let stages: BTreeSet<_> = mounts.iter().map(|mount| stage(mount, name)).collect();
        let (name, phase, root_path) = (name.to_owned(), Phase::Staging, path.to_owned());
        let journal = Journal { name, phase, root: root_path, stages, steps: Vec::new(), ledger: None };
        disk::write_json(&state.file(FILE), &journal)?;
        fault!("journal-staging");
        let switch = Self { root, state, journal, staged: BTreeSet::new(), count: 0 };
        switch.or_forget(|switch| {
            for stage in &switch.journal.stages {
                switch.root.clear(stage)?;
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
        forget(self.root, &self.state.file(FILE), &self.journal)
    }

    fn or_forget(&self, act: impl FnOnce(&Self) -> Result<(), RootError>) -> Result<(), SwitchError> {
        act(self).map_err(|error| {
            let _forgotten = forget(self.root, &self.state.file(FILE), &self.journal);
            error.into()
        })
    }

    /// Does the steps and makes `ledger` the ledger, after counting the switch in it.
    pub(crate) fn commit(mut self, ledger: &mut Ledger) -> Result<(), SwitchError> {
        ledger.switches += 1;
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
        forward(self.root, self.state, &self.state.file(FILE), self.journal)
    }
}

/// Whether a switch has begun and not come to its end.
pub(crate) fn is_open(state: &StateDir) -> Result<bool, DiskError> {
    exists(&state.file(FILE))
}

/// Returns the assignment's id in the journal, if one is there and can be read.
pub(crate) fn open_name(state: &StateDir) -> Option<String> {
    disk::read_json::<Journal>(&state.file(FILE)).ok().flatten().map(|journal| journal.name)
}

/// Brings switches that were interrupted to their end, one way or the other, and `ledger` to what holds then.
///
/// # Errors
///
/// It is not known what holds: nothing may be done before this succeeds.
pub(crate) fn recover(state: &StateDir, ledger: &mut Ledger) -> Result<Recovery, SwitchError> {
    let mut recovery = Recovery::default();
    let file = state.file(FILE);
    if let Some(journal) = disk::read_json::<Journal>(&file)? {
        let name = journal.name.clone();
        match resume(state, &file, journal, ledger) {
            Ok(ended) => drop(recovery.ended.insert(name, ended)),
            Err(error) => {
                let journal = disk::read_json::<Journal>(&file)?;
                if journal.is_none_or(|journal| journal.phase == Phase::Switching && !journal.is_done(ledger)) {
                    return Err(error);
                }
                disk::private_dir(&state.file(STUCK))?;
                disk::rename(&file, &stuck(state, &name))?;
            }
        }
    }
    for file in disk::list(&state.file(STUCK))?.into_iter().filter(|file| file.extension() == Some("json".as_ref())) {
        let journal = match disk::read_json::<Journal>(&file) {
            Ok(Some(journal)) => journal,
            Ok(None) => continue,
            Err(error) => {
                let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                recovery.stuck.insert(name, Stuck { message: chain(&error), paths: BTreeSet::new() });
                continue;
            }
        };
        let (name, done) = (journal.name.clone(), journal.is_done(ledger));
        let paths = journal.steps.iter().map(|step| step.path().to_owned()).collect();
        match resume(state, &file, journal, ledger) {
            Ok(ended) => drop(recovery.ended.insert(name, ended)),
            Err(error) if done => tracing::warn!("the traces of a switch cannot be removed yet: {}", chain(&error)),
            Err(error) => drop(recovery.stuck.insert(name, Stuck { message: chain(&error), paths })),
        }
    }
    Ok(recovery)
}

fn resume(state: &StateDir, file: &Path, journal: Journal, ledger: &mut Ledger) -> Result<Ended, SwitchError> {
    let root = Root::open(&journal.root)?;
    match journal.phase {
        Phase::Staging => forget(&root, file, &journal).map(|()| Ended::Old),
        Phase::Undoing => backward(&root, file, &journal).map(|()| Ended::Old),
        Phase::Switching if journal.is_done(ledger) => finish(&root, file, &journal).map(|()| Ended::New),
        Phase::Switching => {
            let next = journal.ledger.clone();
            match forward(&root, state, file, journal) {
                Ok(()) => {
                    *ledger = next.unwrap_or_default();
                    Ok(Ended::New)
                }
                Err(SwitchError::Step(error)) => {
                    tracing::warn!("a switch that was interrupted was undone: {}", chain(&error));
                    Ok(Ended::Old)
                }
                Err(error) => Err(error),
            }
        }
    }
}

fn forward(root: &Root, state: &StateDir, file: &Path, mut journal: Journal) -> Result<(), SwitchError> {
    let steps = journal.steps.iter().try_for_each(|step| {
        asked_to_fail("switch-step", root)?;
        step.forward(root)?;
        fault!("switch-step");
        Ok(())
    });
    if let Err(error) = steps.and_then(|()| sync(root, &journal.steps)) {
        journal.phase = Phase::Undoing;
        // Where there is no room for another journal, this one is changed in its place.
        disk::write_json(file, &journal).or_else(|_| disk::overwrite(file, FORWARD, BACKWARD))?;
        fault!("journal-undoing");
        return match backward(root, file, &journal) {
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
    if let Err(error) = finish(root, file, &journal) {
        tracing::warn!("the traces of a switch cannot be removed yet: {}", chain(&error));
    }
    Ok(())
}

fn finish(root: &Root, file: &Path, journal: &Journal) -> Result<(), SwitchError> {
    for step in &journal.steps {
        step.tidy(root)?;
    }
    forget(root, file, journal)
}

fn backward(root: &Root, file: &Path, journal: &Journal) -> Result<(), SwitchError> {
    // Without any stage it was undone before, and only the journal was left.
    let mut staged = false;
    for stage in &journal.stages {
        staged |= root.stat(stage)?.is_some();
    }
    for step in journal.steps.iter().rev().filter(|_| staged) {
        asked_to_fail("undo-step", root)?;
        step.backward(root)?;
        fault!("undo-step");
    }
    sync(root, &journal.steps)?;
    forget(root, file, journal)
}

fn asked_to_fail(point: &str, root: &Root) -> Result<(), RootError> {
    if faults::fails(point) {
        let source = io::Error::other("a test asked for it");
        return Err(RootError::Io { what: "put in place", path: root.full(""), source });
    }
    Ok(())
}

/// Removes the stages and then the journal.
fn forget(root: &Root, file: &Path, journal: &Journal) -> Result<(), SwitchError> {
    asked_to_fail("forget", root)?;
    for stage in &journal.stages {
        root.clear(stage)?;
        if let Some((above, _)) = stage.rsplit_once('/') {
            root.remove_dir(above)?;
        }
    }
    fault!("stage-removed");
    disk::remove(file)?;
    fault!("journal-removed");
    Ok(())
}

fn exists(path: &Path) -> Result<bool, DiskError> {
    path.try_exists().map_err(|source| DiskError::Read { path: path.to_owned(), source })
}

fn stuck(state: &StateDir, name: &str) -> PathBuf {
    state.file(STUCK).join(format!("{name}.json"))
}

fn stage(mount: &str, name: &str) -> String {
    let above = if mount.is_empty() { String::new() } else { format!("{mount}/") };
    format!("{above}{}/{name}", super::changes::STAGING)
}

fn sync(root: &Root, steps: &[Step]) -> Result<(), RootError> {
    let above = |step: &Step| step.path().rsplit_once('/').map_or_else(String::new, |(above, _)| above.to_owned());
    let dirs: BTreeSet<String> = steps.iter().map(above).collect();
    dirs.iter().rev().try_for_each(|dir| root.sync_dir(dir))
}
