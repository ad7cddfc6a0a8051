//! Strict parsing: JSON to a type, with a JSON pointer to whatever does not fit.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::problems::{Code, Fault, Problem};

/// Returns `value` as a `T`, or what does not fit and where.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Fault> {
    serde_path_to_error::deserialize(value).map_err(|error| fault(&error))
}

/// Returns JSON `bytes` as a `T`, or the problem to answer with.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        if error.inner().is_data() {
            Problem::new(Code::Invalid, "the body does not fit").with([fault(&error)])
        } else {
            Problem::new(Code::MalformedBody, format!("the body is not JSON: {}", error.inner()))
        }
    })?;
    json.end().map_err(|error| Problem::new(Code::MalformedBody, format!("the body is not JSON: {error}")))?;
    Ok(parsed)
}

/// Returns `text` with `~` and `/` escaped for a JSON pointer.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('~', "~0").replace('/', "~1")
}

fn fault(error: &serde_path_to_error::Error<serde_json::Error>) -> Fault {
    let mut pointer = String::new();
    for segment in error.path() {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{}", escape(key))),
            Segment::Enum { variant } => pointer.push_str(&format!("/{}", escape(variant))),
            Segment::Unknown => {}
        }
    }
    let text = error.inner().to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    match unknown_field(text) {
        Some((field, known)) => {
            if pointer.rsplit('/').next() != Some(field) {
                pointer.push_str(&format!("/{}", escape(field)));
            }
            Fault::new(pointer, unknown_key(field, &known))
        }
        None => Fault::new(pointer, text),
    }
}

/// Returns the field and the known ones of serde's message about an unknown field.
fn unknown_field(text: &str) -> Option<(&str, Vec<&str>)> {
    let rest = text.strip_prefix("unknown field `")?;
    let (field, rest) = rest.split_once('`')?;
    Some((field, rest.split('`').skip(1).step_by(2).collect()))
}

/// Returns the sentence about a key that is not known, with the nearest known one.
#[must_use]
pub fn unknown_key(key: &str, known: &[&str]) -> String {
    match nearest(key, known.iter().copied()) {
        Some(near) => format!("unknown key {key:?}, did you mean {near:?}?"),
        None if known.is_empty() => format!("unknown key {key:?}, none is allowed here"),
        None => format!("unknown key {key:?}, known are {}", known.join(", ")),
    }
}

/// Returns the candidate most like `word`, if one is near enough to be a slip.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(score, _)| *score >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsing is tested")]
    struct Inner {
        port: u16,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsing is tested")]
    struct Outer {
        list: Vec<Inner>,
    }

    #[test]
    fn faults_point_to_the_place() {
        let fault = from_value::<Outer>(json!({"list": [{"port": 1}, {"port": "x"}]})).expect_err("type");
        assert_eq!(fault.pointer, "/list/1/port");
        let fault = from_value::<Outer>(json!({"list": [{"port": 1, "prot": 2}]})).expect_err("key");
        assert_eq!(
            (fault.pointer.as_str(), fault.detail.as_str()),
            ("/list/0/prot", "unknown key \"prot\", did you mean \"port\"?")
        );
    }

    #[test]
    fn bytes_that_are_not_json_are_malformed() {
        for bad in ["", "{", "<html>", "{} {}"] {
            assert_eq!(from_slice::<Value>(bad.as_bytes()).expect_err(bad).code, Code::MalformedBody);
        }
    }
}
