//! Moves the view along by reading the feed.

use std::time::Duration;

use titan_api::Revision;

use crate::{fleet::view::Everything, state::AppState, store::StoreError};

/// How long to wait for a hint before looking anyway.
const INTERVAL: Duration = Duration::from_millis(500);
/// After more moves than these, descriptions that nothing refers to any more are forgotten.
const FEW: usize = 1000;

/// Reads what moved since the last time and wakes whoever waits for it.
pub async fn pass(state: &AppState) -> Result<(), StoreError> {
    // One at a time: an older snapshot must not put back what was forgotten since.
    let mut known = state.following.lock().await;
    let seen = state.view.revision();
    let mut tx = state.store.read().await?;
    let revision = tx.clock().await?;
    state.store.saw(revision);
    if revision <= seen {
        return Ok(());
    }
    if seen == Revision::ZERO {
        let mut all = Everything::default();
        tx.assignments_after(&mut known, seen, |assignment| all.take(assignment)).await?;
        drop(tx);
        state.view.load(&all, revision);
        state.metrics.view_revision.set(revision.micros());
        return Ok(());
    }
    let mut moved = Vec::new();
    tx.assignments_after(&mut known, seen, |assignment| moved.push(assignment)).await?;
    drop(tx);
    state.metrics.moved.inc_by(moved.len() as u64);
    let many = moved.len() > FEW;
    state.view.advance(moved, revision);
    state.metrics.view_revision.set(revision.micros());
    if many {
        known.shrink();
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
