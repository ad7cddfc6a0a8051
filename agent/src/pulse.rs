//! The pulse: whether what was begun on the host comes to an end.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long the agent may be about the host without a pause. Whatever takes long is waited for in the background, files of the
/// largest bundle are written in minutes on a slow card, and a hundred deployments whose daemon does not answer in half an hour.
const LONGEST: Duration = Duration::from_mins(120);

/// Since when the agent has been about the host, if it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pulse(Arc<Mutex<Option<Instant>>>);

/// Is held by what is about the host.
#[derive(Debug)]
pub(crate) struct Beat(Pulse);

impl Pulse {
    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that something begins, which is over when this is dropped.
    pub(crate) fn begin(&self) -> Beat {
        *self.since() = Some(Instant::now());
        Beat(self.clone())
    }

    /// Whether nothing takes longer than anything may.
    pub(crate) fn is_felt(&self) -> bool {
        self.since().is_none_or(|since| since.elapsed() < LONGEST)
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        *self.0.since() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pulse_stops_when_something_does_not_end() {
        let pulse = Pulse::default();
        tokio::time::advance(LONGEST * 2).await;
        assert!(pulse.is_felt(), "nothing is begun");
        let beat = pulse.begin();
        tokio::time::advance(LONGEST - Duration::from_secs(1)).await;
        assert!(pulse.is_felt());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!pulse.is_felt());
        drop(beat);
        assert!(pulse.is_felt());
        let _next = pulse.begin();
        assert!(pulse.is_felt());
    }
}
