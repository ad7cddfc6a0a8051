//! What is at work for one connection: so much at a time, and whatever else was asked waits in line.
//!
//! An answer is at work until the system has taken the last of it. A client that asks for much and reads it slowly has no
//! more than that put together, and what waits for its turn is little more than what was asked.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Waker},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use h2::server::SendResponse;

use crate::metrics::connections::{ConnectionMetrics, Held};

/// Answers at work for one connection.
const AT_WORK: usize = 32;
/// Answers of all connections that may wait. While it are so many, a host that asks for more on a connection where others wait
/// is put off; one that waited for news, or has something to report, is not.
const CROWD: i64 = 32 * 1024;
/// For how many seconds a host is put off at most.
const LATEST: u32 = 120;

/// Jobs among which those are looked for that were given up: more than this cannot be wanted, as a connection has no more
/// streams. Whoever gives up what he asked for and asks anew would have the line grow without end.
const WANTED: usize = super::STREAMS as usize;

/// What is done once there is a seat.
type Work = Box<dyn FnOnce(SendResponse<Bytes>, Seat) + Send>;

/// What is at work for a connection, and what waits.
#[derive(Default)]
pub(super) struct Line {
    jobs: VecDeque<Job>,
    seats: Arc<Seats>,
}

struct Job {
    respond: SendResponse<Bytes>,
    work: Work,
    _queued: [Held; 2],
}

#[derive(Debug, Default)]
struct Seats {
    taken: AtomicUsize,
    /// Waits for one, if anything waits.
    task: AtomicWaker,
}

/// Is held by what is at work.
#[derive(Debug)]
pub(super) struct Seat(Arc<Seats>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
        self.0.task.wake();
    }
}

impl Seat {
    /// Makes bytes that hold the seat until they are dropped.
    pub(super) fn on(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Seated { bytes, _seat: self })
    }
}

struct Seated {
    bytes: Bytes,
    _seat: Seat,
}

impl AsRef<[u8]> for Seated {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Line {
    /// Begins to work on an answer, now if there is a seat, else when [`go_on`](Self::go_on) finds one.
    pub(super) fn begin(
        &mut self,
        metrics: &ConnectionMetrics,
        respond: SendResponse<Bytes>,
        work: impl FnOnce(SendResponse<Bytes>, Seat) + Send + 'static,
    ) {
        if self.jobs.is_empty()
            && let Some(seat) = self.seat()
        {
            return work(respond, seat);
        }
        if self.jobs.len() >= WANTED {
            let mut nobody = Context::from_waker(Waker::noop());
            self.jobs.retain_mut(|job| job.respond.poll_reset(&mut nobody).is_pending());
        }
        let _queued = [metrics.queued.hold(), metrics.in_line.hold()];
        self.jobs.push_back(Job { respond, work: Box::new(work), _queued });
    }

    /// Begins the jobs for which there are seats by now, the first first. If any are left, the task is woken for the next.
    pub(super) fn go_on(&mut self, context: &Context<'_>) {
        if self.jobs.is_empty() {
            return;
        }
        self.seats.task.register(context.waker());
        while !self.jobs.is_empty()
            && let Some(seat) = self.seat()
            && let Some(Job { respond, work, _queued }) = self.jobs.pop_front()
        {
            work(respond, seat);
        }
        if self.jobs.is_empty() {
            self.jobs = VecDeque::new();
        }
    }

    /// Whether anything waits.
    pub(super) fn waits(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Whether nothing is at work and nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.seats.taken.load(Ordering::Acquire) == 0
    }

    /// Takes a seat. Nobody else does, so that none is taken twice.
    fn seat(&self) -> Option<Seat> {
        if self.seats.taken.load(Ordering::Acquire) >= AT_WORK {
            return None;
        }
        self.seats.taken.fetch_add(1, Ordering::AcqRel);
        Some(Seat(Arc::clone(&self.seats)))
    }
}

/// Returns for how many seconds a host that asks is put off while so many answers wait, `None` if it is answered: at
/// its own cadence in the middle, so that it comes few times before there is room.
pub(super) fn crowd(waiting: i64, interval: impl FnOnce() -> u32) -> Option<u32> {
    (waiting >= CROWD).then(|| interval().saturating_mul(2).min(LATEST))
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicBool, task::Wake};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn hosts_are_put_off_when_too_many_wait_and_not_for_long() {
        assert_eq!(crowd(32_767, || 30), None);
        assert_eq!((crowd(32_768, || 30), crowd(32_768, || 480)), (Some(60), Some(120)));
    }

    #[test]
    fn seat_is_taken_until_the_last_byte_is_gone() {
        let line = Line::default();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        line.seats.task.register(&waker);
        let mut seats: Vec<_> = std::iter::from_fn(|| line.seat()).collect();
        assert_eq!(seats.len(), AT_WORK);
        let bytes = seats.pop().expect("a seat").on(Bytes::from_static(b"abc"));
        let rest = bytes.slice(1..);
        drop(bytes);
        assert!(line.seat().is_none() && !woken.0.load(Ordering::SeqCst), "some of them are still to be sent");
        drop(rest);
        assert!(woken.0.load(Ordering::SeqCst), "whoever waits is told");
        let end = line.seat().expect("free").on(Bytes::new());
        assert!(line.seat().is_none(), "no bytes at all keep it too");
        drop((end, seats));
        assert!(line.is_empty());
    }
}
