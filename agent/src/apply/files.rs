//! The applier `files`: a bundle is files below a root.

mod seeing;
mod staging;

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use titan_api::{Digest, Revision};
use uuid::Uuid;

use super::{
    Applied, ApplyError, Heir, Target,
    accounts::Accounts,
    changes::{self, Changes, Found, Refusal, Wanted},
    root::{Root, RootError},
    switch::{Switch, SwitchError},
};
use crate::{
    bundles::Bundle,
    claims::{Claim, Claims},
    config::FilesSettings,
    ledger::{Ledger, LedgerEntry, OwnedFile, Previous, Removal},
    state::StateDir,
    trials::TrialMark,
};

/// The applier.
#[derive(Debug)]
pub(crate) struct Files {
    root: Root,
    settings: FilesSettings,
    state: StateDir,
    exchanges: OnceCell<bool>,
}

/// What is beside the files in a switch.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    /// What the deployment owned beside files.
    pub(crate) before: Claims,
    /// What it is to own.
    pub(crate) after: Claims,
    /// The proof that a bundle that was not there before has to bring; absent if nothing has to be proven.
    pub(crate) trial: Option<TrialMark>,
    /// The host's boot.
    pub(crate) boot: Arc<str>,
}

/// A change of the ledger that is on its way: what was, what is to be, and what leads there.
struct Work<'a> {
    id: Uuid,
    home: String,
    wanted: BTreeMap<String, Wanted<'a>>,
    owned: BTreeMap<String, OwnedFile>,
    found: BTreeMap<String, Found>,
    changes: Changes,
    kept: BTreeSet<String>,
    next: Ledger,
}

impl Files {
    /// Opens the root.
    pub(crate) fn open(settings: &FilesSettings, state: &StateDir) -> Result<Self, RootError> {
        let root = Root::open(&settings.root)?;
        Ok(Self { root, settings: settings.clone(), state: state.clone(), exchanges: OnceCell::new() })
    }

    /// Returns the paths that the bundle would own.
    pub(crate) fn wants(target: &Target, bundle: &Bundle) -> Result<BTreeSet<String>, ApplyError> {
        Ok(changes::places(target, bundle)?)
    }

    /// Does the work and makes its ledger the ledger.
    fn carry_out(&self, work: &mut Work<'_>, ledger: &mut Ledger) -> Result<(), ApplyError> {
        if work.changes.is_empty() {
            if work.next != *ledger {
                work.next.write(&self.state).map_err(SwitchError::from)?;
            }
        } else {
            let name = work.id.to_string();
            let mut mounts = BTreeSet::from([self.root.mount_of(&format!("{}/x", work.home))?]);
            for path in work.changes.put.iter().chain(&work.changes.take) {
                mounts.insert(self.root.mount_of(path)?);
            }
            // If the home is a mount point, nothing is staged for it as a whole.
            let mut switch = Switch::begin(&self.root, &self.state, &self.settings.root, &name, &mounts)?;
            match self.stage(work, &mut switch, &name) {
                Ok(()) => switch.commit(&mut work.next)?,
                Err(error) => {
                    switch.abandon()?;
                    return Err(error);
                }
            }
        }
        *ledger = std::mem::take(&mut work.next);
        self.drop_idle_dirs(ledger)
    }

    fn drop_idle_dirs(&self, ledger: &mut Ledger) -> Result<(), ApplyError> {
        let mut next = ledger.clone();
        for dir in ledger.idle_dirs() {
            if self.root.remove_dir(&dir).unwrap_or(true) {
                next.dirs.remove(&dir);
            }
        }
        if next.dirs != ledger.dirs {
            next.write(&self.state).map_err(SwitchError::from)?;
            *ledger = next;
        }
        Ok(())
    }

    /// Brings the files to the bundle, from whatever it finds. The ledger that is passed is up to date, in memory and on
    /// disk, after a call that succeeds, and untouched after one that fails; whether a switch is open then tells whether
    /// that is the last word.
    pub(crate) fn apply(
        &self,
        ledger: &mut Ledger,
        target: &Target,
        bundle: &Bundle,
        beside: Beside,
        heir: Heir<'_>,
        now: Revision,
    ) -> Result<Applied, ApplyError> {
        let wanted = changes::wanted(target, bundle, &Accounts::read())?;
        for path in wanted.keys() {
            if let Some((owner, owned)) = ledger.other_owner(target.id, path) {
                return Err(Refusal::Owned { path: path.clone(), owner, owned }.into());
            }
        }
        let owned = ledger.owned(target.id);
        let found = self.found(&wanted, &owned)?;
        let mut changes = changes::changes(&wanted, &owned, &found, self.settings.overwrite)?;
        let mut next = ledger.clone();
        next.root.clone_from(&self.settings.root);
        let kept = bequeath(target.id, &owned, &mut changes, &mut next, heir);
        let before = ledger.entries.get(&target.id);
        let same = before.is_some_and(|entry| entry.digest == target.digest);
        let Beside { before: claims_before, after: claims, trial, boot } = beside;
        next.bequeath(target.id, &without(&claims_before, &claims), heir);
        next.take_over(target.id, &claims, heir);
        let kept_back = next.bequeathed.get(&target.id).cloned().unwrap_or_default();
        let stays = |claim: &Claim| {
            let goes_on = heir(&claim.path()).is_some_and(|heir| heir != target.id);
            claims.contains_key(claim) || !(goes_on || kept_back.contains_key(claim))
        };
        let claims_before: Claims = claims_before.into_iter().filter(|(claim, _)| stays(claim)).collect();
        let unfinished = if same {
            // If nobody looked what took in what others wrote, everything may have.
            let strayed = !changes.drift.is_empty() && !claims.is_empty();
            let lacks = !claims_before.keys().eq(claims.keys());
            let left = before.and_then(|entry| entry.unfinished.clone());
            left.or_else(|| strayed.then(Claims::new)).or_else(|| lacks.then_some(claims_before))
        } else {
            (claims_before != claims).then_some(claims_before)
        };
        let trial = if same { before.and_then(|entry| entry.trial.clone()) } else { trial };
        let healthy_since = match before {
            Some(entry) if same => entry.healthy_since,
            _ => trial.is_none().then_some(now),
        };
        let entry = LedgerEntry {
            workspace: target.workspace.clone(),
            name: target.name.clone(),
            release: target.release.clone(),
            revision: target.revision,
            digest: target.digest,
            previous: previous(before, target.digest),
            depends_on: target.depends_on.clone(),
            applier: bundle.applier,
            files: wanted.iter().map(|(path, file)| (path.clone(), file.record.clone())).collect(),
            claims,
            unfinished,
            boot: if same { before.and_then(|entry| entry.boot.clone()) } else { Some(boot.to_string()) },
            trial,
            healthy_since,
            bad: before.map(|entry| entry.bad.clone()).unwrap_or_default(),
            bad_at: before.map(|entry| entry.bad_at.clone()).unwrap_or_default(),
            committed: before.and_then(|entry| entry.committed.clone()),
        };
        next.entries.insert(target.id, entry);
        let applied = Applied {
            written: changes.put.len(),
            removed: changes.take.len(),
            repaired: if same { changes.phrases() } else { Vec::new() },
        };
        let mut work = Work { id: target.id, home: target.home(), wanted, owned, found, changes, kept, next };
        self.carry_out(&mut work, ledger)?;
        Ok(applied)
    }

    /// Removes whatever the deployment owns, save what an heir takes over. With `noted`, the tombstone's revision, the
    /// ledger keeps in mind that the removal is to be committed to Git.
    pub(crate) fn remove(
        &self,
        ledger: &mut Ledger,
        id: Uuid,
        noted: Option<Revision>,
        heir: Heir<'_>,
    ) -> Result<Applied, ApplyError> {
        let wanted = BTreeMap::new();
        let owned = ledger.owned(id);
        let found = self.found(&wanted, &owned)?;
        let mut changes = changes::changes(&wanted, &owned, &found, false)?;
        let mut next = ledger.clone();
        next.bequeath(id, &ledger.claims(id), heir);
        let entry = next.entries.remove(&id);
        next.bequeathed.remove(&id);
        next.tidy();
        let kept = bequeath(id, &owned, &mut changes, &mut next, heir);
        let home = entry.as_ref().map_or_else(|| id.to_string(), LedgerEntry::title);
        if let (Some(entry), Some(revision)) = (entry, noted)
            && let Some(committed) = entry.committed
        {
            let LedgerEntry { workspace, name, .. } = entry;
            next.uncommitted.insert(id, Removal { workspace, name, revision, paths: committed.paths });
        }
        let applied = Applied { removed: changes.take.len(), ..Applied::default() };
        let mut work = Work { id, home, wanted, owned, found, changes, kept, next };
        self.carry_out(&mut work, ledger)?;
        Ok(applied)
    }
}

/// Returns the bundle that a deployment can return to after a switch to `digest`: what is in place if it is proven, else
/// what that would have returned to.
fn previous(before: Option<&LedgerEntry>, digest: Digest) -> Option<Previous> {
    let before = before?;
    let proves = before.trial.as_ref().is_some_and(|trial| !trial.returned);
    let proven = before.digest != digest && !proves && !before.bad.contains_key(&before.digest);
    let kept = if proven {
        let LedgerEntry { digest, release, revision, .. } = before.clone();
        Some(Previous { digest, release, revision })
    } else {
        before.previous.clone()
    };
    kept.filter(|kept| kept.digest != digest)
}

/// Returns claims without others.
fn without(claims: &Claims, others: &Claims) -> Claims {
    claims.iter().filter(|(claim, _)| !others.contains_key(*claim)).map(|(claim, is)| (claim.clone(), *is)).collect()
}

/// Turns removals of paths that somebody else takes over into bequests; so with what was left to `id` itself, which it is to take
/// over later. Nothing else is left to it any more. Returns those paths.
fn bequeath(
    id: Uuid,
    owned: &BTreeMap<String, OwnedFile>,
    changes: &mut Changes,
    next: &mut Ledger,
    heir: Heir<'_>,
) -> BTreeSet<String> {
    let left = next.inherited.remove(&id).unwrap_or_default();
    let mut kept = BTreeSet::new();
    changes.take.retain(|path| match heir(path).filter(|heir| *heir != id || left.contains_key(path)) {
        Some(heir) => {
            if let Some(file) = owned.get(path) {
                next.inherited.entry(heir).or_default().insert(path.clone(), file.clone());
            }
            kept.insert(path.clone());
            false
        }
        None => true,
    });
    kept
}
