//! When commits are pushed, and what came of it. Pushing itself happens elsewhere, so that it holds up nothing.

use std::{collections::BTreeMap, time::Instant};

use titan_api::reports::DeploymentReport;

use super::{Worker, chain};
use crate::{git::Sink, pace};

/// What is to be pushed.
#[derive(Debug)]
pub(super) struct Pushes {
    /// Whether there may be something to push.
    pub(super) due: bool,
    /// What is reported of the last push.
    pub(super) status: Option<String>,
    failures: u32,
    again: Option<Instant>,
}

impl Default for Pushes {
    fn default() -> Self {
        // What a process before this one committed may not be pushed.
        Self { due: true, status: None, failures: 0, again: None }
    }
}

impl Pushes {
    /// Whether a push is to begin now; with `at_once`, though the last one failed a moment ago. If so, it is not due any
    /// more.
    fn begin(&mut self, at_once: bool, now: Instant) -> bool {
        let pausing = !at_once && self.again.is_some_and(|again| now < again);
        !pausing && std::mem::take(&mut self.due)
    }

    /// Notes how a push ended; after a failure the next one comes after a pause.
    fn end(&mut self, failure: Option<String>, now: Instant) {
        match failure {
            None => (self.failures, self.again) = (0, None),
            Some(_) => {
                self.due = true;
                self.failures = self.failures.saturating_add(1);
                self.again = Some(now + pace::before_push(self.failures, pace::chance()));
            }
        }
        self.status = Some(failure.unwrap_or_else(|| "pushed".to_owned()));
    }
}

impl Worker {
    /// Returns what pushes, if there is something to push now. [`Worker::pushed`] wants to know how it went.
    pub(crate) fn push_due(&mut self, at_once: bool) -> Option<Sink> {
        let git = self.git.as_ref().filter(|git| git.has_remote())?;
        self.pushes.begin(at_once, Instant::now()).then(|| git.clone())
    }

    /// Takes note of a push: commits that had to be made anew, old to new, or why it failed. Returns whether there is
    /// something to report.
    pub(crate) fn pushed(&mut self, result: Result<BTreeMap<String, String>, String>) -> bool {
        let moved = result.as_ref().ok();
        if let Some(moved) = moved.filter(|moved| !moved.is_empty()) {
            let mut next = self.ledger.clone();
            for committed in next.entries.values_mut().filter_map(|entry| entry.committed.as_mut()) {
                if let Some(new) = moved.get(&committed.commit) {
                    committed.commit.clone_from(new);
                }
            }
            if next != self.ledger {
                match next.write(&self.state) {
                    Ok(()) => self.ledger = next,
                    Err(error) => tracing::warn!("the ledger has commits by their names of before: {}", chain(&error)),
                }
            }
            for report in self.outbox.reports.values().cloned().collect::<Vec<_>>() {
                if let Some(new) = report.commit.as_ref().and_then(|commit| moved.get(commit)) {
                    self.outbox.note(DeploymentReport { commit: Some(new.clone()), ..report });
                }
            }
        }
        let failure = result.err();
        if let Some(message) = &failure {
            tracing::warn!("commits cannot be pushed: {message}");
        }
        self.pushes.end(failure, Instant::now());
        self.note_push()
    }

    /// Takes note that a push has been under way for long.
    pub(crate) fn push_hangs(&mut self, message: String) -> bool {
        tracing::warn!("commits are not pushed yet: {message}");
        self.pushes.status = Some(message);
        self.note_push()
    }

    fn note_push(&mut self) -> bool {
        let committed = |report: &&DeploymentReport| report.commit.is_some();
        for report in self.outbox.reports.values().filter(committed).cloned().collect::<Vec<_>>() {
            self.outbox.note(DeploymentReport { push: self.pushes.status.clone(), ..report });
        }
        self.outbox.save(&self.state);
        !self.outbox.unsent.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_push_that_failed_is_tried_again_after_a_pause_that_grows_to_ten_minutes() {
        let (mut pushes, mut now) = (Pushes::default(), Instant::now());
        for _ in 0..20 {
            assert!(pushes.begin(false, now));
            pushes.end(Some("no route".into()), now);
            assert!(!pushes.begin(false, now), "not at once");
            now += Duration::from_mins(10);
        }
        assert!(!pushes.begin(false, now - Duration::from_mins(6)));
        assert!(pushes.begin(true, now - Duration::from_mins(6)), "unless told");
        pushes.end(None, now);
        assert!(!pushes.begin(false, now), "nothing to push");
        pushes.due = true;
        assert!(pushes.begin(false, now) && pushes.status.as_deref() == Some("pushed"));
    }
}
