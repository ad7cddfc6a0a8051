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

#[cfg(test)]
mod tests {
    use titan_api::{
        problems::Code,
        templates::{MANIFEST, TemplateFile, TemplateSpec},
    };
    use uuid::Uuid;

    use super::*;
    use crate::fleet::{model::Model, releases::resolve};

    const HOST: Uuid = Uuid::from_u128(1);
    const DEPLOYMENT: Uuid = Uuid::from_u128(2);

    fn put(model: &mut Model, kind: &str, uid: u128, spec: &Value) {
        let mut document = json!({"apiVersion": "titan/v1", "kind": kind, "spec": spec,
            "metadata": {"name": "n", "uid": Uuid::from_u128(uid), "labels": {"zone": "a"}}});
        if ["Deployment", "Target", "Workload"].contains(&kind) {
            document["metadata"]["workspace"] = json!("w");
        }
        model.put(&serde_json::from_value(document).expect("document")).expect("put");
    }

    fn resolved(model: &Model) -> Result<Resolution, titan_api::Problem> {
        resolve(model, model.deployment(DEPLOYMENT).expect("a deployment"))
    }

    #[test]
    fn what_is_missing_is_named_and_what_is_there_is_filled_in_layer_by_layer() {
        let mut model = Model::default();
        let deployment = json!({
            "workload": "n", "target": "n", "values": {"b": 3, "c": 3},
            "overrides": [
                {"match": {"matchLabels": {"zone": "z"}}, "values": {"c": 9}},
                {"match": {"matchLabels": {"zone": "a"}}, "values": {"c": 4, "d": 4}},
            ],
        });
        put(&mut model, "Deployment", 2, &deployment);
        put(&mut model, "Host", 1, &json!({"values": {"d": 5}}));
        let missing = |model: &Model| {
            let problem = resolved(model).expect_err("something is missing");
            assert_eq!(problem.code, Code::MissingReference);
            problem.detail
        };
        assert_eq!(missing(&model), "there is no workload n");
        put(&mut model, "Workload", 3, &json!({"repository": "r", "version": "1"}));
        assert_eq!(missing(&model), "neither the deployment nor the workload n names a template");
        let workload = json!({"repository": "r", "version": "1", "template": "n", "values": {"a": 2, "b": 2}});
        put(&mut model, "Workload", 3, &workload);
        assert_eq!(missing(&model), "there is no template n");
        let manifest = "applier: files\nvalues: {a: 1, z: 1}\n";
        let files = [(MANIFEST, manifest), ("x", "y")];
        let file = |text: &str| TemplateFile::of(text.as_bytes().to_vec(), false);
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect();
        put(&mut model, "Template", 4, &json!(TemplateSpec { files }));

        let resolution = resolved(&model).expect("all is there");
        let (deployment, host) = (model.deployment(DEPLOYMENT).expect("one"), model.host(HOST).expect("one"));
        let context = context(&resolution, deployment, 7, host);
        assert_eq!(context["values"], json!({"z": 1, "a": 2, "b": 3, "c": 4, "d": 5}));
        assert_eq!(context["release"], json!({"name": "n#7", "number": 7}));
        assert_eq!(context["host"]["labels"], json!({"zone": "a"}));
        assert_eq!(context["workload"]["version"], "1");
        let merged = values_with_origins(&resolution, deployment, host);
        assert_eq!(Value::Object(merged.values), context["values"]);
        assert_eq!(merged.origins.len(), 5);

        // Written again it is the same release; with another value it is another.
        put(&mut model, "Workload", 3, &workload);
        assert_eq!(resolved(&model).expect("again").digest, resolution.digest);
        let mut other = workload;
        other["values"]["a"] = json!(0);
        put(&mut model, "Workload", 3, &other);
        assert_ne!(resolved(&model).expect("other").digest, resolution.digest);
    }
}
