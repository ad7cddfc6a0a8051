//! The JSON Schema of a template's values.
//!
//! A schema comes from people and is worked on in this process, so only what takes little time is let in: references stay
//! inside the document and do not come back to themselves, what they unfold to is counted, and patterns are matched in
//! linear time.

use std::collections::BTreeMap;

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;
use titan_api::{Code, Problem, problems::Fault, values::Values};

/// Schemas that a schema may unfold to when every reference is followed.
const UNFOLDED: usize = 4096;
/// Faults that are told at once.
const FAULTS: usize = 20;
/// The one dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Keys whose value is a schema, a list of schemas, or a map of schemas.
const ONE: [&str; 13] = [
    "additionalProperties",
    "items",
    "contains",
    "not",
    "if",
    "then",
    "else",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
    "additionalItems",
    "$ref",
];
const LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
const MAP: [&str; 5] = ["properties", "patternProperties", "dependentSchemas", "$defs", "definitions"];

/// A schema that values can be checked with.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
}

/// Why a schema is refused, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct SchemaError {
    /// JSON pointer into the schema.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

impl Schema {
    /// Returns `schema` compiled.
    pub fn compile(schema: &Value) -> Result<Self, SchemaError> {
        Unfolding { root: schema, sizes: BTreeMap::new() }.size("", schema)?;
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(PatternOptions::regex().size_limit(1 << 20).dfa_size_limit(1 << 20))
            .should_validate_formats(true)
            .build(schema)
            .map_err(|error| SchemaError { pointer: error.instance_path().to_string(), detail: error.to_string() })?;
        Ok(Self { validator })
    }

    /// Checks `values`; faults have their pointers under `/values`.
    pub fn check(&self, values: &Values) -> Result<(), Problem> {
        let instance = Value::Object(values.clone());
        let faults: Vec<_> = self
            .validator
            .iter_errors(&instance)
            .take(FAULTS)
            .map(|error| Fault::new(format!("/values{}", error.instance_path()), error.masked().to_string()))
            .collect();
        let Some(first) = faults.first() else { return Ok(()) };
        let detail = format!("the values do not fit the template's schema: {}: {}", first.pointer, first.detail);
        Err(Problem::new(Code::RenderFailed, detail).with(faults))
    }
}

struct Unfolding<'a> {
    root: &'a Value,
    /// How much each target of a reference unfolds to; `None` while it is being worked out.
    sizes: BTreeMap<String, Option<usize>>,
}

impl Unfolding<'_> {
    /// Returns the number of schemas that the one at `pointer` unfolds to.
    fn size(&mut self, pointer: &str, schema: &Value) -> Result<usize, SchemaError> {
        let fail = |key: &str, detail: String| SchemaError { pointer: format!("{pointer}{key}"), detail };
        let Value::Object(map) = schema else {
            return if schema.is_boolean() {
                Ok(1)
            } else {
                Err(fail("", "a schema is a map or a boolean".to_owned()))
            };
        };
        let mut size = 1_usize;
        for (key, value) in map {
            let at = format!("/{}", titan_api::parse::escape(key));
            size = size.saturating_add(match key.as_str() {
                "$ref" => self.follow(&format!("{pointer}{at}"), value)?,
                "$dynamicRef" | "$recursiveRef" | "$anchor" | "$dynamicAnchor" | "$vocabulary" => {
                    return Err(fail(&at, format!("{key} is not supported; use $ref with #/$defs/...")));
                }
                "$schema" if pointer.is_empty() => {
                    if value.as_str().is_none_or(|uri| uri.trim_end_matches('#') != DIALECT) {
                        return Err(fail(&at, format!("only {DIALECT} is supported")));
                    }
                    0
                }
                "$schema" | "$id" if !pointer.is_empty() => {
                    return Err(fail(&at, format!("{key} is allowed at the root only")));
                }
                _ if ONE.contains(&key.as_str()) => self.size(&format!("{pointer}{at}"), value)?,
                _ if LIST.contains(&key.as_str()) => {
                    let mut sum = 0_usize;
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        sum = sum.saturating_add(self.size(&format!("{pointer}{at}/{index}"), item)?);
                    }
                    sum
                }
                _ if MAP.contains(&key.as_str()) => {
                    let mut sum = 0_usize;
                    for (name, item) in value.as_object().into_iter().flatten() {
                        let at = format!("{pointer}{at}/{}", titan_api::parse::escape(name));
                        sum = sum.saturating_add(self.size(&at, item)?);
                    }
                    sum
                }
                _ => 0,
            });
            if size > UNFOLDED {
                return Err(fail(&at, format!("it unfolds to more than {UNFOLDED} schemas")));
            }
        }
        Ok(size)
    }

    fn follow(&mut self, at: &str, value: &Value) -> Result<usize, SchemaError> {
        let fail = |detail: String| SchemaError { pointer: at.to_owned(), detail };
        let target = value.as_str().unwrap_or_default();
        let Some(pointer) = target.strip_prefix('#').filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
            return Err(fail(format!("$ref {target:?} leaves the document; only #/... is allowed")));
        };
        match self.sizes.get(pointer) {
            Some(Some(size)) => return Ok(*size),
            Some(None) => return Err(fail(format!("$ref {target:?} comes back to itself"))),
            None => {}
        }
        let root = self.root;
        let schema = root.pointer(pointer).ok_or_else(|| fail(format!("$ref {target:?} leads nowhere")))?;
        // A reference to something around it is found here too: whoever holds it is being worked out.
        if at.strip_prefix(pointer).is_some_and(|rest| rest.starts_with('/')) {
            return Err(fail(format!("$ref {target:?} comes back to itself")));
        }
        self.sizes.insert(pointer.to_owned(), None);
        let size = self.size(pointer, schema)?;
        self.sizes.insert(pointer.to_owned(), Some(size));
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(schema: &Value) -> String {
        let error = Schema::compile(schema).expect_err("refused");
        format!("{}: {}", error.pointer, error.detail)
    }

    #[test]
    fn references_that_leave_or_return_are_refused() {
        for (schema, expected) in [
            (json!({"$ref": "https://example.com/x"}), "leaves the document"),
            (json!({"$ref": "file:///etc/passwd"}), "leaves the document"),
            (json!({"$ref": "other.json#/a"}), "leaves the document"),
            (json!({"$ref": "#anchor"}), "leaves the document"),
            (json!({"$ref": "#"}), "comes back"),
            (json!({"properties": {"a": {"$ref": "#"}}}), "comes back"),
            (
                json!({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}}),
                "comes back",
            ),
            (json!({"$ref": "#/$defs/none"}), "leads nowhere"),
            (
                json!({"properties": {"a": {"$dynamicRef": "#x"}}}),
                "/properties/a/$dynamicRef: $dynamicRef is not supported",
            ),
            (json!({"$schema": "http://json-schema.org/draft-04/schema#"}), "only https"),
            (json!({"properties": {"a": {"$id": "x"}}}), "at the root only"),
            (json!({"type": "objekt"}), "objekt"),
            (json!({"properties": {"a": {"pattern": "("}}}), "("),
            (json!({"properties": {"a": 1}}), "/properties/a: a schema is a map or a boolean"),
        ] {
            let found = refused(&schema);
            assert!(found.contains(expected), "{schema}: {found}");
        }
    }

    #[test]
    fn schemas_that_unfold_without_measure_are_refused() {
        let mut defs = serde_json::Map::new();
        for n in 0..30 {
            let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
            defs.insert(format!("d{n}"), json!({"allOf": [next, next]}));
        }
        defs.insert("d30".to_owned(), json!({"type": "string"}));
        assert!(refused(&json!({"$defs": defs, "$ref": "#/$defs/d0"})).contains("unfolds"));
    }

    #[test]
    fn values_are_checked_with_pointers() {
        let schema = Schema::compile(&json!({
            "$schema": DIALECT,
            "type": "object",
            "properties": {"port": {"$ref": "#/$defs/port"}, "a/b": {"type": "string", "pattern": "^(a+)+$"}},
            "$defs": {"port": {"type": "integer", "maximum": 65535}},
            "additionalProperties": false,
        }))
        .expect("schema");
        let check = |values: Value| match values {
            Value::Object(values) => schema.check(&values),
            _ => Ok(()),
        };
        assert!(check(json!({"port": 80})).is_ok());
        let problem = check(json!({"port": 70000, "a/b": format!("{}!", "a".repeat(50_000))})).expect_err("faults");
        let pointers: Vec<_> = problem.errors.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(problem.code, Code::RenderFailed);
        assert_eq!(pointers, ["/values/a~1b", "/values/port"]);
        let problem = check(json!({"prot": 1})).expect_err("unknown");
        assert_eq!(problem.errors[0].pointer, "/values");
        assert!(problem.detail.contains("prot"), "{}", problem.detail);
    }
}
