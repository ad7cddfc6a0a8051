//! The live table of the demo: redrawn in place on a terminal, a line for each change elsewhere.

use std::{collections::BTreeMap, io};

use titan_api::{
    Revision,
    status::{DeploymentStatus, HostDeployment},
};

use crate::{
    commands::deployments::status::{commit, counts, state, word},
    output::{
        Format, Output, View,
        ages::age,
        tables::{Cell, Table},
        terminal_width,
    },
};

/// Fleets larger than this are shown by deployment rather than by host.
const ROWS: usize = 14;

/// What is on the screen.
#[derive(Debug)]
pub(super) struct Board {
    output: Output,
    lines: usize,
    said: BTreeMap<String, String>,
}

impl Board {
    /// Returns a board that has shown nothing yet.
    pub(super) const fn new(output: Output) -> Self {
        Self { output, lines: 0, said: BTreeMap::new() }
    }

    /// Shows how far the deployments are.
    pub(super) fn show(&mut self, statuses: &[DeploymentStatus], now: Revision) -> io::Result<()> {
        if self.output.repaints() {
            let text = View::default().table(table(statuses, now)).render(Format::Table, terminal_width());
            if self.lines > 0 {
                self.output.steer(&format!("\u{1b}[{}A\u{1b}[J", self.lines))?;
            }
            self.lines = text.lines().count();
            return self.output.raw(&text);
        }
        for (what, how) in lines(statuses) {
            if self.said.get(&what) != Some(&how) {
                self.output.line(&format!("  {what}: {how}"))?;
                self.said.insert(what, how);
            }
        }
        Ok(())
    }

    /// Leaves what is shown where it is; what comes next goes below it.
    pub(super) fn leave(&mut self) {
        self.lines = 0;
    }
}

fn rows(statuses: &[DeploymentStatus]) -> impl Iterator<Item = (&DeploymentStatus, &HostDeployment)> {
    statuses.iter().flat_map(|status| status.hosts.iter().map(move |host| (status, host)))
}

fn place(status: &DeploymentStatus) -> String {
    format!("{}/{}", status.workspace, status.name)
}

fn table(statuses: &[DeploymentStatus], now: Revision) -> Table {
    if rows(statuses).count() > ROWS {
        let mut table = Table::new(&["DEPLOYMENT", "RELEASE", "HOSTS"]);
        for status in statuses {
            table.row([place(status).into(), Cell::maybe(status.release.as_deref()), counts(status).into()]);
        }
        return table;
    }
    let mut table = Table::new(&["DEPLOYMENT", "HOST", "STATE", "RELEASE", "DIGEST", "COMMIT", "AGE", "MESSAGE"]);
    for (status, host) in rows(statuses) {
        table.row([
            place(status).into(),
            host.host.as_str().into(),
            state(host),
            host.release.as_str().into(),
            Cell::maybe(host.digest.map(|digest| digest.short())),
            commit(host),
            age(host.revision, now).into(),
            Cell::maybe(Some(message(host))),
        ]);
    }
    table
}

fn message(host: &HostDeployment) -> &str {
    host.problem.as_ref().map_or(host.message.as_str(), |problem| problem.detail.as_str())
}

/// Returns what there is to say where nothing can be redrawn: of what, and how it is.
fn lines(statuses: &[DeploymentStatus]) -> Vec<(String, String)> {
    if rows(statuses).count() > ROWS {
        return statuses.iter().map(|status| (place(status), counts(status))).collect();
    }
    rows(statuses)
        .map(|(status, host)| {
            let digest = host.digest.map(|digest| format!(" {}", digest.short())).unwrap_or_default();
            let message = if message(host).is_empty() { String::new() } else { format!(", {}", message(host)) };
            let how = format!("{} {}{digest}{message}", word(host).0, host.release);
            (format!("{} on {}", place(status), host.host), how)
        })
        .collect()
}
