//! Releases: what a deployment resolves to.

use std::sync::Arc;

use serde_json::{Value, json};
use titan_api::{Digest, Document, Problem, Spec, deployments::Override, problems::Code, values::Values};

use crate::{
    fleet::{
        matchers::Matcher,
        model::{Deployment, Model, Workload},
    },
    render,
    store::Release,
};

/// Everything that a deployment resolves to, hosts aside.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// The template.
    pub template: Arc<render::Template>,
    /// The workload.
    pub workload: Arc<Workload>,
    /// The part of the template's context that is the same on all hosts, `release` aside.
    pub context: Value,
    /// What went in, for the release's row.
    pub inputs: Value,
    /// Over the inputs: another digest, another release.
    pub digest: Digest,
}

/// Resolves a deployment, or tells what is missing.
pub fn resolve(model: &Model, deployment: &Deployment) -> Result<Resolution, Problem> {
    let missing = |what: String| Problem::new(Code::MissingReference, what);
    let workload = model
        .workload(deployment)
        .ok_or_else(|| missing(format!("there is no workload {}", deployment.spec.workload)))?;
    let name = model.template_name(deployment).ok_or_else(|| {
        missing(format!("neither the deployment nor the workload {} names a template", deployment.spec.workload))
    })?;
    let template = model.template(deployment).ok_or_else(|| missing(format!("there is no template {name}")))?;
    let parsed = template.parsed.clone()?;
    let workspace = model.workspace(&deployment.workspace).map(|spec| spec.config.clone()).unwrap_or_default();
    let context = json!({
        "workspace": { "name": deployment.workspace, "config": workspace },
        "workload": {
            "name": deployment.spec.workload,
            "repository": workload.spec.repository,
            "version": workload.spec.version,
            "labels": workload.labels,
        },
        "deployment": { "name": deployment.name, "labels": deployment.labels },
    });
    let inputs = json!({
        "context": context,
        "template": {
            "name": name,
            "uid": template.uid,
            "generation": template.generation,
            "digest": parsed.digest(),
        },
        "workload": { "uid": workload.uid, "generation": workload.generation },
        "values": { "workload": workload.spec.values, "deployment": deployment.spec.values },
        "overrides": deployment.spec.overrides,
    });
    // What decides whether it is another release: the content, not how often a document was written.
    let identity = json!([context, parsed.digest(), inputs["values"], inputs["overrides"]]);
    let digest = Digest::of(identity.to_string().as_bytes());
    Ok(Resolution { template: parsed, workload: Arc::clone(workload), context, inputs, digest })
}

/// A release as it was made, whatever was declared since.
#[derive(Debug, Clone)]
pub struct Restored {
    /// What it resolved to.
    pub resolution: Resolution,
    /// The deployment with the values and overrides of then, and all else as it is now.
    pub deployment: Arc<Deployment>,
    /// The release.
    pub release: Release,
}

/// Makes a release again from its row and the template that it was made with. `deployment` is the deployment as it is now.
pub fn restore(release: Release, template: &Document, deployment: &Deployment) -> Result<Restored, Problem> {
    let lost = |what: &str| Problem::new(Code::Internal, format!("release {} has {what}", release.number));
    let inputs: Value = serde_json::from_str(&release.inputs).map_err(|_| lost("inputs that are not JSON"))?;
    let Spec::Template(spec) = Spec::parse(template.kind, template.spec.clone())
        .map_err(|faults| Problem::new(Code::Invalid, "a stored template is not valid").with(faults))?
    else {
        return Err(lost("a template that is none"));
    };
    let values = |of: &str| -> Values { inputs["values"][of].as_object().cloned().unwrap_or_default() };
    let overrides: Vec<Override> =
        serde_json::from_value(inputs["overrides"].clone()).map_err(|_| lost("overrides that cannot be read"))?;
    let matchers = overrides.iter().map(|entry| Matcher::new(entry.selector.clone()));
    let matchers = matchers.collect::<Result<_, _>>().map_err(|_| lost("a selector that cannot be read"))?;
    let uid = inputs["workload"]["uid"].as_str().and_then(|uid| uid.parse().ok()).unwrap_or_default();
    let generation = inputs["workload"]["generation"].as_u64().unwrap_or_default();
    let workload = Workload {
        uid,
        generation,
        // What is read of it besides is in the context.
        labels: titan_api::labels::Labels::default(),
        spec: titan_api::workloads::WorkloadSpec { values: values("workload"), ..Default::default() },
    };
    let mut spec_then = deployment.spec.clone();
    (spec_then.values, spec_then.overrides) = (values("deployment"), overrides);
    let then = Deployment {
        uid: deployment.uid,
        workspace: deployment.workspace.clone(),
        name: deployment.name.clone(),
        revision: deployment.revision,
        labels: deployment.labels.clone(),
        spec: spec_then,
        overrides: matchers,
    };
    let resolution = Resolution {
        template: Arc::new(render::Template::parse(&spec)?),
        workload: Arc::new(workload),
        context: inputs["context"].clone(),
        digest: release.inputs_digest,
        inputs,
    };
    Ok(Restored { resolution, deployment: Arc::new(then), release })
}
