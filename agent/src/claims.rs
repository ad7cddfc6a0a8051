//! Claims: what a deployment owns on its host beside files: units, pods, projects, objects.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use titan_api::Digest;

/// One thing beside files that a deployment owns.
///
/// Written `kind:name` for people and in the ledger, such as `unit:app.service`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Claim {
    /// What sort of thing it is: `unit`, `pod`, `project`, `object`, ...
    pub kind: String,
    /// Its name, which is the only one of its kind on the host: no two deployments can have it.
    pub name: String,
}

/// What a deployment owns beside files, each with the digest of everything that it is made from: whose digest changed is
/// made anew or restarted, and nothing else.
pub type Claims = BTreeMap<Claim, Digest>;

impl Claim {
    /// Returns the claim on what has this name among its kind.
    #[must_use]
    pub fn new(kind: &str, name: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), name: name.into() }
    }

    /// Returns the claim among the paths that deployments own. No path of a file has an empty part, so none is like it,
    /// and none lies above or below it; no two claims have the same.
    #[must_use]
    pub fn path(&self) -> String {
        format!("//{}:{}", self.kind, self.name.replace('\\', "\\\\").replace('/', "\\:"))
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

impl TryFrom<String> for Claim {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (kind, name) = text.split_once(':').ok_or_else(|| format!("{text:?} is not kind:name"))?;
        Ok(Self::new(kind, name))
    }
}

impl From<Claim> for String {
    fn from(claim: Claim) -> Self {
        claim.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::paths_clash;

    #[test]
    fn claims_clash_with_themselves_alone() {
        let claims = [Claim::new("object", "v1/Namespace//a"), Claim::new("object", "v1/Namespace//a/b")];
        assert!(paths_clash(&claims[0].path(), &claims[0].path()));
        assert!(!paths_clash(&claims[0].path(), &claims[1].path()));
        let alike = [r"a/b", r"a\b", r"a\:b", r"a\/b", "a//b", r"a\\b"].map(|name| Claim::new("unit", name).path());
        assert!(
            alike.iter().all(|path| alike.iter().filter(|other| paths_clash(path, other)).count() == 1),
            "{alike:?}"
        );
        let text = serde_json::to_string(&claims).expect("text");
        assert_eq!(serde_json::from_str::<[Claim; 2]>(&text).expect("claims"), claims);
    }
}
