//! Statuses: how far a deployment is on a host.

use titan_api::{
    Problem, Revision,
    reports::Phase,
    status::{HostState, StatusCounts},
};

use crate::store::{Assignment, ObservedDeployment};

/// Decides how a host counts for an assignment (law 9).
///
/// Healthy is only what a report proves that is about the assignment as it stands and shows its digest.
#[must_use]
pub fn state(
    assignment: Option<&Assignment>,
    observed: Option<&ObservedDeployment>,
    problem: Option<&Problem>,
    last_seen: Option<Revision>,
    online_since: Revision,
) -> HostState {
    let offline = last_seen.is_none_or(|seen| seen < online_since);
    let Some(assignment) = assignment else { return HostState::Failed };
    if !assignment.present() {
        return HostState::Removing;
    }
    let current = observed.filter(|observed| observed.report.revision >= assignment.revision);
    let phase = current.map(|observed| observed.report.phase);
    let shows_digest = current.is_some_and(|observed| observed.report.digest == assignment.bundle);
    match phase {
        _ if problem.is_some() => HostState::Failed,
        Some(Phase::Healthy) if shows_digest => HostState::Healthy,
        Some(Phase::Failed | Phase::Degraded | Phase::RolledBack) => HostState::Failed,
        _ if offline => HostState::Offline,
        _ => HostState::Progressing,
    }
}

/// Adds a host to the counts.
pub fn count(counts: &mut StatusCounts, state: HostState) {
    let field = match state {
        HostState::Healthy => &mut counts.healthy,
        HostState::Progressing => &mut counts.progressing,
        HostState::Failed => &mut counts.failed,
        HostState::Offline => &mut counts.offline,
        HostState::Removing => {
            counts.removing += 1;
            return;
        }
    };
    *field += 1;
    counts.desired += 1;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use titan_api::{Digest, Name, deployments::OnRemove, reports::DeploymentReport};
    use uuid::Uuid;

    use super::*;
    use crate::store::Description;

    fn at(micros: i64) -> Revision {
        Revision::from_micros(micros)
    }

    fn assignment(present: bool) -> Assignment {
        let name = || Name::new("a").expect("name");
        let description = Description {
            deployment: Uuid::nil(),
            workspace: name(),
            name: name(),
            release: "a#1".to_owned(),
            depends_on: Vec::new(),
            on_remove: OnRemove::Delete,
            reason: None,
        };
        Assignment {
            deployment: Uuid::nil(),
            host: Uuid::nil(),
            description: Arc::new(description),
            revision: at(100),
            bundle: present.then(|| Digest::of(b"new")),
        }
    }

    fn said(phase: Phase, revision: i64, bytes: &[u8]) -> ObservedDeployment {
        let report = DeploymentReport {
            id: Uuid::nil(),
            release: "a#1".to_owned(),
            revision: at(revision),
            digest: Some(Digest::of(bytes)),
            phase,
            message: String::new(),
            healthy_since: None,
            commit: None,
            push: None,
            drift: Vec::new(),
        };
        ObservedDeployment { host: Uuid::nil(), deployment: Uuid::nil(), report, reported_at: at(200) }
    }

    #[test]
    fn healthy_is_what_a_newer_report_with_the_digest_proves() {
        let present = assignment(true);
        let of = |observed: &ObservedDeployment| state(Some(&present), Some(observed), None, Some(at(300)), at(250));
        assert_eq!(of(&said(Phase::Healthy, 100, b"new")), HostState::Healthy);
        assert_eq!(of(&said(Phase::Healthy, 99, b"new")), HostState::Progressing);
        assert_eq!(of(&said(Phase::Healthy, 100, b"old")), HostState::Progressing);
        assert_eq!(of(&said(Phase::RolledBack, 100, b"old")), HostState::Failed);
        assert_eq!(of(&said(Phase::Failed, 99, b"old")), HostState::Progressing);
    }

    #[test]
    fn silent_hosts_are_offline_and_leavers_are_removing() {
        assert_eq!(state(Some(&assignment(true)), None, None, None, at(1)), HostState::Offline);
        assert_eq!(state(Some(&assignment(true)), None, None, Some(at(1)), at(2)), HostState::Offline);
        assert_eq!(state(Some(&assignment(false)), None, None, None, at(1)), HostState::Removing);
    }
}
