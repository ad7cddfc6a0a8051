//! Kinds that the double serves, and what it fills in.

use serde_json::{Value, json};

/// One kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// The group; empty for the core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The kind.
    pub kind: String,
    /// The name in addresses.
    pub plural: String,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
}

impl Kind {
    /// Returns `apiVersion`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// Returns the kinds that are there from the start.
#[must_use]
pub fn builtin() -> Vec<Kind> {
    let kind = |group: &str, kind: &str, plural: &str, namespaced: bool| Kind {
        group: group.to_owned(),
        version: "v1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        namespaced,
    };
    vec![
        kind("", "Namespace", "namespaces", false),
        kind("", "ConfigMap", "configmaps", true),
        kind("", "Secret", "secrets", true),
        kind("", "Service", "services", true),
        kind("", "ServiceAccount", "serviceaccounts", true),
        kind("", "Pod", "pods", true),
        kind("", "PersistentVolumeClaim", "persistentvolumeclaims", true),
        kind("apps", "Deployment", "deployments", true),
        kind("apps", "StatefulSet", "statefulsets", true),
        kind("batch", "Job", "jobs", true),
        kind("rbac.authorization.k8s.io", "ClusterRole", "clusterroles", false),
        kind("rbac.authorization.k8s.io", "Role", "roles", true),
        kind("apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions", false),
    ]
}

/// Fills in what a server fills in, which no manager holds, and writes quantities in the usual way.
pub fn fill_in(object: &mut Value) {
    if object["kind"] == "Deployment" {
        let spec = &mut object["spec"];
        for (name, value) in [("replicas", json!(1)), ("revisionHistoryLimit", json!(10))] {
            if spec.get(name).is_none() {
                spec[name] = value;
            }
        }
        let containers = spec.pointer_mut("/template/spec/containers").and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            if container.get("imagePullPolicy").is_none() {
                container["imagePullPolicy"] = json!("IfNotPresent");
            }
            let limits = container.pointer_mut("/resources/limits/cpu");
            if let Some(cpu) = limits
                && let Some(whole) = cpu.as_str().and_then(|text| text.strip_suffix("000m")).map(str::to_owned)
            {
                *cpu = whole.into();
            }
        }
    }
    if object["kind"] == "Service" && object["spec"].get("clusterIP").is_none() {
        object["spec"]["clusterIP"] = json!("10.96.0.10");
    }
}

/// Returns the field that makes an object invalid, if one does.
#[must_use]
pub fn invalid(object: &Value) -> Option<(&'static str, &'static str)> {
    if object["kind"] == "Deployment" {
        if !object["spec"]["selector"].is_object() {
            return Some(("spec.selector", "Required value"));
        }
        if !object["spec"]["replicas"].is_i64() {
            return Some(("spec.replicas", "Invalid value: must be an integer"));
        }
    }
    None
}
