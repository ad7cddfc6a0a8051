//! Fragments: what is the same in many answers, made once.

use std::{
    hash::{Hash, Hasher},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use moka::policy::EvictionPolicy;
use serde_json::value::RawValue;
use titan_api::{Code, Digest, Problem, limits};

use super::{gzip::Packed, texts};
use crate::{bundles::BundleCache, loads::Loads, store::Description, store::Store};

/// Bytes of fragments that are kept in memory, what they are kept in included.
const CAPACITY: u64 = 64 * 1024 * 1024;
/// Bytes that a fragment takes beside its texts.
const OVERHEAD: usize = 400;

/// What is said of one release with one bundle on any host, but for id and revision.
#[derive(Debug)]
pub(super) struct Fragment {
    /// What stands between id and revision.
    pub(super) before: Box<str>,
    /// What stands after the revision, up to the bundle.
    pub(super) after: Box<str>,
    bundle: Option<Inline>,
}

/// A bundle that is small enough to travel inside.
#[derive(Debug)]
struct Inline {
    /// Its bytes before compression, as they count against the sum of an answer.
    bytes: usize,
    content: Content,
}

/// A bundle inside an answer.
#[derive(Debug)]
pub(super) enum Content {
    /// The bundle as it is.
    Text(Bytes),
    /// All that follows on the revision, compressed.
    Packed(Packed),
}

impl Fragment {
    /// Makes a fragment; `body` is the bundle, absent if it is gone.
    fn new(description: &Description, digest: &Digest, body: Option<&Bytes>, packed: bool) -> Result<Self, Problem> {
        let (before, after) = (texts::before(description), texts::after(description, digest));
        let bundle = match body.filter(|body| body.len() <= limits::INLINE_BUNDLE_BYTES) {
            None => None,
            Some(body) => {
                let text = body.slice(json(body)?);
                let packed = if packed { Packed::of(&texts::inlined(&after, &text)) } else { None };
                Some(Inline { bytes: body.len(), content: packed.map_or(Content::Text(text), Content::Packed) })
            }
        };
        Ok(Self { before: before.into(), after: after.into(), bundle })
    }

    /// Returns the bytes of a bundle that is small enough to travel inside.
    pub(super) fn inline_bytes(&self) -> Option<usize> {
        self.bundle.as_ref().map(|inline| inline.bytes)
    }

    /// Returns such a bundle.
    pub(super) fn content(&self) -> Option<&Content> {
        self.bundle.as_ref().map(|inline| &inline.content)
    }

    fn weight(&self) -> u32 {
        let content = match self.content() {
            None => 0,
            Some(Content::Text(text)) => text.len(),
            Some(Content::Packed(packed)) => packed.len(),
        };
        u32::try_from(self.before.len() + self.after.len() + content + OVERHEAD).unwrap_or(u32::MAX)
    }
}

/// Returns where in `body` the JSON is, without the space around it.
fn json(body: &[u8]) -> Result<Range<usize>, Problem> {
    let value: &RawValue = serde_json::from_slice(body)
        .map_err(|error| Problem::new(Code::Internal, format!("a bundle is not JSON: {error}")))?;
    let text = value.get().len();
    let start = body.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    Ok(start..start + text)
}

/// What a fragment is made of. Two descriptions that say the same are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    description: Arc<Description>,
    digest: Digest,
    packed: bool,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Enough to keep them apart; the rest of the description is long and nearly always the same for both ids.
        self.digest.hash(state);
        self.description.deployment.hash(state);
        self.packed.hash(state);
    }
}

/// A bounded cache of fragments over the bundles. Those who ask for the same one at the same time make it once.
#[derive(Debug)]
pub(super) struct Fragments {
    kept: moka::sync::Cache<Key, Arc<Fragment>>,
    loads: Loads<Key, Arc<Fragment>>,
    made: AtomicU64,
}

impl Default for Fragments {
    fn default() -> Self {
        let kept = moka::sync::Cache::builder().weigher(|_, fragment: &Arc<Fragment>| fragment.weight());
        // A change brings new fragments, and those are what everyone is about to ask for.
        let kept = kept.max_capacity(CAPACITY).eviction_policy(EvictionPolicy::lru()).build();
        Self { kept, loads: Loads::default(), made: AtomicU64::new(0) }
    }
}

impl Fragments {
    /// Returns the fragment of a release with a bundle.
    pub(super) async fn get(
        &self,
        bundles: &BundleCache,
        store: &Store,
        description: &Arc<Description>,
        digest: Digest,
        packed: bool,
    ) -> Result<Arc<Fragment>, Problem> {
        let key = Key { description: Arc::clone(description), digest, packed };
        match self.kept.get(&key) {
            Some(fragment) => Ok(fragment),
            None => self.loads.once(&key, || self.load(bundles, store, &key)).await,
        }
    }

    async fn load(&self, bundles: &BundleCache, store: &Store, key: &Key) -> Result<Arc<Fragment>, Problem> {
        if let Some(fragment) = self.kept.get(key) {
            return Ok(fragment);
        }
        let Key { description, digest, packed } = key;
        let body = bundles.get(store, digest).await?;
        let fragment = Arc::new(Fragment::new(description, digest, body.as_ref(), *packed)?);
        self.made.fetch_add(1, Ordering::Relaxed);
        if body.is_some() {
            self.kept.insert(key.clone(), Arc::clone(&fragment));
        } else {
            // Only this deployment waits: the host asks for the bundle by itself and says that it is missing.
            tracing::error!(bundle.digest = %digest, deployment.name = %description.name, "a bundle is gone");
        }
        Ok(fragment)
    }

    pub(super) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }
}
