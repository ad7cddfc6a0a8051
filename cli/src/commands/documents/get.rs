//! `titan get`.

use std::str::FromStr;

use clap::Args;
use serde_json::json;
use titan_api::{
    Document, Kind, Name, Revision,
    client::{Client, ListOptions},
};

use super::{rows, slug};
use crate::{
    commands::tasks,
    errors::CliError,
    output::{Exit, Tone, View, ages, watch},
    session::Session,
};

/// List documents of a kind, or show some by name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan get workspaces
  titan get hosts -l platform=kubernetes -o wide
  titan get deployments -A --watch
  titan get template device-service -o yaml
  titan get deployment prod --at 2026-11-20T15:04:05Z
  titan get tasks --state running --deployment prod")]
pub(crate) struct Get {
    /// What to list: hosts, templates, workloads, targets, deployments, workplans, workspaces or tasks.
    #[arg(value_name = "KIND")]
    noun: Noun,
    /// Names; all of the kind if there are none.
    #[arg(value_name = "NAME")]
    names: Vec<Name>,
    /// Only those with these labels: `a=b,c!=d,e`.
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "names")]
    selector: Option<String>,
    /// Those of every workspace.
    #[arg(short = 'A', long, conflicts_with_all = ["names", "workspace"])]
    all_workspaces: bool,
    /// As they were at a time: `2026-11-20T15:04:05Z`, or `10m` ago.
    #[arg(long, value_name = "TIME", conflicts_with = "watch")]
    at: Option<String>,
    /// Go on showing what changes.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    tasks: tasks::Filter,
}

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noun {
    /// Documents of a kind.
    Documents(Kind),
    /// Tasks.
    Tasks,
}

impl FromStr for Noun {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_lowercase().as_str() {
            "task" | "tasks" => Ok(Self::Tasks),
            _ => match text.parse() {
                Ok(kind) => Ok(Self::Documents(kind)),
                Err(error) => Err(format!("{error}; tasks can be shown too")),
            },
        }
    }
}

impl Get {
    /// Shows the documents.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        if self.noun != Noun::Tasks && self.tasks.is_given() {
            return Err(CliError::usage("this filter is for tasks", "titan get tasks --state failed"));
        }
        let client = session.client()?;
        let mut shown = watch::Watch::new(session.output);
        loop {
            let view = match self.noun {
                Noun::Tasks => tasks::list(&client, session, &self.tasks).await?,
                Noun::Documents(kind) => self.documents(&client, session, kind).await?,
            };
            if !self.watch {
                session.output.show(&view)?;
                return Ok(Exit::Done);
            }
            shown.show(&view)?;
            tokio::time::sleep(watch::INTERVAL).await;
        }
    }

    async fn documents(&self, client: &Client, session: &Session, kind: Kind) -> Result<View, CliError> {
        let now = ages::now();
        let at = self.at.as_deref().map(|text| ages::parse_moment(text, now)).transpose()?;
        let workspace = if self.all_workspaces { None } else { session.workspace_of(kind)? };
        let mut documents = Vec::new();
        if self.names.is_empty() {
            documents = list(client, kind, workspace.as_deref(), self.selector.clone(), at).await?;
        } else {
            for name in &self.names {
                documents.push(client.get(kind, workspace.as_deref(), name, at).await?);
            }
        }
        if documents.is_empty() && !self.watch {
            session.output.note(&Tone::Faint.paint(&empty(kind, workspace.as_deref())));
        }
        let table = rows::table(kind, &documents, now, self.all_workspaces);
        let view = match (documents.as_slice(), self.names.len()) {
            ([document], 1) => View::new(document),
            _ => View::new(&json!({ "items": documents })),
        };
        let named = documents.iter().fold(view, |view, document| view.name(slug(kind, &document.metadata.name)));
        Ok(named.table(table))
    }
}

/// Returns every document of a kind.
async fn list(
    client: &Client,
    kind: Kind,
    workspace: Option<&str>,
    selector: Option<String>,
    at: Option<Revision>,
) -> Result<Vec<Document>, CliError> {
    let mut all = Vec::new();
    let mut options = ListOptions { selector, at, ..ListOptions::default() };
    loop {
        let page = client.list(kind, workspace, &options).await?;
        all.extend(page.items);
        options.next = page.next;
        if options.next.is_none() {
            return Ok(all);
        }
    }
}

fn empty(kind: Kind, workspace: Option<&str>) -> String {
    match workspace {
        Some(workspace) => format!("there are no {} in workspace {workspace}", kind.plural()),
        None => format!("there are no {}", kind.plural()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_in_singular_and_plural() {
        assert_eq!("hosts".parse(), Ok(Noun::Documents(Kind::Host)));
        assert_eq!("Deployment".parse(), Ok(Noun::Documents(Kind::Deployment)));
        assert_eq!("tasks".parse(), Ok(Noun::Tasks));
        assert!("nothing".parse::<Noun>().is_err());
    }
}
