//! Obstacles: what keeps a deployment away from one host.

use std::time::Duration;

use titan_api::{
    poll::RemovalReason,
    spans::Span,
    taints::{Taint, TaintEffect},
};

use super::Footing;
use crate::fleet::{
    bookings::Shortage,
    matchers::Matcher,
    model::{Deployment, Host},
};

/// Why a deployment may not be on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// The host does not admit the workspace.
    Access,
    /// The target does not match.
    Unmatched,
    /// The host takes nothing new.
    Cordoned,
    /// The deployment does not tolerate this.
    Tainted(Taint),
    /// The host was not seen for this long.
    Unseen(Duration),
    /// There is not enough of something.
    Room(Shortage),
}

impl Obstacle {
    /// Returns why a host is told to remove a deployment that may not be there.
    #[must_use]
    pub const fn removal(&self, deployment: &Deployment) -> RemovalReason {
        match (self, deployment.spec.replicas) {
            (Self::Access, _) => RemovalReason::AccessWithdrawn,
            (Self::Unmatched, _) | (Self::Tainted(_) | Self::Room(_), None) => RemovalReason::Unmatched,
            (Self::Cordoned | Self::Unseen(_) | Self::Tainted(_) | Self::Room(_), _) => RemovalReason::ReplicaMoved,
        }
    }
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Access => f.write_str("the workspace is not admitted"),
            Self::Unmatched => f.write_str("the target does not match"),
            Self::Cordoned => f.write_str("cordoned"),
            Self::Tainted(taint) => write!(f, "taint {taint}"),
            Self::Unseen(span) => write!(f, "not seen for {}", Span(Duration::from_secs(span.as_secs()))),
            Self::Room(shortage) => write!(f, "{shortage}"),
        }
    }
}

/// Returns the taint for which a deployment may not be on a host.
#[must_use]
pub fn repelled<'a>(deployment: &Deployment, host: Host<'a>, held: bool) -> Option<&'a Taint> {
    let stays = |taint: &Taint| held && taint.effect == TaintEffect::NoSchedule;
    let repels = |taint: &&Taint| !(stays(taint) || taint.tolerated(&deployment.spec.tolerations));
    host.spec().taints.iter().find(repels)
}

/// Returns the first thing that keeps a deployment away from a host, other replicas aside. `held`: whether the host has it
/// now.
#[must_use]
pub fn obstacle(
    footing: Footing<'_>,
    deployment: &Deployment,
    target: &Matcher,
    host: Host<'_>,
    held: bool,
) -> Option<Obstacle> {
    if !host.spec().admits(&deployment.workspace) {
        return Some(Obstacle::Access);
    }
    if !target.matches(host) {
        return Some(Obstacle::Unmatched);
    }
    if host.spec().cordoned && (!held || deployment.spec.replicas.is_some()) {
        return Some(Obstacle::Cordoned);
    }
    if let Some(taint) = repelled(deployment, host, held) {
        return Some(Obstacle::Tainted(taint.clone()));
    }
    if footing.absences.misses(deployment, host.uid()) {
        return Some(Obstacle::Unseen(footing.absences.unseen(host.uid())));
    }
    footing.bookings.shortage(deployment, host).map(Obstacle::Room)
}
