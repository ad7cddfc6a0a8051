//! What a host's agent committed, read from its repository.

use std::path::Path;

use git2::{Repository, Sort};

/// A commit, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commit {
    /// Its id.
    pub(super) id: String,
    /// The first line of its message.
    pub(super) summary: String,
    /// The trailers that Titan writes, long digests cut: `Release: prod#7`.
    pub(super) trailers: Vec<String>,
}

/// Returns the commits on `branch` of the repository at `path`, newest first; none if there is no such branch yet.
pub(super) fn log(path: &Path, branch: &str) -> Result<Vec<Commit>, git2::Error> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let repository = Repository::open(path)?;
    let Ok(reference) = repository.find_reference(&format!("refs/heads/{branch}")) else { return Ok(Vec::new()) };
    let mut walk = repository.revwalk()?;
    walk.set_sorting(Sort::TOPOLOGICAL)?;
    walk.push(reference.peel_to_commit()?.id())?;
    let mut commits = Vec::new();
    for id in walk {
        let commit = repository.find_commit(id?)?;
        let message = String::from_utf8_lossy(commit.message_bytes()).into_owned();
        let known = ["Deployment:", "Release:", "Revision:", "Digest:"];
        commits.push(Commit {
            id: commit.id().to_string(),
            summary: message.lines().next().unwrap_or_default().to_owned(),
            trailers: message
                .lines()
                .filter(|line| known.iter().any(|known| line.starts_with(known)))
                .map(shortened)
                .collect(),
        });
    }
    Ok(commits)
}

fn shortened(trailer: &str) -> String {
    match trailer.split_once(": ") {
        Some(("Digest", digest)) => format!("Digest: {}", digest.chars().take(12).collect::<String>()),
        _ => trailer.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_come_newest_first_with_their_trailers() {
        let root = tempfile::tempdir().expect("directory");
        let path = root.path().join("git");
        assert_eq!(log(&path, "main").expect("none"), []);
        let repository = Repository::init_bare(&path).expect("init");
        assert_eq!(log(&path, "main").expect("empty"), []);
        let author = git2::Signature::now("a", "a@localhost").expect("author");
        let tree = repository.treebuilder(None).expect("builder").write().expect("tree");
        let tree = repository.find_tree(tree).expect("tree");
        let mut parent = None;
        for message in ["first", "second\n\nRelease: prod#2\nSigned-off-by: x"] {
            let parents: Vec<git2::Commit<'_>> =
                parent.into_iter().map(|id| repository.find_commit(id).expect("commit")).collect();
            let parents: Vec<_> = parents.iter().collect();
            let id = repository.commit(Some("refs/heads/main"), &author, &author, message, &tree, &parents);
            parent = Some(id.expect("commit"));
        }
        let commits = log(&path, "main").expect("log");
        assert_eq!(commits.iter().map(|commit| commit.summary.as_str()).collect::<Vec<_>>(), ["second", "first"]);
        assert_eq!(commits[0].trailers, ["Release: prod#2"]);
    }
}
