//! What happened in a plan, from its beginning.

use clap::Args;
use titan_api::{Name, workplans::EventView};

use super::{id_of, plain, shown};
use crate::{errors::CliError, output::Exit, session::Session};

/// Show everything that happened in a plan.
#[derive(Debug, Args)]
pub(crate) struct History {
    /// Name or id of the plan; `web#2` is the rollout of a release.
    #[arg(value_parser = plain)]
    pub(crate) plan: String,
    /// Only what happened to this node.
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<Name>,
    /// Only steps of the plan, its nodes and attempts, without the bookkeeping between them.
    #[arg(long)]
    pub(crate) brief: bool,
}

impl History {
    pub(super) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let client = session.client()?;
        let id = id_of(&client, session, &self.plan).await?;
        let (mut since, mut seen) = (0, false);
        loop {
            let page = client.plan_events(id, since, 0).await?;
            let about = |event: &&EventView| self.node.is_none() || event.event.node() == self.node.as_ref();
            for event in page.items.iter().filter(about) {
                seen = true;
                if !self.brief || shown::matters(&event.event) {
                    session.output.raw(&shown::line(event, session.output.format))?;
                }
            }
            since = page.items.last().map_or(since, |event| event.number);
            if page.next.is_none() {
                break;
            }
        }
        // Of a node to which nothing happened the control plane says whether there is one.
        if let Some(node) = self.node.filter(|_| !seen) {
            client.plan_node(id, &node).await?;
        }
        Ok(Exit::Done)
    }
}
