//! Status: how far a deployment is, host by host, and why.

pub mod graph;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::graph::{Step, StepKind, StepState};
use crate::{Digest, Name, Problem, Revision, drift::Drift, reports::Phase, workplans::PlanState};

/// The answer to `GET .../deployments/{d}/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeploymentStatus {
    /// The deployment.
    pub name: Name,
    /// Its workspace.
    pub workspace: Name,
    /// The newest release, such as `prod#7`; absent until the first is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// When the document last changed.
    pub revision: Revision,
    /// Up to which revision the planner has decided; if older than `revision`, more is to come.
    pub planned: Revision,
    /// How many hosts are how far.
    pub counts: StatusCounts,
    /// What keeps the deployment from being placed at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// How the newest release is handed out; absent once every host is to have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// The way of the newest release, from the commit of its source to the stages that hand it out, in order, and what was
    /// built since. `hosts` are its leaves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub graph: Vec<graph::Step>,
    /// Each host that has it, is to have it, or is removing it; by name.
    pub hosts: Vec<HostDeployment>,
}

/// How far the plan is that hands a release out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rollout {
    /// The plan.
    pub plan: Uuid,
    /// How far it is.
    pub state: PlanState,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How many hosts are how far. Each host counts once, but for the last three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatusCounts {
    /// Hosts that are to have it.
    pub desired: usize,
    /// Hosts whose report, newer than the assignment, shows its digest healthy.
    pub healthy: usize,
    /// Hosts on the way.
    pub progressing: usize,
    /// Hosts that failed, degraded or rolled back, or for which the template cannot be rendered.
    pub failed: usize,
    /// Hosts not yet healthy and not seen for three intervals: neither success nor failure.
    pub offline: usize,
    /// Hosts that are to remove it.
    pub removing: usize,
    /// Those of the failed that are in place and not well.
    #[serde(default)]
    pub degraded: usize,
    /// Those of the failed that found the release bad and returned to the one before.
    #[serde(default)]
    pub rolled_back: usize,
    /// Hosts, however they count, on which something is not as it was applied and was not put right.
    #[serde(default)]
    pub drifted: usize,
}

impl DeploymentStatus {
    /// Whether every desired host is healthy with the newest release, nothing is left to remove and the planner has seen
    /// the document.
    #[must_use]
    pub fn converged(&self) -> bool {
        self.planned >= self.revision
            && self.problems.is_empty()
            && self.rollout.is_none()
            && self.counts.healthy == self.counts.desired
            && self.counts.removing == 0
    }

    /// Returns how many hosts are offline and were left out by the rollout of the newest release, if it is over and succeeded
    /// and nothing else is left to do.
    #[must_use]
    pub fn left_out(&self) -> Option<usize> {
        let StatusCounts { desired, healthy, offline, removing, .. } = self.counts;
        let rest = self.planned >= self.revision
            && self.problems.is_empty()
            && self.rollout.is_none()
            && offline > 0
            && healthy + offline == desired
            && removing == 0;
        let done = |step: &&Step| step.kind == StepKind::Release && step.state == StepState::Done;
        let over = self.graph.iter().find(done)?.at?;
        // Whoever was given something since is waited for.
        let since = |host: &HostDeployment| host.state == HostState::Offline && host.revision > over;
        let known: u64 = self.graph.iter().map(|step| step.left_out).fold(0, u64::saturating_add);
        (rest && known >= offline as u64 && !self.hosts.iter().any(since)).then_some(offline)
    }
}

/// A deployment on one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostDeployment {
    /// The host.
    pub host: Name,
    /// How it counts.
    pub state: HostState,
    /// The release that the host is to have.
    pub release: String,
    /// When the assignment last moved.
    pub revision: Revision,
    /// The step of the graph that gave the host what it is to have; absent if an older release did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The digest of the bundle that the host is to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The phase that the agent reported last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The digest that the agent reported last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_digest: Option<Digest>,
    /// What the agent said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What on the host is or was not as it was applied, without the differences; `GET /v1/hosts/{host}/drift` has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<Drift>,
    /// The Git commit of what was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// When the agent first reported it, by the control plane's clock: what it says again is not dated again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_at: Option<Revision>,
    /// How long ago that was when this was answered, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// When the host was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Revision>,
    /// Why the newest release cannot be rendered for the host; it keeps what it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

impl HostDeployment {
    /// Whether something is not as it was applied, and was not put right.
    #[must_use]
    pub fn has_drifted(&self) -> bool {
        self.drift.iter().any(|drift| !drift.repaired)
    }
}

/// How a host counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum HostState {
    /// Proven to run what it is to run.
    Healthy,
    /// On the way.
    Progressing,
    /// Failed, degraded, rolled back, or not to be rendered.
    Failed,
    /// Not healthy and not seen.
    Offline,
    /// Removing it.
    Removing,
}

impl HostState {
    /// Returns the state as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Progressing => "progressing",
            Self::Failed => "failed",
            Self::Offline => "offline",
            Self::Removing => "removing",
        }
    }
}

/// The answer to `GET /v1/hosts/{h}/why/{w}/{d}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Why {
    /// Whether the host is to have the deployment.
    pub assigned: bool,
    /// The decision in a sentence.
    pub summary: String,
    /// Each rule that was looked at, in order.
    pub steps: Vec<WhyStep>,
    /// The assignment as it stands, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment: Option<HostDeployment>,
}

/// One rule that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhyStep {
    /// The rule: `target tim-pi: matchLabels name=tim-pi`.
    pub rule: String,
    /// Whether it held.
    pub holds: bool,
    /// What was found.
    pub found: String,
}
