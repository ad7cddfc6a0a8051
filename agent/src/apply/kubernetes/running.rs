//! Jobs that run beside everything else: at most one for each deployment.

use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    task::AbortHandle,
    time::{sleep, timeout},
};
use uuid::Uuid;

use super::{
    AGAIN, Kubernetes, applyset,
    cluster::Cluster,
    jobs::{Ended, Job, Progress},
    manifests::Manifest,
    objects::Key,
    records::Record,
};
use crate::{
    apply::{ApplyError, Work},
    claims::Claims,
    settle::chain,
};

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Check,
    Send,
    Remove,
    Release,
}

impl Purpose {
    /// Whether whoever asks for it asks again as often as the agent looks around.
    const fn pauses(self) -> bool {
        matches!(self, Self::Remove | Self::Release)
    }
}

/// A job that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) purpose: Purpose,
    /// What the deployment owned before.
    pub(super) before: Claims,
    /// What it is to own.
    pub(super) after: Claims,
    pub(super) progress: Progress,
    pub(super) answer: oneshot::Receiver<Ended>,
    /// Why it failed, while it pauses before it is tried again.
    pub(super) failed: Option<(String, String)>,
    pub(super) task: AbortHandle,
}

impl Kubernetes {
    pub(super) fn job(&mut self, work: &Work<'_>, todo: Vec<Manifest>, gone: Vec<Key>, record: &Record) -> Job {
        let keys = |claims: &Claims| claims.keys().filter_map(Key::of).collect::<BTreeSet<_>>();
        let mut ids = applyset::ids(work.target, [work.before, work.after]);
        let mut guessed = BTreeSet::new();
        if ids.is_empty() {
            // What another deployment was to take over comes without its parent, which is gone or stays with its own.
            let namespaces = work.before.keys().filter_map(Key::of).map(|key| key.namespace);
            let namespaces: BTreeSet<_> = namespaces.chain([self.namespace.clone()]).collect();
            guessed.extend(namespaces.iter().map(|namespace| applyset::parent_key(work.target, namespace)));
            let manifests = self.manifests(work.target, work.bundle).unwrap_or_default();
            let keys = manifests.into_iter().map(|manifest| manifest.key);
            guessed.extend(keys.filter(|key| *key == applyset::parent_key(work.target, &key.namespace)));
            ids.extend(guessed.iter().map(applyset::id));
        }
        // A record may name the parent of a set whose claims are gone from the ledger already.
        ids.extend(
            gone.iter().filter(|key| **key == applyset::parent_key(work.target, &key.namespace)).map(applyset::id),
        );
        Job {
            target: work.target.clone(),
            todo,
            all: keys(work.after),
            gone,
            before: keys(work.before),
            ids,
            looked_after: if guessed.is_empty() { BTreeSet::new() } else { self.records.ids() },
            guessed,
            fields: record.fields.clone(),
            turn: self.turns.entry(work.target.id).or_default().begin(),
            progress: Progress::default(),
        }
    }

    /// Starts a job in the place of whatever runs for the deployment.
    pub(super) fn start<F>(
        &mut self,
        purpose: Purpose,
        work: &Work<'_>,
        job: Job,
        run: impl FnOnce(Arc<Cluster>, Job) -> F,
    ) where
        F: Future<Output = Ended> + Send + 'static,
    {
        let (say, answer) = oneshot::channel();
        let wake = self.ground.wake.clone();
        let progress = job.progress.clone();
        let job = run(Arc::clone(&self.cluster), job);
        let task = self.ground.io.spawn(async move {
            let ended = job.await;
            // Removals have no pause of their own.
            let pause = ended.result.is_err() && purpose.pauses();
            let _nobody_waits = say.send(ended);
            if pause {
                sleep(AGAIN).await;
            }
            wake.ended();
        });
        let (before, after) = (work.before.clone(), work.after.clone());
        let task = task.abort_handle();
        let running = Running { purpose, before, after, progress, answer, failed: None, task };
        // One that is over ends itself at its next step: what it has sent, it has sent.
        self.running.insert(work.target.id, running);
    }

    /// Waits for a moment for a deployment's job. Returns how it ended, or how far it has come; `None` if there is none.
    pub(super) fn look(&mut self, id: Uuid, grace: Duration) -> Option<Result<Ended, String>> {
        let running = self.running.get_mut(&id)?;
        if running.failed.is_some() {
            if running.task.is_finished() {
                self.running.remove(&id);
            }
            return None;
        }
        let answer = &mut running.answer;
        let answer = self.ground.io.block_on(async move { timeout(grace, answer).await });
        let Ok(answer) = answer else { return Some(Err(running.progress.text())) };
        let cut =
            || ApplyError::Platform { what: "applying objects".to_owned(), message: "it was cut short".to_owned() };
        let ended = answer.unwrap_or_else(|_| Ended::cut_short(cut()));
        match &ended.result {
            Err(failure) if running.purpose.pauses() => running.failed = Some(said(&failure.error)),
            _ => drop(self.running.remove(&id)),
        }
        Some(Ok(ended))
    }

    /// Fails as before if what is asked for failed a moment ago.
    pub(super) fn rest(&self, purpose: Purpose, work: &Work<'_>) -> Result<(), ApplyError> {
        let running = self.running.get(&work.target.id).filter(|_| self.runs(purpose, work));
        let running = running.filter(|running| !running.task.is_finished());
        match running.and_then(|running| running.failed.clone()) {
            Some((what, message)) => Err(ApplyError::Platform { what, message }),
            None => Ok(()),
        }
    }

    /// Whether what is asked for is being done, or is done and its answer not taken.
    pub(super) fn begun(&self, purpose: Purpose, work: &Work<'_>) -> bool {
        self.runs(purpose, work) && self.running.get(&work.target.id).is_some_and(|running| running.failed.is_none())
    }

    /// Whether what is asked for is what a job does.
    fn runs(&self, purpose: Purpose, work: &Work<'_>) -> bool {
        let runs = |job: &Running| (job.purpose, &job.before, &job.after) == (purpose, work.before, work.after);
        self.running.get(&work.target.id).is_some_and(runs)
    }
}

/// Returns what was done and what was said of it.
fn said(error: &ApplyError) -> (String, String) {
    match error {
        ApplyError::Platform { what, message } => (what.clone(), message.clone()),
        other => ("looking after objects".to_owned(), chain(other)),
    }
}
