//! Drift as people read it: the fields that we manage, as they were applied and as they are.

use serde_json::Value;

use super::{fields, objects::Key, observing::Compared, yaml};
use crate::drifts::differences::unified;

/// How much of a difference is shown, in bytes.
pub(crate) const DIFF_BYTES: usize = 16 * 1024;

/// Returns the difference between what was applied and what is there; empty if there is none in fields of ours.
pub(crate) fn diff(key: &Key, compared: &Compared) -> String {
    let Some(ours) = fields::ours(&compared.wanted) else { return String::new() };
    let mut wanted = fields::project(&compared.wanted, ours);
    let mut live = fields::project(&compared.live, ours);
    if wanted == live {
        return String::new();
    }
    if key.is_secret() {
        hide(&mut wanted, &mut live);
    }
    let (wanted, live) = (yaml::text(&wanted), yaml::text(&live));
    let text = unified(("applied", "found"), &wanted, &live);
    match text.char_indices().map(|(at, _)| at).find(|at| *at > DIFF_BYTES) {
        None => text,
        Some(end) => format!("{}\n(more is left out)\n", &text[..end]),
    }
}

/// Leaves nothing of a secret's content but whether it is the same.
fn hide(wanted: &mut Value, live: &mut Value) {
    for part in ["data", "stringData"] {
        let before = wanted.get(part).cloned().unwrap_or_default();
        for (value, word) in [(&mut *wanted, "as applied"), (&mut *live, "differs")] {
            let Some(entries) = value.get_mut(part).and_then(Value::as_object_mut) else { continue };
            for (name, content) in entries {
                let same = before.get(name) == Some(content);
                *content = if same { "as applied" } else { word }.into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compared(spec: &Value, applied: Value, found: Value) -> Compared {
        let entry = json!({"manager": fields::MANAGER, "operation": "Apply", "fieldsV1": spec});
        let mut wanted = applied;
        wanted["metadata"] = json!({"managedFields": [entry]});
        Compared { live: found, wanted }
    }

    #[test]
    fn only_fields_of_ours_are_shown() {
        let fields = json!({"f:spec": {"f:replicas": {}}});
        let object = |replicas: i64| json!({"spec": {"replicas": replicas, "other": replicas}});
        let key = Key::new("apps", "Deployment", "n", "x");
        let text = diff(&key, &compared(&fields, object(2), object(5)));
        assert!(text.contains("-  replicas: 2\n+  replicas: 5\n") && !text.contains("other"), "{text}");
        let theirs = json!({"spec": {"replicas": 2, "other": 7}});
        assert_eq!(diff(&key, &compared(&fields, object(2), theirs)), "");
    }

    #[test]
    fn of_a_secret_only_the_names_are_shown() {
        let fields = json!({"f:data": {"f:a": {}, "f:b": {}}});
        let (applied, found) =
            (json!({"data": {"a": "c2FtZQ==", "b": "b2xk"}}), json!({"data": {"a": "c2FtZQ==", "b": "bmV3"}}));
        let text = diff(&Key::new("", "Secret", "n", "x"), &compared(&fields, applied, found));
        assert!(text.contains("-  b: as applied\n+  b: differs\n"), "{text}");
        for value in ["c2FtZQ==", "b2xk", "bmV3"] {
            assert!(!text.contains(value), "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_bounded() {
        let fields = json!({"f:data": {}});
        let text = |c: &str| json!({"data": {"x": format!("{c}\n").repeat(DIFF_BYTES)}});
        let shown = diff(&Key::new("", "ConfigMap", "n", "x"), &compared(&fields, text("ä"), text("ö")));
        assert!(shown.len() < DIFF_BYTES + 64 && shown.ends_with("left out)\n"), "{}", shown.len());
    }
}
