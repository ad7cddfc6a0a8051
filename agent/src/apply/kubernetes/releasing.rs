//! Objects that stay when their deployment goes: they lose the marks of its set, so that anybody may have them.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    applyset,
    checking::failure,
    client::MERGE,
    cluster::Cluster,
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
        let uid = text(&live, &["metadata", "uid"]);
        let unmarked = json!({ "metadata": {
            "uid": uid,
            "labels": { applyset::PART_OF: Value::Null },
            "annotations": { LEFT_BY: job.target.home() },
        } });
        let path = format!("{}?fieldManager={}", resource.object(key), fields::MANAGER);
        match cluster.client.insist(Method::PATCH, &path, Some((MERGE, &unmarked))).await {
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
    let said = |kind: &str, name: &str| !text(live, &["metadata", kind, name]).is_empty();
    said("annotations", LEFT_BY) && !said("labels", applyset::PART_OF)
}
