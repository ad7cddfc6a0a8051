//! A bundle on its way into the cache: written and hashed as it comes.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use sha2::{Digest as _, Sha256};
use titan_api::{Digest, client::Client};

use super::{BundleError, Bundles};
use crate::{
    disk::{self, DiskError},
    faults::fault,
    settle::chain,
};

/// A bundle that is being written, under another name than it will have. Dropped before it is kept, it is gone.
#[derive(Debug)]
pub(crate) struct Incoming {
    digest: Digest,
    file: File,
    beside: PathBuf,
    to: PathBuf,
    hash: Sha256,
}

impl Incoming {
    pub(super) fn begin(to: PathBuf, digest: Digest) -> Result<Self, DiskError> {
        let beside = to.with_extension("new");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside);
        let file = file.map_err(|source| DiskError::Write { path: to.clone(), source })?;
        Ok(Self { digest, file, beside, to, hash: Sha256::new() })
    }

    /// Takes the next bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        self.hash.update(bytes);
        self.file.write_all(bytes).map_err(|source| DiskError::Write { path: self.to.clone(), source })
    }

    /// Keeps what was written, if it is the bundle that was promised.
    pub(crate) fn keep(self) -> Result<(), BundleError> {
        let found = Digest::from_bytes(&self.hash.clone().finalize());
        if found != Some(self.digest) {
            let found = found.map(|found| found.short()).unwrap_or_default();
            return Err(BundleError::Mismatch { promised: self.digest.short(), found });
        }
        let synced = self.file.sync_all().and_then(|()| fs::rename(&self.beside, &self.to));
        synced.map_err(|source| DiskError::Write { path: self.to.clone(), source })?;
        disk::sync_parent(&self.to).map_err(|source| DiskError::Write { path: self.to.clone(), source })?;
        fault!("bundle-cached");
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let _kept_or_removed = fs::remove_file(&self.beside);
    }
}

impl Bundles {
    /// Fetches a bundle into the cache. Not more than a piece of it is in memory at a time, and the disk is waited for
    /// beside the agent's own thread.
    ///
    /// # Errors
    ///
    /// Why it is not there, for people. What had come is gone then.
    pub(crate) async fn fetch(&self, client: &Client, host: &str, digest: &Digest) -> Result<(), String> {
        let mut body = client.bundle(host, digest).await.map_err(|error| chain(&error))?;
        let mut incoming = self.begin(digest).map_err(|error| chain(&error))?;
        while let Some(chunk) = body.chunk().await.map_err(|error| chain(&error))? {
            incoming = beside(move || incoming.write(chunk.as_ref()).map(|()| incoming)).await?;
        }
        beside(move || incoming.keep()).await
    }
}

/// Does what may have to wait for the disk.
async fn beside<T, E>(act: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, String>
where
    T: Send + 'static,
    E: std::error::Error + Send + 'static,
{
    match tokio::task::spawn_blocking(act).await {
        Ok(done) => done.map_err(|error| chain(&error)),
        Err(_) => Err("the work on this host was cut short".to_owned()),
    }
}
