//! What programs in the field rely on: `contract.txt` has every operation with its parameters and bodies, and every member
//! of what crosses the wire. What stands there stays; what is new is added to it with the version that brings it.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::Value;
use titan_tests::worlds::World;

/// Returns the last part of the reference in a schema, or in that of a page's items.
fn named(schema: &Value) -> Option<&str> {
    let reference = schema["$ref"].as_str().or_else(|| schema.pointer("/properties/items/items/$ref")?.as_str());
    reference?.rsplit('/').next()
}

/// Adds the members and values of a schema, those of its alternatives included.
fn members(schema: &Value, into: &mut BTreeSet<String>) {
    into.extend(schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()));
    into.extend(schema["enum"].as_array().into_iter().flatten().filter_map(|value| value.as_str().map(str::to_owned)));
    for alternatives in ["oneOf", "allOf", "anyOf"] {
        schema[alternatives].as_array().into_iter().flatten().for_each(|schema| members(schema, into));
    }
}

/// Returns what is described, in the words of `contract.txt`.
fn described(description: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    for (path, item) in description["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            let mut words = BTreeSet::new();
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                if parameter["in"] == "query" {
                    words.insert(format!("?{}", parameter["name"].as_str().expect("a name")));
                }
            }
            let body = &operation["requestBody"]["content"]["application/json"]["schema"];
            words.extend(named(body).map(|name| format!("<{name}")));
            let answer = &operation["responses"]["2XX"]["content"]["application/json"]["schema"];
            words.extend(named(answer).map(|name| format!(">{name}")));
            all.insert(format!("{} {path}", method.to_uppercase()), words);
        }
    }
    for (name, schema) in description["components"]["schemas"].as_object().expect("schemas") {
        let mut words = BTreeSet::new();
        members(schema, &mut words);
        all.insert(name.clone(), words);
    }
    all
}

/// S3-34.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_programs_rely_on_is_still_there() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let answer = world.call(Method::GET, "/openapi.json", None, &[], "").await.expect("answered");
    let described = described(&answer.body);
    let contract = include_str!("contract.txt");
    assert!(contract.lines().count() > 100);
    for line in contract.lines() {
        let (key, words) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
        let found = described.get(key).unwrap_or_else(|| panic!("{key} is gone"));
        let gone: Vec<_> = words.split_whitespace().filter(|word| !found.contains(*word)).collect();
        assert!(gone.is_empty(), "{key} has {gone:?} no more, but {found:?}");
    }
}
