//! The key under which a rendered bundle is shared.

use serde_json::Value;
use titan_api::digests::Digest;

use super::{Template, json};

/// Bytes that the usual key is made of.
const ROOM: usize = 1024;

/// Returns the key of what `template` renders to from `context`: equal keys give equal bundles.
///
/// It is made of the template and the parts of the context that the template can see. Other parts may differ from host to
/// host; they do not reach the worker either.
#[must_use]
pub fn outcome_key(template: &Template, context: &Value) -> Digest {
    let mut bytes = Vec::with_capacity(ROOM);
    bytes.extend_from_slice(template.digest().as_bytes());
    json::write(Some(template.reads()), context, &mut bytes);
    Digest::of(&bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use titan_api::templates::{TemplateFile, TemplateSpec};

    use super::*;

    #[test]
    fn keys_that_are_stored_stay_the_same() {
        let file = TemplateFile::of(b"{{ host.name }}{{ values.a }}".to_vec(), false);
        let template = Template::parse(&TemplateSpec { files: [("a.j2".to_owned(), file)].into() }).expect("template");
        let context = json!({"host": {"name": "a\n\"", "labels": {}}, "values": {"a": [1.5, null, {"x": -1}], "b": 1}});
        let read = r#"{"host":{"name":"a\n\""},"values":{"a":[1.5,null,{"x":-1}]}}"#;
        let expected = Digest::of(&[template.digest().as_bytes().as_slice(), read.as_bytes()].concat());
        assert_eq!(outcome_key(&template, &context), expected);
    }
}
