//! History and the feed of changes.

use std::num::NonZeroUsize;

use clap::Args;
use serde_json::json;
use titan_api::{
    Document, Kind, Name, Revision,
    changes::{Change, Operation},
    limits,
    pages::Page,
};

use super::documents::{declared, slug};
use crate::{
    errors::CliError,
    output::{
        Exit, Format, Tone, View, ages, diffs,
        tables::{Cell, Table},
        yaml,
    },
    session::Session,
};

/// Show what happened to a document, newest first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan history deployment prod
  titan history template device-service --diff
  titan history host tim-pi --limit 5000 -o json")]
pub(crate) struct History {
    /// Kind of the document.
    kind: Kind,
    /// Name of the document; it may be deleted by now.
    name: Name,
    /// Show what each change changed.
    #[arg(long)]
    diff: bool,
    /// Show at most so many changes, the newest.
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::new(limits::PAGE).unwrap_or(NonZeroUsize::MIN))]
    limit: NonZeroUsize,
}

impl History {
    /// Shows the changes.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let workspace = session.workspace_of(self.kind)?;
        let (client, document) = (session.client()?, (self.kind, workspace.as_deref(), &*self.name));
        let limit = self.limit.get();
        let mut page = Page { items: Vec::new(), next: None };
        loop {
            let wanted = limit.saturating_sub(page.items.len()).clamp(1, limits::PAGE);
            let more = client.history_page(document, wanted, page.next.as_deref()).await?;
            page.items.extend(more.items);
            page.next = more.next;
            if page.next.is_none() || page.items.len() >= limit {
                break;
            }
        }
        if page.next.is_some() {
            let note = format!("there are more than these {}; --limit shows more", page.items.len());
            session.output.note(&Tone::Faint.paint(&note));
        }
        let now = ages::now();
        let mut view = View::new(&page).name(slug(self.kind, &self.name));
        if self.diff {
            for change in &page.items {
                view = view.text(format!("{}\n{}", Tone::Strong.paint(&sentence(change)), difference(change)));
            }
        } else {
            view = view.table(table(&page.items, now));
        }
        session.output.show(&view)?;
        Ok(Exit::Done)
    }
}

/// Show what changed in the fleet, oldest first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan events --since 10m
  titan events --watch -o json | jq .name")]
pub(crate) struct Events {
    /// From when on: `10m`, `24h`, or a time such as 2026-11-20T15:04:05Z; 1h unless given, with --watch from now on.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Go on showing what happens.
    #[arg(long)]
    watch: bool,
    /// Show what each change changed.
    #[arg(long)]
    diff: bool,
}

impl Events {
    /// Shows the changes, one line each; as JSON one object a line.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let client = session.client()?;
        let default = if self.watch { "0s" } else { "1h" };
        let mut since = ages::parse_moment(self.since.as_deref().unwrap_or(default), ages::now())?;
        loop {
            let page = client.changes(Some(since), if self.watch { limits::WAIT_SECONDS / 2 } else { 0 }).await?;
            for change in &page.items {
                session.output.raw(&self.render(change, session.output.format))?;
            }
            // A page may end before the last change does; the cursor says where to go on.
            let more = !page.items.is_empty() && page.cursor > since;
            since = page.cursor;
            if !self.watch && !more {
                return Ok(Exit::Done);
            }
        }
    }

    fn render(&self, change: &Change, format: Format) -> String {
        let difference = if self.diff { difference(change) } else { String::new() };
        match format {
            Format::Json => format!("{}\n", json!(change)),
            Format::Yaml => format!("---\n{}", yaml(&json!(change))),
            Format::Name => format!("{}\n", slug(change.kind, &change.name)),
            Format::Table | Format::Wide => format!("{}\n{difference}", sentence(change)),
        }
    }
}

/// Returns a change in one line.
fn sentence(change: &Change) -> String {
    let (word, tone) = word(change.operation);
    let place = change.workspace.as_ref().map(|workspace| format!(" in {workspace}")).unwrap_or_default();
    let reason = change.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let what = match change.operation {
        Operation::ClockMoved => "the fleet's clock".to_owned(),
        _ => slug(change.kind, &change.name),
    };
    let text = format!("{} {} {what}{place} by {}{reason}", change.revision, tone.paint(word), change.actor);
    text.replace(['\n', '\r'], " ")
}

const fn word(operation: Operation) -> (&'static str, Tone) {
    match operation {
        Operation::Create => ("created", Tone::Good),
        Operation::Update => ("updated", Tone::Care),
        Operation::Delete => ("deleted", Tone::Bad),
        Operation::ClockMoved => ("moved", Tone::Care),
    }
}

fn difference(change: &Change) -> String {
    let text =
        |document: &Option<Document>| document.as_ref().map(|document| yaml(&declared(document))).unwrap_or_default();
    diffs::unified(&text(&change.before), &text(&change.after), "before", "after")
        .map_or_else(|| "  nothing that is declared\n".to_owned(), |diff| diffs::paint(&diff, "  ", None))
}

/// Returns a table of the changes of one document.
pub(crate) fn table(changes: &[Change], now: Revision) -> Table {
    let mut table = Table::new(&["REVISION", "AGE", "OPERATION", "GENERATION", "ACTOR", "+REQUEST", "REASON"]);
    for change in changes {
        let (word, tone) = word(change.operation);
        let document = change.after.as_ref().or(change.before.as_ref());
        let generation = document.and_then(|document| document.metadata.generation).map(|number| number.to_string());
        table.row([
            change.revision.to_string().into(),
            ages::age(change.revision, now).into(),
            Cell::toned(word, tone),
            Cell::maybe(generation),
            change.actor.as_str().into(),
            change.request_id.as_str().into(),
            Cell::maybe(change.reason.as_deref()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn example(operation: &str, before: &Value, after: &Value) -> Change {
        serde_json::from_value(json!({
            "revision": "2026-11-20T15:04:05.123457Z", "ordinal": 0, "operation": operation, "kind": "Host",
            "name": "tim-pi", "uid": "00000000-0000-0000-0000-000000000001", "actor": "admin", "requestId": "r1",
            "reason": "moved\nhouse", "before": before, "after": after,
        }))
        .expect("change")
    }

    fn host(label: &str) -> Value {
        json!({"apiVersion": "titan/v1", "kind": "Host", "metadata": {"name": "tim-pi", "labels": {"room": label},
            "generation": 2}, "spec": {}})
    }

    #[test]
    fn a_change_is_one_line() {
        let line = sentence(&example("update", &host("a"), &host("b")));
        let line = anstream::adapter::strip_str(&line).to_string();
        assert_eq!(line, "2026-11-20T15:04:05.123457Z updated host/tim-pi by admin: moved house");
    }

    #[test]
    fn a_change_shows_what_it_changed() {
        let text = difference(&example("update", &host("a"), &host("b")));
        let text = anstream::adapter::strip_str(&text).to_string();
        assert!(text.contains("-    room: a\n") && text.contains("+    room: b\n"), "{text}");
    }
}
