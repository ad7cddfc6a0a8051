//! The poll: the hot route. An unchanged poll touches no database.
//!
//! A poll comes by three ways: the agents' narrow HTTP/1.1 in [`connections`](crate::connections), HTTP/2 in front of the
//! router, and the router itself, where anything unusual ends. All of them ask [`told`].

mod answers;
pub(crate) mod ask;
pub(crate) mod catch_up;

use std::{panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequestParts as _, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt as _;
use titan_api::{
    Digest, Problem, Revision, SetDigestStart,
    poll::{CURSOR_HEADER, POLL_AFTER_HEADER},
};
use tokio::time::Instant;

pub use answers::Changed;
pub use ask::Ask;

use crate::{
    access,
    fleet::view::Slot,
    load,
    metrics::PollKind,
    routes::{
        extract::{Caller, Names, Params},
        respond::{Answer, finished},
    },
    state::AppState,
};
pub(crate) use answers::Moved;
use answers::Placed;
use ask::PollParams;

const CURSOR: HeaderName = HeaderName::from_static(CURSOR_HEADER);
const POLL_AFTER: HeaderName = HeaderName::from_static(POLL_AFTER_HEADER);
/// What a held poll is followed by if nothing else is said: the next one, at once.
const AT_ONCE: u32 = 1;

/// How long an answer keeps its place at most while it is read.
const READ: Duration = Duration::from_secs(60);

/// What a host is told.
#[derive(Debug)]
pub enum Told {
    /// Nothing moved.
    Unchanged(Unchanged),
    /// Something did, or the host asked for everything.
    Changed(Changed),
}

/// Nothing moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unchanged {
    /// Ask from here next.
    pub cursor: Revision,
    /// After how many seconds; absent for at once.
    pub poll_after: Option<u32>,
}

/// Returns the place of the host of this name, if it is known to show this secret, and notes that it was seen.
pub(crate) fn recognised(state: &AppState, host: &str, secret: &[u8]) -> Option<Arc<Slot>> {
    let now = state.clock.now();
    let slot = access::recognised(state, host, secret, now)?;
    state.view.see(&slot, now);
    Some(slot)
}

/// The same by looking the secret up.
pub(crate) async fn identified(state: &AppState, host: &str, secret: &[u8]) -> Result<Arc<Slot>, Problem> {
    let slot = access::identified(state, host, secret).await?;
    state.view.see(&slot, state.clock.now());
    Ok(slot)
}

/// Tells a host that nothing moved, if that can be said now.
pub(crate) fn at_once(state: &AppState, slot: &Slot, ask: &Ask) -> Option<Unchanged> {
    if (ask.wait > 0 && !state.shutdown.is_cancelled()) || !catch_up::covered(state, ask.since?) {
        return None;
    }
    let cursor = moved(state, slot, ask.since, ask.have).err()?;
    Some(unchanged(state, cursor, false))
}

/// Returns what moved for a host since it asked, or else the cursor from which it asks next.
pub(crate) fn moved(
    state: &AppState,
    slot: &Slot,
    since: Option<Revision>,
    have: Option<SetDigestStart>,
) -> Result<Box<Moved>, Revision> {
    // The revision first and the set after it: the set has everything up to that revision.
    let cursor = state.view.revision().next();
    Moved::of(slot.uid(), &slot.set(), cursor, since, have).map(Box::new).ok_or(cursor)
}

/// Tells a host what moved.
pub(crate) async fn changed(state: &AppState, moved: Moved, gzip: bool) -> Answer<Told> {
    Ok(Told::Changed(Changed::of(state, moved, gzip).await?))
}

/// Tells a host what moved, as soon as something did or its time is over.
///
/// What is rare is boxed: this is what a hundred thousand held polls are made of.
pub(crate) async fn told(state: &AppState, slot: &Arc<Slot>, ask: &Ask) -> Answer<Told> {
    told_in_time(state, slot, ask, || ()).await
}

/// The same; `rests` is called when nothing is left to do but to wait.
pub(crate) async fn told_in_time(
    state: &AppState,
    slot: &Arc<Slot>,
    ask: &Ask,
    mut rests: impl FnMut(),
) -> Answer<Told> {
    let since = match ask.since {
        Some(since) if !catch_up::covered(state, since) => Box::pin(catch_up::catch_up(state, since)).await?,
        since => since,
    };
    let deadline = Instant::now() + Duration::from_secs(ask.wait.into());
    loop {
        let news = {
            // Subscribe, then read, then wait: what moves in between is not missed.
            let mut news = pin!(slot.moved().notified());
            news.as_mut().enable();
            let moved = moved(state, slot, since, ask.have);
            if let Err(cursor) = moved {
                let ended = state.shutdown.is_cancelled();
                if ask.wait == 0 || ended || Instant::now() >= deadline {
                    // Where the process ends, the next one should be there before the host comes back.
                    return Ok(Told::Unchanged(unchanged(state, cursor, ask.wait > 0 && !ended)));
                }
                rests();
                let _waiting = state.metrics.waiting.hold();
                tokio::select! {
                    biased;
                    () = news => {}
                    () = state.shutdown.cancelled() => {}
                    () = tokio::time::sleep_until(deadline) => {}
                }
                if ask.wait > 0 {
                    state.view.see(slot, state.clock.now());
                }
            }
            moved
        };
        if let Ok(moved) = news {
            return Box::pin(changed(state, *moved, ask.gzip)).await;
        }
    }
}

/// Tells a host that nothing moved; `held` says whether it waited for news.
pub(crate) fn unchanged(state: &AppState, cursor: Revision, held: bool) -> Unchanged {
    state.metrics.polls.count(PollKind::Unchanged);
    let poll_after = load::poll_after(state, held);
    Unchanged { cursor, poll_after: Some(poll_after).filter(|after| !held || *after > AT_ONCE) }
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        match self {
            Self::Unchanged(Unchanged { cursor, poll_after }) => {
                *response.status_mut() = StatusCode::NO_CONTENT;
                let headers = response.headers_mut();
                if let Ok(value) = HeaderValue::from_bytes(&cursor.text()) {
                    headers.insert(CURSOR, value);
                }
                if let Some(poll_after) = poll_after {
                    headers.insert(POLL_AFTER, HeaderValue::from(poll_after));
                }
            }
            Self::Changed(Changed { body, gzip, place }) => {
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
                if gzip {
                    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                }
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
                *response.body_mut() = match place {
                    Some(place) => Body::new(Placed { body: Some(body), _place: place.lent(READ) }),
                    None => Body::from(body),
                };
            }
        }
        response
    }
}

/// `GET /v1/hosts/{name}/changes`, by way of the router.
///
/// It has no layers: those of the other routes cost more than a poll that is told of no change.
pub async fn poll_route(State(state): State<AppState>, request: Request) -> Response {
    let (mut parts, _no_body) = request.into_parts();
    let answered = AssertUnwindSafe(poll(&state, &mut parts)).catch_unwind().await;
    finished(&parts.headers, answered)
}

async fn poll(state: &AppState, parts: &mut Parts) -> Answer<Response> {
    let secret = parts.headers.get(header::AUTHORIZATION).and_then(|value| access::bearer(value.as_bytes()));
    let secret = secret.ok_or_else(access::refused)?.to_vec();
    let Names(host) = Names::<String>::from_request_parts(parts, state).await?;
    let slot = match recognised(state, &host, &secret) {
        Some(slot) => slot,
        None => identified(state, &host, &secret).await?,
    };
    let Params(params) = Params::<PollParams>::from_request_parts(parts, state).await?;
    let accepted = parts.headers.get_all(header::ACCEPT_ENCODING);
    let gzip = accepted.into_iter().any(|value| ask::takes_gzip(value.as_bytes()));
    Ok(told(state, &slot, &params.ask(gzip)).await?.into_response())
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
