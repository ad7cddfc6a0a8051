//! Tasks at rest: who has taken one agent's turn takes the next one's.
//!
//! A task for each turn would be the load's greatest cost: its memory is aligned, and the allocator looks for that through
//! all that is free.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Tasks that are kept; as many more as there is work are made, and end.
const KEPT: usize = 1 << 16;

/// Tasks that wait for an agent.
#[derive(Debug, Default)]
pub(super) struct Hands(Mutex<Vec<oneshot::Sender<u32>>>);

impl Hands {
    fn free(&self) -> MutexGuard<'_, Vec<oneshot::Sender<u32>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an agent to a task that waits for one; `false` if there is none.
    pub(super) fn give(&self, agent: u32) -> bool {
        loop {
            // The one that waits for the shortest time: its memory is the nearest.
            let Some(hand) = self.free().pop() else { return false };
            if hand.send(agent).is_ok() {
                return true;
            }
        }
    }

    /// Lets a task wait for its next agent; `None` if enough do.
    pub(super) fn rest(&self) -> Option<oneshot::Receiver<u32>> {
        let mut free = self.free();
        if free.len() >= KEPT {
            return None;
        }
        let (hand, next) = oneshot::channel();
        free.push(hand);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn agents_go_to_tasks_that_wait_and_never_to_those_that_ended() {
        let hands = Hands::default();
        assert!(!hands.give(1));
        let (first, second) = (hands.rest().expect("room"), hands.rest().expect("room"));
        drop(second);
        assert!(hands.give(7));
        assert_eq!(first.await, Ok(7));
        assert!(!hands.give(8));
        let last = hands.rest().expect("room");
        drop(hands);
        assert!(last.await.is_err(), "there is no more to do");
    }

    #[test]
    fn no_more_are_kept_than_that() {
        let hands = Hands::default();
        let kept: Vec<_> = (0..KEPT).map(|_| hands.rest().expect("room")).collect();
        assert!(hands.rest().is_none());
        drop(kept);
    }
}
