//! The cache of bundles, by digest. What comes out of it has been checked against its digest.
//!
//! A bundle is kept as it came, in a file, and is never in memory as a whole, however large it is: it is [written as it
//! comes](incoming), [parsed without what its files hold](thin), and [a file's content](content) is read and decoded when
//! somebody wants it.

mod content;
mod incoming;
#[cfg(test)]
mod tests;
mod text;
mod thin;

use std::{
    collections::BTreeSet,
    fs,
    io::{self, BufReader, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

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
    state::StateDir,
};
use content::Content;
use incoming::Incoming;
use thin::{Counted, Place, Thin};

/// Bytes that are read from the disk at a time.
const CHUNK: usize = 64 * 1024;

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
    content: Content,
}

impl BundleFile {
    /// Returns the content if it has at most `limit` bytes.
    pub(crate) fn content(&self, limit: usize) -> Result<Vec<u8>, BundleError> {
        if self.size > limit as u64 {
            return Err(BundleError::Large { path: self.path.clone(), size: self.size, limit });
        }
        let mut bytes = Vec::new();
        let read = self.reader().read_to_end(&mut bytes);
        read.map_err(|source| DiskError::Read { path: self.path.clone().into(), source })?;
        Ok(bytes)
    }

    /// Returns the content as text if it is text of at most `limit` bytes.
    pub(crate) fn text(&self, limit: usize) -> Result<String, BundleError> {
        String::from_utf8(self.content(limit)?).map_err(|_| BundleError::NotText(self.path.clone()))
    }

    /// Returns the content to be read bit by bit. Reading fails at the end if the disk has not kept it as it was.
    pub(crate) fn reader(&self) -> impl io::Read + '_ {
        self.content.reader()
    }

    fn new(file: poll::BundleFile, sha256: Digest, size: u64, content: Content) -> Self {
        let poll::BundleFile { path, rooted, mode, owner, group, content: _, content_base64: _ } = file;
        Self { path, rooted, mode, owner, group, sha256, size, content }
    }
}

impl Bundle {
    fn new(bundle: poll::Bundle, files: Vec<BundleFile>) -> Self {
        let poll::Bundle { applier, health, hooks, drift, files: _ } = bundle;
        Self { applier, health, hooks, drift, files }
    }
}

/// What a test makes up.
#[cfg(test)]
impl TryFrom<poll::Bundle> for Bundle {
    type Error = String;

    fn try_from(mut bundle: poll::Bundle) -> Result<Self, String> {
        let file = |file: poll::BundleFile| {
            let bytes: Arc<[u8]> =
                file.bytes().ok_or_else(|| format!("the content of {:?} is not valid", file.path))?.into();
            Ok::<_, String>(BundleFile::new(file, Digest::of(&bytes), bytes.len() as u64, Content::Here(bytes)))
        };
        let files = std::mem::take(&mut bundle.files).into_iter().map(file).collect::<Result<_, _>>()?;
        Ok(Self::new(bundle, files))
    }
}

/// The cache. Its clones are the same cache.
#[derive(Debug, Clone)]
pub(crate) struct Bundles(PathBuf);

impl Bundles {
    /// Returns the cache of a state directory, which nobody else uses. What was on its way when the agent ended is gone.
    pub(crate) fn open(state: &StateDir) -> Result<Self, DiskError> {
        let path = state.file("bundles");
        disk::private_dir(&path)?;
        for path in disk::list(&path)?.iter().filter(|path| is_incoming(path)) {
            disk::remove(path)?;
        }
        Ok(Self(path))
    }

    fn file(&self, digest: &Digest) -> PathBuf {
        self.0.join(digest.to_string())
    }

    /// Whether a bundle is there.
    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        self.file(digest).exists()
    }

    /// Returns what takes a bundle in as it comes.
    pub(crate) fn begin(&self, digest: &Digest) -> Result<Incoming, DiskError> {
        Incoming::begin(self.file(digest), *digest)
    }

    /// Keeps `bytes` if they are the bundle that `digest` promises.
    pub(crate) fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), BundleError> {
        let found = Digest::of(bytes);
        if found != *digest {
            return Err(BundleError::Mismatch { promised: digest.short(), found: found.short() });
        }
        if !self.holds(digest) {
            let mut incoming = self.begin(digest)?;
            incoming.write(bytes)?;
            incoming.keep()?;
        }
        Ok(())
    }

    /// Returns a bundle, or `None` if it is not there. One that does not fit its digest any more is thrown away.
    pub(crate) fn get(&self, digest: &Digest) -> Result<Option<Bundle>, BundleError> {
        let path = self.file(digest);
        let read = |source| DiskError::Read { path: path.clone(), source };
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read(error).into()),
        };
        let mut source = Counted::new(BufReader::with_capacity(CHUNK, &file));
        let mut thin = Thin::new(&mut source);
        let parsed: Result<poll::Bundle, _> = serde_json::from_reader(BufReader::new(&mut thin));
        let places = std::mem::take(&mut thin.places);
        if source.digest().map_err(read)? != *digest {
            disk::remove(&path)?;
            return Ok(None);
        }
        let unreadable = |message| BundleError::Unreadable { digest: digest.short(), message };
        let bundle = parsed.map_err(|error| {
            let message = error.to_string();
            match io::Error::from(error) {
                error if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                    unreadable(message)
                }
                error => read(error).into(),
            }
        })?;
        assemble(bundle, &places, &Arc::new(file)).map(Some).map_err(unreadable)
    }

    /// Throws away whatever is not in `keep`, save what is on its way.
    pub(crate) fn keep(&self, keep: &BTreeSet<Digest>) -> Result<(), DiskError> {
        let read = |source| DiskError::Read { path: self.0.clone(), source };
        for entry in fs::read_dir(&self.0).map_err(read)? {
            let entry = entry.map_err(read)?;
            let kept = entry.file_name().to_str().and_then(|name| name.parse().ok()).is_some_and(|d| keep.contains(&d));
            if !kept && !is_incoming(&entry.path()) {
                disk::remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

fn is_incoming(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "new")
}

/// Puts a bundle together from its thin form and the places of what its files hold.
fn assemble(mut bundle: poll::Bundle, places: &[Place], kept: &Arc<fs::File>) -> Result<Bundle, String> {
    let file = |file: poll::BundleFile| {
        let number = match (&file.content, &file.content_base64) {
            (Some(number), None) | (None, Some(number)) => number.parse::<usize>().ok(),
            (Some(_), Some(_)) => return Err(format!("{:?} has both a content and one in base64", file.path)),
            (None, None) => return Err(format!("{:?} has no content", file.path)),
        };
        let place = number.and_then(|number| places.get(number));
        let place = *place.ok_or_else(|| format!("the content of {:?} is nowhere", file.path))?;
        Ok(BundleFile::new(file, place.sha256, place.size, Content::Kept(Arc::clone(kept), place)))
    };
    let files = std::mem::take(&mut bundle.files).into_iter().map(file).collect::<Result<_, String>>()?;
    Ok(Bundle::new(bundle, files))
}
