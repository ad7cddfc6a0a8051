//! Looking credentials up: whoever asks while a statement runs is answered together by the next one.
//!
//! A fleet that comes back all at once, known to nobody yet, so costs a few statements over one connection, and leaves the
//! others to everybody else. Whoever waits has a request open, and those are bounded.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use titan_api::{Code, Digest, Problem};
use tokio::sync::oneshot;

use crate::{state::AppState, store::TokenRow, tasks::apart::apart};

/// Credentials that one statement asks for.
const TOGETHER: usize = 2000;

type Found = Result<Option<TokenRow>, Problem>;

/// Credentials that are asked for.
#[derive(Debug, Default)]
pub(super) struct Lookups(Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    waiting: VecDeque<(Digest, oneshot::Sender<Found>)>,
    /// Whether somebody looks them up.
    busy: bool,
}

impl Lookups {
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes some that wait, the longest first; if nobody does the work is over.
    fn take(&self) -> Option<Vec<(Digest, oneshot::Sender<Found>)>> {
        let mut asked = self.asked();
        let mut taken = Vec::with_capacity(asked.waiting.len().min(TOGETHER));
        while taken.len() < TOGETHER
            && let Some(next) = asked.waiting.pop_front()
        {
            // Whoever gave up has no answer to wait for. Only these are looked at: half a million may wait behind them.
            if !next.1.is_closed() {
                taken.push(next);
            }
        }
        asked.busy = !taken.is_empty();
        asked.busy.then_some(taken)
    }
}

/// Returns the credential whose secret has this hash.
pub(super) async fn find(state: &AppState, hash: &Digest) -> Found {
    let (answer, answered) = oneshot::channel();
    let begins = {
        let mut asked = state.credentials.lookups.asked();
        asked.waiting.push_back((*hash, answer));
        !std::mem::replace(&mut asked.busy, true)
    };
    if begins {
        apart(Worker { state: state.clone(), over: false }.run());
    }
    let lost = || Problem::new(Code::Unavailable, "credentials cannot be looked up now").hint("try again in a moment");
    answered.await.map_err(|_| lost())?
}

/// Whoever looks up for all. If he is lost, those that wait are told so, and the next one who asks begins anew.
struct Worker {
    state: AppState,
    over: bool,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.over {
            *self.state.credentials.lookups.asked() = Asked::default();
        }
    }
}

impl Worker {
    async fn run(mut self) {
        while let Some(taken) = self.state.credentials.lookups.take() {
            self.state.metrics.credential_batch.observe(taken.len() as f64);
            let hashes: Vec<_> = taken.iter().map(|(hash, _)| *hash).collect();
            let found = self.found(&hashes).await;
            for (hash, answer) in taken {
                let found = found.as_ref().map_err(Clone::clone);
                let _gave_up = answer.send(found.and_then(|found| found.get(&hash).cloned().transpose()));
            }
        }
        self.over = true;
    }

    async fn found(&self, hashes: &[Digest]) -> Result<HashMap<Digest, Result<TokenRow, Problem>>, Problem> {
        let found = self.state.store.read().await?.tokens_by_hash(hashes).await?;
        Ok(found.into_iter().map(|(hash, row)| (hash, row.map_err(Problem::from))).collect())
    }
}
