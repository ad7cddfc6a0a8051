//! Merge patches of documents (RFC 7386).

use serde_json::{Value, json};
use titan_api::{Code, Problem, documents::Declared};

use super::{Place, check};
use crate::store::Stored;

/// Returns a document after a merge patch (RFC 7386) of its metadata and spec.
pub(super) fn patched(place: &Place, current: &Stored, patch: &Value) -> Result<Declared, Problem> {
    let mut value = serde_json::to_value(current.document())
        .map_err(|error| Problem::new(Code::Internal, format!("{place} cannot be written as JSON: {error}")))?;
    if !patch.is_object() {
        return Err(Problem::new(Code::Invalid, "a merge patch is a JSON object").at("", "not an object"));
    }
    merge_patch(&mut value, patch);
    let declared = Declared::parse(value, place.workspace.as_ref())?;
    if Place::of(&declared) != *place {
        return Err(Problem::new(Code::Invalid, "a patch cannot change kind, workspace or name")
            .at("/metadata/name", format!("this is {place}")));
    }
    check(&declared)?;
    Ok(declared)
}

fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    if let Value::Object(target) = target {
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge_patch(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_patch_does_as_rfc_7386_shows() {
        // The cases of the RFC's appendix.
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            let mut merged = target.clone();
            merge_patch(&mut merged, &patch);
            assert_eq!(merged, result, "{target} + {patch}");
        }
    }
}
