//! Clears away what nothing refers to any more: settled deletions, unused bundles, what expired.

use std::time::Duration;

use titan_api::Kind;

use crate::{access, state::AppState, store::StoreError};

/// How often, at least.
const INTERVAL: Duration = Duration::from_secs(30);
/// How long an unused bundle and an idempotency key are kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Purges deleted deployments and hosts that no host has any more.
pub async fn settle(state: &AppState) -> Result<(), StoreError> {
    if state.store.read().await?.settled_deletions().await?.is_empty() {
        return Ok(());
    }
    let mut tx = state.store.write("sweep").await?;
    let mut hosts = Vec::new();
    for (kind, uid) in tx.settled_deletions().await? {
        if kind == Kind::Host {
            tx.purge_observed_host(uid).await?;
            tx.remove_host_tokens(uid, None).await?;
            hosts.push(uid);
        }
        tx.purge_render_problems(uid).await?;
        tx.purge_document(uid).await?;
    }
    tx.commit().await?;
    for host in hosts {
        state.view.forget_host(host);
        access::forget_host(state, host);
    }
    Ok(())
}

/// Takes tombstones out of the view that hosts have confirmed to another replica: the feed does not tell of it.
async fn forget_confirmed(state: &AppState) -> Result<(), StoreError> {
    if state.store.postgres().is_none() {
        return Ok(());
    }
    // The view first: what is in it and not among the rows that are read after it is gone.
    let sets = state.view.sets();
    let left = state.store.read().await?.tombstones().await?;
    for (host, set) in sets {
        for gone in set.assignments().filter(|assignment| !assignment.present && !left.contains(&assignment.id)) {
            state.view.forget(host, gone.id, gone.revision);
        }
    }
    Ok(())
}

/// Clears everything away that can be.
pub async fn pass(state: &AppState) -> Result<(), StoreError> {
    settle(state).await?;
    forget_confirmed(state).await?;
    let before = state.clock.before(KEPT);
    let mut tx = state.store.write("sweep").await?;
    let bundles = tx.sweep_bundles(before).await?;
    tx.sweep_expired(before).await?;
    tx.commit().await?;
    if bundles > 0 {
        tracing::info!(bundles, "unused bundles were cleared away");
    }
    Ok(())
}

/// Sweeps until shutdown.
pub async fn run(state: AppState) {
    while !state.shutdown.is_cancelled() {
        if let Err(error) = pass(&state).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "sweeping failed");
        }
        let _cancelled = tokio::time::timeout(INTERVAL, state.shutdown.cancelled()).await;
    }
}
