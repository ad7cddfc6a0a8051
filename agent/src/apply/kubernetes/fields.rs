//! Which fields of a live object are ours, as the server keeps it in `managedFields`.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::objects::{at, items, text};

/// Our name as a manager of fields.
pub(crate) const MANAGER: &str = "titan-agent";

/// Returns the fields that were applied by us and are still ours.
pub(crate) fn ours(live: &Value) -> Option<&Value> {
    let is_ours = |entry: &&Value| {
        text(entry, &["manager"]) == MANAGER
            && text(entry, &["operation"]) == "Apply"
            && text(entry, &["subresource"]).is_empty()
    };
    items(live, &["metadata", "managedFields"]).iter().find(is_ours).and_then(|entry| at(entry, &["fieldsV1"]))
}

/// Returns the paths of fields as the server writes them in a conflict: `.spec.containers[name="app"].image`.
pub(crate) fn paths(fields: &Value) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    walk(fields, "", &mut paths);
    paths
}

fn walk(fields: &Value, path: &str, paths: &mut BTreeSet<String>) {
    let Some(fields) = fields.as_object() else { return };
    if !path.is_empty() && (fields.is_empty() || fields.contains_key(".")) {
        paths.insert(path.to_owned());
    }
    for (name, inner) in fields {
        let step = match name.split_once(':') {
            Some(("f", name)) => format!(".{name}"),
            Some(("v", value)) => format!("[={value}]"),
            Some(("i", index)) => format!("[{index}]"),
            Some(("k", keys)) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("[{}]", keys.join(","))
            }
            _ => continue,
        };
        walk(inner, &format!("{path}{step}"), paths);
    }
}

/// Returns `value` with nothing in it but `fields`.
pub(crate) fn project(value: &Value, fields: &Value) -> Value {
    let Some(names) = fields.as_object().filter(|names| names.keys().any(|name| name != ".")) else {
        return value.clone();
    };
    match value {
        Value::Object(object) => {
            let of = |(name, inner): (&String, &Value)| {
                let name = name.strip_prefix("f:")?;
                object.get(name).map(|value| (name.to_owned(), project(value, inner)))
            };
            Value::Object(names.iter().filter_map(of).collect())
        }
        Value::Array(list) => {
            let of = |(name, inner): (&String, &Value)| match name.split_once(':')? {
                ("k", keys) => {
                    let keys: Map<String, Value> = serde_json::from_str(keys).ok()?;
                    let is = |item: &&Value| keys.iter().all(|(key, value)| key_of(item, key) == *value);
                    list.iter().find(is).map(|item| project(item, inner))
                }
                ("v", value) => {
                    let value: Value = serde_json::from_str(value).ok()?;
                    list.contains(&value).then_some(value)
                }
                _ => None,
            };
            Value::Array(names.iter().filter_map(of).collect())
        }
        plain => plain.clone(),
    }
}

/// Returns a key of a list's item: a port whose protocol is not written is a TCP port.
fn key_of(item: &Value, key: &str) -> Value {
    match item.get(key) {
        None if key == "protocol" => "TCP".into(),
        found => found.cloned().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_written_as_the_server_writes_them() {
        let fields = json!({
            "f:metadata": {"f:finalizers": {".": {}, "v:\"x/y\"": {}}},
            "f:spec": {"f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}}},
        });
        let expected = [
            ".metadata.finalizers",
            ".metadata.finalizers[=\"x/y\"]",
            ".spec.ports[containerPort=80,protocol=\"TCP\"]",
            ".spec.ports[containerPort=80,protocol=\"TCP\"].name",
        ];
        assert_eq!(paths(&fields), expected.map(str::to_owned).into());
    }

    #[test]
    fn what_others_set_is_left_out() {
        let fields =
            json!({"f:spec": {"f:list": {"k:{\"name\":\"b\"}": {".": {}, "f:name": {}, "f:x": {}}}, "f:whole": {}}});
        let live = json!({"spec": {
            "list": [{"name": "a", "x": 1}, {"name": "b", "x": 2, "theirs": 3}],
            "whole": {"any": [1]},
            "replicas": 4,
        }});
        let ours = json!({"spec": {"list": [{"name": "b", "x": 2}], "whole": {"any": [1]}}});
        assert_eq!(project(&live, &fields), ours);
    }

    #[test]
    fn only_what_we_applied_is_ours() {
        let entry = |manager: &str, operation: &str| json!({"manager": manager, "operation": operation, "fieldsV1": {"f:spec": {}}});
        let live = |entries: &[Value]| json!({"metadata": {"managedFields": entries}});
        assert!(ours(&live(&[entry("kubectl", "Apply"), entry(MANAGER, "Update")])).is_none());
        assert!(ours(&live(&[entry(MANAGER, "Apply")])).is_some());
    }
}
