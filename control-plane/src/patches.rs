//! Merge patches: how one JSON value changes another (RFC 7396).

use serde_json::{Map, Value};

/// Changes `target` by a merge patch: maps are merged key by key, a null takes its key out, all else takes the place of what
/// was there.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        merge_maps(target, patch);
    }
}

/// Changes a map by a merge patch that is a map: it stays one.
pub(crate) fn merge_maps(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.as_str()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// All cases of the RFC's appendix.
    #[test]
    fn merging_does_as_rfc_7396_shows() {
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"a":"foo"}), json!(null), json!(null)),
            (json!({"a":"foo"}), json!("bar"), json!("bar")),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, &patch);
            assert_eq!(merged, result, "{target} + {patch}");
        }
    }

    #[test]
    fn a_map_stays_a_map_and_the_same_patch_twice_is_once() {
        let mut values = json!({"city": "Ulm", "ports": {"a": 1, "b": 2}}).as_object().cloned().expect("a map");
        let patch = json!({"city": null, "ports": {"b": null, "c": [3]}}).as_object().cloned().expect("a map");
        merge_maps(&mut values, &patch);
        let once = values.clone();
        assert_eq!(Value::Object(once.clone()), json!({"ports": {"a": 1, "c": [3]}}));
        merge_maps(&mut values, &patch);
        assert_eq!(values, once);
    }
}
