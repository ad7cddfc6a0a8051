//! `titan delete`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use titan_api::{
    Code, Kind, Name, Revision,
    changes::ApplyAnswer,
    client::{Client, WriteOptions},
    hosts::HostStatus,
};

use super::{answer_view, apply};
use crate::{
    commands::tasks,
    errors::CliError,
    output::{Exit, ages},
    session::Session,
};

/// Hosts of which is said why they are waited for, before the rest is counted.
const NAMED: usize = 5;

/// Delete documents.
///
/// Hosts that run a deleted deployment are told so and remove it at their next poll. A deleted host removes what it
/// runs, then its record goes; with --force the record goes at once, also that of a host that was deleted before.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan delete deployment prod --wait
  titan delete host tim-pi --force
  titan delete -f fleet.yaml")]
pub(crate) struct Delete {
    /// Kind of the documents.
    #[arg(required_unless_present = "files", conflicts_with = "files")]
    kind: Option<Kind>,
    /// Names of the documents.
    #[arg(value_name = "NAME", required_unless_present = "files", conflicts_with = "files")]
    names: Vec<Name>,
    /// Delete what these files declare: file, directory, or - for standard input.
    #[arg(short, long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Let go of a host at once, without waiting for its agent.
    #[arg(long)]
    force: bool,
    /// Count what is not there as deleted.
    #[arg(long)]
    ignore_not_found: bool,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Wait until every host has removed it; ends with 1 if that takes longer than --timeout.
    #[arg(long)]
    wait: bool,
    /// How long to wait at most.
    #[arg(long, value_name = "TIME", default_value = "5m", requires = "wait", value_parser = ages::parse_duration)]
    timeout: Duration,
}

impl Delete {
    /// Deletes the documents, those that use others first.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let workspace = session.workspace()?;
        let mut keys = Vec::new();
        if let Some(kind) = self.kind {
            let place = session.workspace_of(kind)?;
            keys.extend(self.names.iter().map(|name| (kind, place.clone(), name.clone())));
        }
        for manifest in apply::read(&self.files, session.given_workspace())? {
            keys.push(manifest.key(&workspace)?);
        }
        // What refers to others goes before what it refers to; in files that is the order turned round.
        keys.reverse();
        keys.sort_by_key(|(kind, ..)| std::cmp::Reverse(order(*kind)));
        let client = session.client()?;
        let mut whole = ApplyAnswer { revision: None, results: Vec::new(), tasks: Vec::new() };
        let mut hosts = Vec::new();
        for key in keys {
            let status = self.observed(&client, &key).await;
            if let Some(answer) = self.one(&client, &key).await? {
                hosts.extend(status.map(|status| (key.2, status, answer.tasks.clone())));
                whole.revision = answer.revision.or(whole.revision);
                whole.results.extend(answer.results);
                whole.tasks.extend(answer.tasks);
            }
        }
        session.output.show(&answer_view(&whole, false))?;
        if !self.wait {
            return Ok(Exit::Done);
        }
        let mut left = Vec::new();
        for (index, (host, status, tasks)) in hosts.into_iter().enumerate() {
            let mut done = true;
            for task in tasks {
                // One that runs nothing is gone in a moment, which the first of them is given.
                let found = client.task(task, u64::from(index == 0)).await;
                done &= found.is_ok_and(|task| task.state.is_final());
            }
            if !done {
                left.push((host, status));
            }
        }
        for (host, status) in left.iter().take(NAMED) {
            session.output.note(&waits(host, status, ages::now()));
        }
        if left.len() > NAMED {
            session.output.note(&format!("so it is with {} more hosts", left.len() - NAMED));
        }
        tasks::ended(&client, session.output, &whole.tasks, self.timeout).await
    }

    /// Returns how a host is that is to be deleted, if that waits for its agent.
    async fn observed(&self, client: &Client, (kind, _, name): &(Kind, Option<Name>, Name)) -> Option<HostStatus> {
        if *kind != Kind::Host || self.force || !self.wait {
            return None;
        }
        // What cannot be read is told by the deletion.
        let status = client.get(*kind, None, name, None).await.ok()?.status?;
        let status: HostStatus = serde_json::from_value(status).ok()?;
        status.enrolled_at.is_some().then_some(status)
    }

    async fn one(
        &self,
        client: &Client,
        (kind, workspace, name): &(Kind, Option<Name>, Name),
    ) -> Result<Option<ApplyAnswer>, CliError> {
        let options = WriteOptions { reason: self.reason.clone(), ..WriteOptions::default() };
        let force = self.force && *kind == Kind::Host;
        match client.delete(*kind, workspace.as_deref(), name, force, &options).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if self.ignore_not_found && error.code() == Some(Code::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Says why the deletion of a host takes its time, and what to do.
fn waits(host: &Name, status: &HostStatus, now: Revision) -> String {
    let seen = status.last_seen.map_or_else(String::new, |seen| format!(", seen {} ago", ages::age(seen, now)));
    let state = if status.online { "online" } else { "offline" };
    format!(
        "host {host} is {state}{seen}: its record goes once its agent has removed what it runs; if that never comes back: \
         titan delete host {host} --force"
    )
}

fn order(kind: Kind) -> usize {
    Kind::ALL.iter().position(|known| *known == kind).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_waited_for_is_said_with_what_to_do() {
        let host = Name::new("pi").expect("a name");
        let seen = Some(Revision::from_micros(60_000_000));
        let status = HostStatus { last_seen: seen, ..HostStatus::default() };
        let said = waits(&host, &status, Revision::from_micros(660_000_000));
        assert!(
            said.starts_with("host pi is offline, seen 10m ago: its record goes once its agent has removed"),
            "{said}"
        );
        assert!(said.ends_with("titan delete host pi --force"), "{said}");
    }

    #[test]
    fn deployments_go_before_what_they_use() {
        assert!(order(Kind::Deployment) > order(Kind::Target));
        assert!(order(Kind::Workload) > order(Kind::Template));
        assert!(order(Kind::Target) > order(Kind::Workspace));
    }
}
