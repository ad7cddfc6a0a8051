//! Bundles asked for lately, in memory.

use bytes::Bytes;
use titan_api::Digest;

use crate::store::{Store, StoreError};

/// Bytes of bundles that are kept in memory.
const CAPACITY: u64 = 64 * 1024 * 1024;

/// A bounded cache of bundles over the store.
#[derive(Debug)]
pub struct BundleCache(moka::sync::Cache<Digest, Bytes>);

impl Default for BundleCache {
    fn default() -> Self {
        let weight = |_: &Digest, body: &Bytes| u32::try_from(body.len() + 64).unwrap_or(u32::MAX);
        Self(moka::sync::Cache::builder().weigher(weight).max_capacity(CAPACITY).build())
    }
}

impl BundleCache {
    /// Returns a bundle's bytes, from memory or from the store.
    pub async fn get(&self, store: &Store, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        if let Some(body) = self.0.get(digest) {
            return Ok(Some(body));
        }
        let Some(body) = store.read().await?.bundle(digest).await? else { return Ok(None) };
        let body = Bytes::from(body);
        self.0.insert(*digest, body.clone());
        Ok(Some(body))
    }

    /// Keeps a bundle that was just rendered: it will be asked for at once.
    pub fn put(&self, digest: Digest, body: Bytes) {
        self.0.insert(digest, body);
    }
}
