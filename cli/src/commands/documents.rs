//! What is the same for documents of every kind.

use serde_json::Value;
use titan_api::{
    Document, Kind, Name, Spec,
    changes::{Action, ApplyAnswer},
    client::{Client, WriteOptions},
    documents::{API_VERSION, Metadata},
    labels::Labels,
};

use crate::{
    errors::CliError,
    output::{
        Exit, Output, Tone, View,
        tables::{Cell, Table},
    },
};

pub(crate) mod apply;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod diff;
pub(crate) mod edit;
pub(crate) mod get;
mod rows;

/// Returns how a document is named in output: `host/tim-pi`.
pub(crate) fn slug(kind: Kind, name: &str) -> String {
    format!("{}/{name}", kind.as_str().to_lowercase())
}

/// Makes a document and says so.
pub(crate) async fn create(
    client: &Client,
    output: Output,
    (name, workspace): (Name, Option<Name>),
    labels: Labels,
    spec: &Spec,
) -> Result<Exit, CliError> {
    let kind = kind_of(spec);
    let metadata = Metadata { labels, ..Metadata::new(name, workspace) };
    let document =
        Document { api_version: API_VERSION.to_owned(), kind, metadata, spec: spec.to_value(), status: None };
    let made = client.create(&document, &WriteOptions::default()).await?;
    let slug = slug(kind, &made.metadata.name);
    let place = made.metadata.workspace.as_ref().map(|place| format!(" in {place}")).unwrap_or_default();
    let line = format!("{slug} {}{place}", Tone::Good.paint("created"));
    output.show(&View::new(&made).name(slug).text(line))?;
    Ok(Exit::Done)
}

const fn kind_of(spec: &Spec) -> Kind {
    match spec {
        Spec::Workspace(_) => Kind::Workspace,
        Spec::Host(_) => Kind::Host,
        Spec::Template(_) => Kind::Template,
        Spec::Workload(_) => Kind::Workload,
        Spec::Target(_) => Kind::Target,
        Spec::Deployment(_) => Kind::Deployment,
        Spec::WorkPlan(_) => Kind::WorkPlan,
    }
}

/// Returns what a write answered, for people one line a document.
pub(crate) fn answer_view(answer: &ApplyAnswer, dry_run: bool) -> View {
    let mut view = View::new(answer);
    let mut table = Table::new(&["DOCUMENT", "WORKSPACE", "ACTION"]);
    for result in &answer.results {
        let slug = slug(result.kind, &result.name);
        view = view.name(slug.clone());
        let tone = match result.action {
            Action::Created | Action::Updated => Tone::Good,
            Action::Deleted => Tone::Care,
            Action::Unchanged => Tone::Faint,
        };
        table.row([
            slug.into(),
            Cell::maybe(result.workspace.as_ref().map(ToString::to_string)),
            Cell::toned(result.action.as_str(), tone),
        ]);
    }
    let end = match (dry_run, answer.revision) {
        (true, _) => "nothing was written (--dry-run)".to_owned(),
        (false, Some(revision)) => format!("revision {revision}"),
        (false, None) => "nothing changed".to_owned(),
    };
    view.table(table).text(Tone::Faint.paint(&end))
}

/// Returns what people declare of a document: without what the control plane adds.
pub(crate) fn declared(document: &Document) -> Value {
    let mut metadata = Metadata::new(document.metadata.name.clone(), document.metadata.workspace.clone());
    metadata.labels = document.metadata.labels.clone();
    metadata.annotations = document.metadata.annotations.clone();
    serde_json::json!({
        "apiVersion": document.api_version,
        "kind": document.kind,
        "metadata": metadata,
        "spec": document.spec,
    })
}

#[cfg(test)]
mod tests {
    use titan_api::hosts::HostSpec;

    use super::*;

    #[test]
    fn what_the_server_adds_is_not_declared() {
        let mut metadata = Metadata::new(Name::new("a").expect("name"), None);
        metadata.generation = Some(3);
        let spec = Spec::Host(HostSpec::default()).to_value();
        let status = Some(serde_json::json!({"online": true}));
        let document = Document { api_version: API_VERSION.into(), kind: Kind::Host, metadata, spec, status };
        let value = declared(&document);
        assert_eq!(value["metadata"], serde_json::json!({"name": "a"}));
        assert!(value.get("status").is_none());
    }

    #[test]
    fn an_answer_names_each_document() {
        let answer: ApplyAnswer = serde_json::from_value(serde_json::json!({
            "revision": "2026-11-20T15:04:05.123457Z",
            "results": [{"kind": "Host", "name": "a", "action": "created"},
                        {"kind": "Target", "name": "t", "workspace": "iot", "action": "unchanged"}],
        }))
        .expect("answer");
        let text = answer_view(&answer, false).render(crate::output::Format::Table, None);
        let text = anstream::adapter::strip_str(&text).to_string();
        assert!(text.contains("host/a    -          created\ntarget/t  iot        unchanged\n"), "{text}");
        assert!(text.ends_with("revision 2026-11-20T15:04:05.123457Z\n"), "{text}");
    }
}
