//! Names of documents: DNS labels.

use std::{borrow::Borrow, fmt, ops::Deref, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};

use crate::limits::NAME_BYTES;

/// A DNS label (RFC 1123): 1 to 63 of `a-z`, `0-9` and `-`, beginning and ending with a letter or digit.
///
/// Clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
pub struct Name(Arc<str>);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name: use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit")]
pub struct NameError(String);

impl Name {
    /// Returns `text` as a name.
    pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
        let text = text.as_ref();
        Self::check(text)?;
        Ok(Self(text.into()))
    }

    /// Returns a name that reads like `text`, up to `most` bytes of it: what may not stand in a name is a `-`, and a text
    /// without anything that may is `none`.
    #[must_use]
    pub fn like(text: &str, most: usize) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let text: String = text.chars().map(plain).skip_while(|c| *c == '-').take(most.min(NAME_BYTES)).collect();
        let text = text.trim_end_matches('-');
        Self(if text.is_empty() { "none".into() } else { text.into() })
    }

    /// Checks that `text` is a name.
    pub fn check(text: &str) -> Result<(), NameError> {
        let bytes = text.as_bytes();
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let edge = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
        if bytes.len() <= NAME_BYTES && bytes.iter().all(inner) && edge(bytes.first()) && edge(bytes.last()) {
            Ok(())
        } else {
            Err(NameError(text.to_owned()))
        }
    }

    /// Returns the name of the workspace that exists from the start.
    #[must_use]
    pub fn default_workspace() -> Self {
        Self(crate::workspaces::DEFAULT.into())
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        (*name.0).to_owned()
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_labels_are_names_and_nothing_else_is() {
        for good in ["a", "tim-pi", "0", "a1-b2", &"x".repeat(63)] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "../x", "ä", &"x".repeat(64)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn any_text_has_a_name_that_reads_like_it() {
        for (text, most, like) in [
            ("EU_West.1", 63, "eu-west-1"),
            ("ab-cd", 3, "ab"),
            ("-a-", 63, "a"),
            ("", 63, "none"),
            ("ä_", 63, "none"),
            (&"x".repeat(99), 99, &"x".repeat(63)),
        ] {
            let name = Name::like(text, most);
            assert_eq!(name.as_str(), like);
            assert_eq!(Name::new(like), Ok(name));
        }
    }
}
