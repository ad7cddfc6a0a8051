//! The cache of bundles, by digest. What comes out of it has been checked against its digest.

use std::{collections::BTreeSet, fs, io, path::PathBuf};

use titan_api::{
    Digest,
    drift::DriftPolicy,
    health::Health,
    hooks::Hooks,
    poll,
    templates::{Applier, FileMode},
};

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
    /// A file is larger than what is to be done with it allows.
    #[error("{path:?} has {size} bytes, at most {limit} are allowed for a file of this kind")]
    Large {
        /// The file.
        path: String,
        /// Its bytes.
        size: u64,
        /// How many are allowed.
        limit: usize,
    },
    /// A file that has to be text is not.
    #[error("{0:?} is not UTF-8 text")]
    NotText(String),
}

/// What a release comes to on this host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bundle {
    /// What applies it.
    pub(crate) applier: Applier,
    /// What has to hold for it to be healthy.
    pub(crate) health: Health,
    /// Commands around what the applier does.
    pub(crate) hooks: Hooks,
    /// What is done when others change what was applied.
    pub(crate) drift: DriftPolicy,
    /// The files, by path.
    pub(crate) files: Vec<BundleFile>,
}

/// One file of a bundle.
#[derive(Debug, Clone)]
pub(crate) struct BundleFile {
    /// Path below the deployment's directory, or below the agent's root if `rooted`.
    pub(crate) path: String,
    /// Whether `path` begins at the agent's root.
    pub(crate) rooted: bool,
    /// Permissions.
    pub(crate) mode: FileMode,
    /// The owning user's name; absent: the agent's.
    pub(crate) owner: Option<String>,
    /// The owning group's name; absent: the agent's.
    pub(crate) group: Option<String>,
    /// SHA-256 of the content.
    pub(crate) sha256: Digest,
    /// Bytes of the content.
    pub(crate) size: u64,
    content: Vec<u8>,
}

impl BundleFile {
    /// Returns the content if it has at most `limit` bytes.
    pub(crate) fn content(&self, limit: usize) -> Result<Vec<u8>, BundleError> {
        if self.content.len() > limit {
            return Err(BundleError::Large { path: self.path.clone(), size: self.size, limit });
        }
        Ok(self.content.clone())
    }

    /// Returns the content as text if it is text of at most `limit` bytes.
    pub(crate) fn text(&self, limit: usize) -> Result<String, BundleError> {
        String::from_utf8(self.content(limit)?).map_err(|_| BundleError::NotText(self.path.clone()))
    }

    /// Returns the content to be read bit by bit.
    pub(crate) fn reader(&self) -> impl io::Read + '_ {
        self.content.as_slice()
    }
}

impl TryFrom<poll::Bundle> for Bundle {
    type Error = String;

    fn try_from(bundle: poll::Bundle) -> Result<Self, String> {
        let file = |file: poll::BundleFile| {
            let content =
                file.bytes().ok_or_else(|| format!("the content of {:?} is not valid", file.path))?.into_owned();
            Ok::<_, String>(BundleFile {
                sha256: Digest::of(&content),
                size: content.len() as u64,
                path: file.path,
                rooted: file.rooted,
                mode: file.mode,
                owner: file.owner,
                group: file.group,
                content,
            })
        };
        let poll::Bundle { applier, health, hooks, drift, files } = bundle;
        Ok(Self { applier, health, hooks, drift, files: files.into_iter().map(file).collect::<Result<_, _>>()? })
    }
}

/// The cache.
#[derive(Debug, Clone)]
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
        let unreadable = |message| BundleError::Unreadable { digest: digest.short(), message };
        let bundle: poll::Bundle = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
        bundle.try_into().map(Some).map_err(unreadable)
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
        assert_eq!(bundles.get(&digest).expect("get").expect("there").files.len(), 0);
        fs::write(bundles.file(&digest), b"rot").expect("rot");
        assert!(bundles.get(&digest).expect("get").is_none(), "rotten");
        bundles.put(&digest, bytes).expect("put again");
        bundles.keep(&BTreeSet::new()).expect("keep");
        assert!(!bundles.holds(&digest));
    }
}
