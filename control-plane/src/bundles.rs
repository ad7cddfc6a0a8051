//! Bundles asked for lately, in memory.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use titan_api::Digest;

use crate::{
    routes::polls::gzip::packed,
    store::{Store, StoreError},
};

/// Bytes of bundles that are kept in memory.
const CAPACITY: u64 = 64 * 1024 * 1024;

/// A bundle in memory, as it is and compressed.
#[derive(Debug)]
pub struct Kept {
    body: Bytes,
    packed: OnceLock<Bytes>,
}

impl Kept {
    fn new(body: Bytes) -> Arc<Self> {
        Arc::new(Self { body, packed: OnceLock::new() })
    }

    /// Returns the bundle's bytes.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// Returns them compressed, as part of a gzip stream; that is done once, when it is asked for first.
    pub fn packed(&self) -> &Bytes {
        self.packed.get_or_init(|| packed(&self.body))
    }
}

/// A bounded cache of bundles over the store.
#[derive(Debug)]
pub struct BundleCache(moka::sync::Cache<Digest, Arc<Kept>>);

impl Default for BundleCache {
    fn default() -> Self {
        // With what they take compressed, at most.
        let weight = |_: &Digest, kept: &Arc<Kept>| u32::try_from(kept.body.len() * 2 + 256).unwrap_or(u32::MAX);
        Self(moka::sync::Cache::builder().weigher(weight).max_capacity(CAPACITY).build())
    }
}

impl BundleCache {
    /// Returns a bundle's bytes, from memory or from the store.
    pub async fn get(&self, store: &Store, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        Ok(self.kept(store, digest).await?.map(|kept| kept.body.clone()))
    }

    /// Returns a bundle, from memory or from the store.
    pub async fn kept(&self, store: &Store, digest: &Digest) -> Result<Option<Arc<Kept>>, StoreError> {
        if let Some(kept) = self.known(digest) {
            return Ok(Some(kept));
        }
        let Some(body) = store.read().await?.bundle(digest).await? else { return Ok(None) };
        let kept = Kept::new(body.into());
        self.0.insert(*digest, Arc::clone(&kept));
        Ok(Some(kept))
    }

    /// Returns a bundle that is in memory.
    #[must_use]
    pub fn known(&self, digest: &Digest) -> Option<Arc<Kept>> {
        self.0.get(digest)
    }

    /// Keeps a bundle that was just rendered: it will be asked for at once.
    pub fn put(&self, digest: Digest, body: Bytes) {
        self.0.insert(digest, Kept::new(body));
    }
}
