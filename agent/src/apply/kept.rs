//! What has to give way for a file or link of the agent's: it is put aside in the same directory, and what was there first
//! comes back.
//!
//! It is kept as `<name>.titan-kept`, which neither systemd nor podman's generator reads. What somebody puts in the place
//! later is kept beside it with a number, and stays there: it is not known who still wants it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What the name of something kept ends with, but for the number.
const KEPT: &str = ".titan-kept";
/// How much is kept for one place. Of what comes then only the newest is: a program may write there again and again.
const MOST: usize = 9;

/// Puts aside what is at `path`. What was kept before stays, as long as there are not too many.
pub(super) fn put_aside(path: &Path) -> io::Result<()> {
    let is_free =
        |place: &PathBuf| fs::symlink_metadata(place).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let free = (1..MOST).map(|number| kept(path, number)).find(is_free);
    fs::rename(path, free.unwrap_or_else(|| kept(path, MOST)))
}

/// Puts what was kept first back to `path`. Returns whether there was anything.
pub(super) fn put_back(path: &Path) -> io::Result<bool> {
    match fs::rename(kept(path, 1), path) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns where something is kept.
fn kept(path: &Path, number: usize) -> PathBuf {
    if number == 1 { with_suffix(path, KEPT) } else { with_suffix(path, &format!("{KEPT}-{number}")) }
}

/// Returns a path in the same directory whose name is longer.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_comes_again_and_again_the_first_and_the_newest_are_kept() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("a.service");
        for text in 1..=20 {
            fs::write(&path, text.to_string()).expect("written");
            put_aside(&path).expect("put aside");
        }
        let text = |path: &Path| fs::read_to_string(path).expect("text");
        assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), MOST);
        assert_eq!((text(&kept(&path, 2)), text(&kept(&path, MOST))), ("2".to_owned(), "20".to_owned()));
        assert!(put_back(&path).expect("back") && !put_back(&path).expect("again"));
        assert_eq!(text(&path), "1");
    }
}
