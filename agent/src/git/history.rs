//! History that is let go: a repository that nobody but the agent uses keeps its newest commits, as a shallow clone has them.
//!
//! Git's own way to say so is the file `shallow`, which lists commits whose parents are not there: see `gitrepository-layout`
//! and `gitformat-shallow` of Git's documentation. What only commits before them need is removed after that is on disk, so
//! that a cut in between leaves nothing but objects that nobody needs, and the next time takes them along.

use std::{collections::HashSet, fs, io, path::Path};

use git2::{ObjectType, Oid, Repository, Sort};

use super::GitError;
use crate::disk;

/// Commits that stay in any case.
pub(super) const LEAST: usize = 100;

/// Lets go of the older half of a branch's commits, with what only they need. Returns how many commits that were: none if
/// there are no more than [`LEAST`], or if there is a branch or tag of somebody else.
pub(super) fn forget(repo: &Repository, branch: &str, tip: Oid) -> Result<usize, GitError> {
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
    let mut walk = repo.revwalk()?;
    walk.set_sorting(Sort::TOPOLOGICAL)?;
    walk.push(tip)?;
    let mut kept = walk.collect::<Result<Vec<Oid>, _>>()?;
    let all = kept.len();
    kept.truncate((all / 2).max(LEAST));
    if kept.len() == all {
        return Ok(0);
    }
    let needed = needed(repo, &kept)?;
    let mut shallow = String::new();
    for id in &kept {
        if repo.find_commit(*id)?.parent_ids().any(|parent| !needed.contains(&parent)) {
            shallow.push_str(&format!("{id}\n"));
        }
    }
    // What says how far a remote is that is used no more.
    for (name, _) in ours.iter().filter(|(_, target)| target.is_some_and(|target| !needed.contains(&target))) {
        repo.find_reference(name)?.delete()?;
    }
    disk::write(&repo.path().join("shallow"), shallow.as_bytes())?;
    sweep(&repo.path().join("objects"), &needed).map_err(|source| GitError::Sweep { source })?;
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
fn sweep(objects: &Path, needed: &HashSet<Oid>) -> io::Result<()> {
    for directory in fs::read_dir(objects)? {
        let directory = directory?;
        let begin = directory.file_name().to_string_lossy().into_owned();
        if begin.len() != 2 || !begin.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            continue;
        }
        for object in fs::read_dir(directory.path())? {
            let object = object?;
            let name = format!("{begin}{}", object.file_name().to_string_lossy());
            if Oid::from_str(&name).is_ok_and(|id| name.len() == 40 && !needed.contains(&id)) {
                fs::remove_file(object.path())?;
            }
        }
    }
    Ok(())
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
    fn what_a_person_marked_keeps_everything() {
        let folder = tempfile::tempdir().expect("a directory");
        let repo = Repository::init_bare(folder.path()).expect("a repository");
        let first = commit(&repo, "0");
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
