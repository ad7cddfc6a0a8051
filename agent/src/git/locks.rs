//! Locks: files beside what Git writes, which stay when a process is killed while it writes.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use git2::{ErrorCode, Repository};

/// How long a name is locked at most by somebody who lives: it is some bytes. Git itself gives up after a tenth of a second.
const NAME: Duration = Duration::from_secs(5);
/// The same for the list of files of a work tree, which `git commit` holds while a person writes a message.
const INDEX: Duration = Duration::from_secs(60 * 60);

/// Does what writes these references, and again if all that is in the way was left by a process that was killed.
pub(super) fn past<T>(
    repo: &Repository,
    references: &[&str],
    mut write: impl FnMut() -> Result<T, git2::Error>,
) -> Result<T, git2::Error> {
    match write() {
        Err(error) if error.code() == ErrorCode::Locked && unlock(repo, references) => write(),
        written => written,
    }
}

/// Removes locks that nobody holds any more. Returns whether there was one.
fn unlock(repo: &Repository, references: &[&str]) -> bool {
    let names = references.iter().chain(&["HEAD", "packed-refs"]).map(|name| (*name, NAME));
    let mut removed = false;
    for (name, held) in names.chain([("index", INDEX)]) {
        let lock = repo.path().join(format!("{name}.lock"));
        if is_left(&lock, held) && fs::remove_file(&lock).is_ok() {
            tracing::warn!("{} was left by a process that was killed; it is removed", lock.display());
            removed = true;
        }
    }
    removed
}

/// Whether a lock is older than anybody holds one. One from the future was made before the clock was set back.
fn is_left(lock: &Path, held: Duration) -> bool {
    let made = fs::symlink_metadata(lock).and_then(|metadata| metadata.modified());
    made.is_ok_and(|made| SystemTime::now().duration_since(made).map_or(true, |age| age >= held))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRANCH: &str = "refs/heads/main";

    /// A repository whose branch was locked so many seconds ago.
    fn locked(ago: u64) -> (tempfile::TempDir, Repository) {
        let folder = tempfile::tempdir().expect("a directory");
        let repo = Repository::init_bare(folder.path()).expect("a repository");
        let lock = fs::File::create(repo.path().join(format!("{BRANCH}.lock"))).expect("a lock");
        lock.set_modified(SystemTime::now() - Duration::from_secs(ago)).expect("a time");
        (folder, repo)
    }

    fn write(repo: &Repository) -> Result<(), git2::Error> {
        let id = repo.blob(b"x").expect("a blob");
        past(repo, &[BRANCH], || repo.reference(BRANCH, id, false, "test").map(drop))
    }

    #[test]
    fn a_lock_that_was_left_is_removed() {
        let (_folder, repo) = locked(6);
        write(&repo).expect("written");
        assert!(repo.find_reference(BRANCH).is_ok());
    }

    #[test]
    fn a_lock_that_somebody_may_hold_stays() {
        let (_folder, repo) = locked(1);
        assert_eq!(write(&repo).expect_err("locked").code(), ErrorCode::Locked);
        assert!(repo.path().join(format!("{BRANCH}.lock")).exists());
    }

    #[test]
    fn the_list_of_files_is_held_for_longer() {
        let folder = tempfile::tempdir().expect("a directory");
        let lock = folder.path().join("index.lock");
        fs::File::create(&lock).expect("a lock").set_modified(SystemTime::now() - NAME * 2).expect("a time");
        assert!(is_left(&lock, NAME) && !is_left(&lock, INDEX));
        assert!(!is_left(&folder.path().join("none.lock"), NAME));
    }
}
