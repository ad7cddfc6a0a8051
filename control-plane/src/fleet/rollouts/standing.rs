//! Standings: how a host of a stage stands towards the release.

use titan_api::{reports::Phase, strategies::OfflineAction};

use super::Rules;
use crate::store::{Assignment, ObservedDeployment};

/// What is known of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// What it says, or what is known without it.
    pub said: Said,
    /// Since when nothing was heard of it, if it counts as not there, by the plan's clock. One that is there has none.
    pub unseen_since: Option<i64>,
}

/// What a host says of the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Said {
    /// Nothing yet: it has not been given the release, or is on its way to it.
    #[default]
    OnItsWay,
    /// It has it and is well.
    Healthy {
        /// Since when that is known, by the plan's clock.
        since: i64,
    },
    /// It has it and is not well.
    Degraded,
    /// It could not apply it.
    Failed,
    /// It had it, found it bad and took it back.
    RolledBack,
    /// It cannot be given it: it cannot be rendered for this host.
    Unrenderable,
}

impl Said {
    /// Returns what a host says of the release that it is assigned. Only what a report says that is about the assignment as it
    /// stands counts, and healthy is only whoever shows its digest. `refused`: whether it cannot be rendered for it; `at`: when
    /// the report came, by the plan's clock.
    #[must_use]
    pub fn of(assignment: Option<&Assignment>, observed: Option<&ObservedDeployment>, refused: bool, at: i64) -> Self {
        if refused {
            return Self::Unrenderable;
        }
        let Some(assignment) = assignment.filter(|assignment| assignment.present()) else { return Self::OnItsWay };
        let Some(observed) = observed.filter(|observed| observed.report.revision >= assignment.revision) else {
            return Self::OnItsWay;
        };
        match observed.report.phase {
            Phase::Healthy if observed.report.digest == assignment.bundle => Self::Healthy { since: at },
            Phase::Degraded => Self::Degraded,
            Phase::Failed => Self::Failed,
            Phase::RolledBack => Self::RolledBack,
            Phase::Healthy | Phase::Pending | Phase::Applying | Phase::Removing | Phase::Removed => Self::OnItsWay,
        }
    }
}

/// How a host counts at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// It is on its way.
    Moving,
    /// It is healthy, not yet for long enough.
    Settling,
    /// It was healthy for long enough.
    Proven,
    /// It failed.
    Failed,
    /// It cannot be given the release. It counts as failed, and is not out: nothing changes on it.
    Unrenderable,
    /// It is not there, and is waited for.
    Silent,
    /// It has not been there for too long, and that counts as failed.
    Lost,
    /// It has not been there for too long, and is left out.
    Excluded,
    /// It was deleted or is no longer one of the deployment's.
    Gone,
}

impl Class {
    pub(super) const COUNT: usize = 9;

    pub(super) const fn failed(self) -> bool {
        matches!(self, Self::Failed | Self::Unrenderable | Self::Lost)
    }

    /// Whether a host that has the release takes from what may be out.
    pub(super) const fn out(self) -> bool {
        matches!(self, Self::Moving | Self::Settling | Self::Failed | Self::Silent | Self::Lost)
    }
}

/// Returns how a host counts `now`, and when that changes without a word from it.
pub(super) fn class(standing: Standing, rules: &Rules, now: i64) -> (Class, Option<i64>) {
    let silent = |since: i64| {
        let over = since.saturating_add(rules.offline_after);
        match rules.offline {
            OfflineAction::Wait => (Class::Silent, None),
            _ if now < over => (Class::Silent, Some(over)),
            OfflineAction::Exclude => (Class::Excluded, None),
            OfflineAction::Fail => (Class::Lost, None),
        }
    };
    match (standing.said, standing.unseen_since) {
        // What it said last stands, however long it is silent.
        (Said::Degraded | Said::Failed | Said::RolledBack, _) => (Class::Failed, None),
        (Said::Unrenderable, _) => (Class::Unrenderable, None),
        (Said::Healthy { since }, unseen) => {
            let ready = since.saturating_add(rules.min_ready);
            match unseen {
                // Nobody knows what became of it between.
                Some(unseen) if unseen < ready => silent(unseen),
                _ if now >= ready => (Class::Proven, None),
                _ => (Class::Settling, Some(ready)),
            }
        }
        (Said::OnItsWay, Some(unseen)) => silent(unseen),
        (Said::OnItsWay, None) => (Class::Moving, None),
    }
}
