//! HTTP/1.1 as agents speak it, and nothing else: polls, bundles and reports.
//!
//! A connection that waits, for its next request or for news, holds no buffer: bytes are read to the stack, and only what
//! is not a whole request is kept. An unchanged poll allocates nothing.

mod head;
mod next;
mod reply;
mod routed;

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use axum::response::IntoResponse as _;
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncRead as _, ReadBuf};

use super::{Service, stream::Stream};
use crate::{
    fleet::view::Slot,
    routes::{
        polls::{self, Ask, Told},
        respond::{Answer, REQUEST_ID, finished},
    },
};
use next::{Next, Patience, Unknown};

/// Bytes that are read at a time.
const READ: usize = 4 * 1024;

/// Serves a connection until its end, or until it says something for another server: then returns the bytes that were
/// read and not answered.
pub(super) async fn serve(stream: &mut Stream, service: &Service) -> Option<Vec<u8>> {
    let mut patience = pin!(Patience::new());
    let mut drained = pin!(service.drain.cancelled());
    // This task is woken by it from here on.
    if poll_fn(|context| Poll::Ready(drained.as_mut().poll(context))).await.is_ready() {
        return None;
    }
    let mut agent = Agent { stream, service, ahead: Vec::new(), answered: false };
    loop {
        let goes_on = match poll_fn(|context| agent.poll_next(context, patience.as_mut())).await {
            Next::Unchanged { unchanged, id, last } => {
                agent.reply(unchanged, id.as_deref(), last).await.is_ok() && !last
            }
            Next::Held { slot, ask, id, last } => agent.held(slot, ask, id, last).await,
            Next::Unknown(unknown) => Box::pin(agent.unknown(*unknown)).await,
            Next::Routed(routed) => Box::pin(agent.routed(routed)).await,
            Next::Other => return Some(agent.ahead),
            Next::Ended => false,
        };
        if !goes_on {
            return None;
        }
        agent.answered = true;
    }
}

/// A connection of an agent.
struct Agent<'c> {
    stream: &'c mut Stream,
    service: &'c Service,
    /// Read and not used: the beginning of a request, or requests that came before the answer to the one before them.
    ahead: Vec<u8>,
    /// Whether there was a request before.
    answered: bool,
}

impl Agent<'_> {
    /// Reads what there is, to a buffer on the stack, and gives it to `take`; no bytes are the end.
    fn poll_read<T>(
        &mut self,
        context: &mut Context<'_>,
        take: impl FnOnce(&mut Vec<u8>, &[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        let mut buffer = [MaybeUninit::uninit(); READ];
        let mut buffer = ReadBuf::uninit(&mut buffer);
        let read = std::task::ready!(Pin::new(&mut *self.stream).poll_read(context, &mut buffer));
        Poll::Ready(read.map(|()| take(&mut self.ahead, buffer.filled())))
    }

    /// Ends when the peer does. What it sends meanwhile is kept, up to a bound.
    async fn gone(&mut self) {
        poll_fn(|context| {
            while self.ahead.len() < head::HEAD {
                let read = self.poll_read(context, |ahead, bytes| {
                    ahead.extend_from_slice(bytes);
                    bytes.len()
                });
                match std::task::ready!(read) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(_) => {}
                }
            }
            Poll::Pending
        })
        .await;
    }

    /// Answers a poll that may be held. Returns whether the connection goes on.
    async fn held(&mut self, slot: Arc<Slot>, ask: Ask, id: Option<Box<str>>, last: bool) -> bool {
        let state = &self.service.state;
        let told = tokio::select! {
            biased;
            told = polls::told(state, &slot, &ask) => told,
            () = self.gone() => return false,
        };
        // Where the process ends, the next poll is not to be sent to it.
        let last = last || state.shutdown.is_cancelled();
        match told {
            Ok(Told::Unchanged(unchanged)) => self.reply(unchanged, id.as_deref(), last).await.is_ok() && !last,
            told => Box::pin(self.tell(told, id, last)).await,
        }
    }

    /// Answers a poll of a host whose credential is looked up first.
    async fn unknown(&mut self, unknown: Unknown) -> bool {
        let Unknown { host, secret, ask, id, last } = unknown;
        match polls::identified(&self.service.state, &host, &secret).await {
            Ok(slot) => self.held(slot, ask, id, last).await,
            Err(problem) => self.tell(Err(problem.into()), id, last).await,
        }
    }

    /// Writes an answer with a body.
    async fn tell(&mut self, told: Answer<Told>, id: Option<Box<str>>, last: bool) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(id) = id.and_then(|id| HeaderValue::from_str(&id).ok()) {
            headers.insert(REQUEST_ID, id);
        }
        let mut place = None;
        let told = told.map(|told| match told {
            Told::Changed(mut changed) => {
                // Until it is written, not until it is taken apart.
                place = changed.place.take();
                Told::Changed(changed).into_response()
            }
            told => told.into_response(),
        });
        let written = self.respond(finished(&headers, Ok(told)), last).await;
        drop(place);
        written.is_ok() && !last
    }
}
