//! Trees with some paths changed, built in the object database.

use std::collections::BTreeMap;

use git2::{ObjectType, Oid, Repository, Tree};

/// Paths to write, as a blob with its file mode, or to remove.
pub(crate) type Edits = BTreeMap<String, Option<(Oid, i32)>>;

/// Why a tree cannot be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TreeError {
    /// Git.
    #[error("a tree cannot be built")]
    Git(#[from] git2::Error),
    /// Somebody else's file is where a directory is needed, or the other way round.
    #[error("{0:?} in the repository is in the way and is not the agent's")]
    InTheWay(String),
}

/// Returns the tree that has `edits` made to `base`. Directories that become empty go.
pub(crate) fn edit(repo: &Repository, base: Option<&Tree<'_>>, edits: &Edits) -> Result<Oid, TreeError> {
    let edits: Vec<_> = edits.iter().map(|(path, edit)| (path.as_str(), *edit)).collect();
    match level(repo, base, &edits, "")? {
        Some(tree) => Ok(tree),
        None => Ok(repo.treebuilder(None)?.write()?),
    }
}

type Edit<'a> = (&'a str, Option<(Oid, i32)>);

fn level(
    repo: &Repository,
    base: Option<&Tree<'_>>,
    edits: &[Edit<'_>],
    above: &str,
) -> Result<Option<Oid>, TreeError> {
    let mut builder = repo.treebuilder(base)?;
    let mut inside: BTreeMap<&str, Vec<Edit<'_>>> = BTreeMap::new();
    // Files that go make room for directories of their name.
    for (path, edit) in edits {
        match (path.split_once('/'), edit) {
            (Some((dir, rest)), _) => inside.entry(dir).or_default().push((rest, *edit)),
            (None, None) => {
                if kind(base, path).is_some_and(|kind| kind != ObjectType::Tree) {
                    builder.remove(path)?;
                }
            }
            (None, Some(_)) => {}
        }
    }
    for (dir, edits) in inside {
        let path = if above.is_empty() { dir.to_owned() } else { format!("{above}/{dir}") };
        let known = builder.get(dir)?.map(|entry| (entry.id(), entry.kind()));
        let subtree = match known {
            Some((id, Some(ObjectType::Tree))) => Some(repo.find_tree(id)?),
            Some(_) if edits.iter().all(|(_, edit)| edit.is_none()) => continue,
            Some(_) => return Err(TreeError::InTheWay(path)),
            None => None,
        };
        match level(repo, subtree.as_ref(), &edits, &path)? {
            Some(id) => drop(builder.insert(dir, id, 0o040_000)?),
            None if subtree.is_some() => builder.remove(dir)?,
            None => {}
        }
    }
    for (path, edit) in edits {
        if let (None, Some((id, mode))) = (path.split_once('/'), edit) {
            if builder.get(*path)?.is_some_and(|entry| entry.kind() == Some(ObjectType::Tree)) {
                return Err(TreeError::InTheWay(format!("{above}/{path}")));
            }
            builder.insert(*path, *id, *mode)?;
        }
    }
    Ok(if builder.is_empty() { None } else { Some(builder.write()?) })
}

fn kind(tree: Option<&Tree<'_>>, name: &str) -> Option<ObjectType> {
    tree?.get_name(name)?.kind()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo() -> (tempfile::TempDir, Repository) {
        let dir = tempfile::tempdir().expect("dir");
        let repo = Repository::init_bare(dir.path()).expect("repo");
        (dir, repo)
    }

    fn edits(repo: &Repository, list: &[(&str, Option<&str>)]) -> Edits {
        let blob = |text: &str| (repo.blob(text.as_bytes()).expect("blob"), 0o100_644);
        list.iter().map(|(path, text)| ((*path).to_owned(), text.map(blob))).collect()
    }

    fn paths(repo: &Repository, tree: Oid) -> Vec<String> {
        let mut paths = Vec::new();
        let tree = repo.find_tree(tree).expect("tree");
        tree.walk(git2::TreeWalkMode::PreOrder, |dir, entry| {
            if entry.kind() == Some(ObjectType::Blob) {
                paths.push(format!("{dir}{}", entry.name().unwrap_or("?")));
            }
            git2::TreeWalkResult::Ok
        })
        .expect("walk");
        paths
    }

    #[test]
    fn other_files_stay_and_empty_directories_go() {
        let (_dir, repo) = repo();
        let first = edit(&repo, None, &edits(&repo, &[("a/b/c", Some("1")), ("a/other", Some("2"))])).expect("first");
        let base = repo.find_tree(first).expect("tree");
        let second = edit(&repo, Some(&base), &edits(&repo, &[("a/b/c", None), ("x/y", None)])).expect("second");
        assert_eq!(paths(&repo, second), ["a/other"]);
        let empty = edit(&repo, Some(&base), &edits(&repo, &[("a/b/c", None), ("a/other", None)])).expect("empty");
        assert_eq!(paths(&repo, empty), Vec::<String>::new());
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let (_dir, repo) = repo();
        let first = edit(&repo, None, &edits(&repo, &[("a", Some("1"))])).expect("first");
        let base = repo.find_tree(first).expect("tree");
        let error = edit(&repo, Some(&base), &edits(&repo, &[("a/b", Some("1"))])).expect_err("file");
        assert!(matches!(error, TreeError::InTheWay(path) if path == "a"));
        let moved = edit(&repo, Some(&base), &edits(&repo, &[("a", None), ("a/b", Some("1"))])).expect("moved");
        assert_eq!(paths(&repo, moved), ["a/b"]);
    }
}
