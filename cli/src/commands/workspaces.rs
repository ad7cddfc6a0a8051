//! Workspaces: made.

use clap::Args;
use titan_api::{Spec, labels::Labels, workspaces::WorkspaceSpec};

use super::documents;
use crate::{arguments::NameArgument, errors::CliError, output::Exit, session::Session, values};

/// Make a workspace: a scope of work with an owner and members.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan create workspace iot
  titan create workspace iot --owner tim --members ana,joe --set registry=registry.example")]
pub(crate) struct Create {
    #[command(flatten)]
    name: NameArgument,
    /// Who initiates and manages the work.
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// Who else works in it.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    members: Vec<String>,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Setting that templates read as `workspace.config`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Create {
    /// Makes the workspace.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let spec = WorkspaceSpec {
            description: self.description,
            owner: self.owner,
            members: self.members,
            config: values::read(None, &self.set)?,
        };
        let client = session.client()?;
        let key = (self.name.get()?, None);
        documents::create(&client, session.output, key, Labels::default(), &Spec::Workspace(spec)).await
    }
}
