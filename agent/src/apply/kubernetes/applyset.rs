//! ApplySets: the marks by which anybody who looks at the cluster sees which objects belong together.
//!
//! Each deployment has a parent, the ConfigMap `titan.<workspace>.<deployment>` in its first namespace, whose id is a hash
//! of its own name; each object carries that id in a label. The id is what says "ours" when an object is to be removed;
//! the assignment's id on the parent keeps two agents of one cluster apart.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::objects::{Key, text};
use crate::{apply::Target, claims::Claims};

/// The label by which a member names its set.
pub(crate) const PART_OF: &str = "applyset.kubernetes.io/part-of";
/// The label that gives the parent its id.
pub(crate) const ID: &str = "applyset.kubernetes.io/id";
/// The annotation with the assignment that a parent stands for.
const ASSIGNMENT: &str = "titan/assignment";
const TOOLING: &str = "applyset.kubernetes.io/tooling";
const KINDS: &str = "applyset.kubernetes.io/contains-group-kinds";
const NAMESPACES: &str = "applyset.kubernetes.io/additional-namespaces";

/// Returns the name of a deployment's parent.
pub(crate) fn parent_name(target: &Target) -> String {
    format!("titan.{}.{}", target.workspace, target.name)
}

/// Returns the parent's key in a namespace.
pub(crate) fn parent_key(target: &Target, namespace: &str) -> Key {
    Key::new("", "ConfigMap", namespace, &parent_name(target))
}

/// Returns the id of the set whose parent this is.
pub(crate) fn id(parent: &Key) -> String {
    let name = format!("{}.{}.{}.{}", parent.name, parent.namespace, parent.kind, parent.group);
    format!("applyset-{}-v1", URL_SAFE_NO_PAD.encode(Sha256::digest(name)))
}

/// Returns the ids that this deployment's objects carry, by the parents that it claims.
pub(crate) fn ids<'a>(target: &Target, claims: impl IntoIterator<Item = &'a Claims>) -> BTreeSet<String> {
    let name = parent_name(target);
    let keys = claims.into_iter().flat_map(Claims::keys).filter_map(Key::of);
    keys.filter(|key| key.is("", "ConfigMap") && key.name == name).map(|key| id(&key)).collect()
}

/// Returns the parent of a set of objects.
pub(crate) fn parent(target: &Target, key: &Key, members: &BTreeSet<Key>) -> Value {
    let kinds: BTreeSet<String> = members.iter().map(Key::group_kind).collect();
    let others = members.iter().map(|key| key.namespace.as_str());
    let others: BTreeSet<&str> = others.filter(|other| !other.is_empty() && *other != key.namespace).collect();
    let list = |texts: Vec<&str>| texts.join(",");
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "labels": { ID: id(key) },
            "annotations": {
                TOOLING: concat!("titan-agent/v", env!("CARGO_PKG_VERSION")),
                KINDS: list(kinds.iter().map(String::as_str).collect()),
                NAMESPACES: list(others.into_iter().collect()),
                ASSIGNMENT: target.id.to_string(),
            },
        },
    })
}

/// Returns the parent with the kinds of `others` added, for the time in which they are still there.
pub(crate) fn widened(mut parent: Value, others: &BTreeSet<Key>) -> Value {
    let annotations = parent.pointer_mut("/metadata/annotations");
    let Some(annotations) = annotations.and_then(Value::as_object_mut) else { return parent };
    let mut widen = |name: &str, more: BTreeSet<String>| {
        let before = annotations.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let all: BTreeSet<String> = before.split(',').map(str::to_owned).chain(more).collect();
        let all: Vec<String> = all.into_iter().filter(|text| !text.is_empty()).collect();
        annotations.insert(name.to_owned(), all.join(",").into());
    };
    widen(KINDS, others.iter().map(Key::group_kind).collect());
    widen(NAMESPACES, others.iter().map(|key| key.namespace.clone()).collect());
    parent
}

/// Whether a live object carries one of our ids.
pub(crate) fn is_member(live: &Value, ids: &BTreeSet<String>) -> bool {
    let label = |name| text(live, &["metadata", "labels", name]);
    ids.contains(label(PART_OF)) || ids.contains(label(ID))
}

/// Whether a live parent stands for this assignment.
pub(crate) fn stands_for(live: &Value, target: &Target) -> bool {
    assignment(live) == Some(target.id)
}

/// Returns the assignment that a live parent stands for.
pub(crate) fn assignment(live: &Value) -> Option<Uuid> {
    Uuid::parse_str(text(live, &["metadata", "annotations", ASSIGNMENT])).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_other_tools_compute() {
        // printf 'shop.prod.ConfigMap.' | sha256sum | xxd -r -p | base64 | tr '+/' '-_' | tr -d =
        let key = Key::new("", "ConfigMap", "prod", "shop");
        assert_eq!(id(&key), "applyset-MKiGd8qjds7_4l58fSj3Hm-momNfCzEqg3i6kuRIBpI-v1");
    }

    #[test]
    fn a_parent_names_the_kinds_of_the_past_while_they_are_there() {
        let key = Key::new("", "ConfigMap", "prod", "shop");
        let old = BTreeSet::from([Key::new("batch", "CronJob", "jobs", "x")]);
        let parent = json!({"metadata": {"annotations": {KINDS: "Service", NAMESPACES: ""}}});
        let wide = widened(parent, &old);
        assert_eq!(wide["metadata"]["annotations"][KINDS], "CronJob.batch,Service");
        assert_eq!(wide["metadata"]["annotations"][NAMESPACES], "jobs");
        assert!(is_member(&json!({"metadata": {"labels": {PART_OF: id(&key)}}}), &[id(&key)].into()));
        assert!(!is_member(&json!({"metadata": {}}), &[id(&key)].into()));
    }
}
