//! Bringing the host to what is desired: the journal first, then the plan step by step, then Git, then the outbox.
//!
//! All of it blocks; the agent runs it off its async thread. A deployment that fails stays as it was, says why, and
//! is tried again later; all others go on (law 8).

mod commits;
mod done;
mod notes;

pub use done::{Action, Done};

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use titan_api::{
    Digest, Revision,
    deployments::OnRemove,
    poll::Bundle,
    reports::{DeploymentReport, Phase},
};
use uuid::Uuid;

use crate::{
    apply::{Applied, Applier, ApplyError, Target, changes::Refusal, files::Files, switch},
    bundles::{BundleError, Bundles},
    config::Settings,
    desired::Desired,
    disk::{self, DiskError},
    faults::fault,
    git::Sink,
    ledger::Ledger,
    outbox::Outbox,
    plan::{self, Item, Step},
    state::{StateDir, StateError, StateLock},
};

const DESIRED: &str = "desired.json";
/// The pause before a deployment that failed is tried again: doubled each time, up to the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(15), Duration::from_mins(10));

/// Why the host cannot be brought to anything.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file of the state directory.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A switch that was interrupted cannot be brought to an end.
    #[error("the switch that was interrupted cannot be finished")]
    Recover(#[source] switch::SwitchError),
    /// The root cannot be used.
    #[error(transparent)]
    Root(#[from] crate::apply::root::RootError),
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

#[derive(Debug)]
struct Failure {
    digest: Digest,
    count: u32,
    again: Instant,
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
    files: Option<Files>,
    git: Option<Sink>,
    push: Option<String>,
    unpushed: bool,
    failures: BTreeMap<Uuid, Failure>,
    _lock: StateLock,
}

impl Worker {
    /// Takes the state directory and finishes what was interrupted.
    pub(crate) fn open(settings: &Settings) -> Result<Self, SettleError> {
        let state = StateDir::new(&settings.state_dir);
        let lock = state.lock()?;
        let mut ledger = Ledger::read(&state)?;
        recover(&state, &mut ledger)?;
        let saved: Desired = disk::read_json(&state.file(DESIRED))?.unwrap_or_default();
        let mut desired = saved.clone();
        adopt(&mut desired, &ledger);
        if let Some(files) =
            settings.files.as_ref().filter(|files| !ledger.entries.is_empty() && files.root != ledger.root)
        {
            return Err(SettleError::RootMoved { ledger: ledger.root, config: files.root.clone() });
        }
        let files = settings.files.as_ref().map(|files| Files::open(files, &state)).transpose()?;
        Ok(Self {
            bundles: Bundles::open(&state)?,
            outbox: Outbox::read(&state)?,
            git: settings.git.as_ref().map(|git| Sink::new(git, state.path())),
            push: None,
            unpushed: true,
            failures: BTreeMap::new(),
            state,
            desired,
            saved,
            ledger,
            files,
            _lock: lock,
        })
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

    /// Returns the digests of bundles that are needed and not there.
    pub(crate) fn missing_bundles(&self) -> BTreeSet<Digest> {
        let entries = self.desired.entries.values().map(|entry| entry.digest);
        entries.filter(|digest| !self.bundles.holds(digest)).collect()
    }

    /// Brings the host to what is desired. With `all`, deployments that are settled are checked for drift too.
    /// `unfetched` says why bundles could not be had.
    pub(crate) fn settle(&mut self, all: bool, unfetched: &BTreeMap<Digest, String>) -> Result<Vec<Done>, SettleError> {
        recover(&self.state, &mut self.ledger)?;
        let mut done = Vec::new();
        let mut bundles = BTreeMap::new();
        let mut failed: BTreeMap<Uuid, (Phase, String)> = BTreeMap::new();
        let now = Instant::now();
        // Where something moves, what failed may have its path free now, or is to inherit one.
        let stirred = !self.desired.removals.is_empty()
            || self.desired.entries.keys().any(|id| !self.failures.contains_key(id) && !self.is_settled(*id));
        for (id, entry) in &self.desired.entries {
            if !all && !self.is_due(*id, now, stirred) {
                continue;
            }
            match self.bundles.get(&entry.digest) {
                Ok(Some(bundle)) => {
                    bundles.insert(*id, bundle);
                }
                Ok(None) => {
                    let why = unfetched.get(&entry.digest).map_or("the control plane has not sent it", String::as_str);
                    failed.insert(*id, (Phase::Pending, format!("the bundle is missing: {why}")));
                }
                Err(error @ BundleError::Disk(_)) => {
                    failed.insert(*id, (Phase::Pending, chain(&error)));
                }
                Err(error) => {
                    failed.insert(*id, (Phase::Failed, chain(&error)));
                }
            }
        }
        let (gone, present) = self.items(&bundles);
        let plan = plan::plan(&gone, &present);
        for note in &plan.notes {
            tracing::warn!("the order of deployments is not as declared: {note}");
        }
        let wants: BTreeMap<&str, Uuid> =
            present.iter().flat_map(|item| item.wants.iter().map(|path| (path.as_str(), item.id))).collect();
        let mut again = Vec::new();
        for step in &plan.steps {
            match step {
                Step::Remove(id) => done.extend(self.remove(*id, &wants)?),
                Step::Apply(id) => {
                    let Some(bundle) = bundles.get(id) else { continue };
                    match self.apply(*id, bundle, &wants) {
                        Err(ApplyError::Refused(Refusal::Owned { .. })) => again.push(*id),
                        result => done.extend(self.outcome(*id, result, &mut failed)),
                    }
                }
            }
        }
        // Whoever owned the path may have given it up meanwhile.
        for id in again {
            let result = self.apply(id, &bundles[&id], &wants);
            done.extend(self.outcome(id, result, &mut failed));
        }
        self.remember_failures(&failed, &bundles);
        for (id, (phase, message)) in &failed {
            if *phase == Phase::Pending
                && let Some(entry) = self.desired.entries.get(id)
            {
                let title = format!("{}/{}", entry.workspace, entry.name);
                let (release, action) = (entry.release.clone(), Action::Waiting);
                done.push(Done { id: *id, title, release, action, message: message.clone(), commit: None });
            }
        }
        let git_errors = self.commit(&bundles);
        self.note(&failed, &git_errors, &mut done)?;
        if done.iter().any(|done| !matches!(done.action, Action::Unchanged | Action::Waiting)) {
            self.collect_garbage()?;
        }
        Ok(done)
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

    fn is_settled(&self, id: Uuid) -> bool {
        let (Some(entry), Some(owned)) = (self.desired.entries.get(&id), self.ledger.entries.get(&id)) else {
            return false;
        };
        owned.digest == entry.digest && owned.revision == entry.revision && owned.release == entry.release
    }

    fn is_due(&self, id: Uuid, now: Instant, stirred: bool) -> bool {
        let known = |failure: &&Failure| self.desired.entries.get(&id).is_some_and(|e| e.digest == failure.digest);
        match self.failures.get(&id).filter(known) {
            Some(failure) => stirred || now >= failure.again,
            None => !self.is_settled(id),
        }
    }

    fn items(&self, bundles: &BTreeMap<Uuid, Bundle>) -> (Vec<Item>, Vec<Item>) {
        let owns = |id: &Uuid| self.ledger.owned(*id).into_keys().collect::<BTreeSet<_>>();
        let gone = self.desired.removals.iter().map(|(id, tombstone)| Item {
            id: *id,
            workspace: tombstone.workspace.clone(),
            name: tombstone.name.clone(),
            depends_on: self.ledger.entries.get(id).map_or_else(Vec::new, |entry| entry.depends_on.clone()),
            owns: owns(id),
            wants: BTreeSet::new(),
        });
        let present = self.desired.entries.iter().map(|(id, entry)| {
            let owns = owns(id);
            let wants = bundles.get(id).map_or(Ok(owns.clone()), |bundle| match &self.files {
                Some(files) => files.wants(&Target::new(*id, entry), bundle),
                None => Ok(BTreeSet::new()),
            });
            Item {
                id: *id,
                workspace: entry.workspace.clone(),
                name: entry.name.clone(),
                depends_on: entry.depends_on.clone(),
                wants: wants.unwrap_or_else(|_| owns.clone()),
                owns,
            }
        });
        (gone.collect(), present.collect())
    }

    fn apply(&mut self, id: Uuid, bundle: &Bundle, wants: &BTreeMap<&str, Uuid>) -> Result<Applied, ApplyError> {
        let Some(entry) = self.desired.entries.get(&id) else { return Ok(Applied::default()) };
        let files = self.files.as_ref().ok_or(ApplyError::NotAllowed)?;
        let heir = |path: &str| wants.get(path).copied();
        files.apply(&mut self.ledger, &Target::new(id, entry), bundle, &heir, now())
    }

    fn outcome(
        &self,
        id: Uuid,
        result: Result<Applied, ApplyError>,
        failed: &mut BTreeMap<Uuid, (Phase, String)>,
    ) -> Option<Done> {
        let entry = self.desired.entries.get(&id)?;
        let title = format!("{}/{}", entry.workspace, entry.name);
        let (action, message) = match result {
            Ok(applied) if !applied.repaired.is_empty() => (Action::Repaired, repaired(&applied.repaired)),
            Ok(applied) if applied.written + applied.removed > 0 => (Action::Applied, String::new()),
            Ok(_) => (Action::Unchanged, String::new()),
            Err(error) => {
                let message = chain(&error);
                tracing::warn!(deployment.title = %title, "{title} cannot be applied: {message}");
                failed.insert(id, (Phase::Failed, message.clone()));
                (Action::Failed, message)
            }
        };
        if matches!(action, Action::Applied | Action::Repaired) {
            tracing::info!(deployment.title = %title, release = %entry.release, "{title} {}", action.as_str());
        }
        Some(Done { id, title, release: entry.release.clone(), action, message, commit: None })
    }

    fn remove(&mut self, id: Uuid, wants: &BTreeMap<&str, Uuid>) -> Result<Option<Done>, SettleError> {
        let Some(tombstone) = self.desired.removals.get(&id).cloned() else { return Ok(None) };
        let title = format!("{}/{}", tombstone.workspace, tombstone.name);
        let heir = |path: &str| wants.get(path).copied();
        let owns = !self.ledger.owned(id).is_empty() || self.ledger.entries.contains_key(&id);
        let result = match (&self.files, tombstone.on_remove) {
            _ if !owns => Ok(Action::Removed),
            (_, OnRemove::Orphan) => {
                let mut next = self.ledger.clone();
                next.entries.remove(&id);
                next.inherited.remove(&id);
                next.write(&self.state)?;
                self.ledger = next;
                Ok(Action::Released)
            }
            (None, OnRemove::Delete) => Err(ApplyError::NotAllowed),
            (Some(files), OnRemove::Delete) => {
                let noted = self.git.is_some().then_some(tombstone.revision);
                files.remove(&mut self.ledger, id, noted, &heir).map(|_| Action::Removed)
            }
        };
        let (action, message) = match result {
            Ok(action) => {
                tracing::info!(deployment.title = %title, reason = tombstone.reason.as_str(), "{title} {}", action.as_str());
                (action, String::new())
            }
            Err(error) => (Action::Failed, chain(&error)),
        };
        let failed = action == Action::Failed;
        if failed {
            tracing::warn!(deployment.title = %title, "{title} cannot be removed: {message}");
        }
        self.outbox.note(DeploymentReport {
            id,
            release: String::new(),
            revision: tombstone.revision,
            digest: self.ledger.entries.get(&id).map(|entry| entry.digest),
            phase: if failed { Phase::Removing } else { Phase::Removed },
            message: message.clone(),
            healthy_since: None,
            commit: None,
            push: None,
        });
        if !failed {
            // The report must be on disk before the tombstone leaves it.
            self.outbox.save(&self.state)?;
            self.desired.removals.remove(&id);
            self.save_desired(false)?;
            fault!("removal-settled");
        }
        Ok(Some(Done { id, title, release: String::new(), action, message, commit: None }))
    }

    fn remember_failures(&mut self, failed: &BTreeMap<Uuid, (Phase, String)>, tried: &BTreeMap<Uuid, Bundle>) {
        for id in tried.keys().filter(|id| !failed.contains_key(*id)) {
            self.failures.remove(id);
        }
        for id in failed.iter().filter(|(_, (phase, _))| *phase == Phase::Failed).map(|(id, _)| id) {
            let Some(digest) = self.desired.entries.get(id).map(|entry| entry.digest) else { continue };
            let count = self.failures.get(id).filter(|known| known.digest == digest).map_or(0, |known| known.count);
            let pause = RETRY.0.saturating_mul(2_u32.saturating_pow(count.min(10))).min(RETRY.1);
            self.failures.insert(*id, Failure { digest, count: count + 1, again: Instant::now() + pause });
        }
    }

    fn collect_garbage(&self) -> Result<(), DiskError> {
        let desired = self.desired.entries.values().map(|entry| entry.digest);
        let owned = self.ledger.entries.values().flat_map(|entry| [Some(entry.digest), entry.previous]);
        self.bundles.keep(&desired.chain(owned.flatten()).collect())
    }
}

fn recover(state: &StateDir, ledger: &mut Ledger) -> Result<(), SettleError> {
    match switch::recover(state, ledger).map_err(SettleError::Recover)? {
        switch::Recovered::Nothing => {}
        switch::Recovered::Old => tracing::info!("a switch that was interrupted was undone"),
        switch::Recovered::New => tracing::info!("a switch that was interrupted was finished"),
    }
    Ok(())
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

fn repaired(drift: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text = format!("drift repaired: {}", drift[..drift.len().min(SHOWN)].join(", "));
    if drift.len() > SHOWN {
        text.push_str(&format!(" and {} more", drift.len() - SHOWN));
    }
    text
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
