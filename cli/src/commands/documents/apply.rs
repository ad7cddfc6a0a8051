//! `titan apply`.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use clap::Args;
use titan_api::{
    Kind, Name, Spec,
    changes::{Action, ApplyAnswer, ApplyRequest},
    client::{Client, ClientError, WriteOptions},
    workspaces,
};

use super::answer_view;
use crate::{
    commands::deployments::wait,
    errors::CliError,
    manifests::{self, Manifest},
    output::{Exit, ages},
    session::Session,
};

/// Write documents, all of them or none.
///
/// A file may hold several documents, of any kinds in any order. A directory stands for every *.yaml, *.yml and *.json
/// below it. A template's files are taken from a directory beside its document with `spec: { directory: ./files }`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan apply -f fleet.yaml
  titan apply -f fleet/ --dry-run
  titan apply -f fleet/ --wait --reason 'quieter logs'
  generate-fleet | titan apply -f -")]
pub(crate) struct Apply {
    /// File, directory, or - for standard input; may be given several times.
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
    /// Check everything and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Wait until every deployment that this touches is healthy on all its hosts, but those that a rollout left out.
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How long to wait at most.
    #[arg(long, value_name = "TIME", default_value = "5m", requires = "wait", value_parser = ages::parse_duration)]
    timeout: Duration,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Apply {
    /// Writes the documents.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let manifests = read(&self.files, session.given_workspace())?;
        let client = session.client()?;
        let answer = send(&client, &manifests, self.dry_run, self.reason).await?;
        session.output.show(&answer_view(&answer, self.dry_run))?;
        if !self.wait {
            return Ok(Exit::Done);
        }
        let touched = touched(&client, &answer).await?;
        wait::converged(&client, session.output, &touched, answer.revision, self.timeout).await
    }
}

/// Returns the documents of `files`; those that name no workspace get `workspace`.
pub(crate) fn read(files: &[PathBuf], workspace: Option<&Name>) -> Result<Vec<Manifest>, CliError> {
    let mut all = Vec::new();
    for file in files {
        all.extend(manifests::read(file)?);
    }
    if let Some(workspace) = workspace {
        all.iter_mut().for_each(|manifest| manifest.default_workspace(workspace));
    }
    Ok(all)
}

/// Returns the request that applies or plans `manifests`.
pub(crate) fn request(manifests: &[Manifest], dry_run: bool, reason: Option<String>) -> ApplyRequest {
    ApplyRequest { resources: manifests.iter().map(|manifest| manifest.value.clone()).collect(), dry_run, reason }
}

/// Returns a refusal with pointers into the files.
pub(crate) fn located(error: ClientError, manifests: &[Manifest]) -> CliError {
    match error {
        ClientError::Refused { problem, .. } => refused(*problem, manifests),
        other => other.into(),
    }
}

/// Returns a refusal of `manifests`, whose pointers begin with `/resources/<index>`.
pub(crate) fn refused(problem: titan_api::Problem, manifests: &[Manifest]) -> CliError {
    CliError::Refused { problem: Box::new(problem), titles: manifests.iter().map(Manifest::title).collect() }
}

/// Applies `manifests`.
pub(crate) async fn send(
    client: &Client,
    manifests: &[Manifest],
    dry_run: bool,
    reason: Option<String>,
) -> Result<ApplyAnswer, CliError> {
    let request = request(manifests, dry_run, reason);
    client.apply(&request, &WriteOptions::default()).await.map_err(|error| located(error, manifests))
}

/// Returns the deployments that a write touches: those written, and those that use a written template, workload or
/// target.
async fn touched(client: &Client, answer: &ApplyAnswer) -> Result<BTreeSet<(Name, Name)>, CliError> {
    let mut touched = BTreeSet::new();
    let mut parts = BTreeSet::new();
    for result in &answer.results {
        let Some(workspace) = &result.workspace else { continue };
        match result.kind {
            Kind::Deployment => {
                touched.insert((workspace.clone(), result.name.clone()));
            }
            Kind::Template | Kind::Workload | Kind::Target if result.action == Action::Updated => {
                parts.insert((result.kind, workspace.clone(), result.name.clone()));
            }
            _ => {}
        }
    }
    if parts.is_empty() {
        return Ok(touched);
    }
    for document in client.list_all(Kind::Deployment, None, None).await? {
        let Some(workspace) = document.metadata.workspace else { continue };
        let Ok(Spec::Deployment(spec)) = Spec::parse(Kind::Deployment, document.spec) else { continue };
        let uses = |(kind, place, name): &(Kind, Name, Name)| match kind {
            Kind::Workload => *place == workspace && *name == spec.workload,
            Kind::Target => *place == workspace && *name == spec.target,
            // Without a template of its own it has the workload's, which may be this one.
            _ => {
                (*place == workspace || place.as_str() == workspaces::DEFAULT)
                    && spec.template.as_ref().is_none_or(|template| template == name)
            }
        };
        if parts.iter().any(uses) {
            touched.insert((workspace, document.metadata.name));
        }
    }
    Ok(touched)
}
