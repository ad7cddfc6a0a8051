//! Writes down when hosts were last seen, and how far they have counted reports that say nothing new, in batches.
//!
//! At most [`RATE`] hosts a second are written, so that a fleet that polls leaves the disk to those who wait for it. A crash
//! loses what was not written yet: of a small fleet 5 seconds, of a million hosts about 6 minutes of having been seen.

use std::{sync::Arc, time::Duration};

use crate::{
    fleet::view::Slot,
    state::AppState,
    store::{StoreError, Tx},
};

/// How often, at most.
const INTERVAL: Duration = Duration::from_secs(5);
/// Hosts written in one second, on average.
const RATE: usize = 3000;
/// How many in one transaction.
const BATCH: usize = 1500;

/// Returns how old what is written down may be: how long it takes to write down a whole fleet.
#[must_use]
pub const fn period(hosts: usize) -> Duration {
    Duration::from_secs(INTERVAL.as_secs() + (hosts / RATE) as u64)
}

/// Returns how long a host may be silent that does as it is told: three intervals, a held poll counting as one, and the time
/// that it may take until another replica has written down that it was seen.
#[must_use]
pub fn silence(state: &AppState) -> Duration {
    let interval = state.load.longest().max(state.config.poll_after_seconds).max(30);
    Duration::from_secs(3 * u64::from(interval)) + period(state.view.hosts())
}

/// Writes down what was seen since the last time, at its pace, or all at once if the process is to end.
pub async fn pass(state: &AppState) -> Result<(), StoreError> {
    let mut seen = state.view.take_seen();
    // In one order in all replicas: they do not wait for each other.
    seen.sort_unstable_by_key(|slot| slot.uid());
    let mut batches = seen.chunks(BATCH).peekable();
    while let Some(batch) = batches.next() {
        let begun = tokio::time::Instant::now();
        if let Err(error) = written(state, batch).await {
            for slot in batch.iter().chain(batches.flatten()) {
                state.view.put_back_seen(slot);
            }
            return Err(error);
        }
        if batches.peek().is_some() {
            let pause = Duration::from_secs_f64(BATCH as f64 / RATE as f64).saturating_sub(begun.elapsed());
            let _cancelled = tokio::time::timeout(pause, state.shutdown.cancelled()).await;
        }
    }
    Ok(())
}

async fn written(state: &AppState, batch: &[Arc<Slot>]) -> Result<(), StoreError> {
    let seen: Vec<_> = batch.iter().filter_map(|slot| Some((slot.uid(), slot.seen()?))).collect();
    let counted: Vec<_> = batch.iter().filter_map(|slot| slot.told().unwritten(slot.uid())).collect();
    let mut tx: Tx = state.store.write("heartbeats").await?;
    tx.set_last_seen(&seen).await?;
    let others = if counted.is_empty() { Vec::new() } else { tx.set_counted(&counted).await? };
    tx.commit().await?;
    for counted in &counted {
        state.view.slot(counted.host).told().settle(counted, !others.contains(&counted.host));
    }
    Ok(())
}

/// Writes until shutdown, and once more then.
pub async fn run(state: AppState) {
    loop {
        let over = tokio::time::timeout(INTERVAL, state.shutdown.cancelled()).await.is_ok();
        if let Err(error) = pass(&state).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "heartbeats could not be written");
        }
        if over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn period_grows_with_the_fleet_to_some_minutes() {
        assert_eq!(period(0), Duration::from_secs(5));
        assert_eq!(period(10_000), Duration::from_secs(8));
        assert_eq!(period(1_000_000), Duration::from_secs(338));
    }
}
