//! Objects that stay when their deployment goes: they lose the marks of its set, so that anybody may have them.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    applyset,
    checking::failure,
    client::{CallError, MERGE},
    cluster::Cluster,
    discovery::Resource,
    fields,
    jobs::{Ended, Failure, Job},
    objects::{Key, text},
    removing,
};
use crate::faults::fault;

/// The annotation of an object that was let go of, with the deployment that it was of.
const LEFT_BY: &str = "titan/left-by";

/// Takes the marks off all that the deployment owned, and the set's parents away. What was to go already goes.
pub(crate) async fn release(cluster: Arc<Cluster>, mut job: Job) -> Ended {
    let _turn = job.turn.wait().await;
    let result = match removing::disown(&cluster, &mut job).await {
        Ok(()) => steps(&cluster, &job).await,
        Err(failure) => Err(failure),
    };
    Ended { fields: job.fields, applied: true, result }
}

async fn steps(cluster: &Cluster, job: &Job) -> Result<(), Failure> {
    removing::start(cluster, job).await?;
    // The parents tell whose the others are, so they go last.
    let is_parent = |key: &&Key| **key == applyset::parent_key(&job.target, &key.namespace);
    for key in job.before.iter().filter(|key| !is_parent(key)) {
        job.turn.check()?;
        job.progress.say(format!("letting go of {key}"));
        let Some((resource, live)) = removing::ours(cluster, job, key).await? else { continue };
        let unmarked = json!({
            "labels": { applyset::PART_OF: Value::Null },
            "annotations": { LEFT_BY: job.target.home() },
        });
        match mark(cluster, &resource, key, &live, unmarked).await {
            Ok(_) => {}
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(failure("letting go of", key, &error)),
        }
        fault!("object-sent");
        cluster.seen.drop(key);
    }
    for key in job.before.iter().filter(is_parent) {
        job.turn.check()?;
        removing::delete(cluster, job, key).await?;
        removing::gone(cluster, job, key).await?;
    }
    Ok(())
}

/// Whether an agent let go of an object, which is in no set since.
pub(crate) fn was_left(live: &Value) -> bool {
    says_whose_it_was(live) && text(live, &["metadata", "labels", applyset::PART_OF]).is_empty()
}

fn says_whose_it_was(live: &Value) -> bool {
    !text(live, &["metadata", "annotations", LEFT_BY]).is_empty()
}

/// Has an object that was applied say no longer whose it was before. Returns it as it is then.
pub(crate) async fn had_again(
    cluster: &Cluster,
    resource: &Resource,
    key: &Key,
    live: Value,
) -> Result<Value, CallError> {
    if !says_whose_it_was(&live) {
        return Ok(live);
    }
    mark(cluster, resource, key, &live, json!({ "annotations": { LEFT_BY: Value::Null } })).await
}

/// Changes labels and annotations of an object, and of no other that has its name by now. Returns it as it is then.
async fn mark(
    cluster: &Cluster,
    resource: &Resource,
    key: &Key,
    live: &Value,
    mut metadata: Value,
) -> Result<Value, CallError> {
    metadata["uid"] = text(live, &["metadata", "uid"]).into();
    let path = format!("{}?fieldManager={}", resource.object(key), fields::MANAGER);
    cluster.client.insist(Method::PATCH, &path, Some((MERGE, &json!({ "metadata": metadata })))).await
}
