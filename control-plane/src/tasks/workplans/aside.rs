//! What could not go on is left alone for a while, so that it holds up nobody else.

use std::{collections::HashMap, time::Duration};

use titan_api::Name;
use tokio::time::Instant;
use uuid::Uuid;

/// Plans, and nodes of them, that are left alone for a while. No more than failed within that while.
#[derive(Debug, Default)]
pub(super) struct Aside(HashMap<(Uuid, Option<Name>), Instant>);

impl Aside {
    /// Leaves a plan or a node of it alone until then.
    pub(super) fn put(&mut self, plan: Uuid, node: Option<&Name>, until: Instant) {
        self.0.insert((plan, node.cloned()), until);
    }

    /// Takes back what was left alone for long enough.
    pub(super) fn let_go(&mut self, now: Instant) {
        self.0.retain(|_, until| *until > now);
    }

    /// Whether a plan or a node of it is left alone.
    pub(super) fn holds(&self, plan: Uuid, node: Option<&Name>) -> bool {
        !self.0.is_empty() && self.0.contains_key(&(plan, node.cloned()))
    }

    /// Returns how many are left alone.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns how long until the first of them is not left alone any more.
    pub(super) fn next(&self, now: Instant) -> Option<Duration> {
        self.0.values().min().map(|until| until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_left_alone_for_a_while_and_nothing_else_is() {
        let (mut aside, plan) = (Aside::default(), Uuid::from_u128(1));
        let node = Name::new("a").expect("a name");
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        aside.put(plan, Some(&node), now + 5 * second);
        assert!(aside.holds(plan, Some(&node)) && !aside.holds(plan, None) && !aside.holds(Uuid::nil(), Some(&node)));
        aside.let_go(now + 4 * second);
        assert_eq!((aside.len(), aside.next(now + 4 * second)), (1, Some(second)));
        aside.let_go(now + 5 * second);
        assert_eq!((aside.holds(plan, Some(&node)), aside.next(now)), (false, None));
    }
}
