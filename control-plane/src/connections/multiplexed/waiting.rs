//! Polls that wait for news, all of one connection together.
//!
//! There may be a hundred thousand in a process, so that each is little more than what it asked: no task, no timer and no
//! waker of its own. Whatever concerns one of them rings a bell for all, and they are looked through.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use h2::server::SendResponse;
use http::HeaderValue;
use titan_api::{Revision, SetDigestStart};
use tokio::time::Instant;

use crate::{
    fleet::view::Slot,
    metrics::connections::Held as Counted,
    routes::polls::{self, Ask, Moved, Unchanged},
    state::AppState,
};

/// Polls by which the list grows. Doubling it would leave half of it empty.
const GROWTH: usize = 8;
/// Answers at a time: the place in which they wait to be written is never given back, so that it should stay small.
const AT_A_TIME: usize = 16;

/// Polls that wait for news.
#[derive(Debug)]
pub(super) struct Waiting {
    polls: Vec<Held>,
    bell: Arc<Bell>,
    /// Rings the bell.
    rope: Waker,
    /// When the first of them has waited long enough, or earlier.
    earliest: Option<Instant>,
}

/// A poll that waits.
#[derive(Debug)]
struct Held {
    news: News,
    slot: Arc<Slot>,
    since: Option<Revision>,
    have: Option<SetDigestStart>,
    gzip: bool,
    deadline: Instant,
    back: Back,
}

/// Where an answer goes.
#[derive(Debug)]
pub(super) struct Back {
    pub(super) respond: SendResponse<Bytes>,
    /// Of its request, if it has one.
    pub(super) id: Option<Box<HeaderValue>>,
}

/// What a poll is told.
#[derive(Debug)]
pub(super) enum Outcome {
    Unchanged(Unchanged),
    Moved(Box<Moved>, bool),
}

/// Is rung for all polls of a connection.
#[derive(Debug, Default)]
struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

/// Completes when the set of a host moves.
struct News(Pin<Box<dyn Future<Output = ()> + Send>>);

impl std::fmt::Debug for News {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("News")
    }
}

impl News {
    /// Begins to wait; `counted` is held until it is over.
    fn of(slot: Arc<Slot>, counted: Counted) -> Self {
        Self(Box::pin(async move {
            let _counted = &counted;
            slot.moved().notified().await;
        }))
    }
}

impl Held {
    /// Waits for the next news. Returns what moved meanwhile, if there was news or if it is to be looked for `anyway`.
    fn look(&mut self, state: &AppState, bell: &mut Context<'_>, anyway: bool) -> Option<Box<Moved>> {
        let mut news = anyway;
        // Subscribe, then read, then wait: what moves in between is not missed.
        while self.news.0.as_mut().poll(bell).is_ready() {
            self.news = News::of(Arc::clone(&self.slot), state.metrics.waiting.hold());
            news = true;
        }
        if !news {
            return None;
        }
        polls::moved(state, &self.slot, self.since, self.have).ok()
    }

    fn is_given_up(&mut self, bell: &mut Context<'_>) -> bool {
        self.back.respond.poll_reset(bell).is_ready()
    }
}

impl Waiting {
    pub(super) fn new() -> Self {
        let bell = Arc::new(Bell::default());
        Self { polls: Vec::new(), rope: Arc::clone(&bell).into(), bell, earliest: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.polls.is_empty()
    }

    /// Returns when to look at the latest.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.earliest
    }

    /// Has a poll wait, unless something moved already.
    pub(super) fn hold(&mut self, state: &AppState, slot: Arc<Slot>, ask: Ask, back: Back) -> Option<(Back, Outcome)> {
        let deadline = Instant::now() + Duration::from_secs(ask.wait.into());
        let news = News::of(Arc::clone(&slot), state.metrics.waiting.hold());
        let Ask { since, have, gzip, wait: _ } = ask;
        let mut held = Held { news, slot, since, have, gzip, deadline, back };
        let mut bell = Context::from_waker(&self.rope);
        if held.is_given_up(&mut bell) {
            return None;
        }
        if let Some(moved) = held.look(state, &mut bell, true) {
            return Some((held.back, Outcome::Moved(moved, ask.gzip)));
        }
        if self.polls.len() == self.polls.capacity() {
            self.polls.reserve_exact(GROWTH);
        }
        self.polls.push(held);
        self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
        None
    }

    /// Returns those that are over, some at a time: ask until there are none. Then the task is woken for the next one,
    /// but not by the time.
    pub(super) fn over(&mut self, state: &AppState, context: &Context<'_>) -> Vec<(Back, Outcome)> {
        self.bell.task.register(context.waker());
        let rung = self.bell.rung.swap(false, Ordering::AcqRel);
        let ended = state.shutdown.is_cancelled();
        let now = Instant::now();
        let due = self.earliest.is_some_and(|earliest| earliest <= now);
        if !rung && !due && !ended {
            return Vec::new();
        }
        let mut bell = Context::from_waker(&self.rope);
        let mut over = Vec::new();
        let mut at = 0;
        while let Some(held) = self.polls.get_mut(at) {
            if over.len() == AT_A_TIME {
                self.bell.rung.store(true, Ordering::Release);
                return over;
            }
            let late = ended || held.deadline <= now;
            if rung && held.is_given_up(&mut bell) {
                self.polls.swap_remove(at);
                continue;
            }
            let outcome = match if rung || late { held.look(state, &mut bell, late) } else { None } {
                Some(moved) => Outcome::Moved(moved, held.gzip),
                None if late => {
                    let cursor = state.view.revision().next();
                    // Where the process ends, the next one should be there before the host comes back.
                    Outcome::Unchanged(polls::unchanged(state, cursor, !ended))
                }
                None => {
                    at += 1;
                    continue;
                }
            };
            state.view.see(&held.slot, state.clock.now());
            over.push((self.polls.swap_remove(at).back, outcome));
        }
        if self.polls.is_empty() {
            self.polls = Vec::new();
        }
        self.earliest = self.polls.iter().map(|held| held.deadline).min();
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poll_that_waits_is_small() {
        assert_eq!(size_of::<Held>(), 112);
        let slot = crate::fleet::view::FleetView::default().slot(uuid::Uuid::from_u128(1));
        let news = News::of(slot, crate::metrics::connections::Level::default().hold());
        assert!(size_of_val(&*news.0) <= 88, "{}", size_of_val(&*news.0));
    }
}
