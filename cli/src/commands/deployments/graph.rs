//! The way of a deployment's newest release as a tree: source, build, change, release, its stages, their hosts.

use std::collections::BTreeMap;

use titan_api::{
    Revision,
    status::{
        DeploymentStatus, HostDeployment,
        graph::{Step, StepKind, StepState},
    },
};

use super::status::word;
use crate::output::{
    Tone,
    ages::{age, maybe_age},
    tables::{Cell, Table},
};

/// Returns the tree, one row a step.
pub(super) fn table(status: &DeploymentStatus, now: Revision) -> Table {
    let mut hosts: BTreeMap<Option<&str>, Vec<&HostDeployment>> = BTreeMap::new();
    for host in &status.hosts {
        hosts.entry(host.after.as_deref()).or_default().push(host);
    }
    let mut tree = Tree { steps: &status.graph, hosts, now, table: Table::new(&["STEP", "STATE", "AGE", "MESSAGE"]) };
    let roots: Vec<&Step> = status.graph.iter().filter(|step| tree.parent(step).is_none()).collect();
    for step in roots {
        tree.step(step, "", "");
    }
    // Whoever has an older release, or is removing it.
    if let Some(others) = tree.hosts.remove(&None) {
        tree.crowd(&others, "before that: ");
    }
    tree.table
}

struct Tree<'a> {
    steps: &'a [Step],
    hosts: BTreeMap<Option<&'a str>, Vec<&'a HostDeployment>>,
    now: Revision,
    table: Table,
}

impl<'a> Tree<'a> {
    /// Returns the step under which one is drawn: all of a rollout under the release, and all else under what it follows.
    fn parent(&self, step: &Step) -> Option<&'a str> {
        let found = match step.kind {
            StepKind::Stage | StepKind::Check => self.steps.iter().find(|other| other.kind == StepKind::Release),
            _ => self.steps.iter().find(|other| step.after.contains(&other.id)),
        };
        found.map(|found| found.id.as_str())
    }

    /// Draws a step and all below it; `head` stands before its own row, `below` before those under it.
    fn step(&mut self, step: &'a Step, head: &str, below: &str) {
        let (state, tone) = shown(step);
        self.table.row([
            format!("{head}{} {}", step.kind.as_str(), step.name).into(),
            Cell::toned(state, tone),
            maybe_age(step.at, self.now).into(),
            Cell::maybe(Some(message(step))),
        ]);
        let steps = self.steps;
        let children: Vec<&Step> =
            steps.iter().filter(|other| other.id != step.id && self.parent(other) == Some(&step.id)).collect();
        let hosts = self.hosts.remove(&Some(step.id.as_str()));
        let last = children.len();
        if let Some(hosts) = &hosts {
            self.crowd(hosts, &format!("{below}{}", if last == 0 { "└─ " } else { "├─ " }));
        }
        for (index, child) in children.into_iter().enumerate() {
            let (mark, line) = if index + 1 == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            self.step(child, &format!("{below}{mark}"), &format!("{below}{line}"));
        }
    }

    /// Draws hosts as one row.
    fn crowd(&mut self, hosts: &[&HostDeployment], head: &str) {
        let mut words: BTreeMap<&str, (usize, Tone)> = BTreeMap::new();
        for host in hosts {
            let (word, tone) = word(host);
            words.entry(word).or_insert((0, tone)).0 += 1;
        }
        let tone =
            [Tone::Bad, Tone::Care, Tone::Faint].into_iter().find(|tone| words.values().any(|(_, of)| of == tone));
        let told: Vec<String> = words.iter().map(|(word, (count, _))| format!("{count} {word}")).collect();
        let newest = hosts.iter().map(|host| host.revision).max();
        let noun = if hosts.len() == 1 { "host" } else { "hosts" };
        self.table.row([
            format!("{head}{} {noun}", hosts.len()).into(),
            Cell::toned(told.join(", "), tone.unwrap_or(Tone::Good)),
            newest.map_or_else(|| "-".to_owned(), |newest| age(newest, self.now)).into(),
            Cell::maybe(None::<String>),
        ]);
    }
}

/// Returns the state in a word: as people call it where they have one.
fn shown(step: &Step) -> (&'static str, Tone) {
    match (step.state, step.kind) {
        (StepState::Done, _) if step.no_op => ("nothing to do", Tone::Faint),
        (StepState::Done, StepKind::Source) => ("seen", Tone::Good),
        (StepState::Done, StepKind::Build) => ("succeeded", Tone::Good),
        (StepState::Done, StepKind::Stage | StepKind::Check) => ("passed", Tone::Good),
        (StepState::Done, _) => ("done", Tone::Good),
        (StepState::Running, _) => ("running", Tone::Care),
        (StepState::Waiting, _) => ("waiting", if step.at.is_some() { Tone::Care } else { Tone::Faint }),
        (StepState::Failed, _) => ("failed", Tone::Bad),
        (StepState::Skipped, _) => ("skipped", Tone::Faint),
    }
}

fn message(step: &Step) -> String {
    let version = step.version.as_ref().map(|version| format!("version {version}"));
    let parts = [version, step.artifact.clone(), step.message.clone()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::deployments::status::tests::status;

    #[test]
    fn the_way_is_a_tree_from_the_commit_to_the_hosts() {
        let at = |minute: u32| format!("2026-11-20T15:{minute:02}:00.000000Z");
        let step = |kind: &str, name: &str, state: &str, after: &[&str], minute: u32| {
            json!({"id": format!("{kind}:{name}"), "kind": kind, "name": name, "state": state, "after": after,
                "at": at(minute)})
        };
        let mut build = step("build", "42", "done", &["source:0123456789ab"], 11);
        build["version"] = json!("1.4");
        build["artifact"] = json!("ghcr.io/acme/web@sha256:ab");
        let graph = json!([
            step("source", "0123456789ab", "done", &[], 10),
            build,
            step("change", "Workload/web", "done", &["build:42"], 12),
            step("release", "prod#7", "running", &["change:Workload/web"], 12),
            step("check", "preflight", "done", &["release:prod#7"], 13),
            step("stage", "canary", "done", &["check:preflight"], 14),
            {"id": "stage:none", "kind": "stage", "name": "none", "state": "done", "noOp": true,
                "after": ["stage:canary"], "at": at(15), "message": "all 1 hosts are offline"},
            {"id": "stage:rest", "kind": "stage", "name": "rest", "state": "waiting", "after": ["stage:canary"]},
        ]);
        let host = |name: &str, state: &str, after: Option<&str>| json!({"host": name, "state": state, "release": "prod#7", "revision": at(14), "after": after});
        let hosts =
            json!(
                [host("a", "healthy", Some("stage:canary")), host("b", "healthy", None), host("c", "offline", None),]
            );
        let status = status(json!({"graph": graph, "hosts": hosts}));
        let now = "2026-11-20T15:20:00Z".parse().expect("time");
        let text = table(&status, now).render(true, None);
        let text = anstream::adapter::strip_str(&text).to_string();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let squeezed: Vec<String> =
            lines.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let expected = [
            "STEP STATE AGE MESSAGE",
            "source 0123456789ab seen 10m -",
            "└─ build 42 succeeded 9m version 1.4, ghcr.io/acme/web@sha256:ab",
            "└─ change Workload/web done 8m -",
            "└─ release prod#7 running 8m -",
            "├─ check preflight passed 7m -",
            "├─ stage canary passed 6m -",
            "│ └─ 1 host 1 healthy 6m -",
            "├─ stage none nothing to do 5m all 1 hosts are offline",
            "└─ stage rest waiting - -",
            "before that: 2 hosts 1 healthy, 1 offline 6m -",
        ];
        assert_eq!(squeezed, expected, "{text}");
        assert!(lines[7].starts_with("         │  └─ 1 host"), "{text}");
    }
}
