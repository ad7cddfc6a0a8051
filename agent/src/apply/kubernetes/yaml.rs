//! YAML that readers of 1.1 and of 1.2 understand alike: a text that either could take for something else is quoted.

use serde_json::Value;

/// Returns a value as a document of YAML.
pub(crate) fn text(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                indent(depth, out);
                out.push_str(&plain_or_quoted(name));
                out.push(':');
                after_key(value, depth, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                block(item, depth + 1, &mut inner);
                indent(depth, out);
                out.push_str("- ");
                out.push_str(inner.trim_start_matches(' '));
            }
        }
        plain => {
            indent(depth, out);
            out.push_str(&scalar(plain));
            out.push('\n');
        }
    }
}

fn after_key(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            block(value, depth + 1, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            block(value, depth, out);
        }
        Value::String(text) if is_literal(text) => {
            out.push_str(if text.ends_with('\n') { " |\n" } else { " |-\n" });
            for line in text.lines() {
                if !line.is_empty() {
                    indent(depth + 1, out);
                    out.push_str(line);
                }
                out.push('\n');
            }
        }
        plain => {
            out.push(' ');
            out.push_str(&scalar(plain));
            out.push('\n');
        }
    }
}

fn indent(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", depth));
}

/// Whether a text with several lines can stand as they are.
fn is_literal(text: &str) -> bool {
    let printable = |c: char| {
        c == '\n'
            || c == '\t'
            || (!c.is_control() && c != '\u{feff}' && c != '\u{2028}' && c != '\u{2029}' && c != '\u{85}')
    };
    text.trim_end_matches('\n').contains('\n')
        && !text.starts_with([' ', '\t', '\n'])
        && !text.ends_with("\n\n")
        && !text.contains(" \n")
        && !text.ends_with(' ')
        && text.chars().all(printable)
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => plain_or_quoted(text),
        // `{}`, `[]`, numbers, `true`, `null`: JSON is YAML.
        other => other.to_string(),
    }
}

fn plain_or_quoted(text: &str) -> String {
    const WORDS: [&str; 11] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"];
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '/');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ' ');
    let is_plain = first && text.chars().all(plain) && !text.ends_with(' ');
    match is_plain && !WORDS.contains(&text.to_ascii_lowercase().as_str()) {
        true => text.to_owned(),
        false => Value::String(text.to_owned()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let texts = prop_oneof![
            "[ -~]{0,8}",
            "[a-z \\n]{0,12}",
            Just("no".to_owned()),
            Just("12:30".to_owned()),
            Just("a\n\n b\n".to_owned())
        ];
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            Just(Value::Null),
            texts.clone().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(texts.clone(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect()))
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in values()) {
            let text = text(&value);
            let read: Value = serde_yaml::from_str(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
            prop_assert_eq!(read, value, "{}", text);
        }
    }

    #[test]
    fn texts_that_old_readers_take_for_something_else_are_quoted() {
        let value = json!({"n": "no", "on": "12:30", "a": ["x: y", "0644", {"b": 1, "c": "d"}], "t": "one\ntwo\n"});
        let expected = "\"n\": \"no\"\n\"on\": \"12:30\"\n";
        let text = text(&value);
        assert!(expected.lines().all(|line| text.contains(line)), "{text}");
        assert!(text.contains("a:\n- \"x: y\"\n- \"0644\"\n- b: 1\n  c: d\n"), "{text}");
        assert!(text.contains("t: |\n  one\n  two\n"), "{text}");
    }
}
