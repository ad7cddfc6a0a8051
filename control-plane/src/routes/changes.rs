//! The change feed: as pages that can be waited for, or as a stream of events.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json as JsonBody,
    extract::State,
    http::{HeaderMap, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use serde::Deserialize;
use titan_api::{Kind, Name, Problem, Revision, changes::ChangePage, limits};

use crate::{
    routes::{
        extract::{Admin, Params},
        respond::Answer,
    },
    state::AppState,
    store::{ChangeFilter, StoreError, Tx},
};

/// Which changes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeParams {
    since: Option<Revision>,
    wait: Option<u64>,
    kind: Option<Kind>,
    workspace: Option<Name>,
}

/// `GET /v1/changes`.
pub async fn changes(
    State(state): State<AppState>,
    _admin: Admin,
    headers: HeaderMap,
    Params(mut params): Params<ChangeParams>,
) -> Answer<Response> {
    // A reader of events that lost its connection says where it was.
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    params.since = last.or(params.since);
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/event-stream") {
        return Ok(events(state, params).into_response());
    }
    let wait = Duration::from_secs(params.wait.unwrap_or(0).min(limits::WAIT_SECONDS));
    Ok(JsonBody(page(&state, &params, params.since.unwrap_or_default(), wait).await?).into_response())
}

/// Returns a page, waiting up to `wait` for a first change.
async fn page(
    state: &AppState,
    params: &ChangeParams,
    since: Revision,
    wait: Duration,
) -> Result<ChangePage, StoreError> {
    let filter = ChangeFilter { kind: params.kind, workspace: params.workspace.as_deref(), name: None };
    let deadline = tokio::time::Instant::now() + wait;
    let mut commits = state.commits();
    let mut first = true;
    loop {
        commits.mark_unchanged();
        let filter = &filter;
        let look = |mut tx: Tx| async move { Ok((tx.clock().await?, tx.changes(since, filter, limits::PAGE).await?)) };
        // What has gathered may be much. What is waited for is little, and a standby may not have it yet when it is hinted at.
        let (clock, items) =
            if first { state.store.read_aside(look).await? } else { look(state.store.read().await?).await? };
        first = false;
        if !items.is_empty() || tokio::time::Instant::now() >= deadline || state.shutdown.is_cancelled() {
            let full = items.len() >= limits::PAGE;
            let last = items.last().map(|change| change.revision.next());
            let cursor = last.filter(|_| full).unwrap_or_else(|| since.max(clock.next()));
            return Ok(ChangePage { items, cursor });
        }
        let next = deadline.min(tokio::time::Instant::now() + Duration::from_secs(1));
        tokio::select! {
            _ = commits.changed() => {}
            () = tokio::time::sleep_until(next) => {}
            () = state.shutdown.cancelled() => {}
        }
    }
}

/// Returns the feed as server-sent events: one `change` each, its id the cursor that continues after it.
fn events(
    state: AppState,
    params: ChangeParams,
) -> Sse<impl stream::Stream<Item = Result<Event, Infallible>> + Send + 'static> {
    let since = params.since.unwrap_or_default();
    let pages = stream::unfold((state, params, since), |(state, params, since)| async move {
        if state.shutdown.is_cancelled() {
            return None;
        }
        match page(&state, &params, since, Duration::from_secs(limits::WAIT_SECONDS)).await {
            Ok(page) => {
                let cursor = page.cursor;
                let events: Vec<_> = page.items.iter().map(|change| Ok(event(change))).collect();
                Some((stream::iter(events), (state, params, cursor)))
            }
            Err(error) => {
                // The stream ends; the caller goes on from the last id. The log has what happened.
                let _logged = Problem::from(error);
                None
            }
        }
    });
    Sse::new(futures_util::StreamExt::flatten(pages)).keep_alive(KeepAlive::default())
}

fn event(change: &titan_api::changes::Change) -> Event {
    let event = Event::default().event("change").id(change.revision.next().to_string());
    event.data(serde_json::to_string(change).unwrap_or_default())
}
