//! Files that survive a power cut: written beside, synced, renamed, and the directory synced.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::faults;

/// Bytes that a disk writes as a whole.
const SECTOR: usize = 512;

/// Why a file of the state directory cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It cannot be read.
    #[error("{} cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error("{} cannot be written", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what the agent wrote.
    #[error("{} is damaged; nothing is changed on this host until it is mended or moved away", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
}

fn read_error(path: &Path) -> impl Fn(io::Error) -> DiskError {
    move |source| DiskError::Read { path: path.to_owned(), source }
}

fn write_error(path: &Path) -> impl Fn(io::Error) -> DiskError {
    move |source| DiskError::Write { path: path.to_owned(), source }
}

/// Makes `path` and what is missing above it, for nobody but the agent's user.
pub(crate) fn private_dir(path: &Path) -> Result<(), DiskError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(write_error(path))
}

/// Returns the bytes of a file, or `None` if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, DiskError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(read_error(path)(error)),
    }
}

/// Returns what a file says, or `None` if there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DiskError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|source| DiskError::Damaged { path: path.to_owned(), source })
}

/// Puts `bytes` at `path`, readable by the agent's user alone: the old file or the new one, at any instant.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let beside = path.with_extension("new");
    let put = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        room(path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        sync_parent(path)
    };
    put().map_err(|error| {
        // What could not be written must not take the room that somebody may make.
        let _half = fs::remove_file(&beside);
        write_error(path)(error)
    })
}

/// Fails like a full disk where a test asks for it: at `disk-write`, any file, or at `write-` and a file's name.
fn room(path: &Path) -> io::Result<()> {
    let at = |name: &str| faults::fails(name);
    let of = || at(&format!("write-{}", path.file_stem().unwrap_or_default().display()));
    if cfg!(feature = "fault-points") && (at("disk-write") || of()) {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

/// Writes `to` over `from`, as long as it and near the beginning of the file at `path`: for what has to be noted though
/// there is no room for a new file. It is the old text or the new one, since a sector is written as a whole.
pub(crate) fn overwrite(path: &Path, from: &str, to: &str) -> Result<(), DiskError> {
    let put = || {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut head = [0; SECTOR];
        let count = file.read_at(&mut head, 0)?;
        let at = head[..count].windows(from.len()).position(|window| window == from.as_bytes());
        let at = at.filter(|_| from.len() == to.len()).ok_or(io::ErrorKind::InvalidData)?;
        file.write_all_at(to.as_bytes(), at as u64)?;
        file.sync_all()
    };
    put().map_err(write_error(path))
}

/// Puts `value` at `path` as JSON, as [`write`] does.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), DiskError> {
    let bytes = serde_json::to_vec(value).map_err(|error| write_error(path)(error.into()))?;
    write(path, &bytes)
}

/// Puts `value` at `path` without waiting for the disk: after a power cut it may be missing or empty.
pub(crate) fn write_hint<T: Serialize>(path: &Path, value: &T) -> Result<(), DiskError> {
    let beside = path.with_extension("new");
    let bytes = serde_json::to_vec(value).map_err(|error| write_error(path)(error.into()))?;
    let written = room(path).and_then(|()| fs::write(&beside, bytes)).and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        let _half = fs::remove_file(&beside);
        write_error(path)(error)
    })
}

/// Moves a file to another directory: it is in one of the two at any instant.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), DiskError> {
    fs::rename(from, to).and_then(|()| sync_parent(to)).and_then(|()| sync_parent(from)).map_err(write_error(to))
}

/// Returns the paths in a directory, in order; none if there is no directory.
pub(crate) fn list(path: &Path) -> Result<Vec<PathBuf>, DiskError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(read_error(path)(error)),
    };
    let paths: io::Result<Vec<_>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(read_error(path))?;
    paths.sort();
    Ok(paths)
}

/// Removes a file for good; it is fine if there is none.
pub(crate) fn remove(path: &Path) -> Result<(), DiskError> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path).map_err(write_error(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(write_error(path)(error)),
    }
}

/// Writes the directory that holds `path` to disk.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_is_named() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("x.json");
        assert_eq!(read_json::<Vec<u8>>(&path).expect("none"), None);
        write_json(&path, &vec![1, 2]).expect("write");
        assert_eq!(read_json::<Vec<u8>>(&path).expect("some"), Some(vec![1, 2]));
        overwrite(&path, "[1", "[3").expect("overwrite");
        assert_eq!(read_json::<Vec<u8>>(&path).expect("some"), Some(vec![3, 2]));
        assert!(overwrite(&path, "9", "8").is_err() && overwrite(&path, "3", "33").is_err());
        fs::write(&path, "[1,").expect("damage");
        let message = read_json::<Vec<u8>>(&path).expect_err("damaged").to_string();
        assert!(message.contains("x.json is damaged"), "{message}");
        remove(&path).expect("remove");
        remove(&path).expect("remove what is gone");
    }
}
