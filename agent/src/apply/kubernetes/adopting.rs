//! Taking over what people changed in the cluster: files that say what is there now.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    manifests::{self, FILE_BYTES, Manifest},
    objects::{Key, text},
    observing::Compared,
    yaml,
};
use crate::{apply::ApplyError, bundles::Bundle};

/// By which key the items of a list are told apart, the first that all of them have.
const KEYS: [&str; 7] = ["name", "mountPath", "containerPort", "port", "key", "ip", "type"];

/// Returns the files of a bundle as they would have to be for what was found to be right. Contents of secrets stay as they
/// are: they do not belong into files.
pub(crate) fn files(
    bundle: &Bundle,
    manifests: &[Manifest],
    found: &BTreeMap<Key, Compared>,
) -> Result<Vec<(String, String)>, ApplyError> {
    let mut adopted = Vec::new();
    for file in &bundle.files {
        let drifted = |manifest: &&Manifest| {
            manifest.path == file.path && !manifest.key.is_secret() && found.contains_key(&manifest.key)
        };
        let drifted: Vec<&Manifest> = manifests.iter().filter(drifted).collect();
        if drifted.is_empty() || file.rooted {
            continue;
        }
        let content = file.text(FILE_BYTES)?;
        let mut values = manifests::documents(&file.path, &content)?;
        for (document, value) in values.iter_mut().enumerate() {
            for manifest in drifted.iter().filter(|manifest| manifest.document == document) {
                adopt(value, &manifest.key, &found[&manifest.key]);
            }
        }
        adopted.push((file.path.clone(), written(&file.path, &values)));
    }
    Ok(adopted)
}

fn written(path: &str, values: &[Value]) -> String {
    if path.ends_with(".json") {
        let value = values.first().cloned().unwrap_or_default();
        return serde_json::to_string_pretty(&value).unwrap_or_default() + "\n";
    }
    let documents: Vec<String> = values.iter().filter(|value| !value.is_null()).map(yaml::text).collect();
    documents.join("---\n")
}

fn adopt(value: &mut Value, key: &Key, compared: &Compared) {
    if let Some(items) = value.get_mut("items").and_then(Value::as_array_mut) {
        let is = |item: &&mut Value| text(item, &["kind"]) == key.kind && text(item, &["metadata", "name"]) == key.name;
        items.iter_mut().filter(is).for_each(|item| take(item, &compared.wanted, &compared.live));
    } else {
        take(value, &compared.wanted, &compared.live);
    }
}

/// Makes `file` say what is live wherever that is not what was wanted. What the file does not say stays unsaid.
fn take(file: &mut Value, wanted: &Value, live: &Value) {
    if wanted == live {
        return;
    }
    match (&mut *file, wanted, live) {
        (Value::Object(fields), Value::Object(wanted), Value::Object(live)) => {
            fields.retain(|name, _| live.contains_key(name) || !wanted.contains_key(name));
            take_fields(fields, wanted, live);
        }
        (Value::Array(items), Value::Array(wanted), Value::Array(live)) => {
            let all = || items.iter().chain(wanted).chain(live);
            let Some(key) = KEYS.iter().find(|key| all().all(|item| item.get(**key).is_some())) else {
                *file = Value::Array(live.clone());
                return;
            };
            let same = |one: &Value, other: &Value| one[*key] == other[*key];
            items.retain(|item| live.iter().any(|other| same(item, other)));
            for item in items {
                let find = |list: &[Value]| list.iter().find(|other| same(item, other)).cloned();
                if let (Some(wanted), Some(live)) = (find(wanted), find(live)) {
                    take(item, &wanted, &live);
                }
            }
        }
        (file, _, live) => *file = live.clone(),
    }
}

fn take_fields(fields: &mut Map<String, Value>, wanted: &Map<String, Value>, live: &Map<String, Value>) {
    for (name, value) in fields {
        if let (Some(wanted), Some(live)) = (wanted.get(name), live.get(name)) {
            take(value, wanted, live);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_taken_and_what_the_file_does_not_say_stays_unsaid() {
        let mut file =
            json!({"spec": {"replicas": 2, "list": [{"name": "a", "image": "x:1"}], "args": ["1"], "gone": 1}});
        let wanted = json!({"spec": {"replicas": 2, "gone": 1, "args": ["1"], "policy": "Always",
            "list": [{"name": "a", "image": "x:1", "pull": "No"}, {"name": "b", "image": "side"}]}});
        let live = json!({"spec": {"replicas": 5, "args": ["2", "3"], "policy": "Never",
            "list": [{"name": "a", "image": "x:2", "pull": "Yes"}, {"name": "b", "image": "side"}]}});
        take(&mut file, &wanted, &live);
        let expected = json!({"spec": {"replicas": 5, "list": [{"name": "a", "image": "x:2"}], "args": ["2", "3"]}});
        assert_eq!(file, expected);
    }
}
