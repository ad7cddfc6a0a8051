//! Merge patches of documents.

use serde_json::Value;
use titan_api::{Code, Problem, documents::Declared};

use super::{Place, check};
use crate::{patches, store::Stored};

/// Returns a document after a [merge patch](crate::patches) of its metadata and spec.
pub(super) fn patched(place: &Place, current: &Stored, patch: &Value) -> Result<Declared, Problem> {
    let mut value = serde_json::to_value(current.document())
        .map_err(|error| Problem::new(Code::Internal, format!("{place} cannot be written as JSON: {error}")))?;
    if !patch.is_object() {
        return Err(Problem::new(Code::Invalid, "a merge patch is a JSON object").at("", "not an object"));
    }
    patches::merge(&mut value, patch);
    let declared = Declared::parse(value, place.workspace.as_ref())?;
    if Place::of(&declared) != *place {
        return Err(Problem::new(Code::Invalid, "a patch cannot change kind, workspace or name")
            .at("/metadata/name", format!("this is {place}")));
    }
    check(&declared)?;
    Ok(declared)
}
