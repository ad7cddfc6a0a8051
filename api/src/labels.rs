//! Labels and annotations of documents.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits;

/// Labels by key. A key is an optional DNS prefix and `/`, then 1 to 63 of letters, digits, `-`, `_` and `.`; a value is
/// up to 63 of the same. Both begin and end with a letter or digit. The prefix `fact` is kept for facts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
pub struct Labels(BTreeMap<String, String>);

/// Free text by key, for people and tools; Titan does not read it. Keys are like those of [`Labels`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
pub struct Annotations(BTreeMap<String, String>);

/// Why a map is not [`Labels`] or [`Annotations`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// A key is not a label key.
    #[error("{0:?} is not a label key: use [prefix/]name of letters, digits, '-', '_' and '.', up to 63 of them")]
    Key(String),
    /// A value is not a label value.
    #[error("{value:?} is not a value of label {key:?}: use up to 63 of letters, digits, '-', '_' and '.'")]
    Value {
        /// The label's key.
        key: String,
        /// The value at fault.
        value: String,
    },
    /// Labels of this prefix come from the agent.
    #[error("label {0:?} may not be set: facts come from the agent")]
    Fact(String),
    /// There are more than the limit.
    #[error("{0} are too many: the limit is {limit}", limit = limits::LABELS)]
    TooMany(usize),
    /// An annotation is too long.
    #[error("annotation {0:?} is too long: the limit is {limit} bytes", limit = limits::ANNOTATION_BYTES)]
    TooLong(String),
    /// A `key=value` list is malformed.
    #[error("{0:?} is not of the form key=value,key=value")]
    List(String),
}

/// Whether `text` may stand as the name part of a label key, or as a non-empty label value.
fn is_word(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// Whether `text` is a label key, `fact/...` included.
#[must_use]
pub fn is_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => prefix.len() <= 253 && prefix.split('.').all(is_word) && is_word(name),
        None => is_word(text),
    }
}

impl Labels {
    /// Returns the value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Returns the labels by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks one label.
    pub fn check(key: &str, value: &str) -> Result<(), LabelError> {
        if !is_key(key) {
            return Err(LabelError::Key(key.to_owned()));
        }
        if key.starts_with("fact/") {
            return Err(LabelError::Fact(key.to_owned()));
        }
        if !value.is_empty() && !is_word(value) {
            return Err(LabelError::Value { key: key.to_owned(), value: value.to_owned() });
        }
        Ok(())
    }

    /// Returns the labels of a list such as `name=tim-pi,platform=kubernetes`.
    pub fn parse_list(text: &str) -> Result<Self, LabelError> {
        let mut map = BTreeMap::new();
        for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| LabelError::List(text.to_owned()))?;
            map.insert(key.trim().to_owned(), value.trim().to_owned());
        }
        Self::try_from(map)
    }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = LabelError;

    fn try_from(map: BTreeMap<String, String>) -> Result<Self, LabelError> {
        if map.len() > limits::LABELS {
            return Err(LabelError::TooMany(map.len()));
        }
        for (key, value) in &map {
            Self::check(key, value)?;
        }
        Ok(Self(map))
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

impl Annotations {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<BTreeMap<String, String>> for Annotations {
    type Error = LabelError;

    fn try_from(map: BTreeMap<String, String>) -> Result<Self, LabelError> {
        if map.len() > limits::LABELS {
            return Err(LabelError::TooMany(map.len()));
        }
        for (key, value) in &map {
            if !is_key(key) {
                return Err(LabelError::Key(key.clone()));
            }
            if value.len() > limits::ANNOTATION_BYTES {
                return Err(LabelError::TooLong(key.clone()));
            }
        }
        Ok(Self(map))
    }
}

impl From<Annotations> for BTreeMap<String, String> {
    fn from(annotations: Annotations) -> Self {
        annotations.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_of_the_founding_document_is_read() {
        let labels = Labels::parse_list("name=tim-pi,platform=kubernetes").expect("labels");
        assert_eq!(labels.get("platform"), Some("kubernetes"));
        assert!(Labels::parse_list("name").is_err());
    }

    #[test]
    fn bad_keys_values_and_facts_are_refused() {
        for bad in ["a b=c", "a=b c", "/a=b", "a/=b", "a/b/c=d", "fact/arch=arm", "-a=b", "a=-b"] {
            assert!(Labels::parse_list(bad).is_err(), "{bad}");
        }
        for good in ["a=", "example.com/a=b", "A.b_c=1.2"] {
            assert!(Labels::parse_list(good).is_ok(), "{good}");
        }
        let many = (0..=limits::LABELS).map(|n| (format!("k{n}"), String::new())).collect::<BTreeMap<_, _>>();
        assert_eq!(Labels::try_from(many), Err(LabelError::TooMany(limits::LABELS + 1)));
    }
}
