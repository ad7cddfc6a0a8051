//! How far a plan is.

use clap::Args;
use titan_api::{Name, limits};

use super::{exit, follow::Follow, id_of, plain, shown};
use crate::{
    away,
    errors::CliError,
    output::{Exit, progress::Progress},
    session::Session,
};

/// Show how far a plan is.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Name or id of the plan; `web#2` is the rollout of a release.
    #[arg(value_parser = plain)]
    pub(crate) plan: String,
    /// Wait for its end; ends with 1 unless it succeeded.
    #[arg(long)]
    pub(crate) wait: bool,
    /// The workspace and name of the deployment that it is the rollout of.
    #[arg(skip)]
    pub(crate) deployment: Option<(Name, Name)>,
}

impl Status {
    pub(super) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let (client, output) = (session.client()?, session.output);
        let id = id_of(&client, session, &self.plan).await?;
        let mut status = client.plan_status(id, 0).await?;
        if self.wait {
            let mut progress = Progress::new(output);
            while !status.state.is_final() {
                progress.say(&format!("{} is {}", status.name, status.state));
                let asked = async || client.plan_status(id, limits::WAIT_SECONDS).await;
                status = away::outlast(|text| progress.say(text), asked).await?;
            }
        }
        let plan = Follow::glance(&client, status, self.deployment).await?;
        output.show(&shown::status(&plan))?;
        Ok(if self.wait { exit(&plan.status) } else { Exit::Done })
    }
}
