//! Bundles asked for lately, in memory.

use bytes::Bytes;
use moka::policy::EvictionPolicy;
use titan_api::{Digest, Problem};

use crate::{loads::Loads, store::Store};

/// Bytes of bundles that are kept in memory.
const CAPACITY: u64 = 64 * 1024 * 1024;

/// A bounded cache of bundles over the store. Those who ask for the same one at the same time read it once.
#[derive(Debug)]
pub struct BundleCache {
    kept: moka::sync::Cache<Digest, Bytes>,
    loads: Loads<Digest, Option<Bytes>>,
}

impl Default for BundleCache {
    fn default() -> Self {
        let weight = |_: &Digest, body: &Bytes| u32::try_from(body.len() + 64).unwrap_or(u32::MAX);
        // What came last is what hosts are about to ask for: it is never refused for what was asked for often.
        let kept = moka::sync::Cache::builder().weigher(weight).max_capacity(CAPACITY);
        Self { kept: kept.eviction_policy(EvictionPolicy::lru()).build(), loads: Loads::default() }
    }
}

impl BundleCache {
    /// Returns a bundle's bytes, from memory or from the store; `None` if it is in neither.
    pub async fn get(&self, store: &Store, digest: &Digest) -> Result<Option<Bytes>, Problem> {
        match self.kept.get(digest) {
            Some(body) => Ok(Some(body)),
            None => self.loads.once(digest, || self.load(store, digest)).await,
        }
    }

    async fn load(&self, store: &Store, digest: &Digest) -> Result<Option<Bytes>, Problem> {
        if let Some(body) = self.kept.get(digest) {
            return Ok(Some(body));
        }
        let Some(body) = store.read().await?.bundle(digest).await? else { return Ok(None) };
        let body = Bytes::from(body);
        self.put(*digest, body.clone());
        Ok(Some(body))
    }

    /// Keeps a bundle that was just rendered: it will be asked for at once.
    pub fn put(&self, digest: Digest, body: Bytes) {
        self.kept.insert(digest, body);
    }
}
