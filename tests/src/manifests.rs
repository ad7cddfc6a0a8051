//! Documents for tests, each in a line.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use titan_api::{Document, documents::API_VERSION};

/// Returns a document of any kind.
#[must_use]
pub fn document(kind: &str, workspace: Option<&str>, name: &str, spec: &Value) -> Value {
    let mut metadata = json!({ "name": name });
    if let Some(workspace) = workspace {
        metadata["workspace"] = workspace.into();
    }
    json!({ "apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec })
}

/// Returns a document with these labels, written `key=value,key=value`.
///
/// # Panics
///
/// If a label has no `=`.
#[must_use]
pub fn labelled(mut document: Value, labels: &str) -> Value {
    let pairs = labels.split(',').filter(|pair| !pair.is_empty());
    let labels: BTreeMap<_, _> = pairs.map(|pair| pair.split_once('=').expect("key=value")).collect();
    document["metadata"]["labels"] = json!(labels);
    document
}

/// Returns a host with these labels.
#[must_use]
pub fn host(name: &str, labels: &str) -> Value {
    labelled(document("Host", None, name, &json!({})), labels)
}

/// Returns a workspace.
#[must_use]
pub fn workspace(name: &str) -> Value {
    document("Workspace", None, name, &json!({}))
}

/// Returns a template of text files.
#[must_use]
pub fn template(name: &str, files: &[(&str, &str)]) -> Value {
    let files: BTreeMap<_, _> = files.iter().map(|(path, content)| (*path, json!({ "content": content }))).collect();
    document("Template", None, name, &json!({ "files": files }))
}

/// Returns a workload with a version.
#[must_use]
pub fn workload(name: &str, version: &str) -> Value {
    document("Workload", None, name, &json!({ "version": version }))
}

/// Returns a target that matches labels, written `key=value,key=value`; without any it matches every host.
///
/// # Panics
///
/// If a label has no `=`.
#[must_use]
pub fn target(name: &str, labels: &str) -> Value {
    let pairs = labels.split(',').filter(|pair| !pair.is_empty());
    let labels: BTreeMap<_, _> = pairs.map(|pair| pair.split_once('=').expect("key=value")).collect();
    let spec = if labels.is_empty() { json!({ "expression": "true" }) } else { json!({ "matchLabels": labels }) };
    document("Target", None, name, &spec)
}

/// Returns a deployment with `more` merged into its spec.
#[must_use]
pub fn deployment(name: &str, workload: &str, template: &str, target: &str, more: &Value) -> Value {
    let mut spec = json!({ "workload": workload, "template": template, "target": target });
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    document("Deployment", None, name, &spec)
}

/// Returns a strategy that holds nothing up: every host has a release at once, and failures change nothing.
#[must_use]
pub fn free() -> Value {
    json!({
        "stages": [{ "name": "all", "hosts": "100%" }],
        "maxFailures": "100%",
        "onFailure": "continue",
    })
}

/// Returns a document in a workspace of its own.
#[must_use]
pub fn within(workspace: &str, mut document: Value) -> Value {
    document["metadata"]["workspace"] = workspace.into();
    document
}

/// Returns the typed form of a document.
///
/// # Panics
///
/// If it is none.
#[must_use]
pub fn typed(document: Value) -> Document {
    serde_json::from_value(document).expect("a document")
}
