//! The cache of bundles, by digest. What comes out of it has been checked against its digest.

use std::{collections::BTreeSet, fs, path::PathBuf};

use titan_api::{Digest, poll::Bundle};

use crate::{
    disk::{self, DiskError},
    faults::fault,
    state::StateDir,
};

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    /// The cache cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The bytes are not the ones that were promised.
    #[error("the bundle's bytes have digest {found}, promised was {promised}")]
    Mismatch {
        /// What was promised.
        promised: String,
        /// What came.
        found: String,
    },
    /// The bytes are not a bundle that this agent can read.
    #[error("bundle {digest} cannot be read by this agent: {message}")]
    Unreadable {
        /// The first digits of the digest.
        digest: String,
        /// What does not fit.
        message: String,
    },
}

/// The cache.
#[derive(Debug)]
pub(crate) struct Bundles(PathBuf);

impl Bundles {
    /// Returns the cache of a state directory.
    pub(crate) fn open(state: &StateDir) -> Result<Self, DiskError> {
        let path = state.file("bundles");
        disk::private_dir(&path)?;
        Ok(Self(path))
    }

    fn file(&self, digest: &Digest) -> PathBuf {
        self.0.join(digest.to_string())
    }

    /// Whether a bundle is there.
    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        self.file(digest).exists()
    }

    /// Keeps `bytes` if they are the bundle that `digest` promises.
    pub(crate) fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), BundleError> {
        let found = Digest::of(bytes);
        if found != *digest {
            return Err(BundleError::Mismatch { promised: digest.short(), found: found.short() });
        }
        if !self.holds(digest) {
            disk::write(&self.file(digest), bytes)?;
            fault!("bundle-cached");
        }
        Ok(())
    }

    /// Returns a bundle, or `None` if it is not there. One that does not fit its digest any more is thrown away.
    pub(crate) fn get(&self, digest: &Digest) -> Result<Option<Bundle>, BundleError> {
        let file = self.file(digest);
        let Some(bytes) = disk::read(&file)? else { return Ok(None) };
        if Digest::of(&bytes) != *digest {
            disk::remove(&file)?;
            return Ok(None);
        }
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| BundleError::Unreadable { digest: digest.short(), message: error.to_string() })
    }

    /// Throws away whatever is not in `keep`.
    pub(crate) fn keep(&self, keep: &BTreeSet<Digest>) -> Result<(), DiskError> {
        let read = |source| DiskError::Read { path: self.0.clone(), source };
        for entry in fs::read_dir(&self.0).map_err(read)? {
            let entry = entry.map_err(read)?;
            let kept = entry.file_name().to_str().and_then(|name| name.parse().ok()).is_some_and(|d| keep.contains(&d));
            if !kept {
                disk::remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bytes_that_fit_their_digest_go_in_and_come_out() {
        let dir = tempfile::tempdir().expect("dir");
        let bundles = Bundles::open(&StateDir::new(dir.path())).expect("open");
        let bytes = br#"{"applier":"files","files":[]}"#;
        let digest = Digest::of(bytes);
        assert!(matches!(bundles.put(&digest, b"{}"), Err(BundleError::Mismatch { .. })));
        assert!(!bundles.holds(&digest));
        bundles.put(&digest, bytes).expect("put");
        assert_eq!(bundles.get(&digest).expect("get").expect("there").files, []);
        fs::write(bundles.file(&digest), b"rot").expect("rot");
        assert_eq!(bundles.get(&digest).expect("get"), None, "rotten");
        bundles.put(&digest, bytes).expect("put again");
        bundles.keep(&BTreeSet::new()).expect("keep");
        assert!(!bundles.holds(&digest));
    }
}
