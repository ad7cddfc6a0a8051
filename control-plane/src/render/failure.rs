//! Why a template cannot be read or rendered, in words for its author.

use std::fmt;

use minijinja::ErrorKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use titan_api::{
    Code, Problem,
    parse::{escape, nearest},
};

/// Names that are listed at most.
const NAMES: usize = 12;

/// One thing that is wrong with a template or with what it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Failure {
    /// The template's file, or empty if it is not about one.
    pub file: String,
    /// Whether it is about the file's name rather than its text.
    pub in_name: bool,
    /// The line, counted from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// The dotted path of a name that is not there.
    pub missing: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.in_name {
            write!(f, " in the name of {}", self.file)
        } else if !self.file.is_empty() {
            write!(f, " in {}", self.file)?;
            self.line.map_or(Ok(()), |line| write!(f, " line {line}"))
        } else {
            Ok(())
        }
    }
}

impl Failure {
    /// Returns a failure that is about no line.
    pub fn new(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self { file: file.into(), in_name: false, line: None, message: message.into(), missing: None }
    }

    /// Returns the failure as about `line`.
    #[must_use]
    pub fn line(self, line: Option<usize>) -> Self {
        Self { line, ..self }
    }

    /// Returns the failure as about the file's name.
    #[must_use]
    pub fn in_name(self) -> Self {
        Self { in_name: true, line: None, ..self }
    }

    /// Returns what minijinja says of a template whose environment names it `name`.
    #[must_use]
    pub fn of_engine(error: &minijinja::Error) -> Self {
        // An include or a block wraps what went wrong inside; the innermost has the place.
        let mut inner = error;
        while let Some(source) = std::error::Error::source(inner).and_then(<dyn std::error::Error>::downcast_ref) {
            inner = source;
        }
        let (name, line) = match inner.name() {
            Some(name) => (name, inner.line()),
            None => (error.name().unwrap_or_default(), error.line()),
        };
        let (file, in_name) = name.strip_prefix(NAME_OF).map_or((name, false), |file| (file, true));
        let (message, missing) = describe(inner);
        Self { file: file.to_owned(), in_name, line: line.filter(|_| !in_name), message, missing }
    }

    /// Returns the problem of a template that is not valid.
    #[must_use]
    pub fn bad_template(&self) -> Problem {
        let pointer = self.pointer();
        Problem::new(Code::BadTemplate, self.to_string()).at(pointer, self.to_string())
    }

    /// Returns the problem of a template that cannot be rendered from `context`, with the names that are there instead.
    #[must_use]
    pub fn render_failed(&self, context: &Value) -> Problem {
        let mut detail = self.to_string();
        if let Some(missing) = &self.missing {
            detail.push_str(&near(missing, context));
        }
        Problem::new(Code::RenderFailed, detail.clone()).at(self.pointer(), detail)
    }

    fn pointer(&self) -> String {
        if self.file.is_empty() { "/spec".to_owned() } else { format!("/spec/files/{}", escape(&self.file)) }
    }
}

/// What an environment calls the name of a file, before the name itself.
pub const NAME_OF: &str = "the name of ";

/// Returns what happened in our words, and the path of a name that is not there.
fn describe(error: &minijinja::Error) -> (String, Option<String>) {
    let detail = error.detail().unwrap_or_default();
    let missing = detail.split_once(" is undefined").and_then(|(before, _)| {
        let path = before.strip_suffix('`')?;
        path.rsplit_once('`').map(|(_, path)| path.to_owned())
    });
    let message = match (error.kind(), &missing) {
        (ErrorKind::UndefinedError, Some(path)) => format!("{path} is not defined"),
        (ErrorKind::UndefinedError, None) => "something is not defined".to_owned(),
        (ErrorKind::OutOfFuel, _) => "too many steps; is there a loop without an end?".to_owned(),
        (ErrorKind::InvalidOperation | ErrorKind::SyntaxError, _) if !detail.is_empty() => detail.to_owned(),
        (ErrorKind::TemplateNotFound, _) => "there is no such file to include".to_owned(),
        (kind, _) if detail.is_empty() => kind.to_string(),
        (kind, _) => format!("{kind}: {detail}"),
    };
    (message, missing)
}

/// Returns what stands in `context` where `missing` was looked for.
fn near(missing: &str, context: &Value) -> String {
    let mut here = context;
    let mut known = String::new();
    // What begins with a name that is not the context's belongs to a loop or a macro; its names are not known here.
    if missing.split_once('.').is_some_and(|(root, _)| context.get(root).is_none()) {
        return String::new();
    }
    for segment in missing.split('.') {
        if let Some(next) = here.get(segment) {
            known = format!("{known}{segment}.");
            here = next;
            continue;
        }
        let Value::Object(map) = here else { break };
        let mut text = String::new();
        if let Some(near) = nearest(segment, map.keys().map(String::as_str)) {
            text.push_str(&format!("; did you mean {known}{near}?"));
        }
        let names: Vec<_> = map.keys().take(NAMES).map(String::as_str).collect();
        let more = if map.len() > NAMES { ", ..." } else { "" };
        let separator = if text.is_empty() { "; " } else { " " };
        let listed = if names.is_empty() { "there are none".to_owned() } else { names.join(", ") };
        return format!("{text}{separator}names there: {listed}{more}");
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn near_misses_and_the_names_there_are_told() {
        let context = json!({"values": {"port": 1, "host": "a"}, "host": {"labels": {}}});
        assert_eq!(near("values.prot", &context), "; did you mean values.port? names there: host, port");
        assert_eq!(near("item.port", &context), "");
        assert_eq!(near("valeus", &context), "; did you mean values? names there: host, values");
        assert_eq!(near("host.labels.zone", &context), "; names there: there are none");
        assert_eq!(near("values.port.x", &context), "");
    }

    #[test]
    fn failures_name_their_place() {
        let failure = Failure::new("a/b.j2", "x is not defined").line(Some(7));
        assert_eq!(failure.to_string(), "x is not defined in a/b.j2 line 7");
        assert_eq!(failure.bad_template().errors[0].pointer, "/spec/files/a~1b.j2");
        assert_eq!(failure.in_name().to_string(), "x is not defined in the name of a/b.j2");
        assert_eq!(Failure::new("", "stopped").bad_template().errors[0].pointer, "/spec");
    }
}
