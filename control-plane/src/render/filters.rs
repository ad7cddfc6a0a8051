//! The filters that Titan adds to minijinja's, and those that it takes away.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use minijinja::{
    Environment, Error, ErrorKind, State, Value,
    value::{Kwargs, ValueKind},
};
use titan_api::digests::Digest;

use super::yaml;

/// Spaces that one level of `to_json` may be indented by.
const MAX_INDENT: usize = 16;

/// Makes `environment` the language of templates: plain data in, text out, nothing from outside.
///
/// `format` is taken away because one width in it takes any amount of memory, `debug` because it shows the whole context,
/// which would be a way round [`super::reads`].
pub fn install(environment: &mut Environment<'_>) {
    environment.remove_filter("format");
    environment.remove_filter("pprint");
    environment.remove_global("debug");
    environment.add_filter("to_yaml", to_yaml);
    environment.add_filter("to_json", to_json);
    environment.add_filter("b64encode", b64encode);
    environment.add_filter("sha256", sha256);
    environment.add_filter("quote", quote);
}

/// `{{ values.env | to_yaml }}`: block-style YAML without a line end at the end.
fn to_yaml(state: &mut State, value: &Value) -> Result<String, Error> {
    Ok(yaml::to_yaml(&plain(state, value)?))
}

/// `{{ values.env | to_json }}`: compact JSON, or indented by `indent` spaces.
#[expect(clippy::needless_pass_by_value, reason = "the engine hands keyword arguments over")]
fn to_json(state: &mut State, value: &Value, indent: Option<usize>, kwargs: Kwargs) -> Result<String, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => kwargs.get::<Option<usize>>("indent")?,
    };
    kwargs.assert_all_used()?;
    let value = plain(state, value)?;
    let unwritable = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    match indent {
        None => serde_json::to_string(&value).map_err(unwritable),
        Some(indent) => {
            if indent > MAX_INDENT {
                let detail = format!("to_json: indent is {indent}, the limit is {MAX_INDENT}");
                return Err(Error::new(ErrorKind::InvalidOperation, detail));
            }
            let spaces = " ".repeat(indent);
            let mut out = Vec::new();
            let formatter = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
            serde::Serialize::serialize(&value, &mut serializer).map_err(unwritable)?;
            String::from_utf8(out).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
        }
    }
}

/// `{{ values.token | b64encode }}`: the text's bytes in base64.
fn b64encode(state: &mut State, value: &Value) -> Result<String, Error> {
    Ok(STANDARD.encode(text(state, "b64encode", value)?))
}

/// `{{ values.config | sha256 }}`: the SHA-256 of the text's bytes in hexadecimal digits.
fn sha256(state: &mut State, value: &Value) -> Result<String, Error> {
    Ok(Digest::of(text(state, "sha256", value)?.as_bytes()).to_string())
}

/// `{{ values.name | quote }}`: one word to a POSIX shell, whatever is in it.
fn quote(state: &mut State, value: &Value) -> Result<String, Error> {
    let text = text(state, "quote", value)?;
    if text.contains('\0') {
        return Err(Error::new(ErrorKind::InvalidOperation, "quote: a shell word cannot hold a NUL character"));
    }
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

/// Returns plain data; an undefined value is an error, as anywhere else.
fn plain(state: &mut State, value: &Value) -> Result<serde_json::Value, Error> {
    defined(state, value)?;
    serde_json::to_value(value).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// Returns the text of text, a number or a boolean; a list or map has no text of its own.
fn text(state: &mut State, filter: &str, value: &Value) -> Result<String, Error> {
    defined(state, value)?;
    match value.kind() {
        ValueKind::String | ValueKind::Number => Ok(value.to_string()),
        ValueKind::Bool => Ok(if value.is_true() { "true" } else { "false" }.to_owned()),
        kind => {
            let detail = format!("{filter}: {kind} is not text; use to_json or to_yaml first");
            Err(Error::new(ErrorKind::InvalidOperation, detail))
        }
    }
}

/// Fails on an undefined value, in the engine's own words.
fn defined(state: &mut State, value: &Value) -> Result<(), Error> {
    if value.is_undefined() { state.format(value.clone()).map(drop) } else { Ok(()) }
}
