//! The state directory: where each thing is kept, and who may use it.
//!
//! `lock` is held by the agent that runs; a second one is refused. `identity.json` and `credential` come from
//! enrolling, `desired.json` is what the control plane declared, `ledger.json` what is on disk because of it,
//! `journal.json` the switch that is under way, `stuck/` those that can be brought neither forward nor back for now,
//! `outbox.json` what is to be reported, `bundles/` the cache, `git/` the local repository unless configured elsewhere,
//! `git.config` how it is written to, `podman-images.json` what was pulled, `podman-underway.json` and
//! `compose-underway.json` what is being brought in line, `compose/` what Compose is given, `status.json` a hint for
//! `titan-agent status`.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use crate::disk::{self, DiskError};

/// How long the lock may still be held by what a killed agent left behind.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether it is free.
const LOOK: Duration = Duration::from_millis(20);

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Something on disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Another agent runs on it.
    #[error("another titan-agent uses {}", .0.display())]
    InUse(PathBuf),
    /// The lock cannot be taken.
    #[error("{} cannot be locked", .path.display())]
    Lock {
        /// The lock's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Paths below a state directory.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(PathBuf);

impl StateDir {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Takes the directory for this process, making it if it is missing.
    pub(crate) fn lock(&self) -> Result<StateLock, StateError> {
        disk::private_dir(&self.0)?;
        let path = self.file("lock");
        let lock = |source| StateError::Lock { path: path.clone(), source };
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(lock)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(StateLock(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse(self.0.clone())),
            Err(error) => Err(lock(error.into())),
        }
    }

    /// The same with patience: a child that an agent was making when it was killed holds the lock until it becomes another
    /// program.
    pub(crate) fn lock_soon(&self) -> Result<StateLock, StateError> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lock() {
                Err(StateError::InUse(_)) if Instant::now() < until => thread::sleep(LOOK),
                other => return other,
            }
        }
    }
}

/// Holds a state directory for this process until it is dropped.
#[derive(Debug)]
pub(crate) struct StateLock(#[expect(dead_code, reason = "the lock ends when the file is closed")] File);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_agents_cannot_use_one_directory() {
        let dir = tempfile::tempdir().expect("dir");
        let state = StateDir::new(dir.path().join("a/b"));
        let lock = state.lock().expect("first");
        assert!(matches!(state.lock(), Err(StateError::InUse(_))));
        drop(lock);
        state.lock().expect("after the first");
    }
}
