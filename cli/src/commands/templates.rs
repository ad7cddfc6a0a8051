//! Templates: made from a directory, listed, copied, checked.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use titan_api::{Kind, Spec, labels::Labels, templates::RENDERED};
use titan_control_plane::render::Template as Parsed;

use super::documents;
use crate::{
    arguments::NameArgument,
    builtin::{self, Shelf},
    directory,
    errors::CliError,
    output::{
        Exit, Tone, View,
        tables::{Cell, Table},
    },
    session::Session,
};

/// Make a template from a directory, or from a ready-made one.
///
/// Every plain file of the directory is taken, hidden ones too. Files that end in .j2 are rendered for each host and
/// lose that ending; all others travel as they are.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan create template device-service -f ./device-service
  titan create template device-service --from device-service")]
pub(crate) struct Create {
    #[command(flatten)]
    name: NameArgument,
    /// Directory with the template's files.
    #[arg(short, long = "file", value_name = "DIR", required_unless_present = "from", conflicts_with = "from")]
    file: Option<PathBuf>,
    /// Ready-made template to take; see `titan template list`.
    #[arg(long, value_name = "TEMPLATE")]
    from: Option<String>,
    /// Labels of the template: `key=value,key=value`.
    #[arg(short = 'l', long, value_name = "LABELS", default_value = "", value_parser = Labels::parse_list, hide_default_value = true)]
    labels: Labels,
}

impl Create {
    /// Makes the template.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let name = self.name.get()?;
        let spec = match (&self.file, &self.from) {
            (Some(path), _) => directory::read(path)?,
            (None, Some(from)) => builtin::template(from)?,
            (None, None) => return Err(CliError::usage("there is no directory", "name it with -f DIR")),
        };
        let place = session.workspace_of(Kind::Template)?;
        let client = session.client()?;
        documents::create(&client, session.output, (name, place), self.labels, &Spec::Template(spec)).await
    }
}

/// What can be done with templates on this side.
#[derive(Debug, Subcommand)]
pub(crate) enum Template {
    /// List the ready-made templates.
    List,
    Show(Show),
    Lint(Lint),
}

/// Show a ready-made template, or copy it out.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan template show device-service
  titan template show device-service --to ./device-service")]
pub(crate) struct Show {
    /// Name of the ready-made template.
    name: String,
    /// Directory to copy it to.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// Check a template's directory: paths, limits, template.yaml, schema and the syntax of every rendered file.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  titan template lint -f ./device-service")]
pub(crate) struct Lint {
    /// Directory with the template's files.
    #[arg(short, long = "file", value_name = "DIR")]
    file: PathBuf,
}

impl Template {
    /// Does it.
    pub(crate) fn run(self, session: &Session) -> Result<Exit, CliError> {
        match self {
            Self::List => list(session),
            Self::Show(command) => command.run(session),
            Self::Lint(command) => command.run(session),
        }
    }
}

fn list(session: &Session) -> Result<Exit, CliError> {
    let mut table = Table::new(&["NAME", "FILES", "DESCRIPTION"]);
    let mut items = Vec::new();
    for name in Shelf::Templates.names() {
        let spec = builtin::template(name)?;
        let description = builtin::manifest(&spec).description;
        items.push(json!({ "name": name, "files": spec.files.len(), "description": description }));
        table.row([name.into(), spec.files.len().to_string().into(), Cell::maybe(description)]);
    }
    let view = Shelf::Templates.names().into_iter().fold(View::new(&json!({ "items": items })), View::name);
    session.output.show(&view.table(table))?;
    Ok(Exit::Done)
}

impl Show {
    fn run(self, session: &Session) -> Result<Exit, CliError> {
        let view = match &self.to {
            Some(to) => {
                let count = Shelf::Templates.copy(&self.name, to)?;
                View::new(&json!({ "name": self.name, "to": to, "files": count }))
                    .text(format!("{count} files are in {}", to.display()))
            }
            None => {
                let files = Shelf::Templates.get(&self.name)?;
                let mut view = View::new(&builtin::template(&self.name)?);
                for (path, (bytes, _)) in files {
                    let text = String::from_utf8_lossy(bytes);
                    view = view.text(format!("{}\n{text}", Tone::Strong.paint(&format!("# {path}"))));
                }
                view
            }
        };
        session.output.show(&view.name(&self.name))?;
        Ok(Exit::Done)
    }
}
impl Lint {
    fn run(self, session: &Session) -> Result<Exit, CliError> {
        let spec = directory::read(&self.file)?;
        let template = Parsed::parse(&spec)
            .map_err(|problem| CliError::Refused { problem: Box::new(problem), titles: Vec::new() })?;
        let rendered = spec.files.keys().filter(|path| path.ends_with(RENDERED)).count();
        let data = json!({
            "directory": self.file,
            "digest": template.digest(),
            "files": spec.files.len(),
            "rendered": rendered,
            "description": template.manifest().description,
        });
        let text = format!(
            "{}: {} files, {rendered} of them rendered, digest {}",
            Tone::Good.paint("sound"),
            spec.files.len(),
            template.digest().short()
        );
        session.output.show(&View::new(&data).text(text))?;
        Ok(Exit::Done)
    }
}
