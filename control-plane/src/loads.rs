//! Loads: work that many ask for at the same time is done once.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use titan_api::Problem;
use tokio::sync::OnceCell;

/// What a load ends with, for everyone who waited.
type Outcome<V> = Result<V, Problem>;

/// The loads under way, by what they load. Nothing is kept once the last who asked has gone: that is a cache's part.
pub(crate) struct Loads<K, V>(Mutex<HashMap<K, Arc<OnceCell<Outcome<V>>>>>);

impl<K, V> Default for Loads<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K, V> fmt::Debug for Loads<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loads").finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Loads<K, V> {
    /// Returns what `load` ends with, or what that of another ends with who asked for the same before and still waits.
    ///
    /// A failure is everyone's who waited; whoever asks later tries again. If the one who loads goes away, the next
    /// begins anew. Because a load may end between a look into a cache and this call, `load` looks there again.
    pub(crate) async fn once<F>(&self, key: &K, load: impl FnOnce() -> F) -> Outcome<V>
    where
        F: Future<Output = Outcome<V>>,
    {
        let cell = Arc::clone(self.under_way().entry(key.clone()).or_default());
        let waiter = Waiter { loads: self, key, cell };
        waiter.cell.get_or_init(load).await.clone()
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<K, Arc<OnceCell<Outcome<V>>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits for a load; it may go away at any time.
struct Waiter<'a, K: Hash + Eq + Clone, V: Clone> {
    loads: &'a Loads<K, V>,
    key: &'a K,
    cell: Arc<OnceCell<Outcome<V>>>,
}

impl<K: Hash + Eq + Clone, V: Clone> Drop for Waiter<'_, K, V> {
    fn drop(&mut self) {
        let mut under_way = self.loads.under_way();
        let Some(current) = under_way.get(self.key) else { return };
        // What has ended serves no one who comes later; what has not stays for those who still wait.
        let last = Arc::strong_count(current) <= 2;
        if Arc::ptr_eq(current, &self.cell) && (last || self.cell.initialized()) {
            under_way.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering},
        task::{Context, Waker},
    };

    use titan_api::Code;

    use super::*;

    async fn unloaded() -> Outcome<u32> {
        std::future::ready(Ok(0)).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn herd_is_served_by_one_load() {
        let (loads, done) = (Arc::new(Loads::<u8, usize>::default()), Arc::new(AtomicUsize::new(0)));
        let all_here = Arc::new(tokio::sync::Barrier::new(100));
        let herd: Vec<_> = (0..100)
            .map(|_| {
                let (loads, done, all_here) = (Arc::clone(&loads), Arc::clone(&done), Arc::clone(&all_here));
                tokio::spawn(async move {
                    all_here.wait().await;
                    let load = async || {
                        while loads.under_way().get(&1).is_some_and(|cell| Arc::strong_count(cell) < 101) {
                            tokio::task::yield_now().await;
                        }
                        Ok(done.fetch_add(1, Ordering::SeqCst))
                    };
                    loads.once(&1, load).await
                })
            })
            .collect();
        for one in herd {
            assert_eq!(one.await.expect("it ends").expect("it loads"), 0);
        }
        assert!(loads.under_way().is_empty());
    }

    #[tokio::test]
    async fn failure_is_not_kept() {
        let loads = Loads::<u8, u32>::default();
        let failing = async || Err(Problem::new(Code::Unavailable, "not now"));
        assert_eq!(loads.once(&1, failing).await.expect_err("it fails").code, Code::Unavailable);
        assert_eq!(loads.once(&1, unloaded).await.expect("it loads"), 0);
    }

    #[tokio::test]
    async fn load_of_one_who_went_away_is_begun_anew() {
        let loads = Loads::<u8, u32>::default();
        let mut context = Context::from_waker(Waker::noop());
        {
            let mut first = pin!(loads.once(&1, std::future::pending));
            assert!(first.as_mut().poll(&mut context).is_pending());
            assert_eq!(loads.under_way().len(), 1);
        }
        assert!(loads.under_way().is_empty(), "nobody waits for it");
        let mut first = Box::pin(loads.once(&1, std::future::pending));
        assert!(first.as_mut().poll(&mut context).is_pending());
        let mut second = pin!(loads.once(&1, unloaded));
        assert!(second.as_mut().poll(&mut context).is_pending());
        drop(first);
        assert_eq!(second.await.expect("it loads"), 0);
        assert!(loads.under_way().is_empty());
    }
}
