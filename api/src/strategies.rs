//! Strategies: how a deployment's new release reaches its hosts, stage by stage.
//!
//! What people write is [`Strategy`]; the plan that follows from it works in [`releases`].

mod faults;
pub mod releases;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::releases::{ReleaseStage, ReleaseStep};
use crate::{Name, limits::NAME_BYTES, selectors::Selector, shares::Share, spans::Span, workplans::Executor};

/// How a new release reaches the hosts of a deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Strategy {
    /// The stages, one after the other. The last one reaches everybody.
    pub stages: Vec<Stage>,
    /// How many hosts of a stage may fail, so many or a part of them. One more ends the stage.
    #[serde(default = "none", skip_serializing_if = "is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub max_failures: Share,
    /// How long a stage may go without another host that is proven; `minReadySeconds` is added. It stands still while the
    /// plan is paused, while a window is closed and while only hosts that are offline are waited for.
    #[serde(default = "ten_minutes", skip_serializing_if = "is_ten_minutes")]
    pub progress_deadline: Span,
    /// What becomes of hosts that are not there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub offline: Offline,
    /// What happens when a stage or a check failed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_failure: OnFailure,
    /// When hosts may be given the release, as in `Mon-Fri 09:00-16:00 Europe/Berlin`; none: always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<String>,
    /// How long all of it may take. A strategy whose worst case takes longer is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
}

/// Some of the hosts, and what has to be before the others follow. It has `hosts`, `match` or `by`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stage {
    /// Its name, unique in the strategy, up to 40 bytes.
    pub name: Name,
    /// How many of the deployment's hosts have the release once the stage is done, those of earlier stages counted in; with
    /// `match`, how many of those that match. Rounded up, at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub hosts: Option<Share>,
    /// Only hosts that match.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// A label: each of its values is a stage, in their order, up to 200 of them. As the last stage of a strategy it is
    /// followed by one for all other hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// How long a host has to be healthy without a break before it counts as proven.
    #[serde(default, skip_serializing_if = "is_default")]
    pub min_ready_seconds: u32,
    /// How many hosts of the stage may have the release and not be proven at any time. Rounded down, at least one. Hosts that
    /// failed are among them.
    #[serde(default = "all", skip_serializing_if = "is_all")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub max_unavailable: Share,
    /// In place of the strategy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub max_failures: Option<Share>,
    /// What is asked once the hosts are proven and before the next stage, all at the same time: `approval`, `metric`,
    /// `http`, `health`, `external`, `wait`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub checks: Vec<Executor>,
    /// In place of the strategy's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<String>,
}

/// What becomes of hosts that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Offline {
    /// After how long of silence.
    pub after: Span,
    /// What.
    #[serde(rename = "do")]
    pub then: OfflineAction,
}

impl Default for Offline {
    fn default() -> Self {
        Self { after: ten_minutes(), then: OfflineAction::default() }
    }
}

/// What becomes of a host that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OfflineAction {
    /// It is waited for, without end.
    Wait,
    /// It is left out: neither success nor failure. It catches up when it returns.
    #[default]
    Exclude,
    /// It counts as failed.
    Fail,
}

/// What happens when a stage or a check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnFailure {
    /// All hosts return to the release that they had.
    #[default]
    Rollback,
    /// Nothing new begins until a person decides.
    Pause,
    /// The next stage begins though a stage failed. What a check refused stays closed.
    Continue,
}

impl Strategy {
    /// Returns the strategy of a deployment on `hosts` hosts that names none. Up to 20 all have the release at once, and
    /// one that cannot have it holds up nobody. More are a canary of one host, then a tenth, then all.
    #[must_use]
    pub fn usual(hosts: u64) -> Self {
        let stage = |name, hosts| Stage::of(Name::like(name, NAME_BYTES), hosts);
        let with = |stages, max_failures, on_failure| Self {
            stages,
            max_failures,
            progress_deadline: ten_minutes(),
            offline: Offline::default(),
            on_failure,
            windows: Vec::new(),
            deadline: None,
        };
        if hosts <= ALL_AT_ONCE {
            return with(vec![stage("all", Share::ALL)], Share::ALL, OnFailure::Continue);
        }
        let quarter = |stage| Stage { max_unavailable: Share::Percent(25), ..stage };
        let stages = vec![
            stage("canary", Share::Count(1)),
            quarter(stage("tenth", Share::Percent(10))),
            quarter(stage("all", Share::ALL)),
        ];
        with(stages, Share::Percent(5), OnFailure::Rollback)
    }
}

impl Strategy {
    /// Whether nothing can hold a release up: all hosts have it at once, whatever becomes of them.
    #[must_use]
    pub fn is_free(&self) -> bool {
        let free = |stage: &Stage| {
            let all = stage.hosts == Some(Share::ALL) && stage.max_unavailable == Share::ALL;
            all && stage.selector.is_none() && stage.by.is_none() && stage.windows.is_empty()
        };
        let one = matches!(self.stages.as_slice(), [stage] if free(stage) && stage.checks.is_empty());
        one && self.max_failures == Share::ALL && self.on_failure == OnFailure::Continue && self.windows.is_empty()
    }
}

/// Up to how many hosts all have a release at once, unless a strategy says otherwise.
pub const ALL_AT_ONCE: u64 = 20;

impl Stage {
    /// Returns a stage of so many hosts.
    #[must_use]
    pub const fn of(name: Name, hosts: Share) -> Self {
        Self {
            name,
            hosts: Some(hosts),
            selector: None,
            by: None,
            min_ready_seconds: 0,
            max_unavailable: Share::ALL,
            max_failures: None,
            checks: Vec::new(),
            windows: Vec::new(),
        }
    }
}

const fn none() -> Share {
    Share::NONE
}

const fn all() -> Share {
    Share::ALL
}

const fn ten_minutes() -> Span {
    Span(Duration::from_mins(10))
}

fn is_none(share: &Share) -> bool {
    *share == Share::NONE
}

fn is_all(share: &Share) -> bool {
    *share == Share::ALL
}

fn is_ten_minutes(span: &Span) -> bool {
    *span == ten_minutes()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;
