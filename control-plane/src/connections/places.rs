//! Places: how many answers with a body are put together and sent at a time. Whoever comes later waits in line, and
//! after some time is asked to come again.

use std::{sync::Arc, time::Duration};

use titan_api::{Code, Problem};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::metrics::connections::ConnectionMetrics;

/// Answers at a time.
pub(crate) const PLACES: usize = 64;
/// How long an answer may wait for its place.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The places; first come, first served.
#[derive(Debug, Clone)]
pub struct Places {
    free: Arc<Semaphore>,
    patience: Duration,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held for its end")] OwnedSemaphorePermit);

impl Place {
    /// Gives the place to something that is sent at the pace of its reader: it is over when that is dropped, and after
    /// `longest` in any case, so that nobody can keep the places from the others.
    pub(crate) fn lent(self, longest: Duration) -> Lent {
        let (lent, over) = oneshot::channel();
        tokio::spawn(async move {
            let _over_or_too_long = tokio::time::timeout(longest, over).await;
            drop(self);
        });
        Lent { _over: lent }
    }
}

/// A place that is given back after some time.
#[derive(Debug)]
pub(crate) struct Lent {
    _over: oneshot::Sender<()>,
}

impl Default for Places {
    fn default() -> Self {
        Self::of(PLACES, PATIENCE)
    }
}

impl Places {
    /// Returns `count` places for which an answer waits no longer than `patience`.
    #[must_use]
    pub fn of(count: usize, patience: Duration) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), patience }
    }

    /// Returns a place as soon as there is one; a problem if that takes too long.
    pub async fn take(&self, metrics: &ConnectionMetrics) -> Result<Place, Problem> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Ok(Place(permit));
        }
        let _queued = metrics.queued.hold();
        match tokio::time::timeout(self.patience, Arc::clone(&self.free).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place(permit)),
            Ok(Err(_)) | Err(_) => {
                metrics.refused.inc();
                Err(Problem::new(Code::Unavailable, "too many hosts are being answered at the moment"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_finds_no_place_waits_in_line_and_is_refused_in_the_end() {
        let metrics = ConnectionMetrics::default();
        let places = Places::of(1, Duration::from_millis(50));
        let first = places.take(&metrics).await.expect("a place");
        let refused = places.take(&metrics).await.expect_err("no place");
        assert_eq!((refused.code, metrics.refused.get(), metrics.queued.get()), (Code::Unavailable, 1, 0));
        let (second, ()) = tokio::join!(places.take(&metrics), async {
            assert_eq!(metrics.queued.get(), 1);
            drop(first);
        });
        let lent = second.expect("a place").lent(Duration::from_secs(3600));
        assert!(places.take(&metrics).await.is_err(), "it is lent");
        drop(lent);
        let third = places.take(&metrics).await.expect("a place");
        let _lent_for_good = third.lent(Duration::from_millis(1));
        assert!(places.take(&metrics).await.is_ok(), "nobody keeps a place for long");
        assert_eq!(metrics.queued.get(), 0);
    }
}
