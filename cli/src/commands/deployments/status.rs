//! What `titan status deployment` shows.

use titan_api::{
    Revision,
    drift::Drift,
    reports::Phase,
    status::{DeploymentStatus, HostDeployment, HostState, StatusCounts},
};

use super::graph;
use crate::output::{
    Tone, View,
    ages::{age, maybe_age},
    tables::{Cell, Table},
};

/// Returns the whole status as a view.
pub(crate) fn view(status: &DeploymentStatus, now: Revision) -> View {
    let mut view = View::new(status).name(format!("deployment/{}", status.name));
    if !status.graph.is_empty() {
        view = view.table(graph::table(status, now)).text("");
    }
    blocks(view, status, now)
}

/// Returns `view` with the hosts, the problems and the summary of `status`.
pub(crate) fn blocks(mut view: View, status: &DeploymentStatus, now: Revision) -> View {
    if !status.hosts.is_empty() {
        view = view.table(table(&status.hosts, now));
    }
    for problem in &status.problems {
        view = view.text(format!("{} {}", Tone::Bad.paint("problem:"), problem.detail.replace('\n', "\n  ")));
        for fault in &problem.errors {
            view = view.text(format!("  {}: {}", fault.pointer, fault.detail));
        }
    }
    // Why it stopped is said where nothing else says it: on a rollout that goes on there is none.
    if let Some(reason) = status.rollout.as_ref().and_then(|rollout| rollout.reason.as_deref()) {
        view = view.text(format!("{} {reason}", Tone::Care.paint("rollout:")));
    }
    view.text(summary(status))
}

/// Returns a table with a row for each host.
pub(crate) fn table(hosts: &[HostDeployment], now: Revision) -> Table {
    let headings =
        ["HOST", "STATE", "RELEASE", "DIGEST", "COMMIT", "DRIFT", "AGE", "+PHASE", "+SEEN", "+REVISION", "MESSAGE"];
    let mut table = Table::new(&headings);
    for host in hosts {
        table.row([
            host.host.as_str().into(),
            state(host),
            host.release.as_str().into(),
            Cell::maybe(host.digest.map(|digest| digest.short())),
            commit(host),
            drift(&host.drift),
            age(host.revision, now).into(),
            Cell::maybe(host.phase.map(|phase| phase.as_str())),
            maybe_age(host.last_seen, now).into(),
            host.revision.to_string().into(),
            Cell::maybe(Some(reason(host))),
        ]);
    }
    table
}

/// Returns why it is as it is: what keeps the newest release away, or what the agent said.
pub(crate) fn reason(host: &HostDeployment) -> &str {
    host.problem.as_ref().map_or(host.message.as_str(), |problem| problem.detail.as_str())
}

/// Returns the state as a coloured word.
pub(crate) fn state(host: &HostDeployment) -> Cell {
    let (word, tone) = word(host);
    Cell::toned(word, tone)
}

/// Returns the state in a word and what it means: as the agent puts it, where that says more.
pub(crate) fn word(host: &HostDeployment) -> (&'static str, Tone) {
    match (host.state, host.phase) {
        (HostState::Healthy, _) => ("healthy", Tone::Good),
        (HostState::Progressing, Some(Phase::Applying)) => ("applying", Tone::Care),
        (HostState::Progressing | HostState::Removing, _) => (host.state.as_str(), Tone::Care),
        (HostState::Failed, Some(Phase::Degraded)) if host.problem.is_none() => ("degraded", Tone::Bad),
        (HostState::Failed, Some(Phase::RolledBack)) if host.problem.is_none() => ("rolled back", Tone::Bad),
        (HostState::Failed, _) => ("failed", Tone::Bad),
        (HostState::Offline, _) => ("offline", Tone::Faint),
    }
}

/// Returns how much is not as it was applied, or was put right.
pub(crate) fn drift(drift: &[Drift]) -> Cell {
    let repaired = drift.iter().filter(|drift| drift.repaired).count();
    match (drift.len() - repaired, repaired) {
        (0, 0) => Cell::maybe(None::<String>),
        (0, repaired) => Cell::toned(format!("{repaired} repaired"), Tone::Care),
        (open, 0) => Cell::toned(open.to_string(), Tone::Bad),
        (open, repaired) => Cell::toned(format!("{open}, {repaired} repaired"), Tone::Bad),
    }
}

/// Returns the first digits of the commit.
pub(crate) fn commit(host: &HostDeployment) -> Cell {
    Cell::maybe(host.commit.as_ref().map(|id| id.chars().take(10).collect::<String>()))
}

/// Returns the status in one sentence.
pub(crate) fn summary(status: &DeploymentStatus) -> String {
    let release = status.release.as_deref().unwrap_or("not released yet");
    let word = match status.left_out() {
        _ if status.converged() => Tone::Good.paint("converged"),
        Some(1) => Tone::Good.paint("converged but for 1 host"),
        Some(hosts) => Tone::Good.paint(&format!("converged but for {hosts} hosts")),
        None => Tone::Care.paint("not there yet"),
    };
    format!("{} ({release}): {word}, {}", Tone::Strong.paint(&status.name), counts(status))
}

/// Returns the counts in words, zeros left out.
pub(crate) fn counts(status: &DeploymentStatus) -> String {
    let StatusCounts { desired, healthy, progressing, failed, offline, removing, degraded, rolled_back, drifted } =
        status.counts;
    let mut parts = vec![format!("{healthy} of {desired} healthy")];
    for (count, word) in [
        (progressing, "progressing"),
        (failed.saturating_sub(degraded + rolled_back), "failed"),
        (degraded, "degraded"),
        (rolled_back, "rolled back"),
        (offline, if status.left_out().is_some() { "offline and left out" } else { "offline" }),
        (removing, "removing"),
        (drifted, "drifted"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    if status.planned < status.revision {
        parts.push("planning".to_owned());
    }
    if let Some(rollout) = &status.rollout {
        parts.push(format!("rollout {}", rollout.state));
    }
    parts.join(", ")
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::Format;

    /// A status of one healthy host, with `change` merged into its top level.
    pub(crate) fn status(change: serde_json::Value) -> DeploymentStatus {
        let mut value = json!({
            "name": "prod", "workspace": "default", "release": "prod#7",
            "revision": "2026-11-20T15:00:00.000000Z", "planned": "2026-11-20T15:00:00.000000Z",
            "counts": {"desired": 1, "healthy": 1, "progressing": 0, "failed": 0, "offline": 0, "removing": 0},
            "hosts": [{
                "host": "tim-pi", "state": "healthy", "release": "prod#7", "phase": "healthy",
                "revision": "2026-11-20T15:00:00.000000Z", "digest": "ab".repeat(32), "commit": "0123456789abcdef",
            }],
        });
        if let (Some(value), serde_json::Value::Object(change)) = (value.as_object_mut(), change) {
            value.extend(change);
        }
        serde_json::from_value(value).expect("status")
    }

    fn shown(status: &DeploymentStatus) -> String {
        let now = "2026-11-20T15:03:00Z".parse().expect("time");
        anstream::adapter::strip_str(&view(status, now).render(Format::Table, None)).to_string()
    }

    #[test]
    fn hosts_and_summary_are_shown() {
        let text = shown(&status(json!({})));
        assert!(text.contains("tim-pi  healthy  prod#7   abababababab  0123456789  -      3m"), "{text}");
        assert!(text.ends_with("prod (prod#7): converged, 1 of 1 healthy\n"), "{text}");
    }

    #[test]
    fn whatever_is_behind_is_said() {
        let counts = json!({"desired": 3, "healthy": 1, "progressing": 0, "failed": 2, "offline": 0, "removing": 1});
        let text = shown(&status(json!({"counts": counts, "revision": "2026-11-20T16:00:00Z"})));
        assert!(text.ends_with("not there yet, 1 of 3 healthy, 2 failed, 1 removing, planning\n"), "{text}");
    }

    #[test]
    fn degraded_rolled_back_and_drifted_hosts_are_called_so() {
        let host = |name: &str, state: &str, phase: &str, drift: serde_json::Value| {
            json!({"host": name, "state": state, "release": "prod#7", "phase": phase, "drift": drift,
                "revision": "2026-11-20T15:00:00.000000Z"})
        };
        let counts = json!({"desired": 4, "healthy": 1, "progressing": 1, "failed": 2, "offline": 0, "removing": 0,
            "degraded": 1, "rolledBack": 1, "drifted": 1});
        let drift = json!([{"what": "a", "how": "content"}, {"what": "b", "how": "mode", "repaired": true}]);
        let repaired = json!([{"what": "a", "how": "content", "repaired": true}]);
        let hosts = json!([
            host("a", "failed", "degraded", drift),
            host("b", "failed", "rolledBack", json!([])),
            host("c", "healthy", "healthy", repaired),
            host("d", "progressing", "applying", json!([])),
        ]);
        let text = shown(&status(json!({"counts": counts, "hosts": hosts})));
        let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        assert!(row("a").contains("degraded") && row("a").contains("1, 1 repaired"), "{text}");
        assert!(row("b").contains("rolled back") && row("d").contains("applying"), "{text}");
        assert!(row("c").contains("healthy") && row("c").contains("1 repaired"), "{text}");
        assert!(text.ends_with("1 of 4 healthy, 1 progressing, 1 degraded, 1 rolled back, 1 drifted\n"), "{text}");
    }

    /// What a status says of three hosts of which one is offline, and was left out by the rollout.
    pub(crate) fn left_out() -> serde_json::Value {
        let step = |kind: &str, name: &str, more: serde_json::Value| {
            let mut step = json!({"id": format!("{kind}:{name}"), "kind": kind, "name": name, "state": "done",
                "at": "2026-11-20T15:02:00.000000Z"});
            if let (Some(step), serde_json::Value::Object(more)) = (step.as_object_mut(), more) {
                step.extend(more);
            }
            step
        };
        let at = "2026-11-20T15:00:00.000000Z";
        let host = |name: &str, state: &str| json!({"host": name, "state": state, "release": "prod#7", "revision": at});
        json!({
            "counts": {"desired": 3, "healthy": 2, "progressing": 0, "failed": 0, "offline": 1, "removing": 0},
            "graph": [step("release", "prod#7", json!({})), step("stage", "all", json!({"leftOut": 1}))],
            "hosts": [host("a", "healthy"), host("b", "healthy"), host("c", "offline")],
        })
    }

    #[test]
    fn hosts_that_the_rollout_left_out_are_not_what_is_missing() {
        let text = shown(&status(left_out()));
        let said = "prod (prod#7): converged but for 1 host, 2 of 3 healthy, 1 offline and left out\n";
        assert!(text.ends_with(said), "{text}");
        let mut running = left_out();
        running["graph"][0]["state"] = json!("running");
        let text = shown(&status(running));
        assert!(text.ends_with("prod (prod#7): not there yet, 2 of 3 healthy, 1 offline\n"), "{text}");
    }

    #[test]
    fn problems_come_before_the_summary() {
        let problem = titan_api::Problem::new(titan_api::Code::MissingReference, "there is no target x");
        let text = shown(&status(json!({"problems": [problem], "hosts": []})));
        assert!(text.starts_with("problem: there is no target x\n"), "{text}");
    }
}
