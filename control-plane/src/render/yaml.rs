//! Values as YAML that every reader takes the same way.
//!
//! Many readers (kubectl, PyYAML) still follow YAML 1.1, where a bare `no`, `12:30`, `1_000` or `2026-01-01` is not text. So
//! text is left bare only if it is plainly a word; everything else is quoted, or a literal block if it has lines.

use serde_json::{Map, Number, Value};

/// Words that some version of YAML reads as a boolean or as nothing.
const RESERVED: [&str; 12] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "none"];

/// Returns `value` as block-style YAML with an indent of two.
///
/// There is no line end at the end, unless it belongs to a text that is the last thing of all.
#[must_use]
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => write_map(&mut out, map, 0, true),
        Value::Array(list) if !list.is_empty() => write_list(&mut out, list, 0, true),
        scalar => {
            write_inline(&mut out, scalar);
            return out;
        }
    }
    if last(value).as_str().and_then(block).is_some_and(|(_, ends)| ends) {
        out.push('\n');
    }
    out
}

/// Returns what is written last.
fn last(value: &Value) -> &Value {
    let inner = match value {
        Value::Object(map) => map.values().next_back(),
        Value::Array(list) => list.last(),
        _ => None,
    };
    inner.map_or(value, last)
}

/// Writes the entries of a map; the first one on the present line if `begun`.
fn write_map(out: &mut String, map: &Map<String, Value>, indent: usize, begun: bool) {
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 || !begun {
            new_line(out, indent);
        }
        write_text(out, key);
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => write_map(out, inner, indent + 2, false),
            Value::Array(inner) if !inner.is_empty() => write_list(out, inner, indent + 2, false),
            scalar => {
                out.push(' ');
                write_scalar(out, scalar, indent + 2);
            }
        }
    }
}

/// Writes the items of a list; the first one on the present line if `begun`.
fn write_list(out: &mut String, list: &[Value], indent: usize, begun: bool) {
    for (index, value) in list.iter().enumerate() {
        if index > 0 || !begun {
            new_line(out, indent);
        }
        out.push_str("- ");
        match value {
            Value::Object(inner) if !inner.is_empty() => write_map(out, inner, indent + 2, true),
            Value::Array(inner) if !inner.is_empty() => write_list(out, inner, indent + 2, true),
            scalar => write_scalar(out, scalar, indent + 2),
        }
    }
}

fn new_line(out: &mut String, indent: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Writes a value that fits on one line, or text of several lines as a block below.
fn write_scalar(out: &mut String, value: &Value, indent: usize) {
    let Value::String(text) = value else { return write_inline(out, value) };
    let Some((body, ends)) = block(text) else { return write_text(out, text) };
    out.push_str(if ends { "|" } else { "|-" });
    for line in body.split('\n') {
        if line.is_empty() {
            out.push('\n');
        } else {
            new_line(out, indent);
            out.push_str(line);
        }
    }
}

/// Returns the lines of a text, and whether the last one ends, if they mean the same in a literal block and after
/// `indent`.
fn block(text: &str) -> Option<(&str, bool)> {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let line_fits = |line: &str| !line.ends_with([' ', '\t']) && line.chars().all(is_printable);
    let fits = body.contains('\n')
        && !body.starts_with([' ', '\t', '\n'])
        && !body.ends_with('\n')
        && body.split('\n').all(line_fits);
    fits.then_some((body, body.len() < text.len()))
}

fn write_inline(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_text(out, text),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

/// Writes a number; YAML 1.1 wants a point and a sign where there is an exponent.
fn write_number(out: &mut String, number: &Number) {
    let text = number.to_string();
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            out.push_str(mantissa);
            if !mantissa.contains('.') {
                out.push_str(".0");
            }
            out.push('e');
            if !exponent.starts_with(['+', '-']) {
                out.push('+');
            }
            out.push_str(exponent);
        }
        None => out.push_str(&text),
    }
}

/// Writes text on one line, bare if it is a word to every reader.
fn write_text(out: &mut String, text: &str) {
    if is_bare(text) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_printable(c) => out.push(c),
            c => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    out.push('"');
}

fn is_bare(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == '/';
    let inner = |c: char| first(c) || c.is_ascii_digit() || matches!(c, '.' | '-' | ' ');
    text.starts_with(first)
        && text.chars().all(inner)
        && !text.ends_with(' ')
        && !RESERVED.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Whether a character may stand in YAML as it is.
fn is_printable(c: char) -> bool {
    let refused = matches!(c, '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}');
    let unassigned = matches!(c, '\u{fffe}' | '\u{ffff}');
    !refused && !unassigned
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn text_that_yaml_1_1_misreads_is_quoted() {
        for text in [
            "no",
            "No",
            "NO",
            "yes",
            "y",
            "n",
            "Y",
            "on",
            "off",
            "true",
            "False",
            "null",
            "~",
            "",
            "12",
            "-1",
            "+1",
            "1.5",
            ".5",
            "1e3",
            "12:30",
            "1:20:30",
            "1_000",
            "0o7",
            "0x1f",
            "010",
            "2026-01-01",
            "2026-01-01T00:00:00Z",
            "<<",
            "=",
            ".inf",
            "-.inf",
            ".nan",
            "NaN",
            "- a",
            "a: b",
            "a #b",
            " a",
            "a ",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a`",
            "{a}",
            "[a]",
            "?",
            "---",
            "...",
            "|",
            ">",
            "'a'",
            "\"a\"",
            "a,b",
            "a:",
            "1.2.3",
            "\u{feff}a",
            "1e",
            "e\n",
        ] {
            let written = to_yaml(&json!(text));
            assert!(written.starts_with('"'), "{text:?} as {written}");
            assert_eq!(serde_yaml::from_str::<Value>(&written).expect("yaml"), json!(text));
        }
        for text in ["a", "nginx", "a b", "/etc/x.conf", "no-way", "Yes sir", "e1", "v1.2.3", "_x"] {
            assert_eq!(to_yaml(&json!(text)), text);
        }
    }

    #[test]
    fn numbers_stay_numbers() {
        let written = to_yaml(&json!([1, -2, 1.5, 1e30, 1e-7, 18_446_744_073_709_551_615_u64, null, true]));
        assert_eq!(written, "- 1\n- -2\n- 1.5\n- 1.0e+30\n- 1.0e-7\n- 18446744073709551615\n- null\n- true");
    }

    #[test]
    fn a_text_at_the_end_keeps_its_line_end() {
        assert_eq!(to_yaml(&json!({"a": "x\ny\n"})), "a: |\n  x\n  y\n");
        assert_eq!(to_yaml(&json!([["x\ny\n"], []])), "- - |\n    x\n    y\n- []");
        assert_eq!(to_yaml(&json!({"a": "x\n"})), "a: \"x\\n\"");
    }

    #[test]
    fn maps_lists_and_lines_are_blocks() {
        let value = json!({"a": {"b": [1, {"c": 2, "d": [3]}], "e": {}}, "f": [[1, 2], []], "g": "x\n  y\n\nz\n", "h": "x\ny",
            "i": " x\ny", "n": "no"});
        let expected = "a:\n  b:\n    - 1\n    - c: 2\n      d:\n        - 3\n  e: {}\nf:\n  - - 1\n    - 2\n  - []\n\
            g: |\n  x\n    y\n\n  z\nh: |-\n  x\n  y\ni: \" x\\ny\"\n\"n\": \"no\"";
        assert_eq!(to_yaml(&value), expected);
        assert_eq!(serde_yaml::from_str::<Value>(expected).expect("yaml"), value);
    }

    fn tree() -> impl Strategy<Value = Value> {
        let text = prop_oneof!["[ -~]{0,8}", "[a-z:#\\n\\t \\-|>'\"]{0,12}", any::<String>()];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in tree()) {
            let written = to_yaml(&value);
            prop_assert_eq!(serde_yaml::from_str::<Value>(&written).expect("yaml"), value, "{}", written);
        }
    }
}
