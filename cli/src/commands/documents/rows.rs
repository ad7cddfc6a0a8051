//! The columns of each kind.

use serde_json::Value;
use titan_api::{
    Document, Kind, Revision,
    deployments::DeploymentSpec,
    hosts::{HostSpec, HostStatus},
    labels::Labels,
    selectors::{Operator, Selector},
    targets::TargetSpec,
    templates::TemplateSpec,
    workloads::WorkloadSpec,
    workplans::WorkPlanSpec,
    workspaces::WorkspaceSpec,
};

use crate::output::{
    Tone,
    ages::{length, maybe_age},
    tables::{Cell, Table},
};

/// Returns a table of documents of one kind; with `everywhere` the workspace comes first.
pub(super) fn table(kind: Kind, documents: &[Document], now: Revision, everywhere: bool) -> Table {
    let headings: &[&'static str] = match kind {
        Kind::Workspace => &["NAME", "OWNER", "MEMBERS", "DESCRIPTION", "AGE"],
        Kind::Host => &["NAME", "KIND", "STATE", "LABELS", "+WORKSPACES", "+OS", "+ARCH", "+AGENT", "SEEN", "AGE"],
        Kind::Template => &["NAME", "FILES", "SIZE", "VERSION", "+REVISION", "AGE"],
        Kind::Workload => &["NAME", "VERSION", "REPOSITORY", "TEMPLATE", "AGE"],
        Kind::Target => &["NAME", "RULES", "AGE"],
        Kind::Deployment => &["NAME", "WORKLOAD", "TEMPLATE", "TARGET", "REPLICAS", "+DEPENDS-ON", "+REVISION", "AGE"],
        Kind::WorkPlan => &["NAME", "NODES", "DEADLINE", "DESCRIPTION", "AGE"],
    };
    let mut table = Table::new(headings);
    for document in documents {
        table.row(cells(document, now));
    }
    if everywhere && kind.in_workspace() {
        let places: Vec<_> = documents
            .iter()
            .map(|document| Cell::maybe(document.metadata.workspace.as_ref().map(ToString::to_string)))
            .collect();
        table = table.led_by("WORKSPACE", places);
    }
    table
}

fn cells(document: &Document, now: Revision) -> Vec<Cell> {
    let metadata = &document.metadata;
    let name: Cell = metadata.name.as_str().into();
    let age: Cell = maybe_age(metadata.created_at, now).into();
    let revision = Cell::maybe(metadata.revision.map(|revision| revision.to_string()));
    // A spec of a later version than this one shows what is known of it.
    match document.kind {
        Kind::Workspace => {
            let spec: WorkspaceSpec = spec(&document.spec);
            let members = Cell::maybe(Some(spec.members.join(",")));
            vec![name, Cell::maybe(spec.owner), members, Cell::maybe(spec.description), age]
        }
        Kind::Host => {
            let spec: HostSpec = spec(&document.spec);
            let status: HostStatus = document.status.as_ref().map(self::spec).unwrap_or_default();
            let fact = |name: &str| Cell::maybe(status.facts.get(name).map(text));
            vec![
                name,
                text(&serde_json::to_value(spec.kind).unwrap_or_default()).into(),
                host_state(&spec, &status),
                labels(&metadata.labels).into(),
                spec.workspaces.join(",").into(),
                fact("os"),
                fact("arch"),
                fact("agentVersion"),
                maybe_age(status.last_seen, now).into(),
                age,
            ]
        }
        Kind::Template => {
            let spec: TemplateSpec = spec(&document.spec);
            let bytes: usize = spec.files.values().filter_map(|file| file.bytes().ok()).map(|bytes| bytes.len()).sum();
            let version = Cell::maybe(metadata.generation.map(|generation| generation.to_string()));
            vec![name, spec.files.len().to_string().into(), size(bytes).into(), version, revision, age]
        }
        Kind::Workload => {
            let spec: WorkloadSpec = spec(&document.spec);
            let template = Cell::maybe(spec.template.map(String::from));
            vec![name, Cell::maybe(spec.version), Cell::maybe(spec.repository), template, age]
        }
        Kind::Target => vec![name, rules(&spec::<TargetSpec>(&document.spec)).into(), age],
        Kind::WorkPlan => {
            let spec: WorkPlanSpec = spec(&document.spec);
            let deadline = Cell::maybe(spec.deadline.map(|span| length(span.0)));
            vec![name, spec.nodes.len().to_string().into(), deadline, Cell::maybe(spec.description), age]
        }
        Kind::Deployment => match serde_json::from_value::<DeploymentSpec>(document.spec.clone()) {
            Ok(spec) => {
                let depends_on: Vec<_> = spec.depends_on.iter().map(ToString::to_string).collect();
                vec![
                    name,
                    spec.workload.as_str().into(),
                    Cell::maybe(spec.template.map(String::from)),
                    spec.target.as_str().into(),
                    spec.replicas.map_or_else(|| "all".to_owned(), |replicas| replicas.to_string()).into(),
                    Cell::maybe(Some(depends_on.join(","))),
                    revision,
                    age,
                ]
            }
            Err(_) => vec![name, "?".into(), "?".into(), "?".into(), "?".into(), "?".into(), revision, age],
        },
    }
}

fn spec<T: serde::de::DeserializeOwned + Default>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_default()
}

/// Returns a scalar as people write it.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn host_state(spec: &HostSpec, status: &HostStatus) -> Cell {
    if status.enrolled_at.is_none() {
        Cell::toned("new", Tone::Faint)
    } else {
        match (status.online, spec.cordoned) {
            (true, false) => Cell::toned("online", Tone::Good),
            (true, true) => Cell::toned("cordoned", Tone::Care),
            (false, _) => Cell::toned("offline", Tone::Bad),
        }
    }
}

/// Returns labels as they are typed: `a=b,c=d`.
pub(super) fn labels(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Returns a selector's rules on one line.
fn rules(selector: &Selector) -> String {
    let mut rules: Vec<String> = selector.match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    rules.extend(selector.match_expressions.iter().map(|requirement| {
        let values = requirement.values.join(",");
        let key = &requirement.key;
        match requirement.operator {
            Operator::In => format!("{key} in ({values})"),
            Operator::NotIn => format!("{key} not in ({values})"),
            Operator::Exists => key.clone(),
            Operator::DoesNotExist => format!("!{key}"),
        }
    }));
    rules.extend(selector.expression.clone());
    rules.join(", ")
}

/// Returns a number of bytes in its largest whole unit.
pub(super) fn size(bytes: usize) -> String {
    match bytes {
        ..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use titan_api::{
        Name, Spec,
        documents::{API_VERSION, Metadata},
    };

    use super::*;
    use crate::output::{Format, View};

    fn document(kind: Kind, name: &str, spec: Value, status: Option<Value>) -> Document {
        let mut metadata = Metadata::new(Name::new(name).expect("name"), None);
        metadata.created_at = Some(Revision::from_micros(0));
        Document { api_version: API_VERSION.into(), kind, metadata, spec, status }
    }

    fn shown(kind: Kind, document: Document) -> String {
        let table = table(kind, &[document], Revision::from_micros(300_000_000), false);
        let text = View::new(&json!({})).table(table).render(Format::Table, None);
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn every_kind_has_a_cell_for_each_column() {
        for kind in Kind::ALL {
            let rows = cells(&document(kind, "a", json!({}), None), Revision::ZERO).len();
            let whole = table(kind, &[], Revision::ZERO, false).render(true, None);
            assert_eq!(whole.split_whitespace().count(), rows, "{kind}");
        }
    }

    #[test]
    fn hosts_show_their_state() {
        let status = json!({"enrolledAt": "1970-01-01T00:00:01Z", "online": true});
        let text = shown(Kind::Host, document(Kind::Host, "tim-pi", json!({}), Some(status)));
        assert!(text.contains("tim-pi  device  online"), "{text}");
        let text = shown(Kind::Host, document(Kind::Host, "tim-pi", json!({}), None));
        assert!(text.contains("device  new"), "{text}");
    }

    #[test]
    fn targets_show_their_rules() {
        let spec = json!({"matchLabels": {"a": "b"}, "matchExpressions": [
            {"key": "zone", "operator": "In", "values": ["x", "y"]}, {"key": "old", "operator": "DoesNotExist"}],
            "expression": "facts.cpus > 2"});
        assert!(Spec::parse(Kind::Target, spec.clone()).is_ok());
        let text = shown(Kind::Target, document(Kind::Target, "t", spec, None));
        assert!(text.contains("a=b, zone in (x,y), !old, facts.cpus > 2"), "{text}");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([10, 2048, 3 * 1_048_576].map(size), ["10 B", "2.0 KiB", "3.0 MiB"]);
    }
}
