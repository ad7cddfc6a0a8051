//! The ledger: what each deployment owns on this host. The agent touches nothing that is not in it (law 6).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use titan_api::{
    Digest, Name, Revision,
    deployments::Dependency,
    templates::{Applier, FileMode},
};
use uuid::Uuid;

use crate::{
    claims::{Claim, Claims},
    disk::{self, DiskError},
    faults::{self, fault},
    plan::clashes,
    state::StateDir,
    trials::TrialMark,
};

const FILE: &str = "ledger.json";

/// What every deployment owns.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ledger {
    /// The directory that all paths are below, as of the last write.
    pub root: PathBuf,
    /// How many switches led here: tells whether one that was interrupted is among them.
    pub switches: u64,
    /// What each deployment owns, by its assignment's id.
    pub entries: BTreeMap<Uuid, LedgerEntry>,
    /// Paths that one deployment gave up and another is to take: kept on disk for it, by the taker's id.
    pub inherited: BTreeMap<Uuid, BTreeMap<String, OwnedFile>>,
    /// The same for what is beside files.
    pub bequeathed: BTreeMap<Uuid, Claims>,
    /// Who made what is in [`Ledger::bequeathed`], or is on its way to whom it was left to: it is taken down in that one's name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub givers: BTreeMap<Claim, Giver>,
    /// Directories that the agent made; they go when they are empty.
    pub dirs: BTreeSet<String>,
    /// Removed deployments whose removal is not committed to Git yet.
    pub uncommitted: BTreeMap<Uuid, Removal>,
}

/// What one deployment owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerEntry {
    /// The workspace.
    pub workspace: Name,
    /// The deployment's name.
    pub name: Name,
    /// The release that is in place.
    pub release: String,
    /// The assignment's revision that is in place.
    pub revision: Revision,
    /// The digest of the bundle that is in place.
    pub digest: Digest,
    /// The bundle to return to, kept in the cache: the last one that was healthy.
    pub previous: Option<Previous>,
    /// What it depends on, for the order of removal.
    pub depends_on: Vec<Dependency>,
    /// What applies it.
    #[serde(default)]
    pub applier: Applier,
    /// The files, by path below the root.
    pub files: BTreeMap<String, OwnedFile>,
    /// What it owns beside files.
    #[serde(default, skip_serializing_if = "Claims::is_empty")]
    pub claims: Claims,
    /// What it owned beside files before the last switch, as long as what runs is not brought in line with the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<Claims>,
    /// The boot of the host in which what it owns beside files was seen last: what is down in another one went down with the
    /// host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// The proof of its health, while that is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialMark>,
    /// Since when it is healthy, by the host's clock; absent as long as it never was.
    pub healthy_since: Option<Revision>,
    /// Bundles that proved bad on this host, and why: they are not applied again unless another one is declared between, or
    /// the same one anew.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bad: BTreeMap<Digest, String>,
    /// The assignment's revision with which each of them proved bad, as far as that was noted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bad_at: BTreeMap<Digest, Revision>,
    /// What was committed to Git of it.
    pub committed: Option<Committed>,
}

/// A deployment as it was when it gave something up that another one is to take over and does not have yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Giver {
    /// The assignment's id.
    pub id: Uuid,
    /// The workspace.
    pub workspace: Name,
    /// The deployment's name.
    pub name: Name,
    /// The release that was in place.
    pub release: String,
    /// The assignment's revision that was in place.
    pub revision: Revision,
    /// The digest of the bundle that was in place.
    pub digest: Digest,
    /// What applied it.
    pub applier: Applier,
}

/// A bundle that a deployment can return to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Previous {
    /// The bundle's digest.
    pub digest: Digest,
    /// The release that it came with.
    pub release: String,
    /// The assignment's revision that it came with.
    pub revision: Revision,
}

/// One file that the agent put in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnedFile {
    /// SHA-256 of the content.
    pub sha256: Digest,
    /// The permissions.
    pub mode: FileMode,
    /// The owning user's name, if the bundle asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The owning group's name, if the bundle asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Whether the path was given from the root rather than from the deployment's directory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rooted: bool,
}

/// What was committed to Git of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Committed {
    /// The bundle's digest.
    pub digest: Digest,
    /// The commit.
    pub commit: String,
    /// The paths in the repository.
    pub paths: BTreeSet<String>,
}

/// A removal that is not committed to Git yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    /// The workspace.
    pub workspace: Name,
    /// The deployment's name.
    pub name: Name,
    /// The tombstone's revision.
    pub revision: Revision,
    /// The paths in the repository.
    pub paths: BTreeSet<String>,
}

impl Ledger {
    /// Reads the ledger; an empty one if there is none.
    pub(crate) fn read(state: &StateDir) -> Result<Self, DiskError> {
        Ok(disk::read_json(&state.file(FILE))?.unwrap_or_default())
    }

    /// Writes the ledger down.
    pub(crate) fn write(&self, state: &StateDir) -> Result<(), DiskError> {
        if faults::fails("ledger-write") {
            let source = std::io::Error::other("a test asked for it");
            return Err(DiskError::Write { path: state.file(FILE), source });
        }
        disk::write_json(&state.file(FILE), self)?;
        fault!("ledger-saved");
        Ok(())
    }

    /// Returns all that a deployment owns: its files, and what it is to take over.
    #[must_use]
    pub fn owned(&self, id: Uuid) -> BTreeMap<String, OwnedFile> {
        let mut owned = self.inherited.get(&id).cloned().unwrap_or_default();
        if let Some(entry) = self.entries.get(&id) {
            owned.extend(entry.files.iter().map(|(path, file)| (path.clone(), file.clone())));
        }
        owned
    }

    /// Returns all that a deployment owns beside files, or may have left behind of it. Of what is not known to run as it
    /// was made last the digest is one that nothing has.
    #[must_use]
    pub fn claims(&self, id: Uuid) -> Claims {
        let mut claims = self.bequeathed.get(&id).cloned().unwrap_or_default();
        let Some(entry) = self.entries.get(&id) else { return claims };
        let Some(before) = &entry.unfinished else {
            claims.extend(entry.claims.clone());
            return claims;
        };
        for (claim, digest) in entry.claims.iter().chain(before) {
            let known = entry.claims.get(claim) == before.get(claim);
            claims.insert(claim.clone(), if known { *digest } else { Digest::of(b"") });
        }
        claims
    }

    /// Returns what a deployment owns beside files, but for what others made and left to it and it has not taken over.
    #[must_use]
    pub fn has(&self, id: Uuid) -> Claims {
        let taken = |entry: &LedgerEntry, claim: &Claim| {
            entry.claims.contains_key(claim)
                || entry.unfinished.as_ref().is_some_and(|before| before.contains_key(claim))
        };
        let mut claims = self.claims(id);
        claims.retain(|claim, _| {
            self.entries.get(&id).is_some_and(|entry| taken(entry, claim)) || !self.is_anothers(id, claim)
        });
        claims
    }

    /// Whether somebody else made a claim that is, or is on its way to be, a deployment's.
    fn is_anothers(&self, id: Uuid, claim: &Claim) -> bool {
        self.givers.get(claim).is_some_and(|giver| giver.id != id)
    }

    /// Returns whoever other than `id` owns a claim, as `workspace/name`.
    #[must_use]
    pub fn other_claimant(&self, id: Uuid, claim: &Claim) -> Option<String> {
        let ids: BTreeSet<_> =
            self.entries.keys().chain(self.bequeathed.keys()).filter(|other| **other != id).collect();
        let owner = ids.into_iter().find(|other| self.claims(**other).contains_key(claim))?;
        Some(self.entries.get(owner).map_or_else(|| owner.to_string(), LedgerEntry::title))
    }

    /// Returns the paths that a deployment owns, claims among them.
    #[must_use]
    pub fn owned_paths(&self, id: Uuid) -> BTreeSet<String> {
        self.owned(id).into_keys().chain(self.claims(id).keys().map(Claim::path)).collect()
    }

    /// Returns whoever other than `id` owns a path that clashes with `path`, as `workspace/name`, with that path.
    #[must_use]
    pub fn other_owner(&self, id: Uuid, path: &str) -> Option<(String, String)> {
        let clash = |files: &BTreeMap<String, OwnedFile>| {
            let above = path.match_indices('/').find_map(|(end, _)| files.get_key_value(&path[..end]));
            let from = format!("{path}/");
            let below = || files.range(from.clone()..).next().filter(|(known, _)| known.starts_with(&from));
            files.get_key_value(path).or(above).or_else(below).map(|(known, _)| known.clone())
        };
        let of_entry = |(other, entry): (&Uuid, &LedgerEntry)| {
            (*other != id).then(|| clash(&entry.files)).flatten().map(|known| (entry.title(), known))
        };
        let of_heir = |(other, files): (&Uuid, &BTreeMap<String, OwnedFile>)| {
            let title = || self.entries.get(other).map_or_else(|| other.to_string(), LedgerEntry::title);
            (*other != id).then(|| clash(files)).flatten().map(|known| (title(), known))
        };
        self.entries.iter().find_map(of_entry).or_else(|| self.inherited.iter().find_map(of_heir))
    }

    /// Makes what others are to take over `id`'s again: of these files and claims what nobody has taken over yet.
    pub(crate) fn take_back(&mut self, id: Uuid, files: &BTreeSet<String>, claims: &Claims) {
        let mut back = BTreeMap::new();
        for (_, left) in self.inherited.iter_mut().filter(|(heir, _)| **heir != id) {
            back.extend(left.extract_if(.., |path, _| files.contains(path)));
        }
        let mut running = Claims::new();
        for (_, left) in self.bequeathed.iter_mut().filter(|(heir, _)| **heir != id) {
            running.extend(left.extract_if(.., |claim, _| claims.contains_key(claim)));
        }
        if !back.is_empty() {
            self.inherited.entry(id).or_default().extend(back);
        }
        if !running.is_empty() {
            self.bequeathed.entry(id).or_default().extend(running);
        }
        self.tidy();
    }

    /// Leaves what `id` gives up beside files to whoever takes it over. What it owned until now is still in the ledger.
    pub(crate) fn bequeath(&mut self, id: Uuid, given: &Claims, heir: &dyn Fn(&str) -> Option<Uuid>) {
        self.tidy();
        for (claim, digest) in given {
            let Some(heir) = heir(&claim.path()).filter(|heir| *heir != id) else { continue };
            self.bequeathed.entry(heir).or_default().insert(claim.clone(), *digest);
            // What was left to it in its turn, somebody else made, unless it has brought that in line with its own.
            if let Some(entry) = self.entries.get(&id)
                && (!self.givers.contains_key(claim)
                    || (entry.claims.contains_key(claim) && entry.unfinished.is_none()))
            {
                self.givers.insert(claim.clone(), Giver::of(id, entry));
            }
        }
    }

    /// Takes out what `id` gave to others already, and the files that go with it, each by whom they are left to.
    pub(crate) fn hand_on(&mut self, id: Uuid, given: &Claims, files: &BTreeMap<String, Uuid>) {
        let gone = |claims: &mut Claims| claims.retain(|claim, _| !given.contains_key(claim));
        self.bequeathed.get_mut(&id).map(gone);
        if let Some(entry) = self.entries.get_mut(&id) {
            gone(&mut entry.claims);
            entry.unfinished.as_mut().map(gone);
        }
        for (path, heir) in files.iter().filter(|(_, heir)| **heir != id) {
            let of_entry = self.entries.get_mut(&id).and_then(|entry| entry.files.remove(path));
            let inherited = || self.inherited.get_mut(&id).and_then(|files| files.remove(path));
            if let Some(file) = of_entry.or_else(inherited) {
                self.inherited.entry(*heir).or_default().insert(path.clone(), file);
            }
        }
        self.tidy();
    }

    /// Returns what somebody else made of what a deployment owns beside files: it was left to it, and it does not have it yet, or
    /// not for sure.
    pub(crate) fn made_by_others(&self, id: Uuid) -> BTreeMap<Claim, Giver> {
        let owned = self.claims(id);
        let made = |(claim, giver): (&Claim, &Giver)| {
            let others = giver.id != id && owned.contains_key(claim) && self.is_theirs(claim, giver);
            others.then(|| (claim.clone(), giver.clone()))
        };
        self.givers.iter().filter_map(made).collect()
    }

    /// Whether something beside files was left to a deployment that another one made.
    pub(crate) fn is_left(&self, id: Uuid) -> bool {
        self.bequeathed.get(&id).is_some_and(|left| left.keys().any(|claim| self.is_anothers(id, claim)))
    }

    /// Notes that `id` has all that was left to it, now that it owns `claims`. What others made and neither it nor an `heir`
    /// wants is kept for it until it is down, or until what it is to be later wants it.
    pub(crate) fn take_over(&mut self, id: Uuid, claims: &Claims, heir: &dyn Fn(&str) -> Option<Uuid>) {
        let mut left = self.bequeathed.remove(&id).unwrap_or_default();
        left.retain(|claim, _| {
            let goes_on = heir(&claim.path()).is_some_and(|heir| heir != id);
            !claims.contains_key(claim) && !goes_on && self.is_anothers(id, claim)
        });
        if !left.is_empty() {
            self.bequeathed.insert(id, left);
        }
    }

    /// Takes out what was left to a deployment beside files and is nobody's any more.
    pub(crate) fn decline(&mut self, heir: Uuid, claims: &Claims) {
        if let Some(left) = self.bequeathed.get_mut(&heir) {
            left.retain(|claim, _| !claims.contains_key(claim));
        }
        self.givers.retain(|claim, _| !claims.contains_key(claim));
        self.tidy();
    }

    /// Forgets bequests of nothing, and who made what others have for sure.
    pub(crate) fn tidy(&mut self) {
        self.inherited.retain(|_, left| !left.is_empty());
        self.bequeathed.retain(|_, left| !left.is_empty());
        let mut givers = std::mem::take(&mut self.givers);
        givers.retain(|claim, giver| self.is_theirs(claim, giver));
        self.givers = givers;
    }

    /// Whether what says whose it is may still name whoever made it: nobody has it yet, or is not proven with it.
    fn is_theirs(&self, claim: &Claim, giver: &Giver) -> bool {
        let takes = |(id, entry): (&Uuid, &LedgerEntry)| {
            let unproven = entry.unfinished.is_some() || entry.trial.is_some();
            *id != giver.id && unproven && entry.claims.contains_key(claim)
        };
        self.bequeathed.values().any(|left| left.contains_key(claim)) || self.entries.iter().any(takes)
    }

    /// Makes what `from` owns `to`'s, under which nothing is written or removed: the same deployment under another id.
    pub(crate) fn hand_over(&mut self, from: Uuid, to: Uuid) {
        let mut heirloom = self.inherited.remove(&from).unwrap_or_default();
        let mut claims = self.bequeathed.remove(&from).unwrap_or_default();
        match self.entries.remove(&from) {
            Some(entry) if !self.entries.contains_key(&to) => drop(self.entries.insert(to, entry)),
            Some(entry) => {
                // What `from` had in Git is `to`'s as well, so that its next commit removes what it does not have.
                let paths = entry.committed.map(|committed| committed.paths).unwrap_or_default();
                if let Some(committed) = self.entries.get_mut(&to).and_then(|entry| entry.committed.as_mut()) {
                    committed.paths.extend(paths);
                }
                heirloom.extend(entry.files);
                claims.extend(entry.unfinished.into_iter().flatten().chain(entry.claims));
            }
            None => {}
        }
        if !heirloom.is_empty() {
            self.inherited.entry(to).or_default().extend(heirloom);
        }
        if !claims.is_empty() {
            self.bequeathed.entry(to).or_default().extend(claims);
        }
    }

    /// Returns the directories made by the agent that hold no owned file any more, the deepest first.
    #[must_use]
    pub(crate) fn idle_dirs(&self) -> Vec<String> {
        let files = self.entries.values().map(|entry| &entry.files).chain(self.inherited.values());
        let paths: BTreeSet<String> = files.flat_map(|files| files.keys().cloned()).collect();
        let idle = |dir: &&String| clashes(&paths, dir).next().is_none();
        let mut dirs: Vec<_> = self.dirs.iter().filter(idle).cloned().collect();
        dirs.sort_by_key(|dir| std::cmp::Reverse(dir.matches('/').count()));
        dirs
    }
}

impl Giver {
    fn of(id: Uuid, entry: &LedgerEntry) -> Self {
        let LedgerEntry { workspace, name, release, revision, digest, applier, .. } = entry.clone();
        Self { id, workspace, name, release, revision, digest, applier }
    }
}

impl LedgerEntry {
    /// Returns `workspace/name`.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{}/{}", self.workspace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> OwnedFile {
        OwnedFile { sha256: Digest::of(b""), mode: FileMode::PLAIN, owner: None, group: None, rooted: true }
    }

    fn ledger(path: &str) -> Ledger {
        let name = |text: &str| Name::new(text).expect("name");
        let entry = LedgerEntry {
            workspace: name("default"),
            name: name("one"),
            release: String::new(),
            revision: Revision::ZERO,
            digest: Digest::of(b""),
            previous: None,
            depends_on: vec![],
            applier: Applier::Files,
            files: [(path.to_owned(), file())].into(),
            claims: [(Claim::new("unit", path), Digest::of(b""))].into(),
            unfinished: None,
            boot: None,
            trial: None,
            healthy_since: None,
            bad: BTreeMap::new(),
            bad_at: BTreeMap::new(),
            committed: None,
        };
        Ledger { entries: [(Uuid::from_u128(1), entry)].into(), ..Ledger::default() }
    }

    #[test]
    fn a_path_at_above_or_below_another_deployments_path_has_an_owner() {
        let ledger = ledger("etc/app/x");
        let other = Uuid::from_u128(2);
        for path in ["etc/app/x", "etc/app", "etc", "etc/app/x/y"] {
            assert_eq!(ledger.other_owner(other, path), Some(("default/one".into(), "etc/app/x".into())), "{path}");
            assert_eq!(ledger.other_owner(Uuid::from_u128(1), path), None, "its own");
        }
        assert_eq!(ledger.other_owner(other, "etc/app/xy"), None);
    }

    #[test]
    fn what_is_handed_over_has_one_owner_and_nothing_is_lost() {
        let (old, older, new) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let mut made_twice = ledger("a");
        let mut entry = made_twice.entries[&old].clone();
        entry.files = [("b".to_owned(), file())].into();
        made_twice.entries.insert(older, entry);
        made_twice.inherited.insert(old, [("c".to_owned(), file())].into());
        for from in [old, older, old] {
            made_twice.hand_over(from, new);
        }
        assert!(made_twice.entries.keys().eq([&new]) && made_twice.inherited.keys().eq([&new]));
        assert!(made_twice.owned(new).into_keys().eq(["a", "b", "c"]));
        assert!(made_twice.claims(new).contains_key(&Claim::new("unit", "a")));
    }

    #[test]
    fn a_claim_has_one_owner_until_it_is_handed_over() {
        let mut ledger = ledger("a");
        let (claim, heir) = (Claim::new("unit", "a"), Uuid::from_u128(2));
        assert_eq!(ledger.other_claimant(heir, &claim), Some("default/one".into()));
        assert_eq!(ledger.other_claimant(Uuid::from_u128(1), &claim), None, "its own");
        let entry = ledger.entries.get_mut(&Uuid::from_u128(1)).expect("entry");
        let claims = std::mem::take(&mut entry.claims);
        assert_eq!(ledger.other_claimant(heir, &claim), None, "given up");
        ledger.bequeathed.insert(heir, claims);
        assert!(ledger.claims(heir).contains_key(&claim) && ledger.owned_paths(heir).contains(&claim.path()));
        assert_eq!(ledger.other_claimant(Uuid::from_u128(1), &claim), Some(heir.to_string()));
        // Whoever left it needs it again.
        let giver = Uuid::from_u128(1);
        ledger.take_back(giver, &BTreeSet::new(), &[(claim.clone(), Digest::of(b""))].into());
        assert!(ledger.claims(giver).contains_key(&claim) && ledger.claims(heir).is_empty());
        assert!(ledger.bequeathed.keys().eq([&giver]));
    }

    #[test]
    fn whoever_made_it_is_known_until_another_one_has_it_for_sure() {
        let [giver, second, third] = [1, 2, 3].map(Uuid::from_u128);
        let (mut ledger, claim) = (ledger("a"), Claim::new("unit", "a"));
        let entry = ledger.entries[&giver].clone();
        let to = |heir: Uuid| move |_: &str| Some(heir);
        ledger.bequeath(giver, &entry.claims, &to(second));
        ledger.entries.remove(&giver);
        assert!(ledger.is_left(second) && ledger.givers[&claim].id == giver);
        // Whom it was left to leaves it to somebody else and never had it.
        ledger.bequeath(second, &ledger.claims(second), &to(third));
        let left = ledger.bequeathed.remove(&second).expect("left");
        ledger.tidy();
        assert!(ledger.givers[&claim].id == giver && ledger.is_left(third) && !ledger.is_left(second));
        // Who takes it over has it once nothing is left to be done.
        let mut taken = ledger.clone();
        taken.bequeathed.clear();
        taken.entries.insert(third, LedgerEntry { unfinished: Some(left.clone()), ..entry.clone() });
        taken.tidy();
        assert!(taken.made_by_others(third).contains_key(&claim) && !taken.is_left(third));
        taken.entries.insert(third, entry.clone());
        taken.tidy();
        assert!(taken.givers.is_empty() && taken.made_by_others(third).is_empty());
        ledger.decline(third, &left);
        assert!(ledger.givers.is_empty() && ledger.bequeathed.is_empty());
        // What goes back to whoever made it is its own.
        ledger.entries.insert(giver, entry.clone());
        ledger.bequeath(giver, &entry.claims, &to(second));
        ledger.take_back(giver, &BTreeSet::new(), &entry.claims);
        assert!(!ledger.is_left(giver) && ledger.claims(giver).contains_key(&claim));
    }

    #[test]
    fn directories_with_owned_files_are_not_idle() {
        let mut ledger = ledger("a/b/x");
        ledger.dirs = ["a", "a/b", "c", "c/d"].map(str::to_owned).into();
        assert_eq!(ledger.idle_dirs(), ["c/d", "c"]);
    }
}
