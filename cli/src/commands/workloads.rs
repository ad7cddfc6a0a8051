//! Workloads: made.

use std::path::PathBuf;

use clap::Args;
use titan_api::{Kind, Name, Spec, labels::Labels, workloads::WorkloadSpec};

use super::documents;
use crate::{arguments::NameArgument, errors::CliError, output::Exit, session::Session, values};

/// Make a workload: a set of declarative resources deployed as a unit.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan create workload temperature-sensor --repo https://github.com/timfpark/temp-sensor
  titan create workload web --repo https://git.example/web --version 1.4.2 --template static-site --set port=8080")]
pub(crate) struct Create {
    #[command(flatten)]
    name: NameArgument,
    /// Where its source is kept.
    #[arg(long = "repo", alias = "repository", value_name = "URL")]
    repository: Option<String>,
    /// Its version.
    #[arg(long = "version", value_name = "VERSION")]
    version: Option<String>,
    /// Template of deployments that name none.
    #[arg(long, value_name = "NAME")]
    template: Option<Name>,
    /// Value for the template: `port=8080`, `tls.enabled=true`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// File with values; --set goes over it.
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,
    /// What it is.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Labels of the workload: `key=value,key=value`.
    #[arg(short = 'l', long, value_name = "LABELS", default_value = "", value_parser = Labels::parse_list, hide_default_value = true)]
    labels: Labels,
}

impl Create {
    /// Makes the workload.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let name = self.name.get()?;
        let spec = WorkloadSpec {
            description: self.description,
            repository: self.repository,
            version: self.version,
            template: self.template,
            values: values::read(self.values.as_deref(), &self.set)?,
        };
        let place = session.workspace_of(Kind::Workload)?;
        let client = session.client()?;
        documents::create(&client, session.output, (name, place), self.labels, &Spec::Workload(spec)).await
    }
}
