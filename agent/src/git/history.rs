//! History that is let go: a repository that nobody but the agent uses keeps its newest commits, as a shallow clone has them.
//!
//! Git's own way to say so is the file `shallow`, which lists commits whose parents are not there: see `gitrepository-layout`
//! and `gitformat-shallow` of Git's documentation. What only commits before them need is removed after that is on disk, so
//! that a cut in between leaves nothing but objects that nobody needs, and the next time takes them along.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use git2::{ObjectType, Oid, Repository, Sort};

use super::{GitError, Sink};
use crate::{
    disk::{self, DiskError},
    spaces,
};

/// Commits that stay in any case.
const LEAST: usize = 100;
/// What `git gc` leaves for itself of all commits, below `objects/info`. It says nothing of the file `shallow`, and Git itself
/// passes it over in a shallow repository.
const GRAPHS: [&str; 2] = ["commit-graph", "commit-graphs"];

impl Sink {
    /// Lets go of the older half of the history, if the repository is in the state directory, is pushed nowhere, and may give
    /// back `excess` bytes. Returns how many commits that were; none if nothing more may go.
    pub(crate) fn forget_oldest(&self, state: &Path, excess: u64) -> Result<usize, GitError> {
        let path = &self.settings.repository;
        // Whoever pushes has to have what others may go back to.
        if self.has_remote() || !path.starts_with(state) || !path.exists() {
            return Ok(0);
        }
        let repo = self.open_durable()?;
        let _held = self.hold();
        let Some(tip) = self.tip(&repo)?.filter(|_| loose_bytes(&repo) >= excess) else { return Ok(0) };
        // It is all looked at once.
        git2::opts::enable_caching(false);
        let forgotten = forget(&repo, &self.branch(), tip);
        git2::opts::enable_caching(true);
        forgotten
    }

    /// Makes the newest commit the first one, for a remote that has nothing: what the oldest one was made from was let go,
    /// and nobody would take it without. Returns it.
    pub(super) fn begin_anew(
        &self,
        repo: &Repository,
        ours: Oid,
        moved: &mut BTreeMap<String, String>,
    ) -> Result<Oid, GitError> {
        let commit = repo.find_commit(ours)?;
        let message = String::from_utf8_lossy(commit.message_bytes()).into_owned();
        let first = repo.commit(None, &commit.author(), &commit.committer(), &message, &commit.tree()?, &[])?;
        self.advance(repo, Some(ours), first)?;
        // Tried again it is the same commit.
        if first != ours {
            moved.insert(ours.to_string(), first.to_string());
        }
        Ok(first)
    }
}

/// Returns how much at most the repository would give back: the bytes of objects that are files of their own.
fn loose_bytes(repo: &Repository) -> u64 {
    directories(repo).map(|(_, path)| spaces::bytes_below(&path)).sum()
}

/// Lets go of the older half of a branch's commits, with what only they need. Returns how many commits that were: none if
/// there are no more than [`LEAST`], or if somebody else has a work tree, branch or tag there.
fn forget(repo: &Repository, branch: &str, tip: Oid) -> Result<usize, GitError> {
    if !repo.is_bare() || repo.is_worktree() || repo.head_detached()? {
        return Ok(0);
    }
    let mut ours = Vec::new();
    for reference in repo.references()? {
        let reference = reference?;
        let Some(name) = reference.name().ok().map(str::to_owned) else { return Ok(0) };
        match (name == branch, name.starts_with("refs/titan/")) {
            (true, _) => {}
            (false, true) => ours.push((name, reference.target())),
            (false, false) => return Ok(0),
        }
    }
    for graph in GRAPHS.map(|name| repo.path().join("objects/info").join(name)) {
        let removed = if graph.is_dir() { fs::remove_dir_all(&graph) } else { fs::remove_file(&graph) };
        let removed =
            removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) });
        removed.map_err(|source| DiskError::Write { path: graph, source })?;
    }
    let mut walk = repo.revwalk()?;
    walk.set_sorting(Sort::TOPOLOGICAL | Sort::TIME)?;
    walk.push(tip)?;
    let mut kept = walk.collect::<Result<Vec<Oid>, _>>()?;
    let all = kept.len();
    kept.truncate((all / 2).max(LEAST));
    if kept.len() == all {
        return Ok(0);
    }
    let needed = needed(repo, &kept)?;
    let file = repo.path().join("shallow");
    let before = disk::read(&file)?.unwrap_or_default();
    let before: HashSet<&str> = std::str::from_utf8(&before).unwrap_or_default().lines().collect();
    let mut shallow = String::new();
    for id in &kept {
        // One of before has no parents to be seen.
        let is_root = before.contains(id.to_string().as_str());
        if is_root || repo.find_commit(*id)?.parent_ids().any(|parent| !needed.contains(&parent)) {
            shallow.push_str(&format!("{id}\n"));
        }
    }
    // What says how far a remote is that is used no more.
    for (name, _) in ours.iter().filter(|(_, target)| target.is_some_and(|target| !needed.contains(&target))) {
        repo.find_reference(name)?.delete()?;
    }
    disk::write(&file, shallow.as_bytes())?;
    sweep(repo, &needed).map_err(|source| DiskError::Write { path: repo.path().join("objects"), source })?;
    Ok(all - kept.len())
}

/// Returns the commits and every object that they need, their parents aside.
fn needed(repo: &Repository, commits: &[Oid]) -> Result<HashSet<Oid>, git2::Error> {
    let mut needed: HashSet<Oid> = commits.iter().copied().collect();
    let mut trees = Vec::new();
    for id in commits {
        trees.push(repo.find_commit(*id)?.tree_id());
        while let Some(id) = trees.pop() {
            if !needed.insert(id) {
                continue;
            }
            for entry in repo.find_tree(id)?.iter() {
                if entry.kind() == Some(ObjectType::Tree) {
                    trees.push(entry.id());
                } else {
                    needed.insert(entry.id());
                }
            }
        }
    }
    Ok(needed)
}

/// Removes the objects that nobody needs, as far as each is a file of its own.
fn sweep(repo: &Repository, needed: &HashSet<Oid>) -> io::Result<()> {
    for (begin, directory) in directories(repo) {
        for object in fs::read_dir(directory)? {
            let object = object?;
            let name = format!("{begin}{}", object.file_name().to_string_lossy());
            if Oid::from_str(&name).is_ok_and(|id| name.len() == 40 && !needed.contains(&id)) {
                fs::remove_file(object.path())?;
            }
        }
    }
    Ok(())
}

/// Returns the directories with objects that are files of their own, and the two digits that their names begin with.
fn directories(repo: &Repository) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = fs::read_dir(repo.path().join("objects")).into_iter().flatten().flatten();
    let named = entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()));
    named.filter(|(name, _)| name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use git2::Signature;

    use super::*;

    const BRANCH: &str = "refs/heads/main";

    fn commit(repo: &Repository, text: &str) -> Oid {
        let parent = repo.refname_to_id(BRANCH).ok().map(|tip| repo.find_commit(tip).expect("the tip"));
        let base = parent.as_ref().map(|parent| parent.tree().expect("its tree"));
        let mut builder = repo.treebuilder(base.as_ref()).expect("a tree");
        builder.insert("a", repo.blob(text.as_bytes()).expect("a blob"), 0o100_644).expect("a file");
        let tree = repo.find_tree(builder.write().expect("written")).expect("a tree");
        let who = Signature::now("a", "b").expect("somebody");
        repo.commit(Some(BRANCH), &who, &who, text, &tree, &parent.iter().collect::<Vec<_>>()).expect("a commit")
    }

    fn commits(repo: &Repository) -> usize {
        let mut walk = repo.revwalk().expect("a walk");
        walk.push(repo.refname_to_id(BRANCH).expect("the tip")).expect("pushed");
        let whole =
            |id: Result<Oid, git2::Error>| repo.find_commit(id.expect("an id")).and_then(|commit| commit.tree());
        walk.map(whole).collect::<Result<Vec<_>, _>>().expect("whole commits").len()
    }

    #[test]
    fn the_older_half_goes_and_the_newest_commits_stay_whole() {
        let folder = tempfile::tempdir().expect("a directory");
        let open = || Repository::open(folder.path()).expect("a repository");
        Repository::init_bare(folder.path()).expect("a repository");
        let first = commit(&open(), "0");
        let mut tip = first;
        (1..500).for_each(|number| tip = commit(&open(), &number.to_string()));
        for (forgotten, left) in [(250, 250), (125, 125), (25, 100), (0, 100)] {
            assert_eq!(forget(&open(), BRANCH, tip).expect("forgotten"), forgotten);
            assert_eq!(commits(&open()), left);
        }
        assert!(
            open().find_commit(first).is_err()
                && open().find_blob(Oid::hash_object(ObjectType::Blob, b"0").expect("an id")).is_err()
        );
        tip = commit(&open(), "more");
        assert_eq!(commits(&open()), 101);
        assert_eq!(forget(&open(), BRANCH, tip).expect("forgotten"), 1);
        let git = |words: &[&str]| Command::new("git").arg("-C").arg(folder.path()).args(words).output().expect("git");
        let checked = git(&["fsck", "--full", "--strict"]);
        assert!(checked.status.success(), "{checked:?}");
        assert_eq!(git(&["rev-list", "--count", "main"]).stdout, b"100\n");
        assert!(git(&["fsck", "--unreachable"]).stdout.is_empty(), "nothing is left over");
    }

    #[test]
    fn what_git_itself_packed_is_let_go_of_as_well() {
        let folder = tempfile::tempdir().expect("a directory");
        let open = || Repository::open(folder.path()).expect("a repository");
        Repository::init_bare(folder.path()).expect("a repository");
        for number in 0..400 {
            commit(&open(), &number.to_string());
        }
        let git = |words: &[&str]| Command::new("git").arg("-C").arg(folder.path()).args(words).output().expect("git");
        assert!(git(&["gc", "-q"]).status.success() && git(&["commit-graph", "write", "--reachable"]).status.success());
        let tip = commit(&open(), "more");
        for (forgotten, left) in [(201, 200), (100, 100), (0, 100)] {
            assert_eq!(forget(&open(), BRANCH, tip).expect("forgotten"), forgotten);
            assert_eq!(commits(&open()), left);
        }
        assert!(git(&["fsck", "--full"]).status.success());
    }

    #[test]
    fn every_root_of_merged_histories_stays_one() {
        let folder = tempfile::tempdir().expect("a directory");
        let open = || Repository::open(folder.path()).expect("a repository");
        Repository::init_bare(folder.path()).expect("a repository");
        let side = |repo: &Repository, parents: &[Oid], text: &str| {
            let parents: Vec<_> = parents.iter().map(|id| repo.find_commit(*id).expect("a parent")).collect();
            let tree = parents[0].tree().expect("its tree");
            let who = Signature::now("a", "b").expect("somebody");
            repo.commit(None, &who, &who, text, &tree, &parents.iter().collect::<Vec<_>>()).expect("a commit")
        };
        let fork = commit(&open(), "0");
        let mut other = fork;
        for number in 1..150 {
            commit(&open(), &number.to_string());
            other = side(&open(), &[other], &format!("side {number}"));
        }
        let ours = open().refname_to_id(BRANCH).expect("the tip");
        let merge = side(&open(), &[ours, other], "merge");
        open().reference(BRANCH, merge, true, "merge").expect("moved");
        for number in 200..330 {
            commit(&open(), &number.to_string());
        }
        let tip = open().refname_to_id(BRANCH).expect("the tip");
        let git = |words: &[&str]| Command::new("git").arg("-C").arg(folder.path()).args(words).output().expect("git");
        while forget(&open(), BRANCH, tip).expect("forgotten") > 0 {
            let checked = git(&["fsck", "--full"]);
            assert!(checked.status.success(), "{checked:?}");
            assert!(commits(&open()) >= 100);
        }
    }

    #[test]
    fn what_a_person_marked_keeps_everything() {
        let folder = tempfile::tempdir().expect("a directory");
        let repo = Repository::init_bare(folder.path()).expect("a repository");
        let first = commit(&repo, "0");
        repo.set_head(BRANCH).expect("a head");
        let mut tip = first;
        (1..210).for_each(|number| tip = commit(&repo, &number.to_string()));
        repo.reference("refs/tags/mine", first, false, "kept").expect("a tag");
        assert_eq!(forget(&repo, BRANCH, tip).expect("nothing"), 0);
        repo.find_reference("refs/tags/mine").expect("the tag").delete().expect("deleted");
        repo.reference("refs/titan/1234/main", first, false, "a remote of before").expect("a mark");
        assert_eq!(forget(&repo, BRANCH, tip).expect("forgotten"), 105);
        assert!(repo.find_reference("refs/titan/1234/main").is_err());
    }
}
