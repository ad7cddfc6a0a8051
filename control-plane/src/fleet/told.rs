//! What a host said last: a report that only says it again need not be written at once.

use std::sync::{Mutex, MutexGuard, PoisonError};

use titan_api::Revision;
use uuid::Uuid;

use crate::store::Counted;

/// What a host said last, in its place in the view.
///
/// A report counts as said again if it is the very next one after a report that is on disk or was said again itself, and
/// says the same. If a number is missing between them, something else may have been said there that is still on its way.
#[derive(Debug, Default)]
pub struct Told(Mutex<Last>);

#[derive(Debug, Default, Clone, Copy)]
struct Last {
    /// Stands for all that the report said; the numbers are 0 if nothing is known.
    print: u64,
    /// The number that is on disk.
    written: i64,
    /// The newest number.
    seq: i64,
    /// The newest cursor that the host has written down, in microseconds; 0 for none.
    acked: i64,
}

impl Told {
    fn last(&self) -> MutexGuard<'_, Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a report says again what the one right before it said. If so it is counted, to be written later.
    pub fn again(&self, print: u64, seq: i64, acked: Option<Revision>) -> bool {
        let mut last = self.last();
        let again = last.written != 0 && last.print == print && last.seq.checked_add(1) == Some(seq);
        if again {
            last.seq = seq;
            last.acked = last.acked.max(acked.map_or(0, Revision::micros));
        }
        again
    }

    /// Notes that a report is on disk.
    pub fn written(&self, print: u64, seq: i64) {
        *self.last() = Last { print, written: seq, seq, acked: 0 };
    }

    /// Forgets everything: the next report is written at once.
    pub fn forget(&self) {
        *self.last() = Last::default();
    }

    /// Returns the newest number of a report and the newest cursor, given the number that was found on disk. Another one
    /// than was written here is the truth: another replica wrote it, or the host enrolled anew.
    #[must_use]
    pub fn counted(&self, found: i64) -> (i64, Option<Revision>) {
        let last = *self.last();
        if last.written != 0 && (last.written..=last.seq).contains(&found) {
            (last.seq, (last.acked != 0).then(|| Revision::from_micros(last.acked)))
        } else {
            (found, None)
        }
    }

    /// Returns what stands for the report of this number, if that is the newest and known here.
    #[must_use]
    pub fn print_of(&self, seq: i64) -> Option<u64> {
        let last = *self.last();
        (last.written != 0 && last.seq == seq).then_some(last.print)
    }

    /// Returns what is counted and not on disk yet.
    #[must_use]
    pub fn unwritten(&self, host: Uuid) -> Option<Counted> {
        let Last { written, seq, acked, .. } = *self.last();
        let acked_cursor = (acked != 0).then(|| Revision::from_micros(acked));
        (written != seq).then_some(Counted { host, written, seq, acked_cursor })
    }

    /// Notes that what was counted is on disk, or, if not, that another number was found there.
    pub fn settle(&self, counted: &Counted, on_disk: bool) {
        let mut last = self.last();
        if last.written != counted.written {
            // Another report was written meanwhile.
            return;
        }
        if on_disk {
            last.written = counted.seq;
        } else {
            *last = Last::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Option<Revision> {
        Some(Revision::from_micros(micros))
    }

    #[test]
    fn only_the_very_next_report_that_says_the_same_is_said_again() {
        let told = Told::default();
        assert!(!told.again(7, 1, None), "nothing is on disk yet");
        told.written(7, 1);
        assert!(!told.again(8, 2, None), "it says something else");
        assert!(!told.again(7, 1, None), "it is the same report");
        assert!(!told.again(7, 3, None), "one is missing that may have said something else");
        assert!(told.again(7, 2, at(20)) && told.again(7, 3, at(10)));
        assert_eq!(told.counted(1), (3, at(20)));
        assert_eq!(told.counted(2), (3, at(20)), "a part of it was written a moment ago");
        assert!(!told.again(7, i64::MAX, None));
        assert_eq!((told.print_of(3), told.print_of(2)), (Some(7), None), "of the newest alone");
        told.forget();
        assert!(!told.again(7, 4, None) && told.print_of(3).is_none());
    }

    #[test]
    fn number_on_disk_that_others_wrote_is_the_truth() {
        let told = Told::default();
        assert_eq!(told.counted(9), (9, None));
        told.written(7, 5);
        assert!(told.again(7, 6, at(1)));
        assert_eq!(told.counted(0), (0, None), "the host enrolled anew");
        assert_eq!(told.counted(8), (8, None), "another replica is ahead");
    }

    #[test]
    fn what_is_counted_is_written_once_and_forgotten_if_others_wrote() {
        let (told, host) = (Told::default(), Uuid::from_u128(1));
        told.written(7, 5);
        assert_eq!(told.unwritten(host), None);
        assert!(told.again(7, 6, at(3)));
        let counted = told.unwritten(host).expect("counted");
        assert_eq!(counted, Counted { host, written: 5, seq: 6, acked_cursor: at(3) });
        // Said again while it was being written.
        assert!(told.again(7, 7, None));
        told.settle(&counted, true);
        assert_eq!(told.unwritten(host).map(|counted| (counted.written, counted.seq)), Some((6, 7)));
        let counted = told.unwritten(host).expect("counted");
        told.written(8, 8);
        told.settle(&counted, false);
        assert!(told.again(8, 9, None), "what was written meanwhile stands");
        let counted = told.unwritten(host).expect("counted");
        told.settle(&counted, false);
        assert!(!told.again(8, 10, None), "another replica wrote");
    }
}
