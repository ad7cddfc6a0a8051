//! The poll: the hot route. An unchanged poll touches no database.

use std::{panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};

use axum::{
    extract::{FromRequestParts as _, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt as _;
use serde::Deserialize;
use titan_api::{
    Code, Digest, Problem, Revision, SetDigest, limits,
    poll::{CURSOR_HEADER, POLL_AFTER_HEADER},
};
use uuid::Uuid;

use crate::{
    answers::{Told, takes_gzip},
    fleet::polls::{self, Answer as Moved},
    fleet::view::{Entry, HostSet, Slot},
    load::poll_after,
    metrics::PollKind,
    routes::{
        extract::{Caller, Names, Params},
        respond::{Answer, finished},
    },
    state::AppState,
};

const CURSOR: HeaderName = HeaderName::from_static(CURSOR_HEADER);
const POLL_AFTER: HeaderName = HeaderName::from_static(POLL_AFTER_HEADER);
/// How long a poll waits for this replica to catch up with the host's cursor.
const CATCH_UP: Duration = Duration::from_secs(5);
/// How far ahead of the wall clock a cursor may be before it is refused.
const AHEAD: Duration = Duration::from_secs(60);
/// How often the clock is moved past a cursor at most: hosts after a restore come together, and one move serves them all.
const CLOCK_MOVES: Duration = Duration::from_secs(1);

/// What a host asks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PollParams {
    since: Option<Revision>,
    have: Option<SetDigest>,
    wait: Option<u64>,
}

/// `GET /v1/hosts/{name}/changes`.
///
/// It has no layers: those of the other routes cost more than a poll that is told of no change.
pub async fn poll_route(State(state): State<AppState>, request: Request) -> Response {
    let (mut parts, _no_body) = request.into_parts();
    let answered = AssertUnwindSafe(poll(&state, &mut parts)).catch_unwind().await;
    finished(&parts.headers, answered)
}

async fn poll(state: &AppState, parts: &mut Parts) -> Answer<Response> {
    let Caller(principal) = Caller::from_request_parts(parts, state).await?;
    let Names(host) = Names::<String>::from_request_parts(parts, state).await?;
    let Params(params) = Params::<PollParams>::from_request_parts(parts, state).await?;
    let uid = principal.require_host(&host)?;
    let slot = state.view.slot(uid);
    state.view.see(&slot, state.clock.now());
    let since = catch_up(state, params.since).await?;
    let wait = Duration::from_secs(params.wait.unwrap_or(0).min(limits::WAIT_SECONDS));
    let deadline = tokio::time::Instant::now() + wait;
    loop {
        // Subscribe, then read, then wait: what moves in between is not missed.
        let mut moved = pin!(slot.moved().notified());
        if !wait.is_zero() {
            moved.as_mut().enable();
        }
        // The revision first and the set after it: the set has everything up to that revision.
        let cursor = state.view.revision().next();
        let set = slot.set();
        let (told, full) = match polls::answer(&set, since, params.have) {
            Moved::Unchanged => {
                if wait.is_zero() || state.shutdown.is_cancelled() || tokio::time::Instant::now() >= deadline {
                    return Ok(unchanged(state, &slot, cursor, !wait.is_zero()));
                }
                let _gauge = Waiting::new(state);
                tokio::select! {
                    () = moved => {}
                    () = tokio::time::sleep_until(deadline) => {}
                    () = state.shutdown.cancelled() => {}
                }
                continue;
            }
            Moved::Delta(moved) => (moved, false),
            Moved::Full(all) => (all, true),
        };
        let kind = if full { PollKind::Full } else { PollKind::Delta };
        state.metrics.polls.count(kind);
        return changed(state, &parts.headers, uid, &set, &told, cursor, full).await;
    }
}

/// Counts a poll as held for as long as it lives.
struct Waiting<'a>(&'a AppState);

impl<'a> Waiting<'a> {
    fn new(state: &'a AppState) -> Self {
        state.metrics.waiting.inc();
        Self(state)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.metrics.waiting.dec();
    }
}

/// Sees to it that the view covers the host's cursor. Returns the cursor to answer from: none, if the database is older
/// than what the host has seen, which means that it was restored or replaced.
async fn catch_up(state: &AppState, since: Option<Revision>) -> Result<Option<Revision>, Problem> {
    let Some(since) = since else { return Ok(None) };
    let covered = |state: &AppState| since <= state.view.revision().next();
    if covered(state) {
        return Ok(Some(since));
    }
    let clock = state.store.read().await?.clock().await?;
    if since <= clock.next() {
        let deadline = tokio::time::Instant::now() + CATCH_UP;
        while !covered(state) {
            if tokio::time::Instant::now() >= deadline {
                return Err(Problem::new(Code::Unavailable, "this replica has yet to catch up with the cursor"));
            }
            state.committed();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        return Ok(Some(since));
    }
    if since > state.clock.after(AHEAD) {
        return Err(Problem::new(Code::CursorAhead, format!("the cursor {since} is ahead of the clock"))
            .hint("ask without a cursor"));
    }
    let now = state.clock.now().micros();
    let before = state.clock_moved_at.swap(now, std::sync::atomic::Ordering::AcqRel);
    if now.saturating_sub(before) < i64::try_from(CLOCK_MOVES.as_micros()).unwrap_or(i64::MAX) && before != 0 {
        return Err(Problem::new(Code::Unavailable, "the clock was moved past another host's cursor a moment ago"));
    }
    restored(state, since).await?;
    Ok(None)
}

/// Moves the clock past a cursor from before a restore, and says so in the history.
async fn restored(state: &AppState, cursor: Revision) -> Result<(), Problem> {
    let mut tx = state.store.write("restored").await?;
    if cursor > tx.clock().await?.next() {
        let revision = tx.tick_past(state.clock.now(), cursor).await?;
        tx.add_clock_change(revision, cursor).await?;
        tx.notify().await?;
        tx.commit().await?;
        tracing::warn!(%cursor, %revision, "a host has seen {cursor}, which this database has not: it was restored or replaced");
    }
    crate::tasks::follow::pass(state).await?;
    state.committed();
    Ok(())
}

fn unchanged(state: &AppState, slot: &Arc<Slot>, cursor: Revision, held: bool) -> Response {
    if held {
        state.view.see(slot, state.clock.now());
    }
    state.metrics.polls.count(PollKind::Unchanged);
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::try_from(cursor.to_string()) {
        headers.insert(CURSOR, value);
    }
    headers.insert(POLL_AFTER, HeaderValue::from(poll_after(state, held)));
    response
}

async fn changed(
    state: &AppState,
    headers: &HeaderMap,
    uid: Uuid,
    set: &HostSet,
    told: &[Entry],
    cursor: Revision,
    full: bool,
) -> Answer<Response> {
    let poll_after_seconds = poll_after(state, true);
    let told = Told { host: uid, cursor, full, digest: set.digest(), entries: told, poll_after_seconds };
    let body = state.answers.body(&state.bundles, &state.store, &told, takes_gzip(headers)).await?;
    let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let vary = (header::VARY, HeaderValue::from_static("accept-encoding"));
    let mut response = ([json, vary], body.bytes).into_response();
    if body.gzip {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

/// `GET /v1/hosts/{name}/bundles/{digest}`: the bytes of a bundle that is assigned to the host.
pub async fn bundle(
    State(state): State<AppState>,
    Caller(principal): Caller,
    Names((host, digest)): Names<(String, String)>,
) -> Answer<Response> {
    let uid = principal.require_host(&host)?;
    let no_bundle = || Problem::not_found("bundle", &digest);
    let digest: Digest = digest.parse().map_err(|_| no_bundle())?;
    let set = state.view.slot(uid).set();
    if !set.entries().iter().any(|entry| entry.bundle() == Some(digest)) {
        return Err(no_bundle().into());
    }
    let body = state.bundles.get(&state.store, &digest).await?.ok_or_else(no_bundle)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}
