//! Hosts: what accepts workloads as a unit, a device or a whole cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Name, Revision,
    drift::Drift,
    limits::{HOST_FILES, HOST_FILES_BYTES, TAINTS},
    parse::escape,
    problems::Fault,
    resources::Resources,
    taints::{self, Taint},
    templates::check_path,
    values::Values,
};

/// What people say of a host. Its labels are the document's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostSpec {
    /// A device or a cluster.
    #[serde(default)]
    pub kind: HostKind,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The workspaces that may deploy onto it; `*` stands for all.
    #[serde(default = "everyone")]
    pub workspaces: Vec<String>,
    /// Whether it takes no new deployments; it keeps those it has, but gives up replicas.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cordoned: bool,
    /// What it has room for: `cpu`, `memory`, and whatever else is counted. Of cores and memory that are not named it has
    /// what its agent reports, or any amount if none has reported; of anything else that is not named it has none.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub capacity: Resources,
    /// Marks that keep deployments away which do not tolerate them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// The strongest layer of values for whatever is deployed here.
    #[serde(default, skip_serializing_if = "Values::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub values: Values,
    /// Files that are here as a person left them rather than as the template has them: by `workspace/deployment`, then by
    /// path, which begins with `/` if it is below the agent's root rather than in the deployment's directory.
    #[serde(default, skip_serializing_if = "HostFiles::is_empty")]
    pub files: HostFiles,
}

/// Files of a host that are as a person left them, by `workspace/deployment` and path.
pub type HostFiles = BTreeMap<String, BTreeMap<String, HostFile>>;

/// A file that is as a person left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostFile {
    /// The content, as text.
    pub content: String,
}

/// What sort of host it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum HostKind {
    /// One machine.
    #[default]
    Device,
    /// A cluster that accepts workloads as a unit.
    Cluster,
}

fn everyone() -> Vec<String> {
    vec!["*".to_owned()]
}

impl Default for HostSpec {
    fn default() -> Self {
        Self {
            kind: HostKind::default(),
            description: None,
            workspaces: everyone(),
            cordoned: false,
            capacity: Resources::default(),
            taints: Vec::new(),
            values: Values::new(),
            files: HostFiles::new(),
        }
    }
}

impl HostSpec {
    /// Whether `workspace` may deploy onto the host.
    #[must_use]
    pub fn admits(&self, workspace: &str) -> bool {
        self.workspaces.iter().any(|admitted| admitted == "*" || admitted == workspace)
    }

    /// Returns what is wrong with the taints, at `pointer`.
    #[must_use]
    pub fn taints_faults(&self, pointer: &str) -> Vec<Fault> {
        let each = self.taints.iter().enumerate();
        let mut faults: Vec<_> = each
            .filter_map(|(index, taint)| {
                taints::fault(Some(&taint.key), taint.value.as_ref(), &format!("{pointer}/{index}"))
            })
            .collect();
        if self.taints.len() > TAINTS {
            faults.push(Fault::new(pointer, format!("{} taints, the limit is {TAINTS}", self.taints.len())));
        }
        faults
    }

    /// Returns the files of a deployment that are as a person left them, if there are any.
    #[must_use]
    pub fn files_of(&self, workspace: &str, deployment: &str) -> Option<&BTreeMap<String, HostFile>> {
        // Almost no host has any.
        if self.files.is_empty() { None } else { self.files.get(&format!("{workspace}/{deployment}")) }
    }

    /// Returns what is wrong with the files, at `pointer`.
    #[must_use]
    pub fn files_faults(&self, pointer: &str) -> Vec<Fault> {
        let (mut faults, mut count, mut bytes) = (Vec::new(), 0, 0);
        for (deployment, files) in &self.files {
            let at = format!("{pointer}/{}", escape(deployment));
            let names = deployment.split_once('/').map(|(workspace, name)| [workspace, name].map(Name::new));
            if !names.is_some_and(|names| names.iter().all(Result::is_ok)) {
                faults.push(Fault::new(&at, format!("{deployment:?} is not a deployment; write workspace/name")));
            }
            if files.is_empty() {
                faults.push(Fault::new(&at, "there is no file in it; leave the deployment out"));
            }
            for (path, file) in files {
                count += 1;
                bytes += file.content.len();
                if let Err(error) = check_path(path.strip_prefix('/').unwrap_or(path)) {
                    faults.push(Fault::new(format!("{at}/{}", escape(path)), format!("{path:?} is refused: {error}")));
                }
            }
        }
        if count > HOST_FILES {
            faults.push(Fault::new(pointer, format!("{count} files, the limit is {HOST_FILES}")));
        }
        if bytes > HOST_FILES_BYTES {
            faults.push(Fault::new(pointer, format!("{bytes} bytes of files, the limit is {HOST_FILES_BYTES}")));
        }
        faults
    }
}

/// Facts of a host by name, as its agent reports them: text, numbers and booleans.
pub type Facts = BTreeMap<String, Value>;

/// What was observed of a host; `status` of its document.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostStatus {
    /// Whether an agent has enrolled, and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled_at: Option<Revision>,
    /// When the agent last polled or reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Revision>,
    /// Whether it was seen within three poll intervals.
    #[serde(default)]
    pub online: bool,
    /// The facts.
    #[serde(default, skip_serializing_if = "Facts::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub facts: Facts,
    /// Deployments that the host runs though nobody declared them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<crate::reports::Orphan>,
    /// What is or was not as it was applied, by `workspace/deployment`, without the differences. Lists leave it out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drift: BTreeMap<String, Vec<Drift>>,
    /// Set while the host is being deleted: it waits for its agent to remove what it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleting_since: Option<Revision>,
}

/// `POST /v1/hosts:bulkCreate`: all the hosts and a task for each, or nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BulkCreate {
    /// The hosts; documents of kind `Host`.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<crate::Document>))]
    pub hosts: Vec<Value>,
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pointers(files: &Value) -> Vec<String> {
        let spec: HostSpec = serde_json::from_value(json!({ "files": files })).expect("spec");
        spec.files_faults("/spec/files").into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn files_name_a_deployment_and_a_path() {
        let file = json!({"content": "x"});
        assert_eq!(pointers(&json!({"a/b": {"c/d": file, "/etc/x": file}})), [""; 0]);
        for bad in ["a", "a/b/c", "A/b", "/b", "a/"] {
            assert_eq!(pointers(&json!({ bad: {"c": file} })), [format!("/spec/files/{}", escape(bad))], "{bad}");
        }
        assert_eq!(pointers(&json!({"a/b": {}})), ["/spec/files/a~1b"]);
        for bad in ["", "/", "../x", "a//b", "//x"] {
            let pointer = format!("/spec/files/a~1b/{}", escape(bad));
            assert_eq!(pointers(&json!({"a/b": { bad: file }})), [pointer], "{bad}");
        }
    }

    #[test]
    fn taints_have_keys_like_labels_and_are_few() {
        let pointers = |taints: Value| -> Vec<String> {
            let spec: HostSpec = serde_json::from_value(json!({ "taints": taints })).expect("spec");
            spec.taints_faults("/spec/taints").into_iter().map(|fault| fault.pointer).collect()
        };
        let taint = json!({"key": "gpu", "effect": "NoSchedule"});
        assert_eq!(pointers(json!([taint])), [""; 0]);
        assert_eq!(pointers(json!([taint, {"key": "a b", "effect": "NoExecute"}])), ["/spec/taints/1/key"]);
        assert_eq!(pointers(json!([{"key": "a", "value": "b/c", "effect": "NoExecute"}])), ["/spec/taints/0/value"]);
        assert_eq!(pointers(vec![taint.clone(); TAINTS].into()), [""; 0]);
        assert_eq!(pointers(vec![taint; TAINTS + 1].into()), ["/spec/taints"]);
    }

    #[test]
    fn files_are_few_and_small() {
        let many = |count: usize, size: usize| {
            let files = (0..count).map(|n| (n.to_string(), json!({"content": "x".repeat(size)})));
            pointers(&json!({ "a/b": Value::Object(files.collect()) }))
        };
        assert_eq!(many(HOST_FILES, HOST_FILES_BYTES / HOST_FILES), [""; 0]);
        assert_eq!(many(HOST_FILES + 1, 1), ["/spec/files"]);
        assert_eq!(many(1, HOST_FILES_BYTES + 1), ["/spec/files"]);
    }
}
