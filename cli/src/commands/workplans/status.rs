//! How far a plan is.

use clap::Args;
use titan_api::limits;

use super::{exit, id_of, plain, shown};
use crate::{
    away,
    errors::CliError,
    output::{Exit, progress::Progress},
    session::Session,
};

/// Show how far a plan is.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Name or id of the plan.
    #[arg(value_parser = plain)]
    pub(crate) plan: String,
    /// Wait for its end; ends with 1 unless it succeeded.
    #[arg(long)]
    pub(crate) wait: bool,
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
        output.show(&shown::status(&status))?;
        Ok(if self.wait { exit(&status) } else { Exit::Done })
    }
}
