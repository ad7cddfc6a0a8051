//! Contexts: what a template is filled with on one host.

use serde_json::{Value, json};
use titan_api::values::{MergedValues, Values};

use crate::{
    fleet::{
        model::{Deployment, Host},
        releases::Resolution,
    },
    render::{self, Layers},
};

/// Returns the overrides that match a host, with their numbers.
fn overrides<'a>(deployment: &'a Deployment, host: Host<'_>) -> Vec<(usize, &'a Values)> {
    let entries = deployment.spec.overrides.iter().zip(&deployment.overrides).enumerate();
    let matching = entries.filter(|(_, (_, matcher))| matcher.matches(host));
    matching.map(|(index, (entry, _))| (index + 1, &entry.values)).collect()
}

fn layers<'a>(
    resolution: &'a Resolution,
    deployment: &'a Deployment,
    overrides: &'a [(usize, &'a Values)],
    host: Host<'a>,
) -> Layers<'a> {
    Layers {
        template: Some(&resolution.template.manifest().values),
        workload: Some(&resolution.workload.spec.values),
        deployment: Some(&deployment.spec.values),
        overrides,
        host: Some(&host.spec().values),
    }
}

/// Returns the merged values for a host.
#[must_use]
pub fn values(resolution: &Resolution, deployment: &Deployment, host: Host<'_>) -> Values {
    render::merge(&layers(resolution, deployment, &overrides(deployment, host), host))
}

/// Returns the merged values for a host with the layer that gave each.
#[must_use]
pub fn values_with_origins(resolution: &Resolution, deployment: &Deployment, host: Host<'_>) -> MergedValues {
    render::merge_with_origins(&layers(resolution, deployment, &overrides(deployment, host), host))
}

/// Returns the context in which release `number` is rendered on a host.
#[must_use]
pub fn context(resolution: &Resolution, deployment: &Deployment, number: i64, host: Host<'_>) -> Value {
    let values = values(resolution, deployment, host);
    let mut context = resolution.context.clone();
    let labels = host.labels().map(|(key, value)| (key.to_owned(), value.into())).collect();
    let facts = host.facts().map(|(name, value)| (name.to_owned(), value.into_owned())).collect();
    context["host"] = json!({ "name": host.name(), "labels": Value::Object(labels), "facts": Value::Object(facts) });
    context["release"] = json!({ "name": format!("{}#{number}", deployment.name), "number": number });
    context["values"] = Value::Object(values);
    context
}
