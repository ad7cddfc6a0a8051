//! What comes next on a connection.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use tokio::time::{Sleep, sleep};

use super::{
    super::{HEAD, SILENCE, multiplexed::PREFACE},
    Agent,
    head::{self, Head, Routed},
};
use crate::{
    fleet::view::Slot,
    routes::polls::{self, Ask, Unchanged},
    state::AppState,
};

/// What comes next on a connection.
pub(super) enum Next {
    /// A poll that can be answered at once.
    Unchanged { unchanged: Unchanged, id: Option<Box<str>>, last: bool },
    /// A poll that may be held.
    Held { slot: Arc<Slot>, ask: Ask, id: Option<Box<str>>, last: bool },
    /// A poll of a host that has to be looked up.
    Unknown(Box<Unknown>),
    /// A request for the router, the bytes of which are the first of those read ahead.
    Routed(Routed),
    /// Something for another server.
    Other,
    /// Nothing any more.
    Ended,
}

/// A poll of a host that has to be looked up.
pub(super) struct Unknown {
    pub(super) host: Box<str>,
    pub(super) secret: Box<[u8]>,
    pub(super) ask: Ask,
    pub(super) id: Option<Box<str>>,
    pub(super) last: bool,
}

/// How long the peer may take. Only a peer that is slow costs a timer of its own: for silence it is enough to look, every
/// so often, whether there was a request.
pub(super) struct Patience {
    silence: Pin<Box<Sleep>>,
    used: bool,
    /// Runs while a head is incomplete.
    head: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { silence: Box::pin(sleep(SILENCE)), used: true, head: None }
    }

    /// Is over when the peer has been silent, or slow, for too long.
    fn poll_over(&mut self, context: &mut Context<'_>, partial: bool) -> Poll<()> {
        if partial {
            let head = self.head.get_or_insert_with(|| Box::pin(sleep(HEAD)));
            if head.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
        }
        while self.silence.as_mut().poll(context).is_ready() {
            if !std::mem::take(&mut self.used) {
                return Poll::Ready(());
            }
            self.silence.set(sleep(SILENCE));
        }
        Poll::Pending
    }
}

impl Agent<'_> {
    /// Reads until there is a whole request.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>, mut patience: Pin<&mut Patience>) -> Poll<Next> {
        let mut found = if self.ahead.is_empty() { None } else { self.next_ahead() };
        loop {
            if let Some(next) = found {
                (patience.used, patience.head) = (true, None);
                return Poll::Ready(next);
            }
            let (state, first) = (&self.service.state, !self.answered);
            let read = self.poll_read(context, |ahead, bytes| {
                if bytes.is_empty() {
                    return Some(Next::Ended);
                }
                if ahead.is_empty()
                    && let Some((length, next)) = decide(state, bytes, first)
                {
                    // Mostly nothing is left, and nothing is kept.
                    ahead.extend_from_slice(&bytes[length..]);
                    return Some(next);
                }
                ahead.extend_from_slice(bytes);
                None
            });
            found = match read {
                Poll::Ready(Ok(None)) => self.next_ahead(),
                Poll::Ready(Ok(found)) => found,
                Poll::Ready(Err(_)) => Some(Next::Ended),
                Poll::Pending => {
                    // What has not begun as a whole request will not be answered any more.
                    if self.service.draining.load(Ordering::Acquire) {
                        return Poll::Ready(Next::Ended);
                    }
                    std::task::ready!(patience.poll_over(context, !self.ahead.is_empty()));
                    self.service.metrics.timed_out.inc();
                    return Poll::Ready(Next::Ended);
                }
            };
        }
    }

    /// Returns the request that the bytes read ahead begin with, if it is whole.
    fn next_ahead(&mut self) -> Option<Next> {
        let (length, next) = decide(&self.service.state, &self.ahead, !self.answered)?;
        self.used(length);
        Some(next)
    }

    /// Forgets the first bytes of those read ahead, and their memory if none are left.
    pub(super) fn used(&mut self, length: usize) {
        if length >= self.ahead.len() {
            self.ahead = Vec::new();
        } else {
            self.ahead.drain(..length);
        }
    }
}

/// Decides about the request that bytes begin with, and how many of them are done with; `None` if there are too few.
fn decide(state: &AppState, bytes: &[u8], first: bool) -> Option<(usize, Next)> {
    if first && bytes.starts_with(&PREFACE[..3.min(bytes.len())]) && bytes.first() == PREFACE.first() {
        if bytes.len() < PREFACE.len() && PREFACE.starts_with(bytes) {
            return None;
        }
        if bytes.starts_with(PREFACE) {
            return Some((0, Next::Other));
        }
    }
    match head::read(bytes) {
        Head::Partial => None,
        Head::Other => Some((0, Next::Other)),
        Head::Routed(routed) => Some((0, Next::Routed(routed))),
        Head::Poll(poll) => {
            let (ask, id, last) = (poll.ask, poll.id.map(Into::into), poll.last);
            let Some(slot) = polls::recognised(state, poll.host, poll.secret) else {
                let (host, secret) = (poll.host.into(), poll.secret.into());
                return Some((poll.length, Next::Unknown(Box::new(Unknown { host, secret, ask, id, last }))));
            };
            let next = match polls::at_once(state, &slot, &ask) {
                Some(unchanged) => Next::Unchanged { unchanged, id, last },
                None => Next::Held { slot, ask, id, last },
            };
            Some((poll.length, next))
        }
    }
}
