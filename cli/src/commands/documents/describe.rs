//! `titan describe`.

use clap::Args;
use serde_json::{Value, json};
use titan_api::{Kind, Name, Spec};

use super::{declared, rows, slug};
use crate::{
    commands::{changes, deployments},
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
  titan describe deployment prod -w iot")]
pub(crate) struct Describe {
    /// Kind of the document.
    kind: Kind,
    /// Name of the document.
    name: Name,
}

impl Describe {
    /// Shows the document.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let client = session.client()?;
        let workspace = session.workspace_of(self.kind)?;
        let now = ages::now();
        let document = client.get(self.kind, workspace.as_deref(), &self.name, None).await?;
        let history = client.history_page((self.kind, workspace.as_deref(), &self.name), RECENT, None).await?;
        let recent = &history.items;
        let heading = |text: &str| Tone::Strong.paint(text);

        let mut body = declared(&document);
        let mut files = None;
        if let Ok(Spec::Template(spec)) = Spec::parse(self.kind, document.spec.clone()) {
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
        let mut view = View::new(&json!({ "document": document, "history": recent }))
            .name(slug(self.kind, &self.name))
            .text(yaml(&body));
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
        if self.kind == Kind::Deployment {
            let status = client.deployment_status(workspace.as_deref().unwrap_or_default(), &self.name).await?;
            view = view.text(format!("\n{}", heading("Hosts")));
            view = deployments::status::blocks(view, &status, now);
        }
        view = view.text(format!("\n{}", heading("Recent changes"))).table(changes::table(recent, now));
        session.output.show(&view)?;
        Ok(Exit::Done)
    }
}
