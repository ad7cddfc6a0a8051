//! Objects go: only those that carry our mark, and each only as the one that was looked at.

use std::{sync::Arc, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    applyset,
    checking::failure,
    client::CallError,
    cluster::Cluster,
    discovery::Resource,
    jobs::{Ended, Failure, Job},
    objects::{Key, WAITED_FOR, items, text},
};
use crate::{apply::ApplyError, faults::fault};

/// The first and the longest pause between two looks at what is going.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How many objects are read at a time when it is looked for those of others.
const PAGE: usize = 50;

/// Removes all that is to go and waits until it is gone, however long that takes.
pub(crate) async fn remove(cluster: Arc<Cluster>, mut job: Job) -> Ended {
    let _turn = job.turn.wait().await;
    let result = match disown(&cluster, &mut job).await {
        Ok(()) => steps(&cluster, &job).await,
        Err(failure) => Err(failure),
    };
    Ended { fields: job.fields, applied: true, result }
}

/// Begins to remove what is to go, and waits for nothing: the server does the rest.
pub(crate) async fn start(cluster: &Cluster, job: &Job) -> Result<(), Failure> {
    for (_, keys) in in_order(job) {
        for key in keys {
            job.turn.check()?;
            delete(cluster, job, &key).await?;
        }
    }
    Ok(())
}

/// Gives up sets whose parent stands for an assignment of another agent of the cluster by now, which looks after a deployment
/// of this name.
pub(crate) async fn disown(cluster: &Cluster, job: &mut Job) -> Result<(), Failure> {
    for parent in std::mem::take(&mut job.guessed) {
        job.turn.check()?;
        let live = ours(cluster, job, &parent).await?;
        let anothers = |live: &Value| {
            let id = applyset::assignment(live);
            id.is_none_or(|id| id != job.target.id && !job.looked_after.contains(&id))
        };
        if live.is_some_and(|(_, live)| anothers(&live)) {
            job.ids.remove(&applyset::id(&parent));
        }
    }
    Ok(())
}

async fn steps(cluster: &Cluster, job: &Job) -> Result<(), Failure> {
    for (_, keys) in in_order(job) {
        for key in &keys {
            job.turn.check()?;
            job.progress.say(format!("removing {key}"));
            delete(cluster, job, key).await?;
        }
        for key in &keys {
            gone(cluster, job, key).await?;
        }
    }
    Ok(())
}

/// Waits until an object that goes is gone.
pub(crate) async fn gone(cluster: &Cluster, job: &Job, key: &Key) -> Result<(), Failure> {
    let mut pause = PAUSES.0;
    while let Some(live) = ours(cluster, job, key).await?.map(|(_, live)| live) {
        job.turn.check()?;
        job.progress.say(waits_for(key, &live));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
    Ok(())
}

/// Returns what is to go, last come first, by rank.
fn in_order(job: &Job) -> Vec<(u8, Vec<Key>)> {
    let rank = |key: &Key| match *key == applyset::parent_key(&job.target, &key.namespace) {
        true => WAITED_FOR,
        false => key.rank(),
    };
    let mut ranks: std::collections::BTreeMap<u8, Vec<Key>> = std::collections::BTreeMap::new();
    for key in &job.gone {
        ranks.entry(rank(key)).or_default().push(key.clone());
    }
    ranks.into_iter().rev().collect()
}

fn waits_for(key: &Key, live: &Value) -> String {
    let finalizers: Vec<&str> = items(live, &["metadata", "finalizers"])
        .iter()
        .filter_map(Value::as_str)
        .filter(|name| *name != "foregroundDeletion")
        .collect();
    match finalizers.as_slice() {
        [] => format!("waiting until {key} is gone"),
        names => format!("waiting until {key} is gone, which {} holds", names.join(", ")),
    }
}

/// Returns an object with where it is, if it is there and ours.
pub(crate) async fn ours(cluster: &Cluster, job: &Job, key: &Key) -> Result<Option<(Resource, Value)>, Failure> {
    let failed = |error: &CallError| failure("removing", key, error);
    let resource =
        cluster.discovery.any(&cluster.client, &key.group, &key.kind).await.map_err(|error| failed(&error))?;
    let Some(resource) = resource else { return Ok(None) };
    let live = cluster.live(&resource, key).await.map_err(|error| failed(&error))?;
    Ok(live.filter(|live| applyset::is_member(live, &job.ids)).map(|live| (resource, live)))
}

/// Has an object go, if it is there and ours, and nothing of others is in it.
pub(crate) async fn delete(cluster: &Cluster, job: &Job, key: &Key) -> Result<(), Failure> {
    let Some((resource, live)) = ours(cluster, job, key).await? else {
        cluster.seen.drop(key);
        return Ok(());
    };
    if !text(&live, &["metadata", "deletionTimestamp"]).is_empty() {
        return Ok(());
    }
    if let Some(other) = belongings(cluster, job, key, &live).await? {
        let message = format!("it holds {other}; remove that, or keep {key} by hand");
        let error = ApplyError::Platform { what: format!("removing {key}"), message };
        return Err(Failure { error, may_pass: true });
    }
    let options = json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Foreground",
        "preconditions": { "uid": text(&live, &["metadata", "uid"]) },
    });
    match cluster.client.delete(&resource.object(key), &options).await {
        Ok(_) => {}
        Err(error) if error.is_missing() => {}
        Err(error) => return Err(failure("removing", key, &error)),
    }
    fault!("object-going");
    cluster.seen.drop(key);
    Ok(())
}

/// Returns an object of somebody else that would go with this one: what is in a namespace, or of a definition's kind.
async fn belongings(cluster: &Cluster, job: &Job, key: &Key, live: &Value) -> Result<Option<String>, Failure> {
    let failed = |error: &CallError| failure("looking for objects of others in", key, error);
    if key.is("", "Namespace") {
        for resource in cluster.discovery.all(&cluster.client).await.map_err(|error| failed(&error))? {
            let can = |verb: &str| resource.verbs.iter().any(|known| known == verb);
            if !resource.namespaced || !can("list") || !can("delete") || makes_itself(&resource.kind) {
                continue;
            }
            let path = resource.collection(&key.name);
            if let Some(other) = other(cluster, job, &resource, &path).await.map_err(|error| failed(&error))? {
                return Ok(Some(other));
            }
        }
    }
    if key.is("apiextensions.k8s.io", "CustomResourceDefinition") {
        let (group, kind) = (text(live, &["spec", "group"]), text(live, &["spec", "names", "kind"]));
        let resource = cluster.discovery.any(&cluster.client, group, kind).await.map_err(|error| failed(&error))?;
        if let Some(resource) = resource {
            let path = resource.collection("");
            return other(cluster, job, &resource, &path).await.map_err(|error| failed(&error));
        }
    }
    Ok(None)
}

/// Returns the first object that somebody made who is not this deployment, or that is to stay.
async fn other(cluster: &Cluster, job: &Job, resource: &Resource, path: &str) -> Result<Option<String>, CallError> {
    let group = resource.api_version.split_once('/').map_or("", |(group, _)| group);
    let goes = |item: &Value| {
        let name = |part: &str| text(item, &["metadata", part]);
        let key = Key::new(group, &resource.kind, name("namespace"), name("name"));
        applyset::is_member(item, &job.ids) && job.gone.contains(&key)
    };
    let mut next = String::new();
    loop {
        let more = if next.is_empty() { String::new() } else { format!("&continue={}", super::client::encode(&next)) };
        let list = cluster.client.insist(Method::GET, &format!("{path}?limit={PAGE}{more}"), None).await;
        let list = match list {
            Err(error) if error.is_missing() => return Ok(None),
            list => list?,
        };
        let is_other = |item: &&Value| {
            !goes(item)
                && items(item, &["metadata", "ownerReferences"]).is_empty()
                && text(item, &["metadata", "deletionTimestamp"]).is_empty()
                && !comes_with_a_namespace(&resource.kind, item)
        };
        if let Some(found) = items(&list, &["items"]).iter().find(is_other) {
            let stays = if applyset::is_member(found, &job.ids) { "is to stay" } else { "is not of this deployment" };
            return Ok(Some(format!("{} {}, which {stays}", resource.kind, text(found, &["metadata", "name"]))));
        }
        next = text(&list, &["metadata", "continue"]).to_owned();
        if next.is_empty() {
            return Ok(None);
        }
    }
}

/// Kinds whose objects controllers make for those that people make.
fn makes_itself(kind: &str) -> bool {
    matches!(kind, "Event" | "Endpoints" | "EndpointSlice" | "Lease" | "ControllerRevision" | "CSIStorageCapacity")
}

fn comes_with_a_namespace(kind: &str, item: &Value) -> bool {
    match (kind, text(item, &["metadata", "name"])) {
        ("ServiceAccount", "default") | ("ConfigMap", "kube-root-ca.crt" | "openshift-service-ca.crt") => true,
        ("Secret", _) => text(item, &["type"]) == "kubernetes.io/service-account-token",
        _ => false,
    }
}
