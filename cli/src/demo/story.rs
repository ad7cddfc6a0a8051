//! The story of a scenario: what the demo does to the fleet once it is healthy.

use serde::Deserialize;
use serde_json::Value;
use titan_api::{Kind, Name};

/// The file of an example that tells the story. Its ending keeps it apart from documents.
pub(super) const FILE: &str = "demo.story";

/// What happens, in order.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Story {
    /// The steps.
    pub(super) steps: Vec<Step>,
}

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    /// What happens, in words.
    pub(super) title: String,
    /// What a person would type for it.
    pub(super) command: String,
    /// A document that is changed.
    #[serde(default)]
    pub(super) patch: Option<Patch>,
    /// A document that is deleted.
    #[serde(default)]
    pub(super) delete: Option<Reference>,
    /// A deployment that every host finds bad and takes back.
    #[serde(default, rename = "rollsBack")]
    pub(super) rolls_back: Option<Reference>,
}

/// Which document.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reference {
    /// Its kind.
    pub(super) kind: Kind,
    /// Its workspace, if the kind lives in one.
    #[serde(default)]
    pub(super) workspace: Option<Name>,
    /// Its name.
    pub(super) name: Name,
}

/// A document and what is merged into it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    /// Its kind.
    pub(super) kind: Kind,
    /// Its workspace, if the kind lives in one.
    #[serde(default)]
    pub(super) workspace: Option<Name>,
    /// Its name.
    pub(super) name: Name,
    /// The merge patch.
    pub(super) with: Value,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin::Shelf;

    #[test]
    fn every_example_tells_a_story_that_ends_with_a_delete() {
        for name in Shelf::Examples.names() {
            let files = Shelf::Examples.get(name).expect("example");
            let (bytes, _) = files.get(FILE).unwrap_or_else(|| panic!("{name} has no {FILE}"));
            let story: Story = serde_yaml::from_slice(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            for step in &story.steps {
                assert!(step.patch.is_some() != step.delete.is_some(), "{name}: {}", step.title);
            }
            assert!(story.steps.last().is_some_and(|step| step.delete.is_some()), "{name}");
        }
    }
}
