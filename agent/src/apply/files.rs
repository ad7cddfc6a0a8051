//! The applier `files`: a bundle is files below a root.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
};

use rustix::fs::FileType;
use titan_api::{Digest, Revision, drift::Drift};
use uuid::Uuid;

use super::{
    Applied, ApplyError, Heir, Target,
    accounts::Accounts,
    changes::{self, Changes, Found, Refusal, Wanted},
    root::{Root, RootError},
    stage::{self, Survey, Whole},
    step::Step,
    switch::{Switch, SwitchError},
};
use crate::{
    bundles::{Bundle, BundleFile},
    claims::Claims,
    config::{FilesSettings, Switch as How},
    drifts,
    ledger::{Ledger, LedgerEntry, OwnedFile, Previous, Removal},
    spaces::Need,
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

    fn observe(&self, path: &str, wanted: bool, owned: &BTreeMap<String, OwnedFile>) -> Result<Found, RootError> {
        let above = |path: &str| path.match_indices('/').any(|(end, _)| owned.contains_key(&path[..end]));
        let stat = match self.root.stat(path) {
            Ok(Some(stat)) => stat,
            Ok(None) => return Ok(Found::Missing),
            // One of the deployment's own files is in the way and goes; or a directory that it had is none any more,
            // so its file is not there either.
            Err(RootError::NotDirectory(_)) if !wanted || above(path) => return Ok(Found::Missing),
            Err(RootError::Link(_)) if !wanted => return Ok(Found::Missing),
            Err(error) => return Err(error),
        };
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let sha256 = self.root.digest(path)?;
                Found::File { sha256, mode: stat.st_mode, uid: stat.st_uid, gid: stat.st_gid }
            }
            FileType::Symlink => Found::Link,
            FileType::Directory => Found::Directory,
            _ => Found::Special,
        })
    }

    fn found(
        &self,
        wanted: &BTreeMap<String, Wanted<'_>>,
        owned: &BTreeMap<String, OwnedFile>,
    ) -> Result<BTreeMap<String, Found>, RootError> {
        let paths: BTreeSet<&String> = wanted.keys().chain(owned.keys()).collect();
        paths
            .into_iter()
            .map(|path| Ok((path.clone(), self.observe(path, wanted.contains_key(path), owned)?)))
            .collect()
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

    fn stage(&self, work: &mut Work<'_>, switch: &mut Switch<'_>, name: &str) -> Result<(), ApplyError> {
        let whole = self.stage_whole(work, switch, name)?;
        let inside = |path: &String| path.strip_prefix(&work.home).is_some_and(|rest| rest.starts_with('/'));
        let single = |path: &&String| !(whole && inside(path));
        if let Some(path) = work.changes.over_directory.iter().find(single) {
            return Err(Refusal::InTheWay { path: path.clone(), kind: "a directory" }.into());
        }
        for path in work.changes.take.iter().filter(single) {
            let backup = switch.fresh(&self.root.mount_of(path)?, name);
            switch.step(Step::Take { path: path.clone(), backup });
        }
        let puts: Vec<_> = work.changes.put.iter().filter(single).collect();
        for path in &puts {
            self.make_dirs_above(path, &work.changes.take, &mut work.next, switch)?;
        }
        for path in puts {
            let mount = self.root.mount_of(path)?;
            let from = switch.fresh(&mount, name);
            let file = &work.wanted[path];
            self.root.write_new(&from, file.file.reader(), changes::attributes(file))?;
            crate::faults::fault!("file-staged");
            let backup = match work.found.get(path) {
                Some(Found::File { .. } | Found::Link) => {
                    let backup = switch.fresh(&mount, name);
                    stage::back_up(&self.root, path, &backup)?;
                    Some(backup)
                }
                _ => None,
            };
            switch.step(Step::Put { from, to: path.clone(), backup });
        }
        Ok(())
    }

    /// Stages the deployment's own directory as a whole, if it can and if that is of use. Returns whether it did.
    fn stage_whole(&self, work: &mut Work<'_>, switch: &mut Switch<'_>, name: &str) -> Result<bool, ApplyError> {
        let home = work.home.clone();
        let inside = |path: &&String| path.strip_prefix(&home).is_some_and(|rest| rest.starts_with('/'));
        let changed = work.changes.put.iter().chain(&work.changes.take).filter(inside).count();
        let stays = work.wanted.keys().any(|path| inside(&path));
        let known: BTreeSet<String> = work.wanted.keys().chain(work.owned.keys()).cloned().collect();
        if changed == 0 {
            return Ok(false);
        }
        let mount = self.root.mount_of(&format!("{home}/x"))?;
        let made = work.next.dirs.clone();
        let (mut kept, dirs, missing) = match stage::survey(&self.root, &home, &known, &made)? {
            Survey::Missing => (BTreeSet::new(), Vec::new(), true),
            Survey::Whole { foreign, dirs } => (foreign, dirs, false),
            Survey::Mixed => return Ok(false),
        };
        let foreign = kept.clone();
        kept.extend(work.kept.iter().filter(inside).cloned());
        if !stays {
            let ours = kept.is_empty() && made.contains(&home) && dirs.iter().all(|dir| made.contains(dir));
            if ours && changed > 1 {
                let backup = switch.fresh(&mount, name);
                switch.step(Step::Take { path: home, backup });
                return Ok(true);
            }
            return Ok(false);
        }
        let in_one_step = changed > 1 || work.changes.over_directory.iter().any(|path| inside(&path));
        let wished = in_one_step && self.settings.switch == How::Directory;
        if !missing && (!wished || !self.exchanges(switch, &mount, name)?) {
            return Ok(false);
        }
        let whole =
            Whole { home: &home, wanted: &work.wanted, changes: &work.changes, kept: &kept, dirs: &dirs, made: &made };
        let from = switch.fresh(&mount, name);
        if !whole.build(&self.root, switch, &from)? {
            return Ok(false);
        }
        let new_dirs: Vec<_> =
            whole.all_dirs().into_iter().filter(|dir| missing || !(dirs.contains(dir) || *dir == home)).collect();
        self.make_dirs_above(&home, &BTreeSet::new(), &mut work.next, switch)?;
        work.next.dirs.extend(new_dirs);
        if missing {
            switch.step(Step::Put { from, to: home, backup: None });
            return Ok(true);
        }
        let below = |paths: &mut dyn Iterator<Item = &String>| -> BTreeSet<String> {
            paths.filter(inside).map(|path| path[home.len() + 1..].to_owned()).collect()
        };
        let inode = self.root.stat(&from)?.map_or(0, |stat| stat.st_ino);
        let (foreign, owned) = (below(&mut foreign.iter()), below(&mut known.iter()));
        switch.step(Step::Swap { from, to: home, inode, foreign, owned });
        Ok(true)
    }

    /// Whether the file system can exchange two directories; found out once, by trying.
    fn exchanges(&self, switch: &mut Switch<'_>, mount: &str, name: &str) -> Result<bool, RootError> {
        if let Some(known) = self.exchanges.get() {
            return Ok(*known);
        }
        let (one, other) = (switch.fresh(mount, name), switch.fresh(mount, name));
        self.root.make_dir(&one, 0o700)?;
        self.root.make_dir(&other, 0o700)?;
        Ok(*self.exchanges.get_or_init(|| self.root.exchange(&one, &other).is_ok()))
    }

    fn make_dirs_above(
        &self,
        path: &str,
        gone: &BTreeSet<String>,
        next: &mut Ledger,
        switch: &mut Switch<'_>,
    ) -> Result<(), RootError> {
        let mut missing = false;
        for (end, _) in path.match_indices('/') {
            let dir = &path[..end];
            missing = missing || gone.contains(dir) || self.root.stat(dir)?.is_none();
            if missing {
                next.dirs.insert(dir.to_owned());
                switch.make_dir(dir);
            }
        }
        Ok(())
    }
}

impl Files {
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
        let before = next.entries.get(&target.id);
        let same = before.is_some_and(|entry| entry.digest == target.digest);
        let Beside { before: claims_before, after: claims, trial } = beside;
        bequeath_claims(target.id, &claims_before, &claims, &mut next.bequeathed, heir);
        let claims_before: Claims = claims_before
            .into_iter()
            .filter(|(claim, _)| claims.contains_key(claim) || heir(&claim.path()).is_none())
            .collect();
        let unfinished = if same && !changes.drift.is_empty() && !claims.is_empty() {
            // Whatever runs may have taken in what others wrote.
            Some(Claims::new())
        } else if same {
            before.and_then(|entry| entry.unfinished.clone())
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
            trial,
            healthy_since,
            bad: before.map(|entry| entry.bad.clone()).unwrap_or_default(),
            committed: before.and_then(|entry| entry.committed.clone()),
        };
        next.entries.insert(target.id, entry);
        next.inherited.remove(&target.id);
        next.bequeathed.remove(&target.id);
        let applied = Applied {
            written: changes.put.len(),
            removed: changes.take.len(),
            repaired: if same { changes.phrases() } else { Vec::new() },
        };
        let mut work = Work { id: target.id, home: target.home(), wanted, owned, found, changes, kept, next };
        self.carry_out(&mut work, ledger)?;
        Ok(applied)
    }

    /// Returns what of a bundle that is in place is not as it was applied.
    pub(crate) fn examine(&self, ledger: &Ledger, target: &Target, bundle: &Bundle) -> Result<Vec<Drift>, ApplyError> {
        let wanted = changes::wanted(target, bundle, &Accounts::read())?;
        let owned = ledger.owned(target.id);
        let found = self.found(&wanted, &owned)?;
        let changes = changes::changes(&wanted, &owned, &found, true)?;
        let drift = |(path, how): &(String, &'static str)| match (found.get(path), wanted.get(path)) {
            (Some(Found::File { mode, .. }), Some(file)) if *how == "content" => {
                let applied = file.file.content(drifts::COMPARED).ok();
                let is = self.root.read_at_most(path, drifts::COMPARED).ok().flatten();
                let side = |mode, content| drifts::Side { mode, content };
                let applied = side(file.record.mode.bits(), applied.as_deref());
                drifts::of_content(path, applied, side(*mode, is.as_deref()))
            }
            _ => {
                Drift { what: path.clone(), how: (*how).to_owned(), diff: String::new(), found: None, repaired: false }
            }
        };
        Ok(changes.drift.iter().map(drift).collect())
    }

    /// Returns how many bytes and files of a bundle are not in place, which is what a switch has to write.
    pub(crate) fn need(&self, ledger: &Ledger, target: &Target, bundle: &Bundle) -> Need {
        let owned = ledger.owned(target.id);
        let in_place = |file: &&BundleFile| {
            let path = if file.rooted { file.path.clone() } else { format!("{}/{}", target.home(), file.path) };
            owned.get(&path).is_some_and(|owned| owned.sha256 == file.sha256)
        };
        let new = bundle.files.iter().filter(|file| !in_place(file));
        new.fold(Need::default(), |need, file| Need { bytes: need.bytes + file.size, files: need.files + 1 })
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
        let (claims, none) = (next.claims(id), Claims::new());
        let entry = next.entries.remove(&id);
        next.inherited.remove(&id);
        next.bequeathed.remove(&id);
        bequeath_claims(id, &claims, &none, &mut next.bequeathed, heir);
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

/// Leaves claims that are given up to whoever takes them over.
fn bequeath_claims(id: Uuid, before: &Claims, after: &Claims, bequeathed: &mut BTreeMap<Uuid, Claims>, heir: Heir<'_>) {
    for (claim, digest) in before.iter().filter(|(claim, _)| !after.contains_key(*claim)) {
        if let Some(heir) = heir(&claim.path()).filter(|heir| *heir != id) {
            bequeathed.entry(heir).or_default().insert(claim.clone(), *digest);
        }
    }
}

/// Turns removals of paths that somebody else takes over into bequests. Returns those paths.
fn bequeath(
    id: Uuid,
    owned: &BTreeMap<String, OwnedFile>,
    changes: &mut Changes,
    next: &mut Ledger,
    heir: Heir<'_>,
) -> BTreeSet<String> {
    let mut kept = BTreeSet::new();
    changes.take.retain(|path| match heir(path).filter(|heir| *heir != id) {
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
