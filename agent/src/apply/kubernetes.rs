//! Objects of a Kubernetes cluster.
//!
//! What a bundle's files declare is sent by server-side apply under one field manager, so that the server itself knows which
//! fields are ours, and says so when somebody else holds one. A deployment owns its objects twice over: as claims in the
//! ledger, and by the label of its ApplySet in the cluster; only what carries both is ever removed. Health is told by the
//! objects' status, drift by asking the server what an apply would change.
//!
//! Whatever may take longer than a moment (a definition that has to be established, a namespace that goes) runs beside
//! everything else; what was begun is written down first, so that it is taken up again after a power cut.

mod access;
mod adopting;
mod applyset;
mod checking;
mod client;
mod cluster;
mod conflicts;
mod differences;
mod discovery;
mod fields;
mod health;
mod jobs;
mod manifests;
mod objects;
mod observing;
mod pods;
mod records;
mod releasing;
mod removing;
mod running;
mod seen;
mod sending;
#[cfg(test)]
mod tests;
mod watches;
mod yaml;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use titan_api::drift::Drift;
use tokio::time::timeout;
use uuid::Uuid;

use self::{
    access::Access,
    client::Client,
    cluster::{Cluster, call_fault},
    jobs::{Ended, Turns},
    manifests::Manifest,
    objects::Key,
    records::Records,
    running::{Purpose, Running},
    seen::{Place, Seen},
    watches::Watches,
};
use super::{Applier, ApplyError, Condition, Observation, Readiness, Target, Work, appliers::Ground};
use crate::{
    bundles::Bundle,
    claims::{Claim, Claims},
    config::appliers::Kubernetes as Allowed,
    faults::fault,
    settle::chain,
};

/// How long a call waits for a job that it began, so that one which goes well is done when it returns.
const GRACE: Duration = Duration::from_millis(900);
/// How long one look at all objects of a deployment may take.
const LOOK: Duration = Duration::from_secs(8);
/// How long after a failure a job is begun again.
const AGAIN: Duration = Duration::from_secs(5);

/// The applier.
#[derive(Debug)]
pub(crate) struct Kubernetes {
    allowed: Allowed,
    ground: Ground,
    cluster: Arc<Cluster>,
    /// When the kubeconfig that the cluster was reached with was written.
    written: Option<SystemTime>,
    /// The namespace of objects that name none.
    namespace: String,
    records: Records,
    turns: BTreeMap<Uuid, Turns>,
    running: BTreeMap<Uuid, Running>,
    failed: BTreeMap<Uuid, Failed>,
    places: BTreeMap<Uuid, BTreeSet<Place>>,
    watches: Watches,
}

/// How the last attempt to send failed.
#[derive(Debug)]
struct Failed {
    message: String,
    may_pass: bool,
    at: Instant,
}

impl Kubernetes {
    /// Opens the applier of the cluster that the owner's configuration names.
    pub(crate) fn open(allowed: Allowed, ground: &Ground) -> Result<Self, ApplyError> {
        let written = written(&allowed);
        let (client, namespace) = connect(&allowed)?;
        Ok(Self {
            cluster: Arc::new(Cluster::new(client, allowed.clone(), Seen::default())),
            written,
            namespace,
            records: Records::new(ground.state.clone()),
            turns: BTreeMap::new(),
            running: BTreeMap::new(),
            failed: BTreeMap::new(),
            places: BTreeMap::new(),
            watches: Watches::default(),
            allowed,
            ground: ground.clone(),
        })
    }

    /// Connects anew if the kubeconfig is another one than before: certificates are replaced there when they expire.
    fn reconnect(&mut self) -> Result<(), ApplyError> {
        let written = written(&self.allowed);
        if written != self.written {
            let (client, namespace) = connect(&self.allowed)?;
            self.watches.end();
            self.cluster = Arc::new(Cluster::new(client, self.allowed.clone(), Seen::default()));
            (self.written, self.namespace) = (written, namespace);
        }
        Ok(())
    }

    fn manifests(&self, target: &Target, bundle: Option<&Bundle>) -> Result<Vec<Manifest>, ApplyError> {
        bundle.map_or_else(|| Ok(Vec::new()), |bundle| manifests::read(target, bundle, &self.allowed, &self.namespace))
    }

    /// Notes how sending ended.
    fn sent(&mut self, target: &Target, ended: Ended) -> Result<(), ApplyError> {
        let mut record = self.records.get(target.id);
        record.fields = ended.fields;
        if ended.applied {
            record.todo.clear();
        }
        self.failed.remove(&target.id);
        let mut result = Ok(());
        match ended.result {
            Ok(()) => record.gone.clear(),
            Err(failure) => {
                let message = chain(&failure.error);
                self.failed.insert(target.id, Failed { message, may_pass: failure.may_pass, at: Instant::now() });
                // That something cannot be removed holds up nothing else: it is told of, and tried again.
                result = if ended.applied { Ok(()) } else { Err(failure.error) };
            }
        }
        self.records.put(target.id, record)?;
        fault!("objects-recorded");
        result
    }

    /// Takes up sending where it was left. Returns what is still to be sent.
    fn resume(&mut self, work: &Work<'_>, manifests: &[Manifest]) -> BTreeSet<Claim> {
        let id = work.target.id;
        if let Some(Ok(ended)) = self.look(id, Duration::ZERO)
            && let Err(error) = self.sent(work.target, ended)
        {
            tracing::debug!(deployment.id = %id, "sending failed: {}", chain(&error));
        }
        let record = self.records.get(id);
        let rests = self.failed.get(&id).is_some_and(|failed| {
            // What cannot be removed is tried again whatever the server said.
            (!failed.may_pass && !record.todo.is_empty()) || failed.at.elapsed() < AGAIN
        });
        if record.is_pending() && !self.running.contains_key(&id) && !rests {
            let todo =
                manifests.iter().filter(|manifest| record.todo.contains(&manifest.key.claim())).cloned().collect();
            let gone = record.gone.iter().filter_map(Key::of).collect();
            let job = self.job(work, todo, gone, &record);
            self.start(Purpose::Send, work, job, sending::send);
        }
        record.todo
    }

    /// Forgets a deployment of which nothing is left to look after.
    fn forget(&mut self, id: Uuid) -> Result<(), ApplyError> {
        self.places.remove(&id);
        self.turns.remove(&id);
        self.failed.remove(&id);
        self.records.forget(id)
    }

    fn watch_for(&mut self, id: Uuid, manifests: &[Manifest]) {
        let places = manifests.iter().map(|manifest| Place::of(&manifest.key)).collect();
        if self.places.get(&id) != Some(&places) {
            self.places.insert(id, places);
        }
        let all = self.places.values().flatten().cloned().collect();
        self.watches.want(&self.ground.io, &self.cluster, &self.ground.wake, &all);
    }
}

impl Applier for Kubernetes {
    fn plan(&self, target: &Target, bundle: &Bundle) -> Result<Claims, ApplyError> {
        Ok(manifests::claims(&manifests::read(target, bundle, &self.allowed, &self.namespace)?))
    }

    fn prepare(&mut self, work: &Work<'_>) -> Result<Readiness, ApplyError> {
        self.reconnect()?;
        let id = work.target.id;
        if !self.begun(Purpose::Check, work) {
            let mut todo = self.manifests(work.target, work.bundle)?;
            todo.retain(|manifest| work.before.get(&manifest.key.claim()) != Some(&manifest.digest()));
            if todo.is_empty() {
                return Ok(Readiness::Ready);
            }
            let record = self.records.get(id);
            let job = self.job(work, todo, Vec::new(), &record);
            self.start(Purpose::Check, work, job, checking::check);
        }
        match self.look(id, GRACE) {
            Some(Err(progress)) => Ok(Readiness::Underway(progress)),
            Some(Ok(ended)) => ended.result.map(|()| Readiness::Ready).map_err(|failure| failure.error),
            None => Ok(Readiness::Ready),
        }
    }

    fn apply(&mut self, work: &Work<'_>) -> Result<(), ApplyError> {
        self.reconnect()?;
        let id = work.target.id;
        let mut record = self.records.get(id);
        let manifests = self.manifests(work.target, work.bundle)?;
        let is_due = |manifest: &Manifest| {
            let claim = manifest.key.claim();
            record.todo.contains(&claim) || work.before.get(&claim) != Some(&manifest.digest())
        };
        let todo: Vec<Manifest> = manifests.into_iter().filter(is_due).collect();
        record.todo = todo.iter().map(|manifest| manifest.key.claim()).collect();
        record.gone.extend(work.before.keys().cloned());
        record.gone.retain(|claim| !work.after.contains_key(claim));
        record.fields.retain(|claim, _| work.after.contains_key(claim));
        self.failed.remove(&id);
        if !record.is_pending() {
            return self.records.put(id, record);
        }
        self.records.put(id, record.clone())?;
        fault!("objects-noted");
        let gone = record.gone.iter().filter_map(Key::of).collect();
        let job = self.job(work, todo, gone, &record);
        self.start(Purpose::Send, work, job, sending::send);
        match self.look(id, GRACE) {
            Some(Ok(ended)) => self.sent(work.target, ended),
            _ => Ok(()),
        }
    }

    fn observe(&mut self, work: &Work<'_>) -> Result<Vec<Observation>, ApplyError> {
        self.reconnect()?;
        let id = work.target.id;
        let mut manifests = self.manifests(work.target, work.bundle)?;
        self.watch_for(id, &manifests);
        let unsent = self.resume(work, &manifests);
        let failed = self.failed.get(&id);
        let condition = match (self.running.get(&id), failed) {
            (Some(running), _) => Condition::Starting(running.progress.text()),
            (None, Some(failed)) if failed.may_pass => Condition::Ill(failed.message.clone()),
            (None, Some(failed)) => Condition::Failed(failed.message.clone()),
            (None, None) => Condition::Starting("it is to be applied".to_owned()),
        };
        let undone = |claim| Observation { claim, condition: condition.clone(), drift: None };
        let mut observations: Vec<Observation> = unsent.iter().cloned().map(undone).collect();
        manifests.retain(|manifest| !unsent.contains(&manifest.key.claim()));
        let cluster = Arc::clone(&self.cluster);
        let look = self.ground.io.block_on(async { timeout(LOOK, observing::observe(&cluster, &manifests)).await });
        let doing = "looking at the objects";
        let late =
            || ApplyError::Platform { what: doing.to_owned(), message: "the API server takes too long".to_owned() };
        observations.extend(look.map_err(|_| late())?.map_err(|error| call_fault(doing, &error))?);
        if let Some(failed) = failed.filter(|_| unsent.is_empty()) {
            let left = self.records.get(id).gone;
            let parent = |observation: &&mut Observation| {
                Key::of(&observation.claim).is_some_and(|key| key == applyset::parent_key(work.target, &key.namespace))
            };
            if let Some(observation) = observations.iter_mut().find(parent) {
                let what = left.iter().map(Claim::to_string).collect::<Vec<_>>().join(", ");
                let how = format!("not removed: {}", failed.message);
                observation.drift = Some(Drift { what, how, diff: String::new(), found: None, repaired: false });
            }
        }
        Ok(observations)
    }

    fn remove(&mut self, work: &Work<'_>) -> Result<Readiness, ApplyError> {
        self.reconnect()?;
        let id = work.target.id;
        let mut record = self.records.get(id);
        self.rest(Purpose::Remove, work)?;
        if !self.begun(Purpose::Remove, work) {
            record.gone.extend(work.before.keys().cloned());
            record.gone.retain(|claim| !work.after.contains_key(claim));
            record.todo.retain(|claim| work.after.contains_key(claim));
            let gone = record.gone.iter().filter_map(Key::of).collect();
            let job = self.job(work, Vec::new(), gone, &record);
            self.start(Purpose::Remove, work, job, removing::remove);
        }
        match self.look(id, GRACE) {
            Some(Err(progress)) => return Ok(Readiness::Underway(progress)),
            Some(Ok(ended)) => ended.result.map_err(|failure| failure.error)?,
            None => {}
        }
        if work.after.is_empty() {
            self.forget(id)?;
        } else {
            record.gone.clear();
            record.fields.retain(|claim, _| work.after.contains_key(claim));
            self.records.put(id, record)?;
        }
        Ok(Readiness::Ready)
    }

    fn release(&mut self, work: &Work<'_>) -> Result<Readiness, ApplyError> {
        self.reconnect()?;
        let id = work.target.id;
        self.rest(Purpose::Release, work)?;
        if !self.begun(Purpose::Release, work) {
            let record = self.records.get(id);
            let gone = record.gone.iter().filter_map(Key::of).collect();
            let job = self.job(work, Vec::new(), gone, &record);
            self.start(Purpose::Release, work, job, releasing::release);
        }
        match self.look(id, GRACE) {
            Some(Err(progress)) => return Ok(Readiness::Underway(progress)),
            Some(Ok(ended)) => ended.result.map_err(|failure| failure.error)?,
            None => {}
        }
        if work.after.is_empty() {
            self.forget(id)?;
        }
        Ok(Readiness::Ready)
    }

    fn adopt(&mut self, work: &Work<'_>) -> Result<Vec<(String, String)>, ApplyError> {
        self.reconnect()?;
        let Some(bundle) = work.bundle else { return Ok(Vec::new()) };
        let manifests = self.manifests(work.target, Some(bundle))?;
        let cluster = Arc::clone(&self.cluster);
        let found = self.ground.io.block_on(async {
            let mut found = BTreeMap::new();
            for manifest in manifests.iter().filter(|manifest| !manifest.path.is_empty()) {
                let Some(resource) = cluster.resource(manifest).await? else { continue };
                let Some(live) = cluster.live(&resource, &manifest.key).await? else { continue };
                if let Some(compared) = observing::compare(&cluster, manifest, live).await? {
                    found.insert(manifest.key.clone(), compared);
                }
            }
            Ok(found)
        });
        let found = found.map_err(|error| call_fault("comparing the objects", &error))?;
        adopting::files(bundle, &manifests, &found)
    }

    fn is_busy(&self) -> bool {
        // A removal may wait for others for as long as they like.
        let sends = |running: &Running| running.purpose == Purpose::Send && !running.task.is_finished();
        self.running.values().any(sends)
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        self.running.values().for_each(|running| running.task.abort());
    }
}

fn written(allowed: &Allowed) -> Option<SystemTime> {
    allowed.kubeconfig.as_ref().and_then(|path| std::fs::metadata(path).ok()).and_then(|data| data.modified().ok())
}

fn connect(allowed: &Allowed) -> Result<(Client, String), ApplyError> {
    let access = match &allowed.kubeconfig {
        Some(path) => Access::of_file(path),
        None => Access::of_pod(|name| std::env::var(name).ok()),
    };
    let fault = |message| ApplyError::Platform { what: "reaching the cluster".to_owned(), message };
    let access = access.map_err(fault)?;
    let namespace = access.namespace.clone();
    Ok((Client::new(access).map_err(fault)?, namespace))
}
