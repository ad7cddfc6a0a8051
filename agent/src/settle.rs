//! Bringing the host to what is desired: the journal first, then the plan step by step, then Git, then the outbox.
//!
//! All of it blocks; the agent runs it off its async thread. A deployment that fails stays as it was, says why, and
//! is tried again later; all others go on (law 8).

mod bequests;
mod beside;
mod burdens;
mod commits;
mod courses;
mod done;
mod drifting;
mod gates;
mod halts;
mod keeping;
mod notes;
mod proofs;
mod pushes;
mod recovery;
mod removals;
mod retreats;
mod retries;
mod room;
mod steps;
mod telling;
mod watching;

pub use done::{Action, Done};

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use titan_api::{
    Digest, Revision, deployments::OnRemove, drift::Drift, reports::Phase, templates::Applier, windows::Windows,
};
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::{
    apply::{
        appliers::{Appliers, Ground},
        files::Files,
        switch::Stuck,
    },
    background::Background,
    bundles::Bundles,
    claims::Claims,
    commands::Ended,
    config::{FilesSettings, Settings, appliers::Exec},
    desired::Desired,
    disk::{self, DiskError},
    faults::fault,
    git::Sink,
    ledger::Ledger,
    outbox::Outbox,
    spaces::Limits,
    state::{StateDir, StateError, StateLock},
    wake::Wake,
    watches::Watches,
};
use bequests::Ends;
use burdens::Burden;
use commits::Commits;
use gates::{Held, HookKey};
use halts::Halts;
use proofs::Proofs;
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

/// What a pass is to look at beside what is not settled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    /// Everything.
    pub(crate) all: bool,
    /// Whatever these appliers look after; all files, if that of files is among them.
    pub(crate) stirred: BTreeSet<Applier>,
    /// Whether the control plane answers, as far as is known.
    pub(crate) in_touch: bool,
    /// Why bundles could not be had.
    pub(crate) unfetched: BTreeMap<Digest, String>,
}

/// One pass over everything: what is asked for, and what came of it.
#[derive(Debug, Default)]
struct Pass<'a> {
    all: bool,
    stirred: BTreeSet<Applier>,
    unfetched: Option<&'a BTreeMap<Digest, String>>,
    tried: BTreeSet<Uuid>,
    held: BTreeMap<Uuid, Held>,
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
    waiting: BTreeSet<Uuid>,
    /// Deployments that are on their way out: a hook runs, or something is being stopped.
    leaving: BTreeSet<Uuid>,
    ends: Ends,
    /// What of deployments that leave is down, and since when, where what was left to them is not yet.
    down: BTreeMap<Uuid, (Instant, Claims)>,
    /// What was left to deployments that do not want it, and is not down.
    burdens: BTreeMap<Uuid, Burden>,
    lacking: BTreeMap<Digest, Instant>,
    stuck: BTreeMap<Uuid, Stuck>,
    io: Handle,
    wake: Wake,
    commits: Commits,
    halts: Halts,
    /// When the last pass began.
    passed: Option<Instant>,
    /// Deployments that go over to another applier and are prepared for it.
    prepared: BTreeMap<Uuid, Digest>,
    /// When a way back that failed is tried again.
    retreats: BTreeMap<Uuid, Instant>,
    /// When what is in place is put right again, where that failed while something else is declared.
    keeps: BTreeMap<Uuid, Instant>,
    appliers: Appliers,
    exec: Option<Exec>,
    windows: Windows,
    limits: Limits,
    watches: Option<Watches>,
    watched: Option<u64>,
    hooks: Background<HookKey, Ended>,
    hooked: BTreeSet<HookKey>,
    proofs: Proofs,
    drifts: BTreeMap<Uuid, Vec<Drift>>,
    /// Whether the control plane answers, and until when drift waits to be told before it is put right.
    in_touch: bool,
    untold: BTreeMap<Uuid, Instant>,
    halted: Option<String>,
    _lock: StateLock,
}

impl Worker {
    /// Takes the state directory and finishes what was interrupted, if it can be.
    ///
    /// `io` runs what waits, on a thread other than the one on which this works; `wake` is woken when there is more to do.
    pub(crate) fn open(settings: &Settings, io: &Handle, wake: &Wake) -> Result<Self, SettleError> {
        let state = StateDir::new(&settings.state_dir);
        let lock = state.lock_soon()?;
        let ledger = Ledger::read(&state)?;
        let outbox = Outbox::read(&state)?;
        let saved: Desired = disk::read_json(&state.file(DESIRED))?.unwrap_or_default();
        let ground = Ground { io: io.clone(), wake: wake.clone(), state: state.clone() };
        let reports = outbox.reports.values().filter(|report| !report.drift.is_empty());
        let mut worker = Self {
            io: io.clone(),
            wake: wake.clone(),
            commits: Commits::default(),
            halts: Halts::default(),
            passed: None,
            prepared: BTreeMap::new(),
            retreats: BTreeMap::new(),
            keeps: BTreeMap::new(),
            in_touch: false,
            untold: BTreeMap::new(),
            drifts: reports.map(|report| (report.id, report.drift.clone())).collect(),
            appliers: Appliers::new(settings.appliers.clone(), ground),
            exec: settings.appliers.exec.clone(),
            windows: settings.windows.clone(),
            limits: settings.limits,
            watches: None,
            watched: None,
            hooks: Background::new(io.clone(), wake.clone()),
            hooked: BTreeSet::new(),
            proofs: Proofs::new(io, wake, saved.cursor),
            bundles: Bundles::open(&state)?,
            outbox,
            git: settings.git.as_ref().map(|git| Sink::new(git, state.path(), saved.cursor)),
            pushes: Pushes::default(),
            failures: BTreeMap::new(),
            waiting: BTreeSet::new(),
            leaving: BTreeSet::new(),
            ends: Ends::default(),
            down: BTreeMap::new(),
            burdens: BTreeMap::new(),
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

    /// Returns the digests of bundles that are needed and not there. Nobody has those of orphans any more, nor those that
    /// the control plane does not declare.
    pub(crate) fn missing_bundles(&self) -> BTreeSet<Digest> {
        let declared =
            self.desired.entries.iter().filter(|(id, entry)| !entry.orphan && self.proved_bad(**id).is_none());
        declared.map(|(_, entry)| entry.digest).filter(|digest| !self.bundles.holds(digest)).collect()
    }

    /// Returns why nothing can be changed on this host for now, if so.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.halted.clone()
    }

    /// Brings the host to what is desired, as far as that is possible without waiting.
    pub(crate) fn settle(&mut self, scope: &Scope) -> Vec<Done> {
        let Scope { all, stirred, in_touch, unfetched } = scope;
        self.in_touch = *in_touch;
        self.passed = Some(Instant::now());
        self.ends.turn();
        self.down.retain(|id, _| self.desired.removals.contains_key(id));
        self.untold.retain(|id, _| self.desired.entries.contains_key(id));
        self.burdens.retain(|id, _| !self.ledger.made_by_others(*id).is_empty());
        let mut pass = Pass { all: *all, stirred: stirred.clone(), unfetched: Some(unfetched), ..Pass::default() };
        if self.recover().is_some() {
            match self.save_desired(false).and_then(|()| self.succeed()).and_then(|()| self.reconsider()) {
                Ok(()) => self.take_steps(&mut pass),
                // What is done and then forgotten would be undone after a restart.
                Err(error) => self.halt(format!("what is declared cannot be noted: {}", chain(&error))),
            }
        }
        let kinds = pass.stirred.clone();
        let is_stirred = |kind| *all || kinds.contains(&kind);
        if self.halted.is_none() && self.watch_over(&is_stirred) {
            // Whatever proved bad goes back at once.
            (pass.all, pass.stirred) = (false, BTreeSet::new());
            self.take_steps(&mut pass);
        }
        self.note_halt();
        self.tell_halted(&mut pass);
        self.remember_failures(&pass);
        for (id, (phase, message)) in &pass.held {
            if matches!(phase, Phase::Pending | Phase::Applying)
                && let Some(entry) = self.desired.entries.get(id)
            {
                pass.done.push(Done::of(*id, entry, Action::Waiting, message.clone()));
            }
        }
        let git_errors = if self.halted.is_none() { self.commit(*all) } else { BTreeMap::new() };
        self.pushes.due |= *all;
        self.note(&pass.held, &git_errors, &mut pass.done);
        // Whoever waits for a bundle may wait for room.
        if pass.done.iter().any(|done| done.action != Action::Unchanged) {
            self.collect_garbage();
        }
        self.watch_files(*all || stirred.contains(&Applier::Files));
        pass.done
    }

    /// Returns how long nothing has to be done, if nobody wakes the agent; `None` for as long as one likes.
    pub(crate) fn idle_for(&self) -> Option<Duration> {
        if let Some(again) = self.halts.again() {
            // Nothing else is looked at before that.
            return Some(again.saturating_duration_since(Instant::now()));
        }
        let next = self
            .next_retry()
            .into_iter()
            .chain(self.next_untold())
            .chain(self.next_burden())
            .chain(self.proofs.next())
            .chain(self.commits.again());
        let next = next.min().map(|next| next.saturating_duration_since(Instant::now()));
        let held = !self.waiting.is_empty() || !self.desired.removals.is_empty();
        let opens = if held { self.opens_after() } else { None };
        [next, opens].into_iter().flatten().min()
    }

    /// Whether something is on its way that will come to an end: a hook, a pull, a trial, a stop. Nothing does on a host that
    /// is halted.
    pub(crate) fn is_busy(&self) -> bool {
        if self.halted.is_some() {
            return false;
        }
        let on_trial = |entry: &crate::ledger::LedgerEntry| entry.trial.is_some() || entry.unfinished.is_some();
        !self.hooks.is_idle()
            || self.appliers.are_busy()
            || self.ledger.entries.values().any(on_trial)
            || self.outbox.reports.values().any(|report| report.phase == Phase::Applying)
            || self.leaving.iter().any(|id| self.desired.removals.contains_key(id))
    }

    /// Notes that the control plane has answered.
    pub(crate) fn heard(&mut self) {
        self.proofs.heard();
    }

    /// Forgets what is known of a deployment that is gone.
    fn forget(&mut self, id: Uuid) {
        self.drifts.remove(&id);
        self.untold.remove(&id);
        self.hooked.retain(|(other, ..)| *other != id);
        self.prepared.remove(&id);
        self.retreats.remove(&id);
        self.keeps.remove(&id);
        self.ends.forget(id);
        self.down.remove(&id);
        self.burdens.remove(&id);
        self.proofs.forget(id);
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

    fn collect_garbage(&mut self) {
        let desired = self.desired.entries.values().map(|entry| entry.digest);
        let previous = |entry: &crate::ledger::LedgerEntry| entry.previous.as_ref().map(|previous| previous.digest);
        let owned = self.ledger.entries.values().flat_map(|entry| [Some(entry.digest), previous(entry)]);
        let givers = self.ledger.givers.values().map(|giver| giver.digest);
        let keep = desired.chain(owned.flatten()).chain(givers).collect();
        self.proofs.keep(&keep);
        self.appliers.keep(&keep);
        if let Err(error) = self.bundles.keep(&keep) {
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

#[cfg(test)]
mod tests;
