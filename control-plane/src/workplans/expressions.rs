//! Expressions of plans: conditions on answers and measurements, and `{{ values.x }}` in texts.
//!
//! They run in this process, so nothing in them may grow: there are no statements, no repetition of texts, a handful of
//! filters, and a limit on what they may take.

use minijinja::{Environment, UndefinedBehavior, Value};
use serde::Deserialize as _;
use serde_json::Value as Json;

use crate::render::{bounds, lexer};

/// Steps that one expression may take.
const FUEL: u64 = 20_000;
/// Bytes of one expression.
const BYTES: usize = 4096;

fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(50);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.add_filter("length", minijinja::filters::length);
    environment.add_filter("lower", minijinja::filters::lower);
    environment.add_filter("upper", minijinja::filters::upper);
    environment.add_filter("trim", minijinja::filters::trim);
    environment.add_filter("default", minijinja::filters::default);
    environment.add_filter("int", minijinja::filters::int);
    environment.add_filter("float", minijinja::filters::float);
    environment.add_filter("abs", minijinja::filters::abs);
    environment.add_filter("round", minijinja::filters::round);
    environment.add_filter("first", minijinja::filters::first);
    environment.add_filter("last", minijinja::filters::last);
    environment.add_filter("min", minijinja::filters::min);
    environment.add_filter("max", minijinja::filters::max);
    environment.add_filter("sum", minijinja::filters::sum);
    environment.add_filter("tojson", minijinja::filters::tojson);
    environment.add_test("defined", minijinja::tests::is_defined);
    environment.add_test("none", minijinja::tests::is_none);
    environment.add_test("number", minijinja::tests::is_number);
    environment.add_test("string", minijinja::tests::is_string);
    environment
}

/// Whether `text` is a condition.
pub fn check(text: &str) -> Result<(), String> {
    if text.len() > BYTES {
        return Err(format!("longer than {BYTES} bytes"));
    }
    let tokens = lexer::expression(text).map_err(|error| error.message)?;
    modest(&tokens)?;
    environment().compile_expression(text).map(drop).map_err(|error| error.to_string())
}

/// Whether `text` holds nothing but text and expressions in `{{ }}`.
pub fn check_text(text: &str) -> Result<(), String> {
    if !text.contains("{{") && !text.contains("{%") && !text.contains("{#") {
        return Ok(());
    }
    let code = lexer::code(text).map_err(|error| error.message)?;
    if code.iter().any(|code| code.statement) {
        return Err("statements ({% %}) are not supported here, only {{ }}".to_owned());
    }
    code.iter().try_for_each(|code| modest(&code.tokens))?;
    environment().template_from_str(text).map(drop).map_err(|error| error.to_string())
}

/// Refuses what could make something large of something small.
fn modest(tokens: &[lexer::Token]) -> Result<(), String> {
    bounds::chain(tokens).map_err(|error| error.message)?;
    match tokens.iter().find(|token| token.is_sign("*") || token.is_sign("**") || token.is_sign("~")) {
        Some(_) => Err("*, ** and ~ are not supported here".to_owned()),
        None => Ok(()),
    }
}

fn seen(context: &Json) -> Result<Value, String> {
    Value::deserialize(context).map_err(|error| error.to_string())
}

/// Whether a condition holds.
pub fn holds(text: &str, context: &Json) -> Result<bool, String> {
    check(text)?;
    let environment = environment();
    let expression = environment.compile_expression(text).map_err(|error| error.to_string())?;
    let value = expression.eval(seen(context)?).map_err(|error| error.to_string())?;
    Ok(value.is_true())
}

/// Returns a text with its expressions replaced by what they give.
pub fn text(text: &str, context: &Json) -> Result<String, String> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    check_text(text)?;
    environment().render_str(text, seen(context)?).map_err(|error| error.to_string())
}

/// Returns a JSON value with the expressions in its texts replaced by what they give.
pub fn value(found: &Json, context: &Json) -> Result<Json, String> {
    Ok(match found {
        Json::String(one) => Json::String(text(one, context)?),
        Json::Array(items) => Json::Array(items.iter().map(|item| value(item, context)).collect::<Result<_, _>>()?),
        Json::Object(map) => {
            let each = map.iter().map(|(key, item)| Ok::<_, String>((key.clone(), value(item, context)?)));
            Json::Object(each.collect::<Result<_, _>>()?)
        }
        other => other.clone(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_ask_about_answers() {
        let context = json!({"status": 200, "body": {"items": [1, 2], "state": "Ready"}, "result": 0.99});
        for text in [
            "status == 200",
            "body['items'] | length == 2",
            "body.state | lower == 'ready'",
            "result >= 0.95 and status < 300",
        ] {
            assert_eq!(holds(text, &context), Ok(true), "{text}");
        }
        assert_eq!(holds("body['items'][0] > 1", &context), Ok(false));
        assert!(holds("body.none == 1", &context).is_err());
    }

    #[test]
    fn nothing_in_them_can_grow() {
        for text in ["'x' * 100000000", "2 ** 100000", "'a' ~ 'b'", "range(10)", &"x".repeat(5000), "((", ""] {
            assert!(check(text).is_err() || holds(text, &json!({})).is_err(), "{text}");
        }
        assert!(check_text("{% for x in y %}{% endfor %}").is_err());
        assert!(check_text("a {{ 'x' * 9 }}").is_err());
    }

    #[test]
    fn texts_hold_values() {
        let context = json!({"values": {"order": "o-1", "n": 3}});
        assert_eq!(text("http://x/{{ values.order }}", &context).as_deref(), Ok("http://x/o-1"));
        let body = json!({"id": "{{ values.order }}", "list": ["{{ values.n }}", 1]});
        assert_eq!(value(&body, &context), Ok(json!({"id": "o-1", "list": ["3", 1]})));
        assert!(text("{{ values.none }}", &context).is_err());
    }
}
