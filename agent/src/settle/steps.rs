//! The steps of one pass: what is to be done is planned, then done one after the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use titan_api::{reports::Phase, templates::Applier as Kind};
use uuid::Uuid;

use super::{Action, Done, Pass, Worker, chain, now, recovery::Outcome};
use crate::{
    apply::{Applied, ApplyError, Target, changes::Refusal, files::Files, switch::SwitchError},
    bundles::{Bundle, BundleError},
    plan::{self, Item, Step, paths_clash},
};

/// How long files are kept for a deployment that may take them over, while its bundle cannot be had.
const PATIENCE: Duration = Duration::from_mins(10);

/// The paths that deployments are to own.
type Wants = BTreeMap<Uuid, BTreeSet<String>>;

impl Worker {
    /// Plans and does what there is to do.
    pub(super) fn take_steps(&mut self, pass: &mut Pass<'_>) {
        for (id, stuck) in &self.stuck {
            if let Some(entry) = self.desired.entries.get(id) {
                pass.failed.insert(*id, (Phase::Failed, stuck.message.clone()));
                pass.done.push(Done::of(*id, entry, Action::Stuck, stuck.message.clone()));
            }
        }
        let awaited = self.awaited();
        let due = self.due(pass, awaited.is_some());
        let (gone, present) = self.items(&due);
        let plan = plan::plan(&gone, &present);
        for note in &plan.notes {
            tracing::warn!("the order of deployments is not as declared: {note}");
        }
        let heirs: BTreeMap<&str, Uuid> =
            present.iter().flat_map(|item| item.wants.iter().map(|path| (path.as_str(), item.id))).collect();
        let mut again = Vec::new();
        for step in &plan.steps {
            match step {
                Step::Remove(id) => pass.done.extend(self.remove(*id, &heirs, awaited.as_deref())),
                Step::Apply(id) if !due.contains_key(id) => {}
                Step::Apply(id) => {
                    let gives_up = self.ledger.owned(*id).keys().any(|path| !due[id].contains(path));
                    if let Some(other) = awaited.as_ref().filter(|_| gives_up) {
                        pass.failed.insert(*id, (Phase::Pending, waits_for(other)));
                    } else if self.step(*id, &heirs, pass) {
                        again.push(*id);
                    }
                }
            }
            if self.halted.is_some() {
                return;
            }
        }
        // Whoever owned the path may have given it up meanwhile.
        for id in again {
            pass.failed.remove(&id);
            pass.done.retain(|done| done.id != id);
            self.step(id, &heirs, pass);
            if self.halted.is_some() {
                return;
            }
        }
    }

    /// Returns a deployment whose bundle is not there, as `workspace/name`: what it will own is not known, so nothing may
    /// be given up that it may take over. One that has been waited for long enough does not count.
    fn awaited(&mut self) -> Option<String> {
        let missing = self.missing_bundles();
        self.lacking.retain(|digest, _| missing.contains(digest));
        for digest in &missing {
            self.lacking.entry(*digest).or_insert_with(Instant::now);
        }
        let recent = |digest| self.lacking.get(digest).is_some_and(|since| since.elapsed() < PATIENCE);
        let mut entries = self.desired.entries.values().filter(|entry| !entry.orphan);
        entries.find(|entry| recent(&entry.digest)).map(|entry| format!("{}/{}", entry.workspace, entry.name))
    }

    /// Returns what is to be brought to what is desired now, with the paths that it is to own.
    fn due(&mut self, pass: &mut Pass<'_>, postponed: bool) -> Wants {
        let (stirred, now) = (self.is_stirred(postponed), Instant::now());
        let mut due = Wants::new();
        for (id, entry) in &self.desired.entries {
            if self.stuck.contains_key(id) || !(pass.all || self.is_due(*id, now, stirred)) {
                continue;
            }
            let owned = self.ledger.entries.get(id).filter(|owned| owned.digest == entry.digest);
            if let Some(owned) = owned.filter(|_| self.bundles.holds(&entry.digest)) {
                // The same bundle wants the same paths; it is read when its turn comes.
                due.insert(*id, owned.files.keys().cloned().collect());
                continue;
            }
            match self.bundles.get(&entry.digest) {
                Ok(Some(bundle)) => {
                    let wants = Files::wants(&Target::new(*id, entry), &bundle);
                    due.insert(*id, wants.unwrap_or_else(|_| self.ledger.owned(*id).into_keys().collect()));
                }
                Ok(None) if entry.orphan => {}
                other => drop(pass.failed.insert(*id, pass.unavailable(*id, other.err(), &self.desired))),
            }
        }
        due
    }

    fn items(&self, due: &Wants) -> (Vec<Item>, Vec<Item>) {
        let owns = |id: &Uuid| self.ledger.owned(*id).into_keys().collect::<BTreeSet<_>>();
        let gone = self.desired.removals.iter().map(|(id, tombstone)| Item {
            id: *id,
            workspace: tombstone.workspace.clone(),
            name: tombstone.name.clone(),
            depends_on: self.ledger.entries.get(id).map_or_else(Vec::new, |entry| entry.depends_on.clone()),
            owns: owns(id),
            wants: BTreeSet::new(),
        });
        let present = self.desired.entries.iter().map(|(id, entry)| Item {
            id: *id,
            workspace: entry.workspace.clone(),
            name: entry.name.clone(),
            depends_on: entry.depends_on.clone(),
            owns: owns(id),
            wants: due.get(id).cloned().unwrap_or_else(|| owns(id)),
        });
        (gone.collect(), present.collect())
    }

    /// Brings one deployment to what is desired. Returns whether it is refused for a path that somebody else owns.
    fn step(&mut self, id: Uuid, heirs: &BTreeMap<&str, Uuid>, pass: &mut Pass<'_>) -> bool {
        let Some(entry) = self.desired.entries.get(&id).cloned() else { return false };
        let bundle = match self.bundles.get(&entry.digest) {
            Ok(Some(bundle)) => bundle,
            other => {
                pass.failed.insert(id, pass.unavailable(id, other.err(), &self.desired));
                return false;
            }
        };
        pass.tried.insert(id);
        let result = self.apply(&Target::new(id, &entry), &bundle, heirs);
        let owned = matches!(result, Err(ApplyError::Refused(Refusal::Owned { .. })));
        let (action, message) = match self.conclude(id, result) {
            Outcome::Done(applied) if !applied.repaired.is_empty() => (Action::Repaired, repaired(&applied.repaired)),
            Outcome::Done(applied) if applied.written + applied.removed > 0 => (Action::Applied, String::new()),
            Outcome::Done(_) => (Action::Unchanged, String::new()),
            Outcome::Failed(message) => (Action::Failed, message),
            Outcome::Stuck(message) => (Action::Stuck, message),
        };
        let done = Done::of(id, &entry, action, message.clone());
        let title = &done.title;
        match action {
            Action::Failed | Action::Stuck => {
                tracing::warn!(deployment.title = %title, "{title} cannot be applied: {message}");
                pass.failed.insert(id, (Phase::Failed, message));
            }
            Action::Applied | Action::Repaired => {
                tracing::info!(deployment.title = %title, release = %entry.release, "{title} {}", action.as_str());
            }
            _ => {}
        }
        pass.done.push(done);
        owned
    }

    fn apply(&mut self, target: &Target, bundle: &Bundle, heirs: &BTreeMap<&str, Uuid>) -> Result<Applied, ApplyError> {
        self.open_files()?;
        let files = self.files.as_ref().ok_or(ApplyError::NotAllowed(Kind::Files))?;
        if !self.stuck.is_empty() {
            let wants = Files::wants(target, bundle)?;
            let clash = |path: &String| wants.iter().any(|wanted| paths_clash(wanted, path));
            if self.stuck.values().any(|stuck| stuck.paths.iter().any(clash)) {
                return Err(SwitchError::Unfinished.into());
            }
        }
        files.apply(&mut self.ledger, target, bundle, &|path| heirs.get(path).copied(), now())
    }

    /// Opens the root, if that is not done yet.
    pub(super) fn open_files(&mut self) -> Result<(), ApplyError> {
        if let (None, Some(settings)) = (&self.files, &self.settings) {
            self.files = Some(Files::open(settings, &self.state)?);
        }
        Ok(())
    }
}

impl Pass<'_> {
    /// Returns how a deployment stands whose bundle cannot be used.
    fn unavailable(&self, id: Uuid, error: Option<BundleError>, desired: &crate::desired::Desired) -> (Phase, String) {
        match error {
            None => {
                let digest = desired.entries.get(&id).map(|entry| entry.digest);
                let why = digest.and_then(|digest| self.unfetched?.get(&digest));
                let why = why.map_or("the control plane has not sent it", String::as_str);
                (Phase::Pending, format!("the bundle is missing: {why}"))
            }
            Some(error @ BundleError::Disk(_)) => (Phase::Pending, chain(&error)),
            Some(error) => (Phase::Failed, chain(&error)),
        }
    }
}

/// Says what a deployment that gives something up waits for.
pub(super) fn waits_for(other: &str) -> String {
    format!("files are to go that {other} may take over, and its bundle is not there yet")
}

fn repaired(drift: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text = format!("drift repaired: {}", drift[..drift.len().min(SHOWN)].join(", "));
    if drift.len() > SHOWN {
        text.push_str(&format!(" and {} more", drift.len() - SHOWN));
    }
    text
}
