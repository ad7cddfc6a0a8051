//! What is done in the background to the objects of one deployment, and how far it has come.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use uuid::Uuid;

use super::{manifests::Manifest, objects::Key};
use crate::{
    apply::{ApplyError, Target},
    claims::Claim,
};

/// Fields of objects that were ours once, as the server writes them.
pub(crate) type Fields = BTreeMap<Claim, BTreeSet<String>>;

/// One job.
#[derive(Debug)]
pub(crate) struct Job {
    /// The deployment.
    pub(crate) target: Target,
    /// What is to be checked or applied, in order.
    pub(crate) todo: Vec<Manifest>,
    /// All that the deployment is to own.
    pub(crate) all: BTreeSet<Key>,
    /// What is to go.
    pub(crate) gone: Vec<Key>,
    /// What the deployment owned before, as the ledger says.
    pub(crate) before: BTreeSet<Key>,
    /// The ids of its sets.
    pub(crate) ids: BTreeSet<String>,
    /// The parents of those that are not among what it owns, which may stand for somebody else by now.
    pub(crate) guessed: BTreeSet<Key>,
    /// The assignments that this agent looks after.
    pub(crate) looked_after: BTreeSet<Uuid>,
    /// Fields that were ours when they were applied last.
    pub(crate) fields: Fields,
    /// Says when somebody else's turn has come.
    pub(crate) turn: Turn,
    /// Tells how far it has come.
    pub(crate) progress: Progress,
}

/// How a job ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The fields that are ours now.
    pub(crate) fields: Fields,
    /// Whether all that was to be applied is.
    pub(crate) applied: bool,
    /// What came of it.
    pub(crate) result: Result<(), Failure>,
}

impl Ended {
    /// Returns the end of a job of which nothing is known.
    pub(crate) fn cut_short(error: ApplyError) -> Self {
        Self { fields: Fields::new(), applied: false, result: Err(Failure { error, may_pass: true }) }
    }
}

/// Why a job could not be done.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The error.
    pub(crate) error: ApplyError,
    /// Whether the same may succeed later.
    pub(crate) may_pass: bool,
}

impl Failure {
    /// Returns the failure of something that does not become well by itself.
    pub(crate) const fn lasting(error: ApplyError) -> Self {
        Self { error, may_pass: false }
    }
}

/// Of several jobs of one deployment only the newest goes on; the one before ends at its next step.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns {
    newest: Arc<AtomicU64>,
    one_at_a_time: Arc<tokio::sync::Mutex<()>>,
}

/// A turn.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    turns: Turns,
    mine: u64,
}

impl Turns {
    /// Begins a turn; those before are over.
    pub(crate) fn begin(&self) -> Turn {
        Turn { turns: self.clone(), mine: self.newest.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Turn {
    /// Waits until the turn before has come to its end.
    pub(crate) async fn wait(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.turns.one_at_a_time).lock_owned().await
    }

    /// Fails if a newer turn has begun.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.turns.newest.load(Ordering::Relaxed) == self.mine {
            return Ok(());
        }
        let message = "something newer is to be done".to_owned();
        Err(Failure { error: ApplyError::Platform { what: "applying objects".to_owned(), message }, may_pass: true })
    }
}

/// How far a job has come, for people. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<Mutex<String>>);

impl Progress {
    /// Says how far it has come.
    pub(crate) fn say(&self, text: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// Returns how far it has come.
    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
