//! Before the switch: whether the server would take all objects, and whether none of them is somebody else's.

use super::{
    applyset,
    client::CallError,
    cluster::{Cluster, Manner, call_fault, fault},
    conflicts,
    jobs::{Ended, Failure, Job},
    manifests::Manifest,
    objects::Key,
    releasing,
};
use crate::apply::ApplyError;

const DRY: Manner = Manner { force: false, dry_run: true };

/// Checks all objects of a job. Changes nothing.
pub(crate) async fn check(cluster: std::sync::Arc<Cluster>, job: Job) -> Ended {
    let _turn = job.turn.wait().await;
    let mut result = Ok(());
    for (index, manifest) in job.todo.iter().enumerate() {
        job.progress.say(format!("checking {}, {} of {} objects", manifest.key, index + 1, job.todo.len()));
        result = match job.turn.check() {
            Ok(()) => one(&cluster, &job, manifest).await,
            Err(failure) => Err(failure),
        };
        if result.is_err() {
            break;
        }
    }
    Ended { fields: job.fields, applied: false, result }
}

async fn one(cluster: &Cluster, job: &Job, manifest: &Manifest) -> Result<(), Failure> {
    let key = &manifest.key;
    let failed = |doing: &str, error: &CallError| failure(doing, key, error);
    let unasked = |error: CallError| Failure {
        may_pass: true,
        error: call_fault("asking the cluster which kinds it knows", &error),
    };
    let nobody_knows = || if defines(job, key) { Ok(()) } else { Err(Failure::lasting(unknown(manifest))) };
    let Some(resource) = cluster.resource(manifest).await.map_err(unasked)? else { return nobody_knows() };
    if resource.namespaced == key.namespace.is_empty() {
        let message = match resource.namespaced {
            true => format!("document {}: {key}: it needs metadata.namespace", manifest.document + 1),
            false => {
                format!("document {}: {key}: it is in no namespace; remove metadata.namespace", manifest.document + 1)
            }
        };
        return Err(Failure::lasting(ApplyError::Malformed { path: manifest.path.clone(), message }));
    }
    if !job.before.contains(key)
        && let Some(live) = cluster.live(&resource, key).await.map_err(|error| failed("looking at", &error))?
    {
        let is_parent = *key == applyset::parent_key(&job.target, &key.namespace);
        let is_ours = applyset::is_member(&live, &job.ids) && (!is_parent || applyset::stands_for(&live, &job.target));
        let is_free = !is_parent && (cluster.allowed.adopt || releasing::was_left(&live));
        if !(is_ours || is_free) {
            return Err(Failure::lasting(ApplyError::Foreign(key.claim())));
        }
    }
    let force = cluster.allowed.force;
    let applied = cluster.apply(&resource, manifest, Manner { force, ..DRY }).await;
    if let Err(CallError::Strange { status: 404, .. }) = &applied {
        // As a server speaks of a kind that is gone since it was asked which ones it knows.
        cluster.discovery.forget();
        if cluster.resource(manifest).await.map_err(unasked)?.is_none() {
            return nobody_knows();
        }
    }
    match applied {
        Ok(_) => Ok(()),
        // What it is to be in comes with it.
        Err(error) if error.is_missing() && job.all.contains(&Key::new("", "Namespace", "", &key.namespace)) => Ok(()),
        Err(CallError::Refused(refused)) if conflicts::is_conflict(&refused) => {
            let once_ours = job.fields.get(&key.claim());
            conflicts::check(key, &refused, once_ours).map_err(Failure::lasting)
        }
        // Some webhooks cannot say what would be.
        Err(CallError::Refused(refused)) if refused.message.contains("does not support dry run") => Ok(()),
        Err(error) => Err(failed("checking", &error)),
    }
}

/// Whether an object of the same bundle defines the kind.
fn defines(job: &Job, key: &Key) -> bool {
    let suffix = format!(".{}", key.group);
    job.all
        .iter()
        .any(|other| other.is("apiextensions.k8s.io", "CustomResourceDefinition") && other.name.ends_with(&suffix))
}

/// Returns the fault of a kind that nobody knows.
pub(crate) fn unknown(manifest: &Manifest) -> ApplyError {
    let Manifest { key, version, path, document, .. } = manifest;
    let group = if key.group.is_empty() { version.clone() } else { format!("{}/{version}", key.group) };
    let message = format!("document {}: {key}: the cluster knows no {} in {group}", document + 1, key.kind);
    ApplyError::Malformed { path: path.clone(), message }
}

/// Returns the failure of a call about an object.
pub(crate) fn failure(doing: &str, key: &Key, error: &CallError) -> Failure {
    let may_pass = error.status().is_none_or(|status| matches!(status, 401 | 403 | 429 | 500..));
    Failure { error: fault(doing, key, error), may_pass }
}
