//! Files in the directory that podman's generator reads. Each is written beside and renamed; what stands in the place of
//! one and is nobody's is put aside, and what was there first comes back when the file goes.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::keys::Sort;
use crate::apply::{
    ApplyError,
    kept::{put_aside, put_back, with_suffix},
};

/// How every file of the agent's begins; then comes whose it is.
const FIRST: &str = "# Kept by titan-agent for ";
/// Bytes of a file of others that are looked at.
const FOREIGN_BYTES: u64 = 64 * 1024;

/// Returns the first line of a file of the deployment `workspace/name`.
pub(super) fn first_line(home: &str) -> String {
    format!("{FIRST}{home}\n")
}

/// What is in the place of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Missing,
    /// A file of the agent's: of which deployment, and what it says.
    Ours(String, String),
    /// Something else, with what it says if that is short text.
    Other(Option<String>),
}

/// The directory.
#[derive(Debug)]
pub(super) struct Placed<'a>(pub(super) &'a Path);

impl Placed<'_> {
    /// Returns where a file is. A name that is none of a quadlet is nowhere, so whatever a damaged ledger says, nothing
    /// beyond the directory is touched.
    fn path(&self, name: &str) -> Option<PathBuf> {
        matches!(Sort::of(name), Some(Ok(_))).then(|| self.0.join(name))
    }

    /// Returns what is in a place.
    pub(super) fn find(&self, name: &str) -> Result<Found, ApplyError> {
        let Some(path) = self.path(name) else { return Ok(Found::Missing) };
        look(&path).map_err(|error| failed("reading", &path, &error))
    }

    /// Returns the permission bits of what is in a place.
    pub(super) fn mode(&self, name: &str) -> u32 {
        let about = self.path(name).and_then(|path| fs::symlink_metadata(path).ok());
        about.map_or(0, |about| about.permissions().mode() & 0o7777)
    }

    /// Writes a file, unless it is there already. Returns whether it had to.
    pub(super) fn put(&self, name: &str, text: &str, mode: u32) -> Result<bool, ApplyError> {
        let Some(path) = self.path(name) else { return Ok(false) };
        match self.find(name)? {
            Found::Ours(_, there) if there == text => return Ok(false),
            Found::Missing | Found::Ours(..) => {}
            Found::Other(_) => put_aside(&path).map_err(|error| failed("keeping", &path, &error))?,
        }
        let write = || -> io::Result<()> {
            fs::create_dir_all(self.0)?;
            let beside = with_suffix(&path, ".titan-new");
            match fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            fs::File::open(self.0)?.sync_all()
        };
        write().map_err(|error| failed("writing", &path, &error))?;
        Ok(true)
    }

    /// Removes a file if it is of the deployment `home`, and puts back what gave way for it. Returns whether anything
    /// changed.
    pub(super) fn take(&self, name: &str, home: &str) -> Result<bool, ApplyError> {
        let Some(path) = self.path(name) else { return Ok(false) };
        let mut changed = false;
        match self.find(name)? {
            Found::Ours(whose, _) if whose == home => {
                fs::remove_file(&path).map_err(|error| failed("removing", &path, &error))?;
                changed = true;
            }
            Found::Missing => {}
            Found::Ours(..) | Found::Other(_) => return Ok(false),
        }
        changed |= put_back(&path).map_err(|error| failed("putting back", &path, &error))?;
        if changed {
            let sync = || fs::File::open(self.0)?.sync_all();
            sync().map_err(|error| failed("removing", &path, &error))?;
        }
        Ok(changed)
    }
}

fn look(path: &Path) -> io::Result<Found> {
    let about = match fs::symlink_metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
        Err(error) => return Err(error),
    };
    if !about.is_file() || about.len() > FOREIGN_BYTES.max(super::UNIT_BYTES as u64 * 2) {
        return Ok(Found::Other(None));
    }
    let Ok(text) = String::from_utf8(fs::read(path)?) else { return Ok(Found::Other(None)) };
    let whose = text.strip_prefix(FIRST).and_then(|rest| Some(rest.split_once('\n')?.0.to_owned()));
    Ok(match whose {
        Some(whose) => Found::Ours(whose, text),
        None if about.len() <= FOREIGN_BYTES => Found::Other(Some(text)),
        None => Found::Other(None),
    })
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> ApplyError {
    ApplyError::Platform { what: format!("{doing} {}", path.display()), message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "web.container";

    #[test]
    fn files_are_written_once_and_taken_away_by_whoever_they_are_of() {
        let dir = tempfile::tempdir().expect("dir");
        let directory = dir.path().join("systemd");
        let placed = Placed(&directory);
        let text = format!("{}[Container]\n", first_line("default/web"));
        assert!(placed.put(NAME, &text, 0o644).expect("put") && !placed.put(NAME, &text, 0o644).expect("again"));
        assert_eq!(placed.find(NAME).expect("find"), Found::Ours("default/web".into(), text));
        assert!(!placed.take(NAME, "default/other").expect("another's"));
        assert!(placed.take(NAME, "default/web").expect("take") && !placed.take(NAME, "default/web").expect("again"));
        assert!(!placed.put("../x", "x", 0o644).expect("nowhere") && !dir.path().join("x").exists());
    }

    #[test]
    fn what_others_wrote_is_kept_and_comes_back() {
        let dir = tempfile::tempdir().expect("dir");
        let placed = Placed(dir.path());
        fs::write(dir.path().join(NAME), "theirs").expect("theirs");
        assert_eq!(placed.find(NAME).expect("find"), Found::Other(Some("theirs".into())));
        assert!(!placed.take(NAME, "default/web").expect("not ours"));
        placed.put(NAME, &first_line("default/web"), 0o644).expect("put");
        placed.take(NAME, "default/web").expect("take");
        assert_eq!(fs::read_to_string(dir.path().join(NAME)).expect("back"), "theirs");
    }

    #[test]
    fn the_first_that_was_kept_comes_back_whatever_was_written_there_later() {
        let dir = tempfile::tempdir().expect("dir");
        let placed = Placed(dir.path());
        let ours = first_line("default/web");
        for theirs in ["theirs", "later"] {
            fs::write(dir.path().join(NAME), theirs).expect("theirs");
            assert!(placed.put(NAME, &ours, 0o644).expect("put"));
        }
        assert!(placed.take(NAME, "default/web").expect("take"));
        let text = |suffix: &str| fs::read_to_string(dir.path().join(format!("{NAME}{suffix}"))).ok();
        assert_eq!(text("").as_deref(), Some("theirs"));
        assert_eq!((text(".titan-kept"), text(".titan-kept-2").as_deref()), (None, Some("later")));
    }
}
