//! Who is due when: a timer wheel with an entry of eight bytes for each agent at rest.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Microseconds of one step.
const STEP: u64 = 5000;
/// Steps of one turn.
const STEPS: u64 = 1 << 16;

/// An agent, and how many turns of the wheel it still has to wait.
type Entry = (u32, u32);

/// A timer wheel.
#[derive(Debug)]
pub struct Wheel {
    begun: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    slots: Vec<Vec<Entry>>,
    /// The first step that was not taken yet.
    next: u64,
    entries: usize,
}

impl Default for Wheel {
    fn default() -> Self {
        let slots = (0..STEPS).map(|_| Vec::new()).collect();
        Self { begun: Instant::now(), inner: Mutex::new(Inner { slots, next: 0, entries: 0 }) }
    }
}

impl Wheel {
    /// How often to look who is due.
    pub const STEP: Duration = Duration::from_micros(STEP);

    /// Makes an agent due after `pause`.
    pub fn add(&self, agent: u32, pause: Duration) {
        self.add_at(self.begun.elapsed() + pause, agent);
    }

    fn add_at(&self, due: Duration, agent: u32) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let step = (u64::try_from(due.as_micros()).unwrap_or(u64::MAX / 2) / STEP).max(inner.next);
        let turns = u32::try_from((step - inner.next) / STEPS).unwrap_or(u32::MAX);
        if let Some(slot) = usize::try_from(step % STEPS).ok().and_then(|index| inner.slots.get_mut(index)) {
            slot.push((agent, turns));
            inner.entries += 1;
        }
    }

    /// Takes out the agents that are due.
    pub fn due(&self) -> Vec<u32> {
        self.due_at(self.begun.elapsed())
    }

    fn due_at(&self, now: Duration) -> Vec<u32> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX / 2) / STEP;
        let mut due = Vec::new();
        while inner.next <= now {
            let index = usize::try_from(inner.next % STEPS).unwrap_or_default();
            inner.next += 1;
            if let Some(slot) = inner.slots.get_mut(index) {
                let entries = std::mem::take(slot);
                for (agent, turns) in entries {
                    if turns == 0 {
                        due.push(agent);
                    } else {
                        slot.push((agent, turns - 1));
                    }
                }
            }
        }
        inner.entries -= due.len();
        due
    }

    /// Takes out every agent.
    pub fn drain(&self) -> Vec<u32> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.entries = 0;
        inner.slots.iter_mut().flat_map(std::mem::take).map(|(agent, _)| agent).collect()
    }

    /// Returns how many agents are at rest.
    #[must_use]
    pub fn resting(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn agents_come_when_they_are_due_and_not_before() {
        let wheel = Wheel::default();
        for (agent, due) in [(1, S(1)), (2, S(2)), (3, S(5000)), (4, Duration::ZERO)] {
            wheel.add_at(due, agent);
        }
        assert_eq!(wheel.due_at(Duration::ZERO), [4]);
        assert!(wheel.due_at(Duration::from_millis(995)).is_empty());
        assert_eq!(wheel.due_at(S(1)), [1]);
        assert_eq!(wheel.due_at(S(4999)), [2], "a wait longer than a turn is not cut short");
        wheel.add_at(S(1), 5);
        assert_eq!(wheel.resting(), 2);
        let mut late = wheel.due_at(S(5001));
        late.sort_unstable();
        assert_eq!(late, [3, 5], "what is late comes at the next look");
        wheel.add_at(S(9000), 6);
        assert_eq!((wheel.drain(), wheel.resting()), (vec![6], 0));
    }
}
