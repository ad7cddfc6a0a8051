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
    let text = match text.rsplit_once(" at line ") {
        Some((message, _)) if error.inner().line() > 0 => message,
        _ => text.as_str(),
    };
    if let Some((field, known)) = not_known(text, "field") {
        let escaped = escape(field);
        if pointer.rsplit('/').next() != Some(escaped.as_str()) {
            pointer.push_str(&format!("/{escaped}"));
        }
        return Fault::new(pointer, unknown("key", field, &known));
    }
    match not_known(text, "variant") {
        Some((word, known)) => Fault::new(pointer, unknown("value", word, &known)),
        None => Fault::new(pointer, text),
    }
}

/// Returns the word and the known ones of serde's message about an unknown field or variant.
fn not_known<'t>(text: &'t str, what: &str) -> Option<(&'t str, Vec<&'t str>)> {
    let rest = text.strip_prefix("unknown ")?.strip_prefix(what)?.strip_prefix(" `")?;
    // The word is somebody's own and may hold anything; what follows it is serde's.
    let (word, known) = rest.rsplit_once("`, expected ").or_else(|| rest.rsplit_once("`, there are no "))?;
    Some((word, known.split('`').skip(1).step_by(2).collect()))
}

/// Returns the sentence about a `word` that is not known as a `what`, with the nearest known one and all of them.
#[must_use]
pub fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    let all = known.join(", ");
    match nearest(word, known.iter().copied()) {
        Some(near) if known.len() == 1 => format!("unknown {what} {word:?}, did you mean {near:?}?"),
        Some(near) => format!("unknown {what} {word:?}, did you mean {near:?}? known are {all}"),
        None if known.is_empty() => format!("unknown {what} {word:?}, none is allowed here"),
        None => format!("unknown {what} {word:?}, known are {all}"),
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

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    #[expect(dead_code, reason = "only parsing is tested")]
    enum Choice {
        Rollback,
        Pause,
        Http { url: String },
    }

    #[test]
    fn words_that_are_not_known_are_told_with_those_that_are() {
        let told = |value: Value| {
            let fault = from_value::<std::collections::BTreeMap<String, Choice>>(value).expect_err("unknown");
            (fault.pointer, fault.detail)
        };
        let all = "known are rollback, pause, http";
        for (word, sentence) in [
            (json!("rolback"), format!("unknown value \"rolback\", did you mean \"rollback\"? {all}")),
            (json!({"htttp": {}}), format!("unknown value \"htttp\", did you mean \"http\"? {all}")),
            (json!("never"), format!("unknown value \"never\", {all}")),
            // What people write is told as it is, whatever it looks like.
            (json!("a`, expected `b` at line 3"), format!("unknown value \"a`, expected `b` at line 3\", {all}")),
            (json!({"http": {"a/b": 1}}), "missing field `url`".to_owned()),
        ] {
            let fault = told(json!({ "on/failure": word.clone() }));
            assert_eq!((fault.0.starts_with("/on~1failure"), fault.1), (true, sentence), "{word}");
        }
        assert_eq!(told(json!({"x": "rolback"})).0, "/x");
        let bytes = br#"{"x": "rolback"}"#;
        let problem = from_slice::<std::collections::BTreeMap<String, Choice>>(bytes).expect_err("unknown");
        assert_eq!(problem.errors[0].detail, format!("unknown value \"rolback\", did you mean \"rollback\"? {all}"));
        assert_eq!(unknown("key", "a", &[]), "unknown key \"a\", none is allowed here");
    }

    #[test]
    fn bytes_that_are_not_json_are_malformed() {
        for bad in ["", "{", "<html>", "{} {}"] {
            assert_eq!(from_slice::<Value>(bad.as_bytes()).expect_err(bad).code, Code::MalformedBody);
        }
    }
}
