//! After the switch: objects are applied in their order, then what is not declared any more goes.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tokio::time::Instant;

use super::{
    applyset,
    checking::{failure, unknown},
    client::CallError,
    cluster::{Cluster, Manner},
    conflicts,
    discovery::Resource,
    fields, health,
    jobs::{Ended, Failure, Job},
    manifests::Manifest,
    objects::WAITED_FOR,
    releasing, removing,
};
use crate::{
    apply::{ApplyError, Condition},
    faults::fault,
};

/// How long namespaces and definitions are waited for.
const PATIENCE: Duration = Duration::from_mins(1);
/// The first and the longest pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Applies all objects of a job, and removes what is to go.
pub(crate) async fn send(cluster: Arc<Cluster>, mut job: Job) -> Ended {
    let _turn = job.turn.wait().await;
    let todo = std::mem::take(&mut job.todo);
    if let Err(failure) = apply(&cluster, &mut job, &todo).await {
        return Ended { fields: job.fields, applied: false, result: Err(failure) };
    }
    let result = clear(&cluster, &mut job, &todo).await;
    Ended { fields: job.fields, applied: true, result }
}

fn is_parent(manifest: &Manifest) -> bool {
    manifest.path.is_empty()
}

async fn apply(cluster: &Cluster, job: &mut Job, todo: &[Manifest]) -> Result<(), Failure> {
    for (index, manifest) in todo.iter().enumerate() {
        job.turn.check()?;
        job.progress.say(format!("applying {}, {} of {} objects", manifest.key, index + 1, todo.len()));
        if is_parent(manifest) && !job.gone.is_empty() {
            let mut wide = manifest.clone();
            wide.value = applyset::widened(wide.value, &job.gone.iter().cloned().collect());
            one(cluster, job, &wide).await?;
        } else {
            one(cluster, job, manifest).await?;
        }
        // What others need is waited for once all of its rank is there.
        let next = todo.get(index + 1).map(|next| next.key.rank());
        if manifest.key.rank() < WAITED_FOR && next != Some(manifest.key.rank()) {
            for waited in todo.iter().filter(|other| other.key.rank() == manifest.key.rank()) {
                established(cluster, job, waited).await?;
            }
        }
    }
    Ok(())
}

/// Removes what is not declared any more; the set's parent names its kinds until then.
async fn clear(cluster: &Cluster, job: &mut Job, todo: &[Manifest]) -> Result<(), Failure> {
    if job.gone.is_empty() {
        return Ok(());
    }
    removing::start(cluster, job).await?;
    match todo.iter().find(|manifest| is_parent(manifest)) {
        Some(parent) => one(cluster, job, parent).await,
        None => Ok(()),
    }
}

async fn one(cluster: &Cluster, job: &mut Job, manifest: &Manifest) -> Result<(), Failure> {
    let key = &manifest.key;
    let resource = resource(cluster, manifest).await?;
    let claim = key.claim();
    let manner = Manner { force: cluster.allowed.force, dry_run: false };
    let live = match cluster.apply(&resource, manifest, manner).await {
        Err(CallError::Refused(refused)) if conflicts::is_conflict(&refused) => {
            conflicts::check(key, &refused, job.fields.get(&claim)).map_err(Failure::lasting)?;
            cluster.apply(&resource, manifest, Manner { force: true, ..manner }).await
        }
        answer => answer,
    };
    let applied = match live {
        Ok(live) => releasing::had_again(cluster, &resource, key, live).await,
        refused => refused,
    };
    let live = applied.map_err(|error| failure("applying", key, &error))?;
    fault!("object-sent");
    if let Some(ours) = fields::ours(&live) {
        job.fields.insert(claim, fields::paths(ours));
    }
    cluster.seen.forget(key);
    cluster.seen.note_clean(key, manifest.digest(), &live);
    Ok(())
}

/// Returns where objects of a kind are; a kind that was defined a moment ago may take another one to be served.
async fn resource(cluster: &Cluster, manifest: &Manifest) -> Result<Resource, Failure> {
    let until = Instant::now() + PATIENCE / 6;
    let mut pause = PAUSES.0;
    loop {
        let found = cluster.resource(manifest).await;
        if let Some(found) = found.map_err(|error| failure("finding the kind of", &manifest.key, &error))? {
            return Ok(found);
        }
        if Instant::now() >= until || super::objects::is_builtin(&manifest.key.group) {
            return Err(Failure::lasting(unknown(manifest)));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Waits until a namespace is active, or a definition established.
async fn established(cluster: &Cluster, job: &Job, manifest: &Manifest) -> Result<(), Failure> {
    let key = &manifest.key;
    let resource = resource(cluster, manifest).await?;
    let until = Instant::now() + PATIENCE;
    let mut pause = PAUSES.0;
    loop {
        job.turn.check()?;
        let live = cluster.live(&resource, key).await.map_err(|error| failure("waiting for", key, &error))?;
        let why = match health::of(key, &live.unwrap_or(Value::Null)) {
            Condition::Well => return Ok(()),
            Condition::Starting(why) | Condition::Ill(why) | Condition::Failed(why) => why,
        };
        if Instant::now() >= until {
            let what = format!("waiting for {key}");
            return Err(Failure { error: ApplyError::Platform { what, message: why }, may_pass: true });
        }
        job.progress.say(format!("waiting for {key}: {why}"));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}
