//! Waiting until deployments are healthy on all their hosts.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use titan_api::{Name, Revision, client::Client, status::DeploymentStatus, workplans::PlanState};

use super::status;
use crate::{
    away::{self, Away},
    errors::CliError,
    output::{Exit, Output, progress::Progress},
};

/// How often the control plane is asked.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long nothing but failures may be seen before giving up; an agent may try again in between.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a status says about waiting on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// All is well, but for hosts that are offline and that the rollout left out.
    Converged,
    /// It may still become well by itself.
    Moving,
    /// Without somebody's help it will not become well.
    Stuck,
}

/// Whether there is nothing to wait for any more.
fn is_done(status: &DeploymentStatus) -> bool {
    status.converged() || status.left_out().is_some()
}

fn verdict(status: &DeploymentStatus, since: Option<Revision>) -> Verdict {
    let seen = since.is_none_or(|since| status.planned >= since);
    if !seen || status.planned < status.revision {
        return Verdict::Moving;
    }
    if is_done(status) {
        return Verdict::Converged;
    }
    if let Some(rollout) = &status.rollout {
        let held = rollout.state.is_final() || matches!(rollout.state, PlanState::Planning | PlanState::Paused);
        return if held { Verdict::Stuck } else { Verdict::Moving };
    }
    let counts = status.counts;
    let quiet = counts.progressing == 0 && counts.removing == 0 && counts.offline == 0;
    if !status.problems.is_empty() || (quiet && counts.failed > 0) { Verdict::Stuck } else { Verdict::Moving }
}

/// Waits until each of `deployments` (workspace and name) is healthy on all its hosts and the planner has seen `since`.
pub(crate) async fn converged(
    client: &Client,
    output: Output,
    deployments: &BTreeSet<(Name, Name)>,
    since: Option<Revision>,
    timeout: Duration,
) -> Result<Exit, CliError> {
    let mut progress = Progress::new(output);
    let begin = Instant::now();
    let mut stuck_since: Option<Instant> = None;
    let mut away = Away::default();
    loop {
        let statuses = match all(client, deployments).await {
            Ok(statuses) => {
                away.back();
                statuses
            }
            Err(error) if begin.elapsed() <= timeout && away.endures(&error) => {
                progress.say(away::SAID);
                Away::pass().await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let verdicts: Vec<_> = statuses.iter().map(|status| verdict(status, since)).collect();
        if verdicts.iter().all(|verdict| *verdict == Verdict::Converged) {
            progress.say(&sentence(&statuses));
            return Ok(Exit::Done);
        }
        progress.say(&sentence(&statuses));
        let stuck = verdicts.contains(&Verdict::Stuck) && !verdicts.contains(&Verdict::Moving);
        if stuck {
            let first = *stuck_since.get_or_insert_with(Instant::now);
            if first.elapsed() >= PATIENCE {
                return Err(CliError::Failed(failure("did not become healthy", &statuses)));
            }
        } else {
            stuck_since = None;
        }
        if begin.elapsed() >= timeout {
            return Err(CliError::Failed(failure("is not healthy yet, the time is over", &statuses)));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn all(
    client: &Client,
    deployments: &BTreeSet<(Name, Name)>,
) -> titan_api::client::Result<Vec<DeploymentStatus>> {
    let mut statuses = Vec::new();
    for (workspace, name) in deployments {
        statuses.push(client.deployment_status(workspace, name).await?);
    }
    Ok(statuses)
}

fn sentence(statuses: &[DeploymentStatus]) -> String {
    match statuses {
        [] => "no deployment is touched".to_owned(),
        [one] => format!("{}: {}", one.name, status::counts(one)),
        many => {
            let healthy: usize = many.iter().map(|status| status.counts.healthy).sum();
            let desired: usize = many.iter().map(|status| status.counts.desired).sum();
            let done = many.iter().filter(|status| is_done(status)).count();
            let left_out: usize = many.iter().filter_map(DeploymentStatus::left_out).sum();
            let rest = if left_out > 0 { format!(", {left_out} offline and left out") } else { String::new() };
            format!("{done} of {} deployments converged, {healthy} of {desired} healthy{rest}", many.len())
        }
    }
}

/// Returns what is wrong with the deployments that have not converged, with the first reason of each.
fn failure(what: &str, statuses: &[DeploymentStatus]) -> String {
    let lines = statuses.iter().filter(|status| !is_done(status)).map(|status| {
        let rollout = status.rollout.as_ref().and_then(|rollout| rollout.reason.clone());
        let reason = status.problems.first().map(|problem| problem.detail.clone()).or(rollout).or_else(|| {
            let host = status.hosts.iter().find(|host| host.problem.is_some() || !host.message.is_empty())?;
            let text = host.problem.as_ref().map_or(&host.message, |problem| &problem.detail);
            Some(format!("{}: {text}", host.host))
        });
        let reason = reason.map(|reason| format!("; {reason}")).unwrap_or_default();
        format!("{} {what}: {}{reason}", status.name, status::counts(status))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::status::tests::{left_out, status},
        *,
    };

    fn counts(healthy: usize, progressing: usize, failed: usize, offline: usize) -> serde_json::Value {
        json!({"counts": {"desired": 3, "healthy": healthy, "progressing": progressing, "failed": failed,
            "offline": offline, "removing": 0}})
    }

    #[test]
    fn waiting_ends_when_all_is_well_or_stuck() {
        for (change, expected) in [
            (counts(3, 0, 0, 0), Verdict::Converged),
            (counts(2, 1, 0, 0), Verdict::Moving),
            (counts(2, 0, 1, 0), Verdict::Stuck),
            (counts(1, 1, 1, 0), Verdict::Moving),
            (counts(2, 0, 0, 1), Verdict::Moving),
        ] {
            assert_eq!(verdict(&status(change.clone()), None), expected, "{change}");
        }
    }

    #[test]
    fn hosts_that_are_well_with_the_release_before_are_not_waited_for_in_vain() {
        for (state, expected) in [
            ("running", Verdict::Moving),
            ("rollingBack", Verdict::Moving),
            ("planning", Verdict::Stuck),
            ("paused", Verdict::Stuck),
            ("rolledBack", Verdict::Stuck),
        ] {
            let rollout = json!({ "plan": uuid::Uuid::nil(), "state": state, "reason": "2 of 3 failed" });
            let status = status(json!({ "rollout": rollout }));
            assert_eq!(verdict(&status, None), expected, "{state}");
            assert!(failure("is not there", &[status]).ends_with("; 2 of 3 failed"));
        }
    }

    #[test]
    fn hosts_that_the_rollout_left_out_are_not_waited_for() {
        let left_out = status(left_out());
        assert_eq!(verdict(&left_out, None), Verdict::Converged);
        assert_eq!(sentence(std::slice::from_ref(&left_out)), "prod: 2 of 3 healthy, 1 offline and left out");
        let both = [left_out, status(counts(3, 0, 0, 0))];
        assert_eq!(sentence(&both), "2 of 2 deployments converged, 5 of 6 healthy, 1 offline and left out");
        assert_eq!(failure("is not there", &both), "");
        for (pointer, value) in [
            // It goes on, or left fewer out, or one was given something since it was over, or another one is on its way.
            ("/graph/0/state", json!("running")),
            ("/graph/1/leftOut", json!(0)),
            ("/hosts/2/revision", json!("2026-11-20T15:02:01.000000Z")),
            ("/counts/desired", json!(4)),
            ("/counts/removing", json!(1)),
        ] {
            let mut moving = super::super::status::tests::left_out();
            *moving.pointer_mut(pointer).expect(pointer) = value;
            assert_eq!(verdict(&status(moving), None), Verdict::Moving, "{pointer}");
        }
    }

    #[test]
    fn an_older_plan_is_not_believed() {
        let later = "2026-11-20T15:00:01Z".parse().expect("time");
        assert_eq!(verdict(&status(counts(3, 0, 0, 0)), Some(later)), Verdict::Moving);
    }

    #[test]
    fn failures_tell_the_first_reason() {
        let text = failure("did not become healthy", &[status(counts(2, 0, 1, 0))]);
        assert_eq!(text, "prod did not become healthy: 2 of 3 healthy, 1 failed");
    }
}
