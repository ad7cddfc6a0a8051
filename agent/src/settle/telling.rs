//! Drift is told before it is put right, as long as there is somebody who can be told.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::Worker;

/// How long drift waits at most to be told.
const PATIENCE: Duration = Duration::from_secs(5);

impl Worker {
    /// Whether drift of a deployment has to be told before it is put right. Drift that is `news` begins to wait for that, unless
    /// the control plane does not answer anyway.
    pub(super) fn tells_first(&mut self, id: Uuid, news: bool) -> bool {
        if self.untold.contains_key(&id) {
            let tells = !self.is_told(id);
            if !tells {
                self.untold.remove(&id);
            }
            return tells;
        }
        let tells = news && self.in_touch;
        if tells {
            self.untold.insert(id, Instant::now() + PATIENCE);
        }
        tells
    }

    /// Whether drift waits to be told.
    pub(crate) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// Whether drift of a deployment waited for being told and waits no longer: the control plane has it, or is not to be had.
    pub(super) fn is_told(&self, id: Uuid) -> bool {
        let over = |until: &Instant| !self.in_touch || !self.outbox.unsent.contains(&id) || Instant::now() >= *until;
        self.untold.get(&id).is_some_and(over)
    }

    /// Returns when drift is put right though nobody took note of it.
    pub(super) fn next_untold(&self) -> Option<Instant> {
        let ahead = |until: &Instant| self.passed.is_none_or(|passed| *until > passed);
        self.untold.values().copied().filter(ahead).min()
    }
}
