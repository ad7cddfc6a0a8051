//! Our own commits made anew on top of somebody else's.

use std::collections::BTreeMap;

use git2::{Delta, Oid, Repository, Signature, Sort};

use super::{
    GitError,
    trees::{self, Edits},
};

/// Makes the commits that `ours` has and `onto` has not anew on top of `onto`. Returns the new tip, and which commit
/// stands for which now. Where both changed the same file ours wins: it is the agent that owns it.
pub(crate) fn replay(repo: &Repository, ours: Oid, onto: Oid) -> Result<(Oid, BTreeMap<String, String>), GitError> {
    let mut walk = repo.revwalk()?;
    walk.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE)?;
    walk.push(ours)?;
    walk.hide(onto)?;
    let (mut tip, mut map) = (onto, BTreeMap::new());
    for id in walk {
        let commit = repo.find_commit(id?)?;
        let tree = commit.tree()?;
        let before = commit.parents().next().map(|parent| parent.tree()).transpose()?;
        let diff = repo.diff_tree_to_tree(before.as_ref(), Some(&tree), None)?;
        let mut edits = Edits::new();
        for delta in diff.deltas() {
            let Some(path) = delta.new_file().path().or_else(|| delta.old_file().path()) else { continue };
            let path = path.to_string_lossy().into_owned();
            let file = delta.new_file();
            let edit = (delta.status() != Delta::Deleted).then(|| (file.id(), i32::from(file.mode())));
            edits.insert(path, edit);
        }
        let parent = repo.find_commit(tip)?;
        let base = parent.tree()?;
        let new = trees::edit(repo, Some(&base), &edits)?;
        if new != base.id() {
            let author = commit.author();
            let committer = Signature::now(
                &String::from_utf8_lossy(author.name_bytes()),
                &String::from_utf8_lossy(author.email_bytes()),
            )?;
            let message = String::from_utf8_lossy(commit.message_bytes()).into_owned();
            tip = repo.commit(None, &author, &committer, &message, &repo.find_tree(new)?, &[&parent])?;
        }
        map.insert(commit.id().to_string(), tip.to_string());
    }
    Ok((tip, map))
}
