//! Listens to other replicas' commits on PostgreSQL. A hint that saves waiting; reading the feed is the truth.

use std::time::Duration;

use sqlx::postgres::PgListener;

use crate::state::AppState;

/// Passes on every notification as a commit until shutdown. Does nothing on SQLite, where there is one process.
pub async fn run(state: AppState) {
    let Some(pool) = state.store.postgres().cloned() else { return };
    while !state.shutdown.is_cancelled() {
        let listened = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen("titan_feed").await?;
            loop {
                tokio::select! {
                    () = state.shutdown.cancelled() => return Ok::<_, sqlx::Error>(()),
                    notification = listener.recv() => {
                        notification?;
                        state.committed();
                    }
                }
            }
        };
        if let Err(error) = listened.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "listening for commits failed, trying again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
