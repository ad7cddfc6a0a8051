//! Layers of values, merged, with the origin of each.

use std::collections::BTreeMap;

use serde_json::Value;
use titan_api::{
    parse::escape,
    values::{MergedValues, ValueOrigin, Values},
};

/// The layers of one deployment on one host, weakest first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Layers<'a> {
    /// The template's defaults.
    pub template: Option<&'a Values>,
    /// The workload's values.
    pub workload: Option<&'a Values>,
    /// The deployment's values.
    pub deployment: Option<&'a Values>,
    /// The deployment's overrides that match the host, in order, each with its number, counted from 1 over all overrides.
    pub overrides: &'a [(usize, &'a Values)],
    /// The host's own values.
    pub host: Option<&'a Values>,
}

impl<'a> Layers<'a> {
    /// Returns the layers that are there with their names, weakest first.
    fn named(&self) -> impl Iterator<Item = (String, &'a Values)> {
        let below = [("template", self.template), ("workload", self.workload), ("deployment", self.deployment)];
        let named = |(name, values): (&str, Option<&'a Values>)| values.map(|values| (name.to_owned(), values));
        below
            .into_iter()
            .filter_map(named)
            .chain(self.overrides.iter().map(|(number, values)| (format!("override {number}"), *values)))
            .chain(named(("host", self.host)))
    }

    fn values(&self) -> impl Iterator<Item = &'a Values> {
        [self.template, self.workload, self.deployment]
            .into_iter()
            .flatten()
            .chain(self.overrides.iter().map(|(_, values)| *values))
            .chain(self.host)
    }
}

/// Returns the layers merged: maps key by key, everything else, lists and null too, replaced by the stronger layer.
#[must_use]
pub fn merge(layers: &Layers<'_>) -> Values {
    let mut layers = layers.values();
    let mut merged = layers.next().cloned().unwrap_or_default();
    for layer in layers {
        overlay(&mut merged, layer);
    }
    merged
}

fn overlay(below: &mut Values, above: &Values) {
    for (key, value) in above {
        match (below.get_mut(key), value) {
            (Some(Value::Object(below)), Value::Object(above)) => overlay(below, above),
            (Some(slot), value) => *slot = value.clone(),
            (None, value) => {
                below.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Returns the layers merged and, for every value that is not a map, which layer gave it and which it hides.
#[must_use]
pub fn merge_with_origins(layers: &Layers<'_>) -> MergedValues {
    let values = merge(layers);
    let named: Vec<_> = layers.named().collect();
    let mut leaves = BTreeMap::new();
    collect(&values, "", &mut leaves);
    let origins = leaves
        .into_iter()
        .map(|(pointer, (path, value))| {
            let mut giver = None;
            let mut hides = Vec::new();
            for (name, layer) in named.iter().rev() {
                let Some(found) = find(layer, &path) else { continue };
                match giver {
                    None => giver = Some(name.clone()),
                    // A layer that says the same is not hidden.
                    Some(_) if found == Found::There(value) => {}
                    Some(_) => hides.push(name.clone()),
                }
            }
            ValueOrigin { pointer, value: value.clone(), layer: giver.unwrap_or_default(), hides }
        })
        .collect();
    MergedValues { values, origins }
}

type Leaves<'a> = BTreeMap<String, (Vec<&'a str>, &'a Value)>;

fn collect<'a>(values: &'a Values, pointer: &str, leaves: &mut Leaves<'a>) {
    fn walk<'a>(values: &'a Values, pointer: &str, path: &[&'a str], leaves: &mut Leaves<'a>) {
        for (key, value) in values {
            let pointer = format!("{pointer}/{}", escape(key));
            let path = [path, &[key.as_str()]].concat();
            match value {
                Value::Object(map) if !map.is_empty() => walk(map, &pointer, &path, leaves),
                _ => {
                    leaves.insert(pointer, (path, value));
                }
            }
        }
    }
    walk(values, pointer, &[], leaves);
}

/// What a layer says of a path.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Found<'a> {
    /// The value.
    There(&'a Value),
    /// Something on the way to it that is not a map.
    OnTheWay,
}

fn find<'a>(layer: &'a Values, path: &[&str]) -> Option<Found<'a>> {
    let (first, rest) = path.split_first()?;
    match layer.get(*first)? {
        value if rest.is_empty() => Some(Found::There(value)),
        Value::Object(map) => find(map, rest),
        _ => Some(Found::OnTheWay),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Values {
        match value {
            Value::Object(map) => map,
            _ => Values::new(),
        }
    }

    #[test]
    fn stronger_layers_win_key_by_key() {
        let template = map(json!({"port": 80, "tls": {"on": false, "cert": "a"}, "list": [1, 2], "gone": 1}));
        let workload = map(json!({"tls": {"on": true}}));
        let deployment = map(json!({"port": 8080, "list": [3], "gone": null}));
        let (first, second) = (map(json!({"port": 1})), map(json!({"port": 2, "a/b": {}})));
        let host = map(json!({"tls": {"cert": "h"}}));
        let layers = Layers {
            template: Some(&template),
            workload: Some(&workload),
            deployment: Some(&deployment),
            overrides: &[(1, &first), (3, &second)],
            host: Some(&host),
        };
        let merged = merge_with_origins(&layers);
        assert_eq!(
            Value::Object(merged.values),
            json!({"port": 2, "tls": {"on": true, "cert": "h"}, "list": [3], "gone": null, "a/b": {}})
        );
        let lines: Vec<_> = merged
            .origins
            .iter()
            .map(|origin| format!("{} {} {} {:?}", origin.pointer, origin.value, origin.layer, origin.hides))
            .collect();
        assert_eq!(
            lines,
            [
                r#"/a~1b {} override 3 []"#,
                r#"/gone null deployment ["template"]"#,
                r#"/list [3] deployment ["template"]"#,
                r#"/port 2 override 3 ["override 1", "deployment", "template"]"#,
                r#"/tls/cert "h" host ["template"]"#,
                r#"/tls/on true workload ["template"]"#,
            ]
        );
    }

    #[test]
    fn a_map_replaces_a_plain_value_and_a_plain_value_a_map() {
        let (below, above) = (map(json!({"a": 1, "b": {"c": 2}})), map(json!({"a": {"x": 1}, "b": 3})));
        let layers = Layers { template: Some(&below), host: Some(&above), ..Layers::default() };
        let merged = merge_with_origins(&layers);
        assert_eq!(Value::Object(merged.values), json!({"a": {"x": 1}, "b": 3}));
        assert!(merged.origins.iter().all(|origin| origin.layer == "host" && origin.hides == ["template"]));
    }

    #[test]
    fn layers_that_agree_hide_nothing() {
        let same = map(json!({"a": 1}));
        let layers = Layers { template: Some(&same), host: Some(&same), ..Layers::default() };
        assert_eq!(merge_with_origins(&layers).origins[0].hides, Vec::<String>::new());
        assert_eq!(merge(&Layers::default()), Values::new());
    }
}
