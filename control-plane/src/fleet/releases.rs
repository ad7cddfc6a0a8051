//! Releases: what a deployment resolves to.

use std::sync::Arc;

use serde_json::{Value, json};
use titan_api::{Digest, Problem, problems::Code};

use crate::{
    fleet::model::{Deployment, Model, Workload},
    render,
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
