//! Deployments: made, explained, followed.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Value;
use titan_api::{
    Kind, Name, Spec,
    deployments::{Dependency, DeploymentSpec, OnRemove, Spread},
    labels::Labels,
    resources::Resources,
    spans::Span,
    taints::Toleration,
    values::MergedValues,
};

use super::documents;
use crate::{
    arguments::NameArgument,
    errors::CliError,
    output::{
        Exit, Tone, View, ages,
        tables::{Cell, Table},
    },
    session::Session,
    values,
};

mod graph;
pub(crate) mod status;
pub(crate) mod wait;

/// Make a deployment: a workload on the hosts of a target, through a template.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan create deployment prod --workload temperature-sensor \
      --template device-service --target tim-pi
  titan create deployment canary --workload web --target edge --replicas 3 --set port=8080
  titan create deployment web --workload web --target edge --values web.yaml --depends-on db
  titan create deployment train --workload train --target edge --replicas 2 --requests cpu=2,gpu=1 --spread zone")]
pub(crate) struct Create {
    #[command(flatten)]
    name: NameArgument,
    /// Workload to deploy.
    #[arg(long, value_name = "NAME")]
    workload: Name,
    /// Template, of this workspace or else of `default`; the workload's unless given.
    #[arg(long, value_name = "NAME")]
    template: Option<Name>,
    /// Target that matches the hosts.
    #[arg(long, value_name = "NAME")]
    target: Name,
    /// On how many of the matching hosts; all unless given.
    #[arg(long, value_name = "NUMBER")]
    replicas: Option<u32>,
    /// What it needs on each host: `cpu=500m,memory=512Mi,gpu=1`.
    #[arg(long, value_name = "AMOUNTS", default_value = "", value_parser = Resources::parse_list, hide_default_value = true)]
    requests: Resources,
    /// Taint of hosts that it does not mind, by key; may be given several times.
    #[arg(long = "tolerate", value_name = "KEY")]
    tolerations: Vec<String>,
    /// Label by which replicas are spread over the fleet.
    #[arg(long, value_name = "LABEL", requires = "replicas")]
    spread: Option<String>,
    /// How long a host must not have been seen for its replica to go elsewhere: `5m` unless given, `0s` for never.
    #[arg(long, value_name = "TIME", requires = "replicas")]
    failover_after: Option<Span>,
    /// Value for the template: `port=8080`, `tls.enabled=true`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// File with values; --set goes over it.
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,
    /// Deployments that go before it on a host that has both, each once it is healthy, or with :applied behind its
    /// name once it is in place.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    depends_on: Vec<Dependency>,
    /// What a host does with the files when the deployment leaves it.
    #[arg(long, value_enum, default_value_t = Leaving::Delete)]
    on_remove: Leaving,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Labels of the deployment itself: `key=value,key=value`.
    #[arg(short = 'l', long, value_name = "LABELS", default_value = "", value_parser = Labels::parse_list, hide_default_value = true)]
    labels: Labels,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Leaving {
    /// Remove them.
    Delete,
    /// Leave them where they are.
    Orphan,
}

impl Create {
    /// Makes the deployment.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let name = self.name.get()?;
        let tolerations = self.tolerations.into_iter();
        let spec = DeploymentSpec {
            description: self.description,
            workload: self.workload,
            template: self.template,
            target: self.target,
            replicas: self.replicas,
            requests: self.requests,
            tolerations: tolerations.map(|key| Toleration { key: Some(key), ..Toleration::default() }).collect(),
            spread: self.spread.map(|label| Spread { label, max_skew: None }),
            failover_after: self.failover_after,
            values: values::read(self.values.as_deref(), &self.set)?,
            overrides: Vec::new(),
            depends_on: self.depends_on,
            on_remove: match self.on_remove {
                Leaving::Delete => OnRemove::Delete,
                Leaving::Orphan => OnRemove::Orphan,
            },
            strategy: None,
        };
        let place = session.workspace_of(Kind::Deployment)?;
        let client = session.client()?;
        documents::create(&client, session.output, (name, place), self.labels, &Spec::Deployment(spec)).await
    }
}

/// Say why a host has a deployment, or why it has it not.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  titan why tim-pi prod")]
pub(crate) struct Why {
    /// Name of the host.
    host: Name,
    /// Name of the deployment.
    deployment: Name,
}

impl Why {
    /// Shows each rule that was looked at.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let workspace = session.workspace()?;
        let why = session.client()?.why(&self.host, &workspace, &self.deployment).await?;
        let mut table = Table::new(&["HOLDS", "RULE", "FOUND"]);
        for step in &why.steps {
            let holds = if step.holds { Cell::toned("yes", Tone::Good) } else { Cell::toned("no", Tone::Bad) };
            table.row([holds, step.rule.as_str().into(), step.found.as_str().into()]);
        }
        let mut view = View::new(&why)
            .name(documents::slug(Kind::Deployment, &self.deployment))
            .text(Tone::Strong.paint(&why.summary))
            .table(table);
        if let Some(assignment) = &why.assignment {
            view = view.text("").table(status::table(std::slice::from_ref(assignment), ages::now()));
        }
        session.output.show(&view)?;
        Ok(Exit::Done)
    }
}

/// Show the values of a deployment on a host, and which layer gave each.
///
/// Layers, weakest first: template, workload, deployment, each matching override in order, host.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  titan values prod --host tim-pi")]
pub(crate) struct Values {
    /// Name of the deployment.
    deployment: Name,
    /// Name of the host.
    #[arg(long, value_name = "HOST")]
    host: Name,
}

impl Values {
    /// Shows the values.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let workspace = session.workspace()?;
        let merged = session.client()?.values(&workspace, &self.deployment, &self.host).await?;
        session.output.show(&values_view(&merged))?;
        Ok(Exit::Done)
    }
}

fn values_view(merged: &MergedValues) -> View {
    let mut table = Table::new(&["VALUE OF", "IS", "FROM", "INSTEAD OF"]);
    for origin in &merged.origins {
        let value = match &origin.value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let hides = Cell::maybe(Some(origin.hides.join(", ")));
        table.row([key(&origin.pointer).into(), value.into(), origin.layer.as_str().into(), hides]);
    }
    View::new(merged).table(table)
}

/// Returns a JSON pointer as people write keys: `/tls/enabled` is `tls.enabled`.
fn key(pointer: &str) -> String {
    let parts = pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~"));
    parts.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::Format;

    #[test]
    fn each_value_shows_its_layer() {
        let merged: MergedValues = serde_json::from_value(json!({
            "values": {"tls": {"port": 1}},
            "origins": [{"pointer": "/tls/port", "value": 1, "layer": "override 2", "hides": ["template"]}],
        }))
        .expect("values");
        let text = values_view(&merged).render(Format::Table, None);
        let text = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(text.lines().nth(1).map(str::trim), Some("tls.port  1   override 2  template"));
    }

    #[test]
    fn pointers_become_keys() {
        assert_eq!(key("/a~1b/c"), "a/b.c");
    }
}
