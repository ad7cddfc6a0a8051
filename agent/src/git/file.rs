//! A remote that is a repository on this host. Its hooks are not run.

use std::path::{Path, PathBuf};

use git2::{ErrorCode, Oid, Repository};

use super::remote::{self, Remote, RemoteError};

/// The remote.
#[derive(Debug)]
pub(crate) struct FileRemote {
    path: PathBuf,
    spool: PathBuf,
}

impl FileRemote {
    /// Returns the remote at `path`.
    pub(crate) fn new(path: PathBuf, spool: &Path) -> Self {
        Self { path, spool: spool.to_owned() }
    }

    fn open(&self) -> Result<Repository, RemoteError> {
        Ok(Repository::open(&self.path)?)
    }

    fn copy(&self, from: &Repository, to: &Repository, tip: Oid, have: &[Oid]) -> Result<(), RemoteError> {
        let (mut pack, _) = remote::pack(from, tip, have, &self.spool)?;
        let odb = to.odb()?;
        let mut writer = odb.packwriter()?;
        std::io::copy(&mut pack, &mut writer).map_err(RemoteError::Spool)?;
        writer.commit()?;
        Ok(())
    }
}

impl Remote for FileRemote {
    fn tip(&mut self, branch: &str) -> Result<Option<Oid>, RemoteError> {
        match self.open()?.refname_to_id(branch) {
            Ok(id) => Ok(Some(id)),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn fetch(&mut self, repo: &Repository, tip: Oid, have: &[Oid]) -> Result<(), RemoteError> {
        self.copy(&self.open()?, repo, tip, have)
    }

    fn push(&mut self, repo: &Repository, branch: &str, old: Option<Oid>, new: Oid) -> Result<(), RemoteError> {
        let there = self.open()?;
        let checked_out = || {
            let head = there.find_reference("HEAD").ok()?;
            head.symbolic_target().ok().flatten().map(|target| target == branch)
        };
        if !there.is_bare() && checked_out() == Some(true) {
            return Err(RemoteError::Rejected("the branch is checked out there; push to a bare repository".to_owned()));
        }
        let heads = there.references_glob("refs/heads/*")?.flatten().filter_map(|head| head.target());
        self.copy(repo, &there, new, &heads.collect::<Vec<_>>())?;
        // Compared and set under the reference's lock: whoever was faster is not overwritten.
        let moved = match old {
            Some(old) => there.reference_matching(branch, new, true, old, "titan: push"),
            None => there.reference(branch, new, false, "titan: push"),
        };
        match moved {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.code(), ErrorCode::Modified | ErrorCode::Exists | ErrorCode::Locked) => {
                Err(RemoteError::Rejected("somebody else moved the branch".to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }
}
