//! Links to the deployment's files in the directory that systemd reads.
//!
//! Every one is made beside and renamed. What stands in the place of one and is not a link of the agent's is put aside, and
//! what was there first comes back when the link goes.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::apply::{
    ApplyError,
    kept::{put_aside, put_back, with_suffix},
};

/// What is linked to by a unit that must not run.
const NOWHERE: &str = "/dev/null";
/// Bytes of a file of others that are looked at.
const FOREIGN_BYTES: u64 = 64 * 1024;

/// What is in the place of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Missing,
    /// A link.
    Link(PathBuf),
    /// A file, with what it says if that is short text.
    File(Option<String>),
    /// Something else.
    Other,
}

/// The directory.
#[derive(Debug)]
pub(super) struct Links<'a> {
    directory: &'a Path,
    /// Below which all deployments have their directories.
    root: &'a Path,
    home: &'a Path,
}

impl<'a> Links<'a> {
    /// `home`: the deployment's own directory, `<root>/<workspace>/<name>`.
    pub(super) fn new(directory: &'a Path, home: &'a Path) -> Self {
        let root = home.parent().and_then(Path::parent).unwrap_or(home);
        Self { directory, root, home }
    }

    /// Returns what is at a place.
    pub(super) fn find(&self, place: &str) -> Result<Found, ApplyError> {
        let path = self.directory.join(place);
        let look = || -> io::Result<Found> {
            let about = match fs::symlink_metadata(&path) {
                Ok(about) => about,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    return Ok(Found::Missing);
                }
                Err(error) => return Err(error),
            };
            Ok(if about.is_symlink() {
                Found::Link(fs::read_link(&path)?)
            } else if about.is_file() {
                let short = about.len() <= FOREIGN_BYTES;
                Found::File(short.then(|| fs::read(&path)).transpose()?.and_then(|bytes| String::from_utf8(bytes).ok()))
            } else {
                Found::Other
            })
        };
        look().map_err(|error| failed("reading", &path, &error))
    }

    /// Whether a link is one that the agent made, for this deployment or another one.
    pub(super) fn is_ours(&self, target: &Path) -> bool {
        target.starts_with(self.root)
    }

    /// Whether the link that is to be at a place is there.
    pub(super) fn holds(&self, place: &str, file: &str) -> Result<bool, ApplyError> {
        Ok(self.find(place)? == Found::Link(self.home.join(file)))
    }

    /// Makes a link. Returns whether it had to.
    pub(super) fn put(&self, place: &str, file: &str) -> Result<bool, ApplyError> {
        let (path, target) = (self.directory.join(place), self.home.join(file));
        match self.find(place)? {
            Found::Link(there) if there == target => return Ok(false),
            Found::Missing | Found::Link(_) if self.gives_way(place)? => {}
            Found::Other => {
                let message = format!("{} is neither a file nor a link", path.display());
                return Err(ApplyError::Platform { what: format!("making the link {place}"), message });
            }
            _ => put_aside(&path).map_err(|error| failed("keeping", &path, &error))?,
        }
        let make = || -> io::Result<()> {
            let parent = path.parent().unwrap_or(self.directory);
            fs::create_dir_all(parent)?;
            let beside = beside(&path);
            match fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            symlink(&target, &beside)?;
            fs::rename(&beside, &path)?;
            self.sync(parent)
        };
        make().map_err(|error| failed("making", &path, &error))?;
        Ok(true)
    }

    /// Whether what is at a place may be replaced without being kept.
    fn gives_way(&self, place: &str) -> Result<bool, ApplyError> {
        Ok(match self.find(place)? {
            Found::Missing => true,
            Found::Link(there) => self.is_ours(&there) || there == Path::new(NOWHERE),
            Found::File(_) | Found::Other => false,
        })
    }

    /// Takes a link away if it is this deployment's, and puts back what gave way for it. What others put in its place
    /// stays. Returns whether anything changed.
    pub(super) fn take(&self, place: &str) -> Result<bool, ApplyError> {
        let path = self.directory.join(place);
        let mut changed = false;
        match self.find(place)? {
            Found::Link(there) if there.starts_with(self.home) => {
                fs::remove_file(&path).map_err(|error| failed("removing", &path, &error))?;
                changed = true;
            }
            Found::Missing => {}
            _ => return Ok(false),
        }
        changed |= put_back(&path).map_err(|error| failed("putting back", &path, &error))?;
        if changed {
            let parent = path.parent().unwrap_or(self.directory);
            if parent != self.directory {
                // Not ours alone, so it goes only when it is empty, as with systemctl.
                let _others_use_it = fs::remove_dir(parent);
            }
            self.sync(parent).map_err(|error| failed("removing", &path, &error))?;
        }
        Ok(changed)
    }

    /// Waits until what was changed in the directory of a link is on disk, and that directory itself, which may have come or
    /// gone with the link: nothing may be back after a power cut that nobody owns any more.
    fn sync(&self, parent: &Path) -> io::Result<()> {
        if parent != self.directory {
            match fs::File::open(parent) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                directory => directory?.sync_all()?,
            }
        }
        fs::File::open(self.directory)?.sync_all()
    }

    /// Returns drop-ins that others made for a unit, each as its path below the directory and what it says.
    pub(super) fn foreign_drop_ins(&self, unit: &str, ours: impl Fn(&str) -> bool) -> Vec<(String, Option<String>)> {
        let directory = format!("{unit}.d");
        let Ok(entries) = fs::read_dir(self.directory.join(&directory)) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut places: Vec<_> =
            names.filter(|name| name.ends_with(".conf")).map(|name| format!("{directory}/{name}")).collect();
        places.retain(|place| !ours(place));
        places.sort();
        let read = |place: String| match self.find(&place) {
            Ok(Found::File(text)) => Some((place, text)),
            Ok(Found::Link(there)) if !self.is_ours(&there) => Some((place, None)),
            _ => None,
        };
        places.into_iter().filter_map(read).collect()
    }
}

/// Returns where a link is made first; systemd passes over what has no name of a unit.
fn beside(path: &Path) -> PathBuf {
    with_suffix(path, ".titan-new")
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> ApplyError {
    ApplyError::Platform { what: format!("{doing} {}", path.display()), message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: &str = "a.service.d/x.conf";

    #[test]
    fn links_are_made_once_and_taken_away_with_their_directory() {
        let dir = tempfile::tempdir().expect("dir");
        let home = dir.path().join("root/default/web");
        let units = dir.path().join("units");
        let links = Links::new(&units, &home);
        assert!(links.put(PLACE, "x").expect("put") && !links.put(PLACE, "x").expect("again"));
        assert!(links.holds(PLACE, "x").expect("holds") && !links.holds(PLACE, "y").expect("other"));
        assert!(links.take(PLACE).expect("take") && !links.take(PLACE).expect("again"));
        assert!(!units.join("a.service.d").exists() && units.exists());
        links.put(PLACE, "x").expect("put");
        let theirs = units.join("a.service.d/theirs.conf");
        fs::write(&theirs, "").expect("theirs");
        assert!(links.take(PLACE).expect("take") && theirs.exists());
    }

    #[test]
    fn what_others_made_is_kept_and_comes_back() {
        let dir = tempfile::tempdir().expect("dir");
        let home = dir.path().join("root/default/web");
        let units = dir.path().join("units");
        fs::create_dir(&units).expect("units");
        let place = units.join("a.service");
        fs::write(&place, "theirs").expect("theirs");
        let links = Links::new(&units, &home);
        assert_eq!(links.find("a.service").expect("find"), Found::File(Some("theirs".into())));
        links.put("a.service", "a.service").expect("put");
        assert!(links.holds("a.service", "a.service").expect("holds"));
        // Cut short after the rename: the link is missing, what was there is kept.
        fs::remove_file(&place).expect("cut");
        links.put("a.service", "a.service").expect("put again");
        links.take("a.service").expect("take");
        assert_eq!(fs::read_to_string(&place).expect("back"), "theirs");
        links.take("a.service").expect("take what is not ours");
        assert_eq!(fs::read_to_string(&place).expect("still"), "theirs");
    }

    #[test]
    fn the_first_that_was_kept_comes_back_whatever_was_put_there_later() {
        let dir = tempfile::tempdir().expect("dir");
        let home = dir.path().join("root/default/web");
        let units = dir.path().join("units");
        fs::create_dir(&units).expect("units");
        let place = units.join("a.service");
        fs::write(&place, "theirs").expect("theirs");
        let links = Links::new(&units, &home);
        links.put("a.service", "a.service").expect("put");
        for later in ["later", "latest"] {
            fs::remove_file(&place).expect("replaced");
            fs::write(&place, later).expect("replaced");
            assert!(links.put("a.service", "a.service").expect("put again"));
        }
        assert!(links.take("a.service").expect("take"));
        let text = |name: &str| fs::read_to_string(units.join(name)).ok();
        assert_eq!(text("a.service").as_deref(), Some("theirs"));
        assert_eq!(text("a.service.titan-kept"), None);
        assert_eq!(text("a.service.titan-kept-2").as_deref(), Some("later"));
        assert_eq!(text("a.service.titan-kept-3").as_deref(), Some("latest"));
    }

    #[test]
    fn links_of_other_deployments_stay_and_are_taken_over_without_a_gap() {
        let dir = tempfile::tempdir().expect("dir");
        let (one, other) = (dir.path().join("root/default/one"), dir.path().join("root/default/other"));
        let units = dir.path().join("units");
        Links::new(&units, &one).put("a.service", "a.service").expect("one");
        let heir = Links::new(&units, &other);
        heir.put("a.service", "a.service").expect("heir");
        assert!(!Links::new(&units, &one).take("a.service").expect("take"), "it is not one's any more");
        assert!(heir.holds("a.service", "a.service").expect("holds"));
    }

    #[test]
    fn drop_ins_of_others_are_told_from_ours() {
        let dir = tempfile::tempdir().expect("dir");
        let home = dir.path().join("root/default/web");
        let links = Links::new(dir.path(), &home);
        links.put(PLACE, "a.service.d/x.conf").expect("put");
        fs::write(dir.path().join("a.service.d/override.conf"), "[Service]\n").expect("theirs");
        let found = links.foreign_drop_ins("a.service", |place| place == PLACE);
        assert_eq!(found, [("a.service.d/override.conf".to_owned(), Some("[Service]\n".to_owned()))]);
        assert!(links.foreign_drop_ins("b.service", |_| false).is_empty());
    }
}
