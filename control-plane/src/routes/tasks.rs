//! Tasks: reading them, and waiting for one to end.

use std::time::Duration;

use axum::{Json as JsonBody, extract::State};
use serde::Deserialize;
use titan_api::{Problem, limits, pages::Page, tasks::Task};
use uuid::Uuid;

use crate::{
    routes::{
        extract::{Admin, Names, Params},
        respond::Answer,
    },
    state::AppState,
};

/// How long to wait.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitParams {
    wait: Option<u64>,
}

/// `GET /v1/tasks`: the newest.
pub async fn list(State(state): State<AppState>, _admin: Admin) -> Answer<JsonBody<Page<Task>>> {
    let items = state.store.read().await?.tasks(limits::PAGE).await?;
    Ok(JsonBody(Page { items, next: None }))
}

/// `GET /v1/tasks/{id}`.
pub async fn get(
    State(state): State<AppState>,
    _admin: Admin,
    Names(id): Names<Uuid>,
    Params(params): Params<WaitParams>,
) -> Answer<JsonBody<Task>> {
    let wait = Duration::from_secs(params.wait.unwrap_or(0).min(limits::WAIT_SECONDS));
    let deadline = tokio::time::Instant::now() + wait;
    let mut commits = state.commits();
    loop {
        commits.mark_unchanged();
        let task = state.store.read().await?.task(id).await?.ok_or_else(|| Problem::not_found("task", id))?;
        if task.state.is_final() || tokio::time::Instant::now() >= deadline || state.shutdown.is_cancelled() {
            return Ok(JsonBody(task));
        }
        // Another replica's commit may come without a hint: look every second at least.
        let next = deadline.min(tokio::time::Instant::now() + Duration::from_secs(1));
        tokio::select! {
            _ = commits.changed() => {}
            () = tokio::time::sleep_until(next) => {}
            () = state.shutdown.cancelled() => {}
        }
    }
}
