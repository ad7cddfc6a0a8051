//! Moves the view along by reading the feed.

use std::time::Duration;

use crate::{state::AppState, store::StoreError};

/// How long to wait for a hint before looking anyway.
const INTERVAL: Duration = Duration::from_millis(500);

/// Reads what moved since the last time and wakes whoever waits for it.
pub async fn pass(state: &AppState) -> Result<(), StoreError> {
    // One at a time: an older snapshot must not put back what was forgotten since.
    let _alone = state.following.lock().await;
    let seen = state.view.revision();
    let mut tx = state.store.read().await?;
    let revision = tx.clock().await?;
    if revision > seen {
        let moved = tx.assignments_after(seen).await?;
        drop(tx);
        state.metrics.moved.inc_by(moved.len() as u64);
        state.view.advance(moved, revision);
        state.metrics.view_revision.set(revision.micros());
    }
    Ok(())
}

/// Follows the feed until shutdown.
pub async fn run(state: AppState) {
    let mut commits = state.commits();
    while !state.shutdown.is_cancelled() {
        commits.mark_unchanged();
        if let Err(error) = pass(&state).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the feed could not be read");
            tokio::time::sleep(INTERVAL).await;
        }
        tokio::select! {
            () = state.shutdown.cancelled() => {}
            _ = tokio::time::timeout(INTERVAL, commits.changed()) => {}
        }
    }
}
