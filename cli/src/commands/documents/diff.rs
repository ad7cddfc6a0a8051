//! `titan diff`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use titan_api::{Code, client::Client, documents::Declared};

use super::{apply, declared, slug};
use crate::{
    errors::CliError,
    manifests::Manifest,
    output::{Exit, Tone, View, diffs, yaml},
    session::Session,
};

/// Compare documents in files with the live ones; ends with 6 if there are differences.
///
/// This compares what is declared. What would change on which hosts is told by `titan plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan diff -f fleet.yaml
  titan diff -f fleet/ -w iot")]
pub(crate) struct Diff {
    /// File, directory, or - for standard input; may be given several times.
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
}

impl Diff {
    /// Compares and shows.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let manifests = apply::read(&self.files, session.given_workspace())?;
        let workspace = session.workspace()?;
        let client = session.client()?;
        let mut view_data = Vec::new();
        let mut text = Vec::new();
        let mut names = Vec::new();
        for (index, manifest) in manifests.iter().enumerate() {
            let declared = Declared::parse(manifest.value.clone(), Some(&workspace))
                .map_err(|problem| apply::refused(problem.under(&format!("/resources/{index}")), &manifests))?;
            if let Some(diff) = one(&client, manifest, &declared).await? {
                let slug = slug(declared.kind, &declared.metadata.name);
                text.push(diffs::paint(&diff, "", None));
                view_data.push(json!({ "document": slug, "source": manifest.source, "diff": diff }));
                names.push(slug);
            }
        }
        let differs = !text.is_empty();
        let summary = match text.len() {
            0 => "no differences".to_owned(),
            n => format!("{n} of {} documents differ", manifests.len()),
        };
        let mut view = View::new(&json!({ "items": view_data })).text(text.concat());
        view = names.into_iter().fold(view, View::name);
        if !differs {
            view = View::new(&json!({ "items": view_data }));
        }
        session.output.show(&view.text(Tone::Faint.paint(&summary)))?;
        Ok(if differs { Exit::Differences } else { Exit::Done })
    }
}

async fn one(client: &Client, manifest: &Manifest, wanted: &Declared) -> Result<Option<String>, CliError> {
    let workspace = wanted.metadata.workspace.as_deref();
    let live = match client.get(wanted.kind, workspace, &wanted.metadata.name, None).await {
        Ok(document) => yaml(&declared(&document)),
        Err(error) if error.code() == Some(Code::NotFound) => String::new(),
        Err(error) => return Err(error.into()),
    };
    let slug = slug(wanted.kind, &wanted.metadata.name);
    Ok(diffs::unified(&live, &yaml(&canonical(wanted)), &format!("live {slug}"), &manifest.source))
}

/// Returns a declared document in the form in which live ones are shown.
fn canonical(wanted: &Declared) -> Value {
    let document = titan_api::Document {
        api_version: titan_api::documents::API_VERSION.to_owned(),
        kind: wanted.kind,
        metadata: wanted.metadata.clone(),
        spec: wanted.spec.to_value(),
        status: None,
    };
    declared(&document)
}
