//! Which parts of a context a template can see.
//!
//! Every path that stands in the code of any file counts as read, whether or not the code runs: `host.labels.zone` is that
//! one label, `host.labels` is all of them, and so is `host.labels[name]`. The context is cut down to these parts before
//! it is rendered, so nothing else can influence the result, even if a path were overlooked here.

mod hosts;

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

pub use self::hosts::{HostReads, KeysRead};
use super::lexer::{Code, Token, TokenKind};

/// A tree of the parts that are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reads {
    whole: bool,
    parts: BTreeMap<String, Self>,
}

/// The parts of a context that [`Reads`] names; written as JSON it is what a worker receives.
#[derive(Debug, Clone, Copy)]
pub struct Projection<'a> {
    reads: &'a Reads,
    context: &'a Value,
}

/// Words that are never looked up in the context.
const KEYWORDS: [&str; 14] =
    ["and", "or", "not", "in", "is", "if", "else", "elif", "true", "false", "none", "True", "False", "None"];

impl Reads {
    /// Returns what the code of a file reads.
    #[must_use]
    pub fn of<'a>(code: impl IntoIterator<Item = &'a Code>) -> Self {
        let mut reads = Self::default();
        for code in code {
            // The first word of a statement is its name, and what stands between `for` and `in` is assigned.
            let start = match code.tokens.first() {
                Some(first) if code.statement && first.is_word("for") => {
                    code.tokens.iter().position(|token| token.is_word("in")).unwrap_or_default()
                }
                Some(_) if code.statement => 1,
                _ => 0,
            };
            reads.scan(&code.tokens[start..]);
        }
        reads
    }

    /// Adds what `tokens` read.
    pub fn scan(&mut self, tokens: &[Token]) {
        for (at, token) in tokens.iter().enumerate() {
            let Some(word) = token.word() else { continue };
            let after_sign =
                at.checked_sub(1).is_some_and(|before| matches!(tokens[before].kind, TokenKind::Sign("." | "|")));
            let assigned = tokens.get(at + 1).is_some_and(|next| next.is_sign("="));
            if !after_sign && !assigned && !KEYWORDS.contains(&word) {
                self.add(&path(word, &tokens[at + 1..]));
            }
        }
    }

    /// Adds one path and everything below it.
    pub fn add<S: AsRef<str>>(&mut self, path: &[S]) {
        match path.split_first() {
            _ if self.whole => {}
            None => *self = Self { whole: true, parts: BTreeMap::new() },
            Some((first, rest)) => self.parts.entry(first.as_ref().to_owned()).or_default().add(rest),
        }
    }

    /// Adds all that `other` reads.
    pub fn join(&mut self, other: &Self) {
        if other.whole {
            self.add::<&str>(&[]);
        } else if !self.whole {
            for (name, part) in &other.parts {
                self.parts.entry(name.clone()).or_default().join(part);
            }
        }
    }

    /// Returns the paths, dotted, in order.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, prefix: &str, paths: &mut Vec<String>) {
        for (name, part) in &self.parts {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            if part.whole {
                paths.push(path);
            } else {
                part.collect(&path, paths);
            }
        }
    }

    /// Whether a path's part, or something below it, is read.
    #[must_use]
    pub fn part(&self, name: &str) -> Option<&Self> {
        if self.whole { Some(self) } else { self.parts.get(name) }
    }

    /// Whether everything is read.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.whole
    }

    /// Returns the names that are read one by one.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.keys().map(String::as_str)
    }

    /// Returns the names that are read one by one with what is read of each, in order.
    pub fn parts(&self) -> impl Iterator<Item = (&str, &Self)> {
        self.parts.iter().map(|(name, reads)| (name.as_str(), reads))
    }

    /// Returns the parts of `context` that are read.
    #[must_use]
    pub const fn of_context<'a>(&'a self, context: &'a Value) -> Projection<'a> {
        Projection { reads: self, context }
    }
}

/// Returns the path that begins with `root` and goes on in `rest`.
fn path(root: &str, rest: &[Token]) -> Vec<String> {
    let mut path = vec![root.to_owned()];
    let mut rest = rest;
    loop {
        let (segment, length) = match rest {
            [dot, token, ..] if dot.is_sign(".") => match &token.kind {
                TokenKind::Word(word) => (word.clone(), 2),
                _ => return path,
            },
            [open, token, close, ..] if open.is_sign("[") && close.is_sign("]") => match &token.kind {
                TokenKind::Text(text) if !text.contains(char::REPLACEMENT_CHARACTER) => (text.clone(), 3),
                _ => return path,
            },
            _ => return path,
        };
        rest = &rest[length..];
        // A method may look at all of what it is called on.
        if rest.first().is_some_and(|next| next.is_sign("(")) {
            return path;
        }
        path.push(segment);
    }
}

impl Projection<'_> {
    /// Returns the parts as a value.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self.context {
            Value::Object(map) if !self.reads.whole => {
                let entries = self.reads.parts.iter().filter_map(|(name, reads)| {
                    map.get(name).map(|context| (name.clone(), Projection { reads, context }.to_value()))
                });
                Value::Object(entries.collect::<Map<_, _>>())
            }
            context => context.clone(),
        }
    }
}

impl Serialize for Projection<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.context {
            Value::Object(map) if !self.reads.whole => {
                let mut out = serializer.serialize_map(None)?;
                for (name, reads) in &self.reads.parts {
                    if let Some(context) = map.get(name) {
                        out.serialize_entry(name, &Projection { reads, context })?;
                    }
                }
                out.end()
            }
            context => context.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::render::lexer;

    fn paths(source: &str) -> Vec<String> {
        Reads::of(&lexer::code(source).expect("code")).paths()
    }

    #[test]
    fn paths_are_found_wherever_they_stand() {
        assert_eq!(paths("{{ values.a.b }}{{ values.a.c|upper }}"), ["values.a.b", "values.a.c"]);
        assert_eq!(paths("{{ values.a }}{{ values.a.c }}"), ["values.a"]);
        assert_eq!(paths("{{ values[name] }}{{ host['labels']['x/y'] }}"), ["host.labels.x/y", "name", "values"]);
        assert_eq!(paths("{{ values.list[0].x }}{{ host.labels['\\u0061'] }}"), ["host.labels", "values.list"]);
        assert_eq!(paths("{{ values.items() }}"), ["values"]);
        assert_eq!(paths("{% for x in values.list %}{{ x.y }}{% endfor %}"), ["values.list", "x.y"]);
        assert_eq!(paths("{% set values = values.x %}{{ f(host=host.name) }}"), ["f", "host.name", "values.x"]);
        assert_eq!(paths("{% with values = values.x %}{{ values }}{% endwith %}"), ["values"]);
        assert_eq!(paths("{% filter replace(host.name, 'x') %}{% endfilter %}"), ["host.name", "replace"]);
        assert_eq!(paths("{% include values.file %}{% raw %}{{ host }}{% endraw %}{# {{ host }} #}"), ["values.file"]);
    }

    #[test]
    fn a_projection_holds_what_is_read_and_nothing_else() {
        let context =
            json!({"host": {"name": "a", "labels": {"zone": "x", "rack": 1}}, "values": {"list": [1]}, "z": 1});
        let code =
            lexer::code("{{ host.labels.zone }}{{ host.labels.none }}{{ values.list.deep }}{{ q.r }}").expect("code");
        let reads = Reads::of(&code);
        let expected = json!({"host": {"labels": {"zone": "x"}}, "values": {"list": [1]}});
        assert_eq!(reads.of_context(&context).to_value(), expected);
        assert_eq!(serde_json::to_value(reads.of_context(&context)).expect("json"), expected);
    }
}
