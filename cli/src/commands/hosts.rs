//! Hosts: made, brought in, cordoned, cleaned.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use titan_api::{
    Kind, Name, Spec,
    client::WriteOptions,
    enrolment::EnrolmentTokenRequest,
    hosts::{HostKind, HostSpec},
    labels::Labels,
    reports::PruneRequest,
    resources::Resources,
    taints,
};
use uuid::Uuid;

use super::documents::{self, slug};
use crate::{
    arguments::NameArgument,
    errors::CliError,
    output::{Exit, Tone, View, ages, tables::Table},
    session::Session,
    values,
};

mod drain;
mod drift;
pub(crate) mod status;

/// Make a host: a device, or a whole cluster.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan create host --name tim-pi --labels name=tim-pi,platform=kubernetes
  titan create host edge-1 --kind cluster --workspaces iot,default
  titan host join-command tim-pi                          what to run on the host next")]
pub(crate) struct Create {
    #[command(flatten)]
    name: NameArgument,
    /// Labels that targets match: `key=value,key=value`.
    #[arg(short = 'l', long, value_name = "LABELS", default_value = "", value_parser = Labels::parse_list, hide_default_value = true)]
    labels: Labels,
    /// What sort of host it is.
    #[arg(long, value_enum, default_value_t = Sort::Device)]
    kind: Sort,
    /// Workspaces that may deploy onto it; all unless given.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    workspaces: Vec<String>,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// What it has room for: `cpu=4,memory=8Gi,gpu=1`; of cores and memory what its agent reports unless given.
    #[arg(long, value_name = "AMOUNTS", default_value = "", value_parser = Resources::parse_list, hide_default_value = true)]
    capacity: Resources,
    /// Taint that keeps deployments away which do not tolerate it: `gpu:NoSchedule`; may be given several times.
    #[arg(long = "taint", value_name = "TAINT")]
    taints: Vec<taints::Taint>,
    /// Value for whatever is deployed here, stronger than any other layer; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// File with such values.
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Sort {
    /// One machine.
    Device,
    /// A cluster that takes workloads as a unit.
    Cluster,
}

impl Create {
    /// Makes the host.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let name = self.name.get()?;
        let mut spec = HostSpec {
            kind: match self.kind {
                Sort::Device => HostKind::Device,
                Sort::Cluster => HostKind::Cluster,
            },
            description: self.description,
            capacity: self.capacity,
            taints: self.taints,
            values: values::read(self.values.as_deref(), &self.set)?,
            ..HostSpec::default()
        };
        if !self.workspaces.is_empty() {
            spec.workspaces = self.workspaces;
        }
        let client = session.client()?;
        documents::create(&client, session.output, (name, None), self.labels, &Spec::Host(spec)).await
    }
}

/// What can be done with a host.
#[derive(Debug, Subcommand)]
pub(crate) enum Host {
    JoinCommand(JoinCommand),
    Prune(Prune),
    Drift(drift::Drift),
    /// Take no new deployments onto a host; it keeps what it has, but gives up replicas.
    Cordon {
        /// Name of the host.
        host: Name,
    },
    Drain(drain::Drain),
    Taint(Taint),
    /// Take new deployments onto a host again.
    Uncordon {
        /// Name of the host.
        host: Name,
    },
}

/// Print the line to run on a host so that its agent enrols. It works once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan host join-command tim-pi
  titan host join-command tim-pi --state-dir /var/lib/titan-agent -o json")]
pub(crate) struct JoinCommand {
    /// Name of the host.
    host: Name,
    /// Where the agent keeps its state.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
    /// How long the token can be used: `30m`, `24h`, `7d`.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = ages::parse_duration)]
    ttl: std::time::Duration,
}

/// Remove from a host what it runs though nobody declares it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan status host tim-pi                                lists the orphans
  titan host prune tim-pi")]
pub(crate) struct Prune {
    /// Name of the host.
    host: Name,
    /// Only these orphans; all that the host reported unless given.
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<Uuid>,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Keep deployments away from a host unless they tolerate it: `key:NoSchedule`, or `key=value:NoExecute` to drive off those
/// that are there too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan host taint edge-1 gpu:NoSchedule
  titan host taint edge-1 dedicated=db:NoExecute
  titan host taint edge-1 gpu:NoSchedule --remove")]
pub(crate) struct Taint {
    /// Name of the host.
    host: Name,
    /// The taints.
    #[arg(required = true)]
    taints: Vec<taints::Taint>,
    /// Take the taints off.
    #[arg(long)]
    remove: bool,
}

impl Host {
    /// Does it.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        match self {
            Self::JoinCommand(command) => command.run(session).await,
            Self::Prune(command) => command.run(session).await,
            Self::Drift(command) => command.run(session).await,
            Self::Drain(command) => command.run(session).await,
            Self::Taint(command) => command.run(session).await,
            Self::Cordon { host } => cordon(session, &host, true).await,
            Self::Uncordon { host } => cordon(session, &host, false).await,
        }
    }
}

impl Taint {
    async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let client = session.client()?;
        let found = client.get(Kind::Host, None, &self.host, None).await?;
        let listed = found.spec.get("taints").cloned().unwrap_or_default();
        let mut taints: Vec<taints::Taint> = serde_json::from_value(listed).unwrap_or_default();
        taints.retain(|taint| !self.taints.contains(taint));
        if !self.remove {
            taints.extend(self.taints);
        }
        let patch = json!({ "spec": { "taints": taints } });
        // Somebody else's taint in between is not to be lost.
        let options = WriteOptions { if_match: found.metadata.revision, ..WriteOptions::default() };
        let document = client.patch(Kind::Host, None, &self.host, &patch, &options).await?;
        let slug = slug(Kind::Host, &self.host);
        let shown = taints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let shown = if shown.is_empty() { "has no taints".to_owned() } else { format!("has taints {shown}") };
        session.output.show(&View::new(&document).text(format!("{slug} {shown}")).name(slug))?;
        Ok(Exit::Done)
    }
}

async fn cordon(session: &Session, host: &Name, cordoned: bool) -> Result<Exit, CliError> {
    let patch = json!({ "spec": { "cordoned": cordoned } });
    let document = session.client()?.patch(Kind::Host, None, host, &patch, &WriteOptions::default()).await?;
    let slug = slug(Kind::Host, host);
    let word = if cordoned { Tone::Care.paint("cordoned") } else { Tone::Good.paint("uncordoned") };
    session.output.show(&View::new(&document).text(format!("{slug} {word}")).name(slug))?;
    Ok(Exit::Done)
}

impl JoinCommand {
    async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let client = session.client()?;
        let ttl_seconds = u32::try_from(self.ttl.as_secs())
            .map_err(|_| CliError::usage("--ttl is too long", "the longest is 30d"))?;
        let request = EnrolmentTokenRequest { host: self.host, ttl_seconds: Some(ttl_seconds) };
        let token = client.enrolment_token(&request).await?;
        let mut command = vec!["titan-agent", "enrol", "--server", client.server(), "--host", &token.host];
        command.extend(["--token", &token.token]);
        command.extend(self.state_dir.as_deref().map(|directory| ["--state-dir", directory]).into_iter().flatten());
        let line = command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        let data = json!({
            "server": client.server(),
            "host": token.host,
            "token": token.token,
            "stateDir": self.state_dir,
            "expiresAt": token.expires_at,
            "command": command,
        });
        session.output.show(&View::new(&data).name(slug(Kind::Host, &token.host)).text(line))?;
        Ok(Exit::Done)
    }
}

/// Returns `word` so that a POSIX shell reads it as one word.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

impl Prune {
    async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let request = PruneRequest { ids: (!self.ids.is_empty()).then_some(self.ids), reason: self.reason };
        let answer = session.client()?.prune(&self.host, &request).await?;
        let mut view = View::new(&answer);
        let mut table = Table::new(&["DEPLOYMENT", "WORKSPACE", "ID"]);
        for orphan in &answer.pruned {
            view = view.name(slug(Kind::Deployment, &orphan.name));
            table.row([orphan.name.as_str().into(), orphan.workspace.as_str().into(), orphan.id.to_string().into()]);
        }
        let end = match answer.pruned.len() {
            0 => format!("{} has no orphans", self.host),
            n => format!("{} removes {n} at its next poll", self.host),
        };
        let view = if answer.pruned.is_empty() { view } else { view.table(table) };
        session.output.show(&view.text(Tone::Faint.paint(&end)))?;
        Ok(Exit::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quoted("http://127.0.0.1:7420"), "http://127.0.0.1:7420");
        assert_eq!(quoted("/a b/$(x)"), "'/a b/$(x)'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
