//! `titan edit`.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::Path,
    process::Command,
};

use clap::Args;
use titan_api::{Document, Kind, Name, client::WriteOptions, documents::Declared};

use super::{declared, slug};
use crate::{
    config,
    errors::CliError,
    manifests,
    output::{Exit, Tone, View, yaml},
    session::Session,
};

/// Change a document in an editor ($VISUAL, $EDITOR or vi).
///
/// The change is refused if somebody else changed the document in the meantime.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan edit deployment prod
  EDITOR='code --wait' titan edit target tim-pi -w iot")]
pub(crate) struct Edit {
    /// Kind of the document.
    kind: Kind,
    /// Name of the document.
    name: Name,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Edit {
    /// Fetches, lets the person edit, and writes back.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let client = session.client()?;
        let workspace = session.workspace_of(self.kind)?;
        let live = client.get(self.kind, workspace.as_deref(), &self.name, None).await?;
        let before = yaml(&declared(&live));
        let file = tempfile::Builder::new()
            .prefix(&format!("titan-{}-{}-", self.kind.as_str().to_lowercase(), self.name))
            .suffix(".yaml")
            .tempfile()?;
        let path = file.path().to_owned();
        file.as_file().write_all(before.as_bytes())?;
        edit(&path)?;
        let after =
            fs::read_to_string(&path).map_err(|source| CliError::File { doing: "read", path: path.clone(), source })?;
        let slug = slug(self.kind, &self.name);
        if after == before {
            session.output.show(&View::new(&live).name(&slug).text(format!("{slug} unchanged")))?;
            return Ok(Exit::Done);
        }
        match self.write(&client, &live, &after).await {
            Ok(written) => {
                let text = format!("{slug} {}", Tone::Good.paint("updated"));
                session.output.show(&View::new(&written).name(&slug).text(text))?;
                Ok(Exit::Done)
            }
            Err(error) => {
                // What was typed is not lost.
                if let Ok((_, kept)) = file.keep() {
                    session.output.note(&format!("your version is kept in {}", kept.display()));
                }
                Err(error)
            }
        }
    }

    async fn write(
        &self,
        client: &titan_api::client::Client,
        live: &Document,
        text: &str,
    ) -> Result<Document, CliError> {
        let mut manifests = manifests::parse("the edited document", text)?;
        let (Some(manifest), 0) = (manifests.pop(), manifests.len()) else {
            return Err(CliError::usage("the edited text is not one document", "leave exactly one document in it"));
        };
        let checked = Declared::parse(manifest.value.clone(), live.metadata.workspace.as_ref())
            .map_err(|problem| CliError::Refused { problem: Box::new(problem), titles: Vec::new() })?;
        let same = checked.kind == live.kind
            && checked.metadata.name == live.metadata.name
            && checked.metadata.workspace == live.metadata.workspace;
        if !same {
            return Err(CliError::usage(
                "kind, name and workspace cannot be edited",
                "make another document with `titan apply -f FILE`",
            ));
        }
        let document = Document {
            api_version: live.api_version.clone(),
            kind: checked.kind,
            metadata: checked.metadata,
            spec: checked.spec.to_value(),
            status: None,
        };
        let options =
            WriteOptions { if_match: live.metadata.revision, reason: self.reason.clone(), idempotency_key: None };
        Ok(client.put(&document, &options).await?)
    }
}

/// Runs the person's editor on `path` and waits for it.
fn edit(path: &Path) -> Result<(), CliError> {
    let command = match config::editor() {
        Some(command) => command,
        None if io::stdin().is_terminal() => vec!["vi".to_owned()],
        // Without a terminal it would wait for ever.
        None => {
            return Err(CliError::usage(
                "there is no terminal to edit in",
                "set EDITOR to a command that changes the file, or use `titan apply -f FILE`",
            ));
        }
    };
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| CliError::usage("$EDITOR is empty", "set EDITOR to an editor's command"))?;
    let status = Command::new(program).args(arguments).arg(path).status().map_err(|source| CliError::File {
        doing: "started as an editor",
        path: program.into(),
        source,
    })?;
    if status.success() { Ok(()) } else { Err(CliError::Failed(format!("the editor {program} ended with {status}"))) }
}
