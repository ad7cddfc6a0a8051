//! The steps of one pass: what is to be done is planned, then done one after the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use titan_api::{reports::Phase, templates::Applier as Kind};
use uuid::Uuid;

use super::{
    Action, Done, Pass, Worker, chain, courses::Course, drifting::Drifted, gates::Held, now, recovery::Outcome,
};
use crate::{
    apply::{
        Applied, ApplyError, Target,
        changes::Refusal,
        files::{Beside, Files},
        switch::SwitchError,
    },
    bundles::{Bundle, BundleError},
    claims::{Claim, Claims},
    commands,
    config::appliers::HookKind,
    plan::{self, Item, Step, paths_clash},
};

/// How long files are kept for a deployment that may take them over, while its bundle cannot be had.
const PATIENCE: Duration = Duration::from_mins(10);

/// What is said of drift that is found.
const TOLD_FIRST: &str = "it is not as it was applied, which is reported before it is put right";

/// The paths that deployments are to own, claims among them.
pub(super) type Wants = BTreeMap<Uuid, BTreeSet<String>>;
/// Who is to take over what somebody gives up.
pub(super) type Heirs<'a> = BTreeMap<&'a str, Uuid>;

/// What came of bringing a deployment to its course.
#[derive(Debug)]
pub(super) enum Brought {
    /// It is there.
    There(Applied),
    /// It waits, or differs and is to be left so.
    Held(Held),
}

impl Worker {
    /// Plans and does what there is to do.
    pub(super) fn take_steps(&mut self, pass: &mut Pass<'_>) {
        for (id, stuck) in &self.stuck {
            if let Some(entry) = self.desired.entries.get(id) {
                pass.held.insert(*id, (Phase::Failed, stuck.message.clone()));
                pass.done.push(Done::of(*id, entry, Action::Stuck, stuck.message.clone()));
            }
        }
        let awaited = self.awaited();
        let due = self.due(pass, !awaited.is_empty());
        let (gone, present) = self.items(&due);
        let plan = plan::plan(&gone, &present);
        for note in &plan.notes {
            tracing::warn!("the order of deployments is not as declared: {note}");
        }
        // Of two that want the same the one that is tried now has it.
        let (tried, others): (Vec<&Item>, Vec<&Item>) = present.iter().partition(|item| due.contains_key(&item.id));
        let wanted = others.into_iter().chain(tried);
        let heirs: Heirs<'_> = wanted.flat_map(|item| item.wants.iter().map(|path| (path.as_str(), item.id))).collect();
        let before = self.heirs();
        let (mut again, mut earlier) = (Vec::new(), BTreeSet::new());
        for step in &plan.steps {
            match step {
                Step::Remove(id) => {
                    let awaited = awaited.values().next().map(String::as_str);
                    pass.done.extend(self.remove(*id, &heirs, awaited));
                }
                Step::Apply(id) => {
                    if let Some(wants) = due.get(id) {
                        let gives_up = self.gives_up(*id, wants);
                        if let Some(other) = awaited.values().next().filter(|_| gives_up) {
                            pass.held.insert(*id, (Phase::Pending, waits_for(other)));
                        } else if self.step(*id, &heirs, &earlier, pass) {
                            again.push(*id);
                        }
                    }
                    if self.halted.is_none() {
                        self.retreat(*id, &heirs, &earlier, &awaited, pass);
                    }
                    if self.halted.is_none() {
                        self.keep_right(*id, &heirs, &earlier, pass);
                    }
                    earlier.insert(*id);
                }
            }
            if self.halted.is_some() {
                return;
            }
        }
        if awaited.is_empty() {
            again.extend(self.heirs_that_failed(&before, pass));
        }
        // Whoever owned the path may have given it up meanwhile.
        for id in again {
            pass.held.remove(&id);
            pass.done.retain(|done| done.id != id);
            self.step(id, &heirs, &earlier, pass);
            if self.halted.is_some() {
                return;
            }
        }
    }

    /// Returns the deployments whose bundle is not there, as `workspace/name`: what they will own is not known, so nothing
    /// may be given up that they may take over. One that has been waited for long enough does not count.
    fn awaited(&mut self) -> BTreeMap<Uuid, String> {
        let missing = self.missing_bundles();
        self.lacking.retain(|digest, _| missing.contains(digest));
        for digest in &missing {
            self.lacking.entry(*digest).or_insert_with(Instant::now);
        }
        let recent = |digest| self.lacking.get(digest).is_some_and(|since| since.elapsed() < PATIENCE);
        let entries = self.desired.entries.iter().filter(|(_, entry)| !entry.orphan && recent(&entry.digest));
        entries.map(|(id, entry)| (*id, format!("{}/{}", entry.workspace, entry.name))).collect()
    }

    /// Returns what is to be brought to its course now, with the paths that it is to own.
    fn due(&mut self, pass: &mut Pass<'_>, postponed: bool) -> Wants {
        let (stirred, now) = (self.is_stirred(postponed), Instant::now());
        let mut due = Wants::new();
        for id in self.desired.entries.keys().copied().collect::<Vec<_>>() {
            let Some(course) = self.course(id).filter(|_| !self.stuck.contains_key(&id)) else { continue };
            if !(pass.checks(self.ledger.entries.get(&id))
                || self.is_due(id, now, stirred)
                || (self.is_told(id) && self.in_place(id) == Some(course.target.digest)))
            {
                continue;
            }
            let digest = course.target.digest;
            if self.in_place(id) == Some(digest) && self.bundles.holds(&digest) && !self.ledger.is_left(id) {
                // The same bundle wants the same paths; it is read when its turn comes.
                due.insert(id, self.ledger.owned_paths(id));
                continue;
            }
            match self.bundles.get(&digest) {
                Ok(Some(bundle)) => {
                    let wants = self.wants(&course.target, &bundle);
                    due.insert(id, wants.unwrap_or_else(|_| self.ledger.owned_paths(id)));
                }
                Ok(None) if self.desired.entries[&id].orphan => {}
                other => drop(pass.held.insert(id, pass.unavailable(digest, other.err()))),
            }
        }
        due
    }

    /// Whether a deployment gives something up that is not among what it `wants`.
    fn gives_up(&self, id: Uuid, wants: &BTreeSet<String>) -> bool {
        let kept = |path: &String| wants.contains(path);
        if !self.bears(id) {
            return !self.ledger.owned_paths(id).iter().all(kept);
        }
        // What was left to it stays for now.
        let files = self.ledger.entries.get(&id).is_none_or(|entry| entry.files.keys().all(kept));
        !(files && self.ledger.has(id).keys().map(Claim::path).all(|path| kept(&path)))
    }

    /// Returns the paths that a bundle would own, claims among them.
    pub(super) fn wants(&mut self, target: &Target, bundle: &Bundle) -> Result<BTreeSet<String>, ApplyError> {
        let mut wants = Files::wants(target, bundle)?;
        wants.extend(self.claims_of(target, bundle)?.keys().map(Claim::path));
        Ok(wants)
    }

    /// Returns what a bundle would own beside files.
    fn claims_of(&mut self, target: &Target, bundle: &Bundle) -> Result<Claims, ApplyError> {
        match self.appliers.of(bundle.applier)? {
            Some(applier) => applier.plan(target, bundle),
            None => Ok(Claims::new()),
        }
    }

    fn items(&mut self, due: &Wants) -> (Vec<Item>, Vec<Item>) {
        let meant = self.meant(due);
        let owns = |id: &Uuid| self.ledger.owned_paths(*id);
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
            wants: due.get(id).or_else(|| meant.get(id)).cloned().unwrap_or_else(|| owns(id)),
        });
        (gone.collect(), present.collect())
    }

    /// Brings one deployment to its course. Returns whether it is refused for what somebody else owns.
    fn step(&mut self, id: Uuid, heirs: &Heirs<'_>, earlier: &BTreeSet<Uuid>, pass: &mut Pass<'_>) -> bool {
        let (Some(entry), Some(course)) = (self.desired.entries.get(&id).cloned(), self.course(id)) else {
            return false;
        };
        let digest = course.target.digest;
        let bundle = match self.bundles.get(&digest) {
            Ok(Some(bundle)) => bundle,
            other => {
                pass.held.insert(id, pass.unavailable(digest, other.err()));
                return false;
            }
        };
        pass.tried.insert(id);
        let result = self.bring(&course, &bundle, heirs, earlier);
        let owned = matches!(result, Err(ApplyError::Refused(Refusal::Owned { .. } | Refusal::Claimed { .. })));
        let result = match result {
            Ok(Brought::Held(held)) => {
                pass.held.insert(id, held);
                return false;
            }
            Ok(Brought::There(applied)) => Ok(applied),
            Err(error) => Err(error),
        };
        let (action, message) = match self.conclude(id, result) {
            Outcome::Done(applied) if !applied.repaired.is_empty() => (Action::Repaired, repaired(&applied.repaired)),
            Outcome::Done(applied) if applied.written + applied.removed > 0 => (Action::Applied, String::new()),
            Outcome::Done(_) if self.untold.contains_key(&id) => (Action::Waiting, TOLD_FIRST.to_owned()),
            Outcome::Done(_) => (Action::Unchanged, String::new()),
            Outcome::Failed(message) => (Action::Failed, message),
            Outcome::Stuck(message) => (Action::Stuck, message),
        };
        let news = action != Action::Unchanged;
        let (action, message) = match (action, self.proved_bad(id)) {
            (Action::Applied | Action::Unchanged, Some(why)) if course.returns => (Action::RolledBack, why.to_owned()),
            other => (other.0, message),
        };
        let done = Done::of(id, &entry, action, message.clone());
        let title = &done.title;
        match action {
            Action::Failed | Action::Stuck => {
                tracing::warn!(deployment.title = %title, "{title} cannot be applied: {message}");
                pass.held.insert(id, (Phase::Failed, message));
            }
            Action::Applied | Action::Repaired | Action::RolledBack if news => {
                tracing::info!(deployment.title = %title, release = %course.target.release, "{title} {}", action.as_str());
            }
            _ => {}
        }
        pass.done.push(done);
        owned
    }

    /// Brings a deployment to its course, as far as that is possible now.
    pub(super) fn bring(
        &mut self,
        course: &Course,
        bundle: &Bundle,
        heirs: &Heirs<'_>,
        earlier: &BTreeSet<Uuid>,
    ) -> Result<Brought, ApplyError> {
        let target = &course.target;
        let same = self.in_place(target.id) == Some(target.digest);
        self.open_files()?;
        if let Err(error) = self.bring_back(target.id, same) {
            // The next look is soon enough.
            tracing::warn!("what went down of {} with the host is not back yet: {}", target.home(), chain(&error));
        }
        let after = self.claims_of(target, bundle)?;
        if course.returns {
            self.take_back(target, bundle, &after)?;
        }
        self.check_claims(target, bundle, &after)?;
        if !same && let Some(held) = self.pass_gates(course, bundle, &after, earlier)? {
            return Ok(Brought::Held(held));
        }
        let heir = |path: &str| heirs.get(path).copied();
        if same && self.ledger.is_left(target.id) && self.closed().is_some() {
            self.bear(target.id);
        } else if let Some(why) = self.unburden(target.id, &after, &heir, !course.returns) {
            return Ok(Brought::Held((Phase::Applying, why)));
        }
        let left = self.left_with(target.id, &after, &heir);
        let heir = |path: &str| heir(path).or_else(|| left.get(path).copied());
        if same && let Drifted::Leave(held) = self.see_to_drift(target, bundle, &after)? {
            self.enliven(target, bundle)?;
            return Ok(held.map_or_else(|| Brought::There(Applied::default()), Brought::Held));
        }
        let before = self.ledger.claims(target.id);
        let trial = if same { None } else { self.trial_of(bundle, &after, course.returns) };
        let files = self.files.as_ref().ok_or(ApplyError::NotAllowed(Kind::Files))?;
        let mut applied = files.apply(
            &mut self.ledger,
            target,
            bundle,
            Beside { before, after, trial, boot: self.proofs.boot() },
            &heir,
            now(),
        )?;
        crate::faults::fault!("files-applied");
        if !same {
            // What ran for another bundle is over, and what ran for this one when it was here before runs again. On a way
            // back, what is declared may wait for its own hook.
            let waits = self.desired.entries.get(&target.id).map(|entry| entry.digest);
            let waits = waits.filter(|_| course.returns && self.proved_bad(target.id).is_none());
            self.forget_hooks(target.id, waits);
        }
        let beside = self.enliven(target, bundle)?;
        applied.written += usize::from(beside);
        if same {
            applied.repaired.extend(self.drift_is_repaired(target.id, &applied.repaired));
        } else {
            self.drifts.remove(&target.id);
            self.untold.remove(&target.id);
        }
        Ok(Brought::There(applied))
    }

    /// Returns why a change cannot begin yet, after setting in motion what has to come before it.
    fn pass_gates(
        &mut self,
        course: &Course,
        bundle: &Bundle,
        after: &Claims,
        earlier: &BTreeSet<Uuid>,
    ) -> Result<Option<Held>, ApplyError> {
        let (target, home) = (&course.target, self.home(&course.target));
        commands::check(target, &home, &bundle.hooks, &bundle.health, self.exec.as_ref())?;
        if let Some(held) = self.held_back(course, earlier) {
            return Ok(Some(held));
        }
        self.check_room(course, bundle, after)?;
        if !course.returns
            && let Some(held) = self.hooked(HookKind::PreApply, &course.target, bundle)?
        {
            return Ok(Some(held));
        }
        self.prepare(&course.target, bundle, after)
    }

    /// Refuses what somebody else owns beside files, paths outside of what the owner allows, and paths of a switch that is stuck.
    fn check_claims(&self, target: &Target, bundle: &Bundle, after: &Claims) -> Result<(), ApplyError> {
        let allowed = self.settings.as_ref().and_then(|files| files.paths.as_ref());
        if let Some(allowed) = allowed {
            let below = |path: &str| {
                allowed
                    .iter()
                    .any(|dir| paths_clash(path, dir.trim_matches('/')) && path.len() >= dir.trim_matches('/').len())
            };
            if let Some(file) = bundle.files.iter().find(|file| file.rooted && !below(&file.path)) {
                return Err(Refusal::Beyond { path: file.path.clone() }.into());
            }
        }
        for claim in after.keys() {
            if let Some(owner) = self.ledger.other_claimant(target.id, claim) {
                return Err(Refusal::Claimed { claim: claim.to_string(), owner }.into());
            }
        }
        if !self.stuck.is_empty() {
            let wants = Files::wants(target, bundle)?;
            let clash = |path: &String| wants.iter().any(|wanted| paths_clash(wanted, path));
            if self.stuck.values().any(|stuck| stuck.paths.iter().any(clash)) {
                return Err(SwitchError::Unfinished.into());
            }
        }
        Ok(())
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
    /// Whether a deployment is to be looked at though it is settled.
    pub(super) fn checks(&self, owned: Option<&crate::ledger::LedgerEntry>) -> bool {
        let stirred = |owned: &crate::ledger::LedgerEntry| {
            self.stirred.contains(&Kind::Files) || self.stirred.contains(&owned.applier)
        };
        self.all || owned.is_some_and(stirred)
    }

    /// Returns how a deployment stands whose bundle cannot be used.
    fn unavailable(&self, digest: titan_api::Digest, error: Option<BundleError>) -> Held {
        match error {
            None => {
                let why = self.unfetched.and_then(|unfetched| unfetched.get(&digest));
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

/// Says what was put right.
pub(super) fn repaired(drift: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text = format!("drift repaired: {}", drift[..drift.len().min(SHOWN)].join(", "));
    if drift.len() > SHOWN {
        text.push_str(&format!(" and {} more", drift.len() - SHOWN));
    }
    text
}
