//! What happened in a plan: as pages that can be waited for, or as a stream of events.

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
use titan_api::{Problem, limits, pages::Page, workplans::EventView};
use uuid::Uuid;

use crate::{
    routes::{
        extract::{Admin, Names, Params},
        respond::Answer,
    },
    state::AppState,
    store::Tx,
};

/// Which events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsParams {
    since: Option<i64>,
    wait: Option<u64>,
}

/// Events, and whether the plan is over, so that none will follow them.
type Found = (Vec<EventView>, bool);

/// `GET /v1/workplans/{id}/events`: those after the one of a number, oldest first; waits for a first one.
pub async fn events(
    State(state): State<AppState>,
    _admin: Admin,
    Names(id): Names<Uuid>,
    headers: HeaderMap,
    Params(params): Params<EventsParams>,
) -> Answer<Response> {
    // A reader of a stream that lost its connection says where it was.
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    let since = last.or(params.since).unwrap_or(0);
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/event-stream") {
        let first = after(&state, id, since, Duration::ZERO).await?;
        return Ok(streamed(state, id, since, first).into_response());
    }
    let wait = Duration::from_secs(params.wait.unwrap_or(0).min(limits::WAIT_SECONDS));
    let (items, _) = after(&state, id, since, wait).await?;
    let full = items.len() >= limits::PAGE;
    let next = items.last().filter(|_| full).map(|last| last.number.to_string());
    Ok(JsonBody(Page { items, next }).into_response())
}

/// Returns the events after the one of a number, waiting up to `wait` for a first one if more can come.
async fn after(state: &AppState, id: Uuid, since: i64, wait: Duration) -> Result<Found, Problem> {
    let deadline = tokio::time::Instant::now() + wait;
    let mut commits = state.commits();
    let mut first = true;
    loop {
        commits.mark_unchanged();
        let look = |mut tx: Tx| async move {
            let Some(row) = tx.plan(id).await? else { return Ok(None) };
            Ok(Some((row.plan.state, tx.plan_events(id, since, limits::PAGE).await?)))
        };
        // As with the feed, a standby is asked for what has gathered, not for what is waited for.
        let read = if first { state.store.read_aside(look).await? } else { look(state.store.read().await?).await? };
        let (plan, items) = read.ok_or_else(|| Problem::not_found("plan", id))?;
        first = false;
        let over = plan.is_final() || tokio::time::Instant::now() >= deadline;
        if !items.is_empty() || over || state.shutdown.is_cancelled() {
            return Ok((items, plan.is_final()));
        }
        super::changed(state, &mut commits, deadline).await;
    }
}

/// Returns the events as server-sent ones, each with its number as its id; `first` is what there is already. The stream
/// ends with the plan.
fn streamed(
    state: AppState,
    id: Uuid,
    since: i64,
    first: Found,
) -> Sse<impl stream::Stream<Item = Result<Event, Infallible>> + Send + 'static> {
    let begun = (state, since, Some(first));
    let pages = stream::unfold(begun, move |(state, since, first)| async move {
        let (items, over) = match first {
            Some(found) => found,
            None if state.shutdown.is_cancelled() => return None,
            // If that fails the stream ends; the caller goes on from the last id. The log has what happened.
            None => after(&state, id, since, Duration::from_secs(limits::WAIT_SECONDS)).await.ok()?,
        };
        if items.is_empty() && over {
            return None;
        }
        let since = items.last().map_or(since, |last| last.number);
        let events: Vec<_> = items.iter().map(|item| Ok(event(item))).collect();
        Some((stream::iter(events), (state, since, None)))
    });
    Sse::new(futures_util::StreamExt::flatten(pages)).keep_alive(KeepAlive::default())
}

fn event(item: &EventView) -> Event {
    let event = Event::default().event("event").id(item.number.to_string());
    event.data(serde_json::to_string(item).unwrap_or_default())
}
