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
    task::Context,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

use crate::metrics::connections::{ConnectionMetrics, Held};

/// Answers at work for one connection.
const AT_WORK: usize = 32;
/// Answers of all connections that may wait. While it are so many, a host that asks for more is put off; one that waited for
/// news, or has something to report, is not.
const CROWD: i64 = 32 * 1024;
/// For how many seconds a host is put off at most.
const LATEST: u32 = 120;

type Job = Box<dyn FnOnce(Seat) + Send>;

/// What is at work for a connection, and what waits.
#[derive(Default)]
pub(super) struct Line {
    jobs: VecDeque<(Held, Job)>,
    seats: Arc<Seats>,
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
    /// Begins a job, now if there is a seat, else when [`go_on`](Self::go_on) finds one.
    pub(super) fn begin(&mut self, metrics: &ConnectionMetrics, job: impl FnOnce(Seat) + Send + 'static) {
        if self.jobs.is_empty()
            && let Some(seat) = self.seat()
        {
            return job(seat);
        }
        self.jobs.push_back((metrics.queued.hold(), Box::new(job)));
    }

    /// Begins the jobs for which there are seats by now, the first first. If any are left, the task is woken for the next.
    pub(super) fn go_on(&mut self, context: &Context<'_>) {
        if self.jobs.is_empty() {
            return;
        }
        self.seats.task.register(context.waker());
        while !self.jobs.is_empty()
            && let Some(seat) = self.seat()
            && let Some((_queued, job)) = self.jobs.pop_front()
        {
            job(seat);
        }
        if self.jobs.is_empty() {
            self.jobs = VecDeque::new();
        }
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
    use std::{
        sync::{Mutex, atomic::AtomicBool},
        task::{Wake, Waker},
    };

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
    fn jobs_are_at_work_so_many_at_a_time_until_their_bytes_are_gone_and_none_is_passed_over() {
        let metrics = ConnectionMetrics::default();
        let mut line = Line::default();
        let begun: Arc<Mutex<Vec<(usize, Seat)>>> = Arc::default();
        for number in 0..AT_WORK + 3 {
            let begun = Arc::clone(&begun);
            line.begin(&metrics, move |seat| begun.lock().expect("no panic").push((number, seat)));
        }
        let numbers = || begun.lock().expect("no panic").iter().map(|(number, _)| *number).collect::<Vec<_>>();
        assert_eq!((numbers().len(), metrics.queued.get()), (AT_WORK, 3));

        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        line.go_on(&Context::from_waker(&waker));
        assert_eq!(numbers().len(), AT_WORK, "there is no seat");
        let (_, seat) = begun.lock().expect("no panic").remove(0);
        let bytes = seat.on(Bytes::from_static(b"abc"));
        let rest = bytes.slice(1..);
        drop(bytes);
        assert!(!woken.0.load(Ordering::SeqCst), "some of them are still to be sent");
        drop(rest);
        assert!(woken.0.swap(false, Ordering::SeqCst));
        let late = Arc::clone(&begun);
        line.begin(&metrics, move |seat| late.lock().expect("no panic").push((1000, seat)));
        assert_eq!(numbers().len(), AT_WORK - 1, "whoever comes later is not the next");
        line.go_on(&Context::from_waker(&waker));
        assert_eq!(numbers().last(), Some(&AT_WORK));

        while !line.is_empty() {
            begun.lock().expect("no panic").clear();
            line.go_on(&Context::from_waker(&waker));
        }
        assert_eq!(metrics.queued.get(), 0);
    }
}
