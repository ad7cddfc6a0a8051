//! Documents: what people declare. `apiVersion`, `kind`, `metadata`, `spec`, `status`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Name, Revision,
    deployments::DeploymentSpec,
    hosts::HostSpec,
    labels::{Annotations, Labels},
    limits,
    parse::{self, nearest},
    problems::{Code, Fault, Problem},
    targets::{self, TargetSpec},
    templates::TemplateSpec,
    values::Values,
    workloads::WorkloadSpec,
    workplans::{self, WorkPlanSpec},
    workspaces::{self, WorkspaceSpec},
};

/// The version of every document.
pub const API_VERSION: &str = "titan/v1";

/// What kind of thing a document declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Kind {
    /// A scope of work.
    Workspace,
    /// Something that accepts workloads.
    Host,
    /// A directory of files to render.
    Template,
    /// A unit to deploy.
    Workload,
    /// Rules that match hosts.
    Target,
    /// A workload on hosts.
    Deployment,
    /// A graph of stages and checks.
    WorkPlan,
}

impl Kind {
    /// Every kind, in the order in which they are written: what is referred to comes first.
    pub const ALL: [Self; 7] =
        [Self::Workspace, Self::Host, Self::Template, Self::Workload, Self::Target, Self::Deployment, Self::WorkPlan];

    /// Returns the kind as it stands in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Workspace => "Workspace",
            Self::Host => "Host",
            Self::Template => "Template",
            Self::Workload => "Workload",
            Self::Target => "Target",
            Self::Deployment => "Deployment",
            Self::WorkPlan => "WorkPlan",
        }
    }

    /// Returns the kind's part of a URL.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Workspace => "workspaces",
            Self::Host => "hosts",
            Self::Template => "templates",
            Self::Workload => "workloads",
            Self::Target => "targets",
            Self::Deployment => "deployments",
            Self::WorkPlan => "workplans",
        }
    }

    /// Whether documents of the kind live in a workspace.
    #[must_use]
    pub const fn in_workspace(self) -> bool {
        !matches!(self, Self::Workspace | Self::Host)
    }

    /// Returns the URL path of all documents of the kind, or of `name`.
    #[must_use]
    pub fn path(self, workspace: Option<&str>, name: Option<&str>) -> String {
        let plural = self.plural();
        let mut path = match workspace {
            // The plans themselves are at `/v1/workplans`; these are their documents.
            None if self == Self::WorkPlan => format!("/v1/workspaces/-/{plural}"),
            Some(workspace) if self.in_workspace() => {
                format!("/v1/workspaces/{workspace}/{plural}")
            }
            _ => format!("/v1/{plural}"),
        };
        if let Some(name) = name {
            path.push('/');
            path.push_str(name);
        }
        path
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a text is not a [`Kind`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a kind; kinds are workspace, host, template, workload, target, deployment and workplan")]
pub struct KindError(String);

impl FromStr for Kind {
    type Err = KindError;

    /// Reads `Host`, `host` or `hosts`.
    fn from_str(text: &str) -> Result<Self, KindError> {
        let lower = text.to_lowercase();
        Self::ALL
            .into_iter()
            .find(|kind| kind.plural() == lower || kind.as_str().to_lowercase() == lower)
            .ok_or_else(|| KindError(text.to_owned()))
    }
}

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

/// What is declared, by kind.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each is the spec of the kind of its name")]
pub enum Spec {
    Workspace(WorkspaceSpec),
    Host(HostSpec),
    Template(TemplateSpec),
    Workload(WorkloadSpec),
    Target(TargetSpec),
    Deployment(DeploymentSpec),
    WorkPlan(WorkPlanSpec),
}

impl Spec {
    /// Returns `value` as the spec of a `kind`, or everything that is wrong, with pointers from `/spec`.
    pub fn parse(kind: Kind, value: Value) -> Result<Self, Vec<Fault>> {
        fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Vec<Fault>> {
            // A list would be read as the fields in their order.
            if !value.is_object() {
                return Err(vec![Fault::new("/spec", "a spec is a map")]);
            }
            parse::from_value(value).map_err(|fault| vec![fault.under("/spec")])
        }
        let spec = match kind {
            Kind::Workspace => Self::Workspace(read(value)?),
            Kind::Host => Self::Host(read(value)?),
            Kind::Template => Self::Template(read(value)?),
            Kind::Workload => Self::Workload(read(value)?),
            Kind::Target => Self::Target(read(value)?),
            Kind::Deployment => Self::Deployment(read(value)?),
            Kind::WorkPlan => Self::WorkPlan(read(value)?),
        };
        let faults = spec.faults();
        if faults.is_empty() { Ok(spec) } else { Err(faults) }
    }

    fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Workspace(spec) => values_faults(&spec.config, "/spec/config"),
            Self::Host(spec) => {
                let mut faults = values_faults(&spec.values, "/spec/values");
                faults.extend(spec.files_faults("/spec/files"));
                faults.extend(spec.taints_faults("/spec/taints"));
                for (index, workspace) in spec.workspaces.iter().enumerate() {
                    if workspace != "*"
                        && let Err(error) = Name::new(workspace.as_str())
                    {
                        faults.push(Fault::new(format!("/spec/workspaces/{index}"), error.to_string()));
                    }
                }
                faults
            }
            Self::Template(spec) => spec.faults("/spec"),
            Self::Workload(spec) => values_faults(&spec.values, "/spec/values"),
            Self::Target(spec) => targets::faults(spec, "/spec"),
            Self::Deployment(spec) => {
                let mut faults = values_faults(&spec.values, "/spec/values");
                faults.extend(spec.placement_faults("/spec"));
                if spec.overrides.len() > limits::OVERRIDES {
                    let detail = format!("{} entries, the limit is {}", spec.overrides.len(), limits::OVERRIDES);
                    faults.push(Fault::new("/spec/overrides", detail));
                }
                for (index, entry) in spec.overrides.iter().enumerate() {
                    faults.extend(targets::faults(&entry.selector, &format!("/spec/overrides/{index}/match")));
                    faults.extend(values_faults(&entry.values, &format!("/spec/overrides/{index}/values")));
                }
                faults.extend(spec.strategy.iter().flat_map(|strategy| strategy.faults("/spec/strategy")));
                faults
            }
            Self::WorkPlan(spec) => {
                let mut faults = values_faults(&spec.values, "/spec/values");
                faults.extend(spec.faults("/spec"));
                faults
            }
        }
    }

    /// Returns the spec in its canonical form: defaults filled in, keys in order.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let value = match self {
            Self::Workspace(spec) => serde_json::to_value(spec),
            Self::Host(spec) => serde_json::to_value(spec),
            Self::Template(spec) => serde_json::to_value(spec),
            Self::Workload(spec) => serde_json::to_value(spec),
            Self::Target(spec) => serde_json::to_value(spec),
            Self::Deployment(spec) => serde_json::to_value(spec),
            Self::WorkPlan(spec) => serde_json::to_value(spec),
        };
        // Specs are maps with text keys; writing them cannot fail.
        value.unwrap_or_default()
    }
}

fn values_faults(values: &Values, pointer: &str) -> Vec<Fault> {
    let size = serde_json::to_string(values).map_or(0, |text| text.len());
    let depth = values.values().map(depth).max().unwrap_or_default() + 1;
    if size > limits::VALUES_BYTES {
        vec![Fault::new(pointer, format!("{size} bytes as JSON, the limit is {}", limits::VALUES_BYTES))]
    } else if depth > limits::VALUES_DEPTH {
        vec![Fault::new(
            pointer,
            format!("{depth} maps and lists inside each other, the limit is {}", limits::VALUES_DEPTH),
        )]
    } else {
        Vec::new()
    }
}

/// Returns how many maps and lists are inside each other. Whatever was parsed is not deeper than the parser allows.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
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
            let near = nearest(kind, Kind::ALL.iter().map(|kind| kind.as_str()));
            let known = Kind::ALL.map(Kind::as_str).join(", ");
            let detail = match near {
                Some(near) => format!("unknown kind {kind:?}, did you mean {near:?}?"),
                None => format!("unknown kind {kind:?}, known are {known}"),
            };
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
        assert_eq!(detail, "unknown kind \"Hots\", did you mean \"Host\"?");
    }
}
