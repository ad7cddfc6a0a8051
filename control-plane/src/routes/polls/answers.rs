//! Answers with something in them, put together from bytes that hosts share.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use titan_api::{Problem, Revision, SetDigest, SetDigestStart};
use uuid::Uuid;

use crate::{
    answers::Told,
    connections::places::{Lent, Place},
    fleet::{
        polls::{self, Answer as News},
        view::{Entry, HostSet},
    },
    load,
    metrics::PollKind,
    state::AppState,
};

/// An answer up to this many bytes fits into what the system keeps for a connection: it gives its place away before it
/// is read.
const BUFFERED: usize = 64 * 1024;

/// What a host that asked is told of its set.
#[derive(Debug)]
pub(crate) struct Moved {
    host: Uuid,
    digest: SetDigest,
    cursor: Revision,
    full: bool,
    told: Vec<Entry>,
}

impl Moved {
    /// Decides what to tell a host; `None` if nothing moved.
    pub(super) fn of(
        host: Uuid,
        set: &HostSet,
        cursor: Revision,
        since: Option<Revision>,
        have: Option<SetDigestStart>,
    ) -> Option<Self> {
        let (told, full) = match polls::answer(set, since, have) {
            News::Unchanged => return None,
            News::Delta(moved) => (moved, false),
            News::Full(all) => (all, true),
        };
        Some(Self { host, digest: set.digest(), cursor, full, told })
    }
}

/// An answer with something in it.
#[derive(Debug)]
pub struct Changed {
    /// The body, a [`PollAnswer`](titan_api::poll::PollAnswer) as JSON.
    pub body: Bytes,
    /// Whether it is compressed.
    pub gzip: bool,
    /// Its place among the answers that are given at a time, until it is dropped.
    pub place: Option<Place>,
}

impl Changed {
    /// Puts an answer together once there is a place for it.
    pub(super) async fn of(state: &AppState, moved: Moved, gzip: bool) -> Result<Self, Problem> {
        let place = state.places.take(&state.metrics.connections).await?;
        state.metrics.polls.count(if moved.full { PollKind::Full } else { PollKind::Delta });
        let told = Told {
            host: moved.host,
            cursor: moved.cursor,
            full: moved.full,
            digest: moved.digest,
            entries: &moved.told,
            poll_after_seconds: load::poll_after(state, true),
        };
        let body = state.answers.body(&state.bundles, &state.store, &told, gzip).await?;
        let place = (body.bytes.len() > BUFFERED).then_some(place);
        Ok(Self { body: body.bytes, gzip: body.gzip, place })
    }
}

/// A body that holds its place until it is sent.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) body: Option<Bytes>,
    pub(super) _place: Lent,
}

impl http_body::Body for Placed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.body.take().map(|body| Ok(http_body::Frame::data(body))))
    }

    fn is_end_stream(&self) -> bool {
        // Not before it was asked for its end: until then it is not sent.
        false
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.body.as_ref().map_or(0, Bytes::len) as u64)
    }
}
