//! `titan delete`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use titan_api::{
    Code, Kind, Name,
    changes::ApplyAnswer,
    client::{Client, WriteOptions},
};

use super::{answer_view, apply};
use crate::{
    commands::tasks,
    errors::CliError,
    output::{Exit, ages},
    session::Session,
};

/// Delete documents.
///
/// Hosts that run a deleted deployment are told so and remove it at their next poll. A deleted host removes what it
/// runs, then its record goes; with --force the record goes at once.
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
        for key in keys {
            if let Some(answer) = self.one(&client, &key).await? {
                whole.revision = answer.revision.or(whole.revision);
                whole.results.extend(answer.results);
                whole.tasks.extend(answer.tasks);
            }
        }
        session.output.show(&answer_view(&whole, false))?;
        match self.wait {
            true => tasks::ended(&client, session.output, &whole.tasks, self.timeout).await,
            false => Ok(Exit::Done),
        }
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

fn order(kind: Kind) -> usize {
    Kind::ALL.iter().position(|known| *known == kind).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployments_go_before_what_they_use() {
        assert!(order(Kind::Deployment) > order(Kind::Target));
        assert!(order(Kind::Workload) > order(Kind::Template));
        assert!(order(Kind::Target) > order(Kind::Workspace));
    }
}
