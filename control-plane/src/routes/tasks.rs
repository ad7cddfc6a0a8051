//! Tasks: reading them, and waiting for one to end.

use std::time::Duration;

use axum::{Json as JsonBody, extract::State};
use serde::Deserialize;
use titan_api::{
    Code, Problem, Revision, limits,
    pages::Page,
    tasks::{Task, TaskFilter},
};
use uuid::Uuid;

use crate::{
    routes::{
        extract::{Admin, Names, Params},
        respond::Answer,
    },
    state::AppState,
    store::Tx,
};

/// How long to wait.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitParams {
    wait: Option<u64>,
}

/// `GET /v1/tasks`: the newest first.
pub async fn list(
    State(state): State<AppState>,
    _admin: Admin,
    Params(filter): Params<TaskFilter>,
) -> Answer<JsonBody<Page<Task>>> {
    for (name, text) in [("kind", &filter.kind), ("subject", &filter.subject)] {
        if text.as_ref().is_some_and(|text| text.len() > limits::SIGNAL_TEXT_BYTES) {
            let detail = format!("{name}: more than {} bytes", limits::SIGNAL_TEXT_BYTES);
            return Err(Problem::new(Code::BadParameter, detail).into());
        }
    }
    let limit = filter.limit.unwrap_or(limits::PAGE).clamp(1, limits::PAGE);
    let before = filter.next.as_deref().map(parse_next).transpose()?;
    let filter = &filter;
    let tasks = |mut tx: Tx| async move { tx.tasks(filter, before, limit + 1).await };
    let mut items = state.store.read_aside(tasks).await?;
    let next = (items.len() > limit).then(|| items.swap_remove(limit)).and_then(|_| items.last()).map(next_of);
    Ok(JsonBody(Page { items, next }))
}

fn next_of(last: &Task) -> String {
    format!("{}.{}", last.created_at.micros(), last.id)
}

fn parse_next(text: &str) -> Result<(Revision, Uuid), Problem> {
    let parts = text.split_once('.').and_then(|(at, id)| Some((at.parse().ok()?, id.parse().ok()?)));
    let (at, id): (i64, Uuid) =
        parts.ok_or_else(|| Problem::new(Code::BadParameter, "continue: take it from the page before"))?;
    Ok((Revision::from_micros(at), id))
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
