//! Staging a deployment's own directory as a whole, so that it can be exchanged in one step.

use std::collections::{BTreeMap, BTreeSet};

use rustix::fs::FileType;

use super::{
    changes::{self, Changes, Wanted},
    root::{Attributes, Result, Root},
    switch::Switch,
};

/// More entries than this are not staged as a whole.
const ENTRIES: usize = 10_000;

/// What a deployment's own directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Survey {
    /// There is no such directory.
    Missing,
    /// Nothing but files of the agent and plain files of others, so it can be staged as a whole.
    Whole {
        /// Plain files of others.
        foreign: BTreeSet<String>,
        /// Directories inside, parents first.
        dirs: Vec<String>,
    },
    /// Something that has to stay where it is.
    Mixed,
}

/// Looks through the directory `home`. `known` are the paths that are owned or wanted, `made` the directories that the
/// agent made.
pub(crate) fn survey(root: &Root, home: &str, known: &BTreeSet<String>, made: &BTreeSet<String>) -> Result<Survey> {
    let Some(stat) = root.stat(home)? else { return Ok(Survey::Missing) };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory || root.mount_of(&format!("{home}/x"))? == home {
        return Ok(Survey::Mixed);
    }
    let (mut foreign, mut dirs, mut seen) = (BTreeSet::new(), Vec::new(), 0);
    let mut open = vec![home.to_owned()];
    while let Some(dir) = open.pop() {
        for (name, kind) in root.list(&dir)? {
            let path = format!("{dir}/{name}");
            seen += 1;
            match kind {
                _ if seen > ENTRIES => return Ok(Survey::Mixed),
                FileType::Directory => {
                    let needed = made.contains(&path) || holds_any(known, &path);
                    let other_device = root.stat(&path)?.is_none_or(|inside| inside.st_dev != stat.st_dev);
                    if !needed || other_device {
                        return Ok(Survey::Mixed);
                    }
                    dirs.push(path.clone());
                    open.push(path);
                }
                _ if known.contains(&path) => {}
                FileType::RegularFile => {
                    foreign.insert(path);
                }
                _ => return Ok(Survey::Mixed),
            }
        }
    }
    dirs.sort();
    Ok(Survey::Whole { foreign, dirs })
}

/// A directory to stage.
#[derive(Debug)]
pub(crate) struct Whole<'a> {
    /// The directory.
    pub(crate) home: &'a str,
    /// The files that are wanted in it.
    pub(crate) wanted: &'a BTreeMap<String, Wanted<'a>>,
    /// What changes.
    pub(crate) changes: &'a Changes,
    /// Files that stay though they are not wanted: those of others, and those for an heir.
    pub(crate) kept: &'a BTreeSet<String>,
    /// Directories that are there now, parents first.
    pub(crate) dirs: &'a [String],
    /// The directories that the agent made.
    pub(crate) made: &'a BTreeSet<String>,
}

impl Whole<'_> {
    fn files(&self) -> impl Iterator<Item = &String> {
        let inside = |path: &&String| path.strip_prefix(self.home).is_some_and(|rest| rest.starts_with('/'));
        self.wanted.keys().filter(inside)
    }

    /// Returns every directory that the new one has, itself first.
    pub(crate) fn all_dirs(&self) -> BTreeSet<String> {
        let mut dirs = BTreeSet::from([self.home.to_owned()]);
        for path in self.files().chain(self.kept) {
            dirs.extend(
                path.match_indices('/').map(|(end, _)| path[..end].to_owned()).filter(|d| d.len() > self.home.len()),
            );
        }
        dirs.extend(self.dirs.iter().filter(|dir| !self.made.contains(*dir)).cloned());
        dirs
    }

    /// Builds the directory at `stage`. Returns whether that was possible; if not, what is there is to be cleared.
    pub(crate) fn build(&self, root: &Root, switch: &mut Switch<'_>, stage: &str) -> Result<bool> {
        let staged = |path: &str| format!("{stage}{}", &path[self.home.len()..]);
        for dir in self.all_dirs() {
            let to = staged(&dir);
            root.make_dir(&to, 0o755)?;
            if let Some(stat) = root.stat(&dir)?.filter(|stat| is_dir(stat.st_mode)) {
                root.copy_owner(&stat, &to)?;
            }
            switch.staged_dir(&to);
        }
        for path in self.files() {
            let (file, to) = (&self.wanted[path], staged(path));
            if self.changes.put.contains(path) || !root.link(path, &to)? {
                root.write_new(&to, file.file.reader(), changes::attributes(file))?;
                crate::faults::fault!("file-staged");
            }
        }
        for path in self.kept {
            if !root.link(path, &staged(path))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Gives the file at `path` a second name, or copies it where the file system knows no second names.
pub(crate) fn back_up(root: &Root, path: &str, backup: &str) -> Result<()> {
    if root.link(path, backup)? {
        return Ok(());
    }
    let attributes = root.stat(path)?.map_or(Attributes { mode: 0o600, uid: None, gid: None }, |stat| Attributes {
        mode: stat.st_mode & 0o7777,
        uid: Some(stat.st_uid),
        gid: Some(stat.st_gid),
    });
    root.write_new(backup, root.read(path)?, attributes)
}

/// Whether any of `paths` lies below `dir`.
pub(crate) fn holds_any(paths: &BTreeSet<String>, dir: &str) -> bool {
    let from = format!("{dir}/");
    paths.range(from.clone()..).next().is_some_and(|path| path.starts_with(&from))
}

fn is_dir(mode: u32) -> bool {
    FileType::from_raw_mode(mode) == FileType::Directory
}
