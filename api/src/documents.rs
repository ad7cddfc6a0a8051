//! Documents: what people declare. `apiVersion`, `kind`, `metadata`, `spec`, `status`.

mod kinds;
mod specs;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

pub use self::{
    kinds::{Kind, KindError},
    specs::Spec,
};
use crate::{
    Name, Revision,
    labels::{Annotations, Labels},
    parse,
    problems::{Code, Fault, Problem},
    values::Values,
    workplans, workspaces,
};

/// The version of every document.
pub const API_VERSION: &str = "titan/v1";

/// Who and what a document is. People set name, workspace, labels and annotations; the rest is the control plane's and
/// is ignored in what people send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Metadata {
    /// The name, unique in its workspace and kind.
    pub name: Name,
    /// The workspace; absent for hosts and workspaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Name>,
    /// What selectors look at.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Notes for people and tools.
    #[serde(default, skip_serializing_if = "Annotations::is_empty")]
    pub annotations: Annotations,
    /// The id; another one after the document was deleted and made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Uuid>,
    /// Counts the changes of labels, annotations and spec, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// When it last changed; also its `ETag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Revision>,
}

impl Metadata {
    /// Returns the metadata of a new document.
    #[must_use]
    pub fn new(name: Name, workspace: Option<Name>) -> Self {
        Self {
            name,
            workspace,
            labels: Labels::default(),
            annotations: Annotations::default(),
            uid: None,
            generation: None,
            revision: None,
            created_at: None,
        }
    }
}

/// A document as it travels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Document {
    /// Always `titan/v1`.
    pub api_version: String,
    /// What it declares.
    pub kind: Kind,
    /// Who and what it is.
    pub metadata: Metadata,
    /// What is declared; its shape depends on the kind.
    #[serde(default = "empty")]
    pub spec: Value,
    /// What was observed; ignored in what people send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

fn empty() -> Value {
    Value::Object(Values::new())
}

/// Everything about a document that can be known without a database.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// The kind.
    pub kind: Kind,
    /// The metadata; `workspace` is set if and only if the kind lives in one.
    pub metadata: Metadata,
    /// The spec.
    pub spec: Spec,
}

impl Declared {
    /// Returns `value` as a checked document. `workspace` is used when the document names none.
    pub fn parse(value: Value, workspace: Option<&Name>) -> Result<Self, Problem> {
        let described = describe(&value);
        let invalid =
            move |faults: Vec<Fault>| Problem::new(Code::Invalid, format!("{described} is not valid")).with(faults);
        if let Some(kind) = value.get("kind").and_then(Value::as_str)
            && !Kind::ALL.iter().any(|known| known.as_str() == kind)
        {
            let detail = parse::unknown("kind", kind, &Kind::ALL.map(Kind::as_str));
            return Err(invalid(vec![Fault::new("/kind", detail)]));
        }
        let document: Document = parse::from_value(value).map_err(|fault| invalid(vec![fault]))?;
        let mut faults = Vec::new();
        if document.api_version != API_VERSION {
            let detail = format!("{:?} is not known, write {API_VERSION:?}", document.api_version);
            faults.push(Fault::new("/apiVersion", detail));
        }
        let mut metadata = document.metadata;
        if document.kind.in_workspace() {
            if metadata.workspace.is_none() {
                metadata.workspace = Some(
                    workspace
                        .cloned()
                        .map_or_else(|| Name::new(workspaces::DEFAULT), Ok)
                        .map_err(|error| Problem::new(Code::Internal, error.to_string()))?,
                );
            }
        } else if metadata.workspace.take().is_some() {
            let detail = format!("a {} does not live in a workspace", document.kind);
            faults.push(Fault::new("/metadata/workspace", detail));
        }
        match Spec::parse(document.kind, document.spec) {
            Ok(Spec::WorkPlan(spec)) if faults.is_empty() => {
                workplans::check_groups(&spec.nodes, "/spec/nodes")?;
                Ok(Self { kind: document.kind, metadata, spec: Spec::WorkPlan(spec) })
            }
            Ok(spec) if faults.is_empty() => Ok(Self { kind: document.kind, metadata, spec }),
            Ok(_) => Err(invalid(faults)),
            Err(more) => {
                faults.extend(more);
                Err(invalid(faults))
            }
        }
    }
}

/// Returns how to speak of a document that may be anything: `Host tim-pi`.
fn describe(value: &Value) -> String {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    match (text("/kind"), text("/metadata/name")) {
        (Some(kind), Some(name)) => format!("{kind} {name}"),
        (Some(kind), None) => format!("{kind} without a name"),
        _ => "the document".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{hosts::HostSpec, limits};

    fn faults(value: Value) -> Vec<(String, String)> {
        let problem = Declared::parse(value, None).expect_err("invalid");
        assert_eq!(problem.code, Code::Invalid);
        problem.errors.into_iter().map(|fault| (fault.pointer, fault.detail)).collect()
    }

    fn host(metadata: &Value, spec: &Value) -> Value {
        json!({"apiVersion": "titan/v1", "kind": "Host", "metadata": metadata, "spec": spec})
    }

    #[test]
    fn documents_are_read_with_their_defaults() {
        let declared = Declared::parse(host(&json!({"name": "tim-pi"}), &json!({})), None).expect("host");
        assert_eq!(declared.spec, Spec::Host(HostSpec::default()));
        let target = json!({"apiVersion": "titan/v1", "kind": "Target", "metadata": {"name": "t"},
            "spec": {"matchLabels": {"a": "b"}}});
        let declared = Declared::parse(target, None).expect("target");
        assert_eq!(declared.metadata.workspace.as_deref(), Some("default"));
    }

    #[test]
    fn whatever_does_not_fit_is_refused_with_its_pointer() {
        let pointer = |value: Value| faults(value).remove(0).0;
        assert_eq!(pointer(host(&json!({"name": "a"}), &json!({"cordonned": true}))), "/spec/cordonned");
        assert_eq!(pointer(host(&json!({"name": "a"}), &json!({"cordoned": "yes"}))), "/spec/cordoned");
        assert_eq!(pointer(host(&json!({"name": "A"}), &json!({}))), "/metadata/name");
        assert_eq!(pointer(host(&json!({"name": "a", "labels": {"x y": "z"}}), &json!({}))), "/metadata/labels");
        assert_eq!(pointer(host(&json!({"name": "a", "workspace": "w"}), &json!({}))), "/metadata/workspace");
        assert_eq!(pointer(json!({"apiVersion": "v2", "kind": "Host", "metadata": {"name": "a"}})), "/apiVersion");
        assert_eq!(pointer(json!({"apiVersion": "titan/v1", "kind": "Hots", "metadata": {"name": "a"}})), "/kind");
        let target = json!({"apiVersion": "titan/v1", "kind": "Target", "metadata": {"name": "t"}});
        assert_eq!(pointer(target), "/spec");
        assert_eq!(pointer(json!([])), "");
        assert_eq!(
            pointer(json!({"apiVersion": "titan/v1", "kind": "Host", "metadata": {"name": "a"}, "spec": []})),
            "/spec"
        );
    }

    #[test]
    fn values_are_neither_too_deep_nor_too_large() {
        let nested = |depth| (1..depth).fold(json!({}), |inner, _| json!({ "a": inner }));
        let with = |values: Value| Declared::parse(host(&json!({"name": "a"}), &json!({ "values": values })), None);
        assert!(with(nested(limits::VALUES_DEPTH)).is_ok());
        let problem = with(nested(limits::VALUES_DEPTH + 1)).expect_err("too deep");
        assert_eq!(problem.errors[0].pointer, "/spec/values");
        assert!(with(json!({ "a": "x".repeat(limits::VALUES_BYTES) })).is_err());
    }

    #[test]
    fn near_misses_are_named() {
        let (_, detail) = faults(json!({"apiVersion": "titan/v1", "kind": "Hots", "metadata": {}})).remove(0);
        let known = "known are Workspace, Host, Template, Workload, Target, Deployment, WorkPlan";
        assert_eq!(detail, format!("unknown kind \"Hots\", did you mean \"Host\"? {known}"));
        let strategy = json!({"stages": [{"name": "all", "hosts": "100%"}], "onFailure": "rolback"});
        let deployment = json!({"apiVersion": "titan/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"workload": "web", "target": "all", "strategy": strategy}});
        let (pointer, detail) = faults(deployment).remove(0);
        assert_eq!(pointer, "/spec/strategy/onFailure");
        let expected = "unknown value \"rolback\", did you mean \"rollback\"? known are rollback, pause, continue";
        assert_eq!(detail, expected);
    }
}
