//! `titan describe`.

use clap::Args;
use serde_json::{Value, json};
use titan_api::{Kind, Name, Spec};

use super::{declared, get::Noun, rows, slug};
use crate::{
    commands::{changes, deployments, hosts, tasks::Task},
    errors::CliError,
    output::{Exit, Tone, View, ages, tables::Table, yaml},
    session::Session,
};

/// Changes that are shown.
const RECENT: usize = 10;

/// Show a document, what was observed of it, and what happened to it lately.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan describe host tim-pi
  titan describe deployment prod -w iot
  titan describe task 0198f2c4-7d3e-7a11-9c55-0d6c1f1e2a3b")]
pub(crate) struct Describe {
    /// Kind of the document, or `task`.
    #[arg(value_name = "KIND")]
    noun: Noun,
    /// Name of the document; a task's id.
    name: String,
}

impl Describe {
    /// Shows the document.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let Noun::Documents(kind) = self.noun else { return Task::named(&self.name).run(session).await };
        let name = Name::new(self.name)?;
        let client = session.client()?;
        let workspace = session.workspace_of(kind)?;
        let now = ages::now();
        let document = client.get(kind, workspace.as_deref(), &name, None).await?;
        let history = client.history_page((kind, workspace.as_deref(), &name), RECENT, None).await?;
        let recent = &history.items;
        let heading = |text: &str| Tone::Strong.paint(text);

        let mut body = declared(&document);
        let mut files = None;
        if let Ok(Spec::Template(spec)) = Spec::parse(kind, document.spec.clone()) {
            let mut table = Table::new(&["FILE", "SIZE", "EXECUTABLE"]);
            for (path, file) in &spec.files {
                let executable = if file.executable { "yes" } else { "no" };
                let bytes = file.bytes().map_or(0, |bytes| bytes.len());
                table.row([path.as_str().into(), rows::size(bytes).into(), executable.into()]);
            }
            files = Some(table);
            body["spec"] = Value::Object(serde_json::Map::new());
        }
        let metadata = &document.metadata;
        let mut view =
            View::new(&json!({ "document": document, "history": recent })).name(slug(kind, &name)).text(yaml(&body));
        if let Some(files) = files {
            view = view.text(format!("\n{}", heading("Files"))).table(files);
        }
        view = view.text(format!(
            "\n{} {}, {} {}, {} {}",
            Tone::Faint.paint("uid"),
            metadata.uid.map_or_else(|| "-".into(), |uid| uid.to_string()),
            Tone::Faint.paint("generation"),
            metadata.generation.map_or_else(|| "-".into(), |generation| generation.to_string()),
            Tone::Faint.paint("revision"),
            metadata.revision.map_or_else(|| "-".into(), |revision| revision.to_string()),
        ));
        if let Some(status) =
            document.status.as_ref().filter(|status| status.as_object().is_some_and(|map| !map.is_empty()))
        {
            view = view.text(format!("\n{}\n{}", heading("Status"), yaml(status)));
        }
        if kind == Kind::Deployment {
            let status = client.deployment_status(workspace.as_deref().unwrap_or_default(), &name).await?;
            view = view.text(format!("\n{}", heading("Hosts")));
            view = deployments::status::blocks(view, &status, now);
        }
        // Each deployment is asked about, and programs do not see it.
        if kind == Kind::Host && session.output.for_people() {
            view = view.text(format!("\n{}", heading("Deployments")));
            view = hosts::status::deployed(view, &client, &name, now).await?;
        }
        view = view.text(format!("\n{}", heading("Recent changes"))).table(changes::table(recent, now));
        session.output.show(&view)?;
        Ok(Exit::Done)
    }
}
