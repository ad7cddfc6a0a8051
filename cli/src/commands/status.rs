//! `titan status`.

use std::time::Duration;

use clap::Args;
use titan_api::{Kind, Name};

use super::{deployments, hosts};
use crate::{
    errors::CliError,
    output::{Exit, ages, watch},
    session::Session,
};

/// Show a deployment's way from its source to its hosts and how far each of them is, or what a host runs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan status prod
  titan status deployment prod -o json
  titan status deployment prod --watch
  titan status deployment prod --wait --timeout 10m       ends with 1 if it does not become healthy
  titan status host tim-pi")]
pub(crate) struct Status {
    /// Kind: deployment or host; deployment if only a name is given.
    #[arg(value_name = "KIND|DEPLOYMENT")]
    first: String,
    /// Name of the deployment or host.
    name: Option<Name>,
    /// Go on showing what changes.
    #[arg(long)]
    watch: bool,
    /// Wait until it is healthy on all its hosts, but those that its rollout left out; for deployments.
    #[arg(long, conflicts_with = "watch")]
    wait: bool,
    /// How long to wait at most.
    #[arg(long, value_name = "TIME", default_value = "5m", requires = "wait", value_parser = ages::parse_duration)]
    timeout: Duration,
}

fn kind(text: &str) -> Result<Kind, String> {
    match text.parse() {
        Ok(kind @ (Kind::Deployment | Kind::Host)) => Ok(kind),
        _ => Err("only deployments and hosts have a status; see others with `titan describe`".to_owned()),
    }
}

impl Status {
    /// Returns what the status is of.
    fn of(&self) -> Result<(Kind, Name), CliError> {
        let hint = "titan status DEPLOYMENT, or titan status host HOST";
        match &self.name {
            Some(name) => Ok((kind(&self.first).map_err(|why| CliError::usage(why, hint))?, name.clone())),
            // `titan status host` is the beginning of something else, whatever there may be of that name.
            None if self.first.parse::<Kind>().is_ok() => {
                Err(CliError::usage(format!("no name is given after {:?}", self.first), hint))
            }
            None => {
                let name = Name::new(&self.first).map_err(|error| CliError::usage(error.to_string(), hint))?;
                Ok((Kind::Deployment, name))
            }
        }
    }

    /// Shows the status.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let (kind, name) = self.of()?;
        let client = session.client()?;
        let workspace = session.workspace()?;
        if self.wait {
            if kind == Kind::Host {
                return Err(CliError::usage("--wait is for deployments", "wait for one of the host's deployments"));
            }
            let one = [(workspace.clone(), name.clone())].into();
            let waited = deployments::wait::converged(&client, session.output, &one, None, self.timeout).await;
            let status = client.deployment_status(&workspace, &name).await;
            if let Ok(status) = status {
                session.output.show(&deployments::status::view(&status, ages::now()))?;
            }
            return waited;
        }
        let mut shown = watch::Watch::new(session.output);
        loop {
            let now = ages::now();
            let view = match kind {
                Kind::Host => hosts::status::view(&client, &name, now).await?,
                _ => deployments::status::view(&client.deployment_status(&workspace, &name).await?, now),
            };
            if !self.watch {
                session.output.show(&view)?;
                return Ok(Exit::Done);
            }
            shown.show(&view)?;
            tokio::time::sleep(watch::INTERVAL).await;
        }
    }
}
