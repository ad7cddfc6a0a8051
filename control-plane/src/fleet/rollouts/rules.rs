//! Rules: by what a stage is judged.

use std::time::Duration;

use titan_api::{
    Name,
    selectors::Selector,
    shares::Share,
    strategies::{OfflineAction, ReleaseStage, releases::Back},
};

/// By what a stage is judged; times in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The stage.
    pub stage: Name,
    /// Which hosts it is about.
    pub selector: Option<Selector>,
    /// How long a host has to be healthy before it counts as proven.
    pub min_ready: i64,
    /// How many may have the release and not be proven.
    pub max_unavailable: Share,
    /// How many may fail.
    pub max_failures: Share,
    /// How long it may go without progress.
    pub progress_deadline: i64,
    /// After how long a host that is not there is no longer waited for.
    pub offline_after: i64,
    /// What becomes of it then.
    pub offline: OfflineAction,
}

impl From<&ReleaseStage> for Rules {
    fn from(stage: &ReleaseStage) -> Self {
        Self {
            stage: stage.stage.clone(),
            selector: stage.selector.clone(),
            min_ready: i64::from(stage.min_ready_seconds) * 1_000_000,
            max_unavailable: stage.max_unavailable,
            max_failures: stage.max_failures,
            progress_deadline: micros(stage.progress_deadline.0),
            offline_after: micros(stage.offline.after.0),
            offline: stage.offline.then,
        }
    }
}

impl Rules {
    /// Returns the rules of a way back: everybody at once, and none may fail, since nothing is left to return to. Its hosts
    /// are those that had the release, all of them open from the beginning; the gate is closed meanwhile.
    #[must_use]
    pub fn back(stage: &Name, back: &Back) -> Self {
        Self {
            stage: stage.clone(),
            selector: None,
            min_ready: 0,
            max_unavailable: Share::ALL,
            max_failures: Share::NONE,
            progress_deadline: micros(back.progress_deadline.0),
            offline_after: micros(back.offline.after.0),
            offline: back.offline.then,
        }
    }
}

pub(super) fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}
