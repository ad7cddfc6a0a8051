//! Statuses: how far a deployment is on a host.

use titan_api::{
    Problem, Revision,
    reports::Phase,
    status::{HostDeployment, HostState, StatusCounts},
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
pub fn count(counts: &mut StatusCounts, host: &HostDeployment) {
    counts.drifted += usize::from(host.has_drifted());
    let field = match host.state {
        HostState::Healthy => &mut counts.healthy,
        HostState::Progressing => &mut counts.progressing,
        HostState::Failed => {
            // What keeps it from the newest release comes first.
            let phase = host.phase.filter(|_| host.problem.is_none());
            counts.degraded += usize::from(phase == Some(Phase::Degraded));
            counts.rolled_back += usize::from(phase == Some(Phase::RolledBack));
            &mut counts.failed
        }
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
        assert_eq!(of(&said(Phase::Applying, 100, b"new")), HostState::Progressing);
        assert_eq!(of(&said(Phase::Degraded, 100, b"new")), HostState::Failed);
    }

    #[test]
    fn hosts_that_are_degraded_rolled_back_or_drifted_are_counted_as_such() {
        let row = |state: &str, phase: &str, repaired: bool| -> HostDeployment {
            let drift = serde_json::json!([{"what": "a", "how": "content", "repaired": repaired}]);
            let row = serde_json::json!({"host": "a", "state": state, "release": "a#1", "phase": phase, "drift": drift,
                "revision": "2026-11-20T15:00:00Z"});
            serde_json::from_value(row).expect("row")
        };
        let mut counts = StatusCounts::default();
        for row in [
            row("healthy", "healthy", true),
            row("healthy", "healthy", false),
            row("failed", "degraded", false),
            row("failed", "rolledBack", true),
            row("progressing", "rolledBack", true),
            HostDeployment {
                problem: Some(Problem::new(titan_api::Code::RenderFailed, "x")),
                ..row("failed", "degraded", true)
            },
        ] {
            count(&mut counts, &row);
        }
        let expected = StatusCounts {
            desired: 6,
            healthy: 2,
            progressing: 1,
            failed: 3,
            degraded: 1,
            rolled_back: 1,
            drifted: 2,
            ..StatusCounts::default()
        };
        assert_eq!(counts, expected);
    }

    #[test]
    fn silent_hosts_are_offline_and_leavers_are_removing() {
        assert_eq!(state(Some(&assignment(true)), None, None, None, at(1)), HostState::Offline);
        assert_eq!(state(Some(&assignment(true)), None, None, Some(at(1)), at(2)), HostState::Offline);
        assert_eq!(state(Some(&assignment(false)), None, None, None, at(1)), HostState::Removing);
    }
}
