//! Waking the agent: whatever happens on the host between two polls, and work in the background that has come to an end.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use titan_api::templates::Applier;
use tokio::sync::Notify;

/// Wakes the agent. Cheap to clone; waking twice before it looks is waking once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wake(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    stirred: Mutex<BTreeSet<Applier>>,
    notify: Notify,
}

impl Wake {
    /// Something that an applier looks after may not be as it was applied, or not as well.
    pub(crate) fn stirred(&self, applier: Applier) {
        self.0.stirred.lock().unwrap_or_else(PoisonError::into_inner).insert(applier);
        self.0.notify.notify_one();
    }

    /// Something in the background has come to an end.
    pub(crate) fn ended(&self) {
        self.0.notify.notify_one();
    }

    /// Waits until somebody wakes the agent.
    pub(crate) async fn notified(&self) {
        self.0.notify.notified().await;
    }

    /// Returns whose things were stirred since the last time.
    pub(crate) fn take(&self) -> BTreeSet<Applier> {
        std::mem::take(&mut *self.0.stirred.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
