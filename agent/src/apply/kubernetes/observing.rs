//! Looking at objects: how they do, and whether others changed what we applied.

use std::sync::Arc;

use serde_json::Value;
use titan_api::drift::Drift;
use tokio::task::JoinSet;

use super::{
    client::CallError,
    cluster::{Cluster, Manner},
    differences, fields, health,
    manifests::Manifest,
    pods,
};
use crate::apply::{Condition, Observation};

/// How many objects are looked at at the same time.
const AT_ONCE: usize = 8;

/// An object as it is, and as it would be if it were applied now.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) live: Value,
    pub(crate) wanted: Value,
}

/// Returns how each of the objects does, in their order.
pub(crate) async fn observe(cluster: &Arc<Cluster>, manifests: &[Manifest]) -> Result<Vec<Observation>, CallError> {
    let mut seen: Vec<Option<Observation>> = Vec::with_capacity(manifests.len());
    let mut looks = JoinSet::new();
    let mut failed = None;
    let mut take =
        |done: Result<(usize, Result<Observation, CallError>), _>, seen: &mut Vec<Option<Observation>>| match done {
            Ok((index, Ok(observation))) => seen[index] = Some(observation),
            Ok((_, Err(error))) => failed = Some(error),
            Err(_) => {}
        };
    for (index, manifest) in manifests.iter().enumerate() {
        seen.push(cluster.seen.last(&manifest.key, manifest.digest()));
        if seen[index].is_some() {
            continue;
        }
        if looks.len() >= AT_ONCE
            && let Some(done) = looks.join_next().await
        {
            take(done, &mut seen);
        }
        let (cluster, manifest) = (Arc::clone(cluster), manifest.clone());
        looks.spawn(async move { (index, one(&cluster, &manifest).await) });
    }
    while let Some(done) = looks.join_next().await {
        take(done, &mut seen);
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(seen.into_iter().flatten().collect()),
    }
}

async fn one(cluster: &Cluster, manifest: &Manifest) -> Result<Observation, CallError> {
    let key = &manifest.key;
    let looking = cluster.seen.looking(key);
    let missing = || Observation {
        claim: key.claim(),
        condition: Condition::Ill(format!("{key} is not there")),
        drift: Some(drift(manifest, "missing", String::new())),
    };
    let Some(resource) = cluster.resource(manifest).await? else { return Ok(missing()) };
    let live = match cluster.client.get(&resource.object(key)).await {
        Ok(live) => live,
        Err(error) if error.is_missing() => return Ok(missing()),
        Err(error) => return Err(error),
    };
    let condition = match health::of(key, &live) {
        Condition::Well => Condition::Well,
        other => explained(cluster, manifest, &live, other).await,
    };
    let drift = match compare(cluster, manifest, live).await? {
        Some(compared) => {
            let diff = differences::diff(key, &compared);
            (!diff.is_empty()).then(|| drift(manifest, "fields", diff))
        }
        None => None,
    };
    let observation = Observation { claim: key.claim(), condition, drift };
    cluster.seen.note(key, manifest.digest(), &observation, looking);
    Ok(observation)
}

fn drift(manifest: &Manifest, how: &str, diff: String) -> Drift {
    Drift { what: manifest.key.claim().to_string(), how: how.to_owned(), diff, found: None, repaired: false }
}

async fn explained(cluster: &Cluster, manifest: &Manifest, live: &Value, condition: Condition) -> Condition {
    let key = &manifest.key;
    let told = pods::explain(cluster, key, live).await;
    let with = |why: String| match &told {
        Some(told) => format!("{key}: {why}\n{told}"),
        None => format!("{key}: {why}"),
    };
    match condition {
        Condition::Starting(why) if told.is_some() => Condition::Ill(with(why)),
        Condition::Starting(why) => Condition::Starting(with(why)),
        Condition::Ill(why) => Condition::Ill(with(why)),
        Condition::Failed(why) => Condition::Failed(with(why)),
        Condition::Well => Condition::Well,
    }
}

/// Returns an object as it is and as it would be, or `None` if these are known to be the same.
pub(crate) async fn compare(
    cluster: &Cluster,
    manifest: &Manifest,
    live: Value,
) -> Result<Option<Compared>, CallError> {
    let (key, digest) = (&manifest.key, manifest.digest());
    if cluster.seen.is_clean(key, digest, &live) {
        return Ok(None);
    }
    let Some(resource) = cluster.resource(manifest).await? else { return Ok(None) };
    // By force, since whoever changed a field holds it now.
    let wanted = match cluster.apply(&resource, manifest, Manner { force: true, dry_run: true }).await {
        Ok(wanted) => wanted,
        Err(CallError::Refused(refused)) if refused.message.contains("does not support dry run") => return Ok(None),
        Err(error) => return Err(error),
    };
    let same = fields::ours(&wanted).is_none_or(|ours| fields::project(&live, ours) == fields::project(&wanted, ours));
    if same {
        cluster.seen.note_clean(key, digest, &live);
        return Ok(None);
    }
    Ok(Some(Compared { live, wanted }))
}
