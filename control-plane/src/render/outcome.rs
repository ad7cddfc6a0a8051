//! The key under which a rendered bundle is shared.

use serde_json::Value;
use titan_api::digests::Digest;

use super::Template;

/// Returns the key of what `template` renders to from `context`: equal keys give equal bundles.
///
/// It is made of the template and the parts of the context that the template can see. Other parts may differ from host to
/// host; they do not reach the worker either.
#[must_use]
pub fn outcome_key(template: &Template, context: &Value) -> Digest {
    let mut bytes = template.digest().as_bytes().to_vec();
    // JSON of maps with text keys cannot fail to be written.
    bytes.extend(serde_json::to_vec(&template.reads().of_context(context)).unwrap_or_default());
    Digest::of(&bytes)
}
