//! Pipelines: what they report of a workload before it is deployed.

use clap::{Args, Subcommand, ValueEnum};
use titan_api::{
    Kind, Name,
    pipelines::{BuildReport, BuildState, PipelineEvent, SourceReport},
};

use crate::{
    errors::CliError,
    output::{Exit, View},
    session::Session,
};

/// What to report.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  titan report source prod --commit 3fa9c1e24b0d --branch main --message 'mend the pump'
  titan report build prod --commit 3fa9c1e24b0d --id 42 --state running
  titan report build prod --commit 3fa9c1e24b0d --id 42 --state succeeded --version 1.4.2 \\
      --artifact ghcr.io/acme/pump@sha256:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b
  titan report build --workload pump --commit 3fa9c1e24b0d --id 43 --state failed --message 'tests failed'")]
pub(crate) enum Report {
    /// A commit of the source was seen.
    Source(Source),
    /// A build began or ended.
    Build(Build),
}

/// What it is about.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Subject {
    /// Name of a deployment; the report is about its workload.
    deployment: Option<Name>,
    /// Name of the workload.
    #[arg(long, value_name = "NAME")]
    workload: Option<Name>,
}

/// A commit of the source.
#[derive(Debug, Args)]
pub(crate) struct Source {
    #[command(flatten)]
    subject: Subject,
    /// The commit, 7 to 64 hexadecimal digits.
    #[arg(long, value_name = "ID")]
    commit: String,
    /// The branch or tag.
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    /// What the commit says.
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// Who made it.
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
    /// Where people look at it.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// A build.
#[derive(Debug, Args)]
pub(crate) struct Build {
    #[command(flatten)]
    subject: Subject,
    /// The commit that is built, 7 to 64 hexadecimal digits.
    #[arg(long, value_name = "ID")]
    commit: String,
    /// The pipeline's own name of the build; one that is made again has another.
    #[arg(long, value_name = "ID")]
    id: String,
    /// How far it is.
    #[arg(long, value_enum)]
    state: State,
    /// The version that it makes, as it will stand in the workload.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// What it made, with its digest.
    #[arg(long, value_name = "REFERENCE")]
    artifact: Option<String>,
    /// What people should know of it.
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// Where people look at it.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    /// It began.
    Running,
    /// It made what it was to make.
    Succeeded,
    /// It did not.
    Failed,
    /// It was stopped.
    Cancelled,
}

impl Report {
    /// Reports it.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let (subject, event) = match self {
            Self::Source(source) => {
                let Source { subject, commit, branch, message, author, url } = source;
                let commit = commit.to_ascii_lowercase();
                (subject, PipelineEvent::Source(SourceReport { commit, branch, message, author, url }))
            }
            Self::Build(build) => {
                let Build { subject, commit, id, state, version, artifact, message, url } = build;
                let state = match state {
                    State::Running => BuildState::Running,
                    State::Succeeded => BuildState::Succeeded,
                    State::Failed => BuildState::Failed,
                    State::Cancelled => BuildState::Cancelled,
                };
                let commit = commit.to_ascii_lowercase();
                let report = BuildReport { id, commit, state, version, artifact, message, url };
                (subject, PipelineEvent::Build(report))
            }
        };
        let (kind, name) = match (subject.deployment, subject.workload) {
            (Some(deployment), _) => (Kind::Deployment, deployment),
            (None, Some(workload)) => (Kind::Workload, workload),
            (None, None) => return Err(CliError::usage("nothing is named", "name a deployment, or --workload NAME")),
        };
        let workspace = session.workspace()?;
        let answer = session.client()?.report_pipeline((kind, &workspace, &name), &event).await?;
        let said = if answer.recorded { "recorded" } else { "known already" };
        let text = format!("workload {}: {said}", answer.workload);
        session.output.show(&View::new(&answer).name(format!("workload/{}", answer.workload)).text(text))?;
        Ok(Exit::Done)
    }
}
