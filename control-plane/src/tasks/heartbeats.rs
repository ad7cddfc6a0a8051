//! Writes down when hosts were last seen, in batches. A crash loses at most one interval of it.

use std::time::Duration;

use crate::{state::AppState, store::StoreError};

/// How often.
const INTERVAL: Duration = Duration::from_secs(5);
/// How many in one transaction.
const BATCH: usize = 1000;

/// Writes down what was seen since the last time.
pub async fn pass(state: &AppState) -> Result<(), StoreError> {
    let seen = state.view.take_seen();
    for batch in seen.chunks(BATCH) {
        let mut tx = state.store.write("heartbeats").await?;
        tx.set_last_seen(batch).await?;
        tx.commit().await?;
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
