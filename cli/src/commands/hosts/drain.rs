//! `titan host drain`: every replica leaves a host.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use titan_api::{
    Kind, Name,
    client::{Client, WriteOptions},
    status::HostState,
};

use super::status::{Row, deployments};
use crate::{
    away::{self, Away},
    commands::documents::slug,
    errors::CliError,
    output::{Exit, Output, Tone, View, ages, progress::Progress},
    session::Session,
};

/// How often the control plane is asked.
const INTERVAL: Duration = Duration::from_millis(500);

/// Cordon a host, so that all its replicas go elsewhere. Deployments without replicas stay.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan host drain edge-1 --wait
  titan host drain edge-1 --wait --timeout 10m            ends with 1 if a replica is still there then
  titan host uncordon edge-1                              lets deployments come again")]
pub(crate) struct Drain {
    /// Name of the host.
    host: Name,
    /// Wait until the host has removed its last replica.
    #[arg(long)]
    wait: bool,
    /// How long to wait at most.
    #[arg(long, value_name = "TIME", default_value = "5m", requires = "wait", value_parser = ages::parse_duration)]
    timeout: Duration,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Drain {
    pub(super) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let client = session.client()?;
        let before = replicas(&client, &self.host).await?;
        let options = WriteOptions { reason: self.reason.clone(), ..WriteOptions::default() };
        let patch = json!({ "spec": { "cordoned": true } });
        client.patch(Kind::Host, None, &self.host, &patch, &options).await?;
        let left = match self.wait {
            true => self.wait(&client, session.output, before.len()).await?,
            false => replicas(&client, &self.host).await?,
        };
        let name = slug(Kind::Host, &self.host);
        let text = match left.len() {
            0 => format!("{name} {}: it has no replica", Tone::Good.paint("drained")),
            count => format!(
                "{name} {}: {count} of its replicas are leaving: {}",
                Tone::Care.paint("cordoned"),
                named(&left)
            ),
        };
        let data = json!({
            "host": self.host,
            "drained": left.is_empty(),
            "leaving": left.iter().map(|(workspace, name, _)| json!({ "workspace": workspace, "deployment": name }))
                .collect::<Vec<_>>(),
        });
        session.output.show(&View::new(&data).text(text).name(name))?;
        Ok(Exit::Done)
    }

    /// Waits until there is no replica any more.
    async fn wait(&self, client: &Client, output: Output, most: usize) -> Result<Vec<Row>, CliError> {
        let mut progress = Progress::new(output);
        let (begin, mut away) = (Instant::now(), Away::default());
        loop {
            let left = match replicas(client, &self.host).await {
                Ok(left) => {
                    away.back();
                    left
                }
                Err(CliError::Client(error)) if begin.elapsed() <= self.timeout && away.endures(&error) => {
                    progress.say(away::SAID);
                    Away::pass().await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let most = most.max(left.len());
            progress.say(&format!("{}: {} of {most} replicas have left", self.host, most - left.len()));
            if left.is_empty() {
                return Ok(left);
            }
            if begin.elapsed() >= self.timeout {
                let offline = left.iter().any(|(.., row)| matches!(row.state, HostState::Removing));
                let why =
                    if offline { "the host has not confirmed yet; is it online?" } else { "they have no other place" };
                let text = format!("{} is not drained, the time is over: {}: {why}", self.host, named(&left));
                return Err(CliError::Failed(text));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// Returns the replicas that the host has, or is removing.
async fn replicas(client: &Client, host: &Name) -> Result<Vec<Row>, CliError> {
    deployments(client, host, |document| !document.spec["replicas"].is_null()).await
}

fn named(rows: &[Row]) -> String {
    rows.iter().map(|(workspace, name, _)| format!("{workspace}/{name}")).collect::<Vec<_>>().join(", ")
}
