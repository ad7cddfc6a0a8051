//! Objects of a cluster, by what names them, and in which order they come and go.

use std::fmt;

use serde_json::Value;

use crate::claims::Claim;

/// The kind of claim that an object is.
pub(crate) const CLAIM: &str = "object";

/// What names an object: no version, since the same object is served in several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// The API group; empty for the core.
    pub(crate) group: String,
    /// The kind.
    pub(crate) kind: String,
    /// The namespace; empty if it is in none.
    pub(crate) namespace: String,
    /// The name.
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(group: &str, kind: &str, namespace: &str, name: &str) -> Self {
        Self { group: group.into(), kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }

    /// Returns the claim on the object.
    pub(crate) fn claim(&self) -> Claim {
        Claim::new(CLAIM, format!("{}/{}/{}/{}", self.group, self.kind, self.namespace, self.name))
    }

    /// Returns the object that a claim means, if it means one.
    pub(crate) fn of(claim: &Claim) -> Option<Self> {
        let mut parts = claim.name.splitn(4, '/');
        let (group, kind, namespace, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        (claim.kind == CLAIM && !kind.is_empty() && !name.is_empty()).then(|| Self::new(group, kind, namespace, name))
    }

    /// Returns the kind with its group, as the owner's configuration names it: `apps/Deployment`, `Service`.
    pub(crate) fn grouped(&self) -> String {
        if self.group.is_empty() { self.kind.clone() } else { format!("{}/{}", self.group, self.kind) }
    }

    /// Returns the kind with its group, as an ApplySet names it: `Deployment.apps`, `Service`.
    pub(crate) fn group_kind(&self) -> String {
        if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) }
    }

    pub(crate) fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }

    /// Whether what it says is nobody's business.
    pub(crate) fn is_secret(&self) -> bool {
        self.is("", "Secret")
    }

    /// Returns where it comes in order: what others need first, workloads late. Removal goes the other way.
    pub(crate) fn rank(&self) -> u8 {
        match (self.group.as_str(), self.kind.as_str()) {
            ("", "Namespace") => 0,
            ("apiextensions.k8s.io", "CustomResourceDefinition") => 1,
            ("scheduling.k8s.io" | "storage.k8s.io" | "node.k8s.io", _) => 2,
            ("", "ServiceAccount" | "LimitRange" | "ResourceQuota") | ("networking.k8s.io", "NetworkPolicy") => 3,
            ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => 4,
            ("rbac.authorization.k8s.io", _) => 5,
            ("", "ConfigMap" | "Secret" | "PersistentVolume" | "PersistentVolumeClaim") => 6,
            ("", "Service") => 7,
            ("" | "apps" | "batch", _) => 8,
            ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => 10,
            _ => 9,
        }
    }
}

/// Ranks below this one are waited for: everything else may need them to be there.
pub(crate) const WAITED_FOR: u8 = 2;

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// Whether kinds of this group are the server's own, so that it is known here which are in a namespace.
pub(crate) fn is_builtin(group: &str) -> bool {
    matches!(group, "" | "apps" | "batch" | "autoscaling" | "policy" | "extensions")
        || group.strip_suffix(".k8s.io").is_some_and(|stem| !stem.contains('.') || stem.ends_with("authorization"))
}

/// Whether a kind of the server's own is in no namespace.
pub(crate) fn is_cluster_scoped(group: &str, kind: &str) -> bool {
    match group {
        "" => matches!(kind, "Namespace" | "Node" | "PersistentVolume" | "ComponentStatus"),
        "rbac.authorization.k8s.io" => matches!(kind, "ClusterRole" | "ClusterRoleBinding"),
        "storage.k8s.io" => kind != "CSIStorageCapacity",
        "networking.k8s.io" => matches!(kind, "IngressClass" | "IPAddress" | "ServiceCIDR"),
        "resource.k8s.io" => matches!(kind, "DeviceClass" | "ResourceSlice"),
        "policy" | "extensions" => kind == "PodSecurityPolicy",
        "apiextensions.k8s.io"
        | "apiregistration.k8s.io"
        | "admissionregistration.k8s.io"
        | "scheduling.k8s.io"
        | "flowcontrol.apiserver.k8s.io"
        | "node.k8s.io"
        | "certificates.k8s.io"
        | "internal.apiserver.k8s.io" => true,
        _ => false,
    }
}

/// Returns the text at a path of keys, or an empty one.
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the number at a path of keys, if there is one.
pub(crate) fn number(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).and_then(Value::as_i64)
}

/// Returns what is at a path of keys.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

/// Returns the items of a list at a path of keys; none if there is no list.
pub(crate) fn items<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_name_objects_without_their_version() {
        for key in [Key::new("", "Namespace", "", "shop"), Key::new("apps", "Deployment", "shop", "web")] {
            assert_eq!(Key::of(&key.claim()), Some(key));
        }
        assert_eq!(
            Key::new("apps", "Deployment", "shop", "web").claim().to_string(),
            "object:apps/Deployment/shop/web"
        );
        assert_eq!(Key::of(&Claim::new("unit", "a/b/c/d")), None);
        assert_eq!(Key::of(&Claim::new(CLAIM, "a/b")), None);
    }

    #[test]
    fn what_others_need_comes_first() {
        let order = [
            ("", "Namespace"),
            ("apiextensions.k8s.io", "CustomResourceDefinition"),
            ("", "ServiceAccount"),
            ("rbac.authorization.k8s.io", "Role"),
            ("rbac.authorization.k8s.io", "RoleBinding"),
            ("", "ConfigMap"),
            ("", "Service"),
            ("apps", "Deployment"),
            ("example.org", "Widget"),
            ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
        ];
        let ranks: Vec<u8> = order.iter().map(|(group, kind)| Key::new(group, kind, "", "x").rank()).collect();
        assert!(ranks.is_sorted(), "{ranks:?}");
    }
}
