//! The steps of a switch: renames, each of which can be done twice and undone twice.

use std::collections::BTreeSet;

use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::root::{Root, RootError};

/// One step of a switch. Each can be done twice and undone twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Step {
    /// Makes a directory.
    MakeDir { path: String },
    /// Moves a staged file or directory into place. `backup` is a second name of what it replaces.
    Put { from: String, to: String, backup: Option<String> },
    /// Exchanges a staged directory, of inode `inode`, with the one in place.
    Swap { from: String, to: String, inode: u64, foreign: BTreeSet<String>, owned: BTreeSet<String> },
    /// Moves a file or directory away.
    Take { path: String, backup: String },
}

impl Step {
    /// Does the step, unless it is done.
    pub(super) fn forward(&self, root: &Root) -> Result<(), RootError> {
        match self {
            Self::MakeDir { path } => root.make_dir(path, 0o755).map(drop),
            Self::Put { from, to, .. } => match root.stat(from)? {
                Some(_) => root.rename(from, to),
                None => Ok(()),
            },
            Self::Take { path, backup } => match (root.stat(path)?, root.stat(backup)?) {
                (Some(_), None) => root.rename(path, backup),
                _ => Ok(()),
            },
            Self::Swap { from, to, inode, .. } => match root.stat(to)? {
                Some(stat) if stat.st_ino == *inode => Ok(()),
                Some(_) => root.exchange(from, to),
                None => root.rename(from, to),
            },
        }
    }

    /// Undoes the step, unless it is undone.
    pub(super) fn backward(&self, root: &Root) -> Result<(), RootError> {
        match self {
            Self::MakeDir { path } => root.remove_dir(path).map(drop),
            Self::Put { from, to, backup } => match (root.stat(from)?, backup) {
                (Some(_), _) => Ok(()),
                (None, Some(backup)) if root.stat(backup)?.is_some() => root.rename(backup, to),
                (None, None) if root.stat(to)?.is_some() => root.rename(to, from),
                (None, _) => Ok(()),
            },
            Self::Take { path, backup } => match (root.stat(backup)?, root.stat(path)?) {
                (Some(_), None) => root.rename(backup, path),
                _ => Ok(()),
            },
            Self::Swap { from, to, inode, .. } => match (root.stat(to)?, root.stat(from)?) {
                (Some(stat), Some(_)) if stat.st_ino == *inode => root.exchange(from, to),
                (Some(stat), None) if stat.st_ino == *inode => root.rename(to, from),
                _ => Ok(()),
            },
        }
    }

    /// Returns the path that the step changes.
    pub(super) fn path(&self) -> &str {
        match self {
            Self::MakeDir { path } | Self::Take { path, .. } => path,
            Self::Put { to, .. } | Self::Swap { to, .. } => to,
        }
    }

    /// Brings back what others put into a directory while it was being exchanged.
    pub(super) fn tidy(&self, root: &Root) -> Result<(), RootError> {
        let Self::Swap { from, to, foreign, owned, .. } = self else { return Ok(()) };
        rescue(root, from, to, "", foreign, owned)
    }
}

fn rescue(
    root: &Root,
    from: &str,
    to: &str,
    below: &str,
    foreign: &BTreeSet<String>,
    owned: &BTreeSet<String>,
) -> Result<(), RootError> {
    for (name, kind) in root.list(&join(from, below))? {
        let path = join(below, &name);
        let (old, new) = (join(from, &path), join(to, &path));
        if kind == FileType::Directory && root.stat(&new)?.is_some() {
            rescue(root, from, to, &path, foreign, owned)?;
            continue;
        }
        if owned.contains(&path) || (kind == FileType::Directory && below_any(owned, &path)) {
            continue;
        }
        match (root.stat(&old)?, root.stat(&new)?) {
            (Some(one), Some(other)) if one.st_ino == other.st_ino => {}
            (Some(_), Some(_)) if foreign.contains(&path) => root.rename(&old, &new)?,
            (Some(_), None) if !foreign.contains(&path) => root.rename_new(&old, &new)?,
            _ => {}
        }
    }
    Ok(())
}

fn below_any(paths: &BTreeSet<String>, dir: &str) -> bool {
    let from = format!("{dir}/");
    paths.range(from.clone()..).next().is_some_and(|path| path.starts_with(&from))
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() {
        name.to_owned()
    } else if name.is_empty() {
        dir.to_owned()
    } else {
        format!("{dir}/{name}")
    }
}
