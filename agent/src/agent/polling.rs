//! Asking what changed, and taking the answer into the desired set.

use std::time::{Duration, Instant};

use titan_api::{
    Code,
    client::{ClientError, Polled},
    poll::PollAnswer,
};

use super::Agent;
use crate::settle::{Worker, chain};

/// A set that does not match is asked for in full at most this often.
const REFETCH: Duration = Duration::from_mins(5);

/// What a poll meant for the pace.
pub(super) struct Asked {
    pub(super) poll_after: Duration,
    pub(super) changed: bool,
}

/// Why a poll brought nothing.
pub(super) enum PollFault {
    Client(ClientError),
    Refused(String),
}

impl Agent {
    /// Asks for changes and takes the answer into the desired set.
    pub(super) async fn poll(&mut self, wait: u64) -> Result<Asked, PollFault> {
        let polled = self.asking(wait).await.await;
        self.accept(polled).await
    }

    /// Returns a poll, which can be waited for beside other things.
    pub(super) async fn asking(&self, wait: u64) -> impl Future<Output = Result<Polled, ClientError>> + use<> {
        let (since, have) = self.with_worker(|worker| (worker.desired.cursor, worker.desired.digest())).await;
        let since = since.filter(|_| !self.ask_full);
        let (client, host) = (self.client.clone(), self.host.clone());
        async move { client.poll(&host, since, since.map(|_| have), wait).await }
    }

    /// Takes what a poll brought into the desired set.
    pub(super) async fn accept(&mut self, polled: Result<Polled, ClientError>) -> Result<Asked, PollFault> {
        match polled {
            Ok(Polled::Unchanged { cursor, poll_after_seconds }) => {
                // Not written down: an older cursor only brings what is known already.
                let advanced = self.with_worker(|worker| {
                    worker.heard();
                    worker.desired.advance(cursor)
                });
                if let Err(refused) = advanced.await {
                    return Err(PollFault::Refused(refused.to_string()));
                }
                let poll_after = Duration::from_secs(poll_after_seconds.into());
                Ok(Asked { poll_after, changed: false })
            }
            Ok(Polled::Changed(answer)) => self.fold(&answer).await,
            Err(error) => {
                if error.code() == Some(Code::CursorAhead) {
                    self.with_worker(|worker| {
                        worker.desired.forget_cursor();
                        note_desired(worker);
                    })
                    .await;
                }
                Err(PollFault::Client(error))
            }
        }
    }

    async fn fold(&mut self, answer: &PollAnswer) -> Result<Asked, PollFault> {
        let folded = self.with_worker(|worker| {
            let folded = worker.desired.fold(answer);
            if folded.refused.is_none() {
                worker.heard();
                for deployment in &answer.deployments {
                    // One whose bytes do not fit is asked for by its digest, like one that is not there.
                    if let Some(bundle) = &deployment.bundle
                        && let Err(error) = worker.bundles.put(&deployment.digest, bundle.get().as_bytes())
                    {
                        let message = chain(&error);
                        tracing::warn!("the bundle of {} is not kept: {message}", deployment.name);
                    }
                }
                if answer.full {
                    // Who does not know what this host was told may not know either what it said.
                    worker.outbox.all_due();
                }
                note_desired(worker);
            }
            folded
        });
        let folded = folded.await;
        if let Some(refused) = folded.refused {
            return Err(PollFault::Refused(refused.to_string()));
        }
        self.ask_full = false;
        if !folded.digest_matches {
            self.mismatches += 1;
            tracing::warn!(
                mismatches = self.mismatches,
                full = answer.full,
                "the set of deployments is not what the control plane says; it is asked for in full"
            );
            self.ask_full = true;
        }
        for id in &folded.orphaned {
            tracing::warn!(deployment.id = %id, "deployment {id} is no longer declared and keeps running as an orphan");
        }
        let changed = !(folded.added.is_empty() && folded.moved.is_empty() && folded.removed.is_empty());
        Ok(Asked { poll_after: Duration::from_secs(answer.poll_after_seconds.into()), changed })
    }

    /// Whether a full answer may be asked for now; if so, that is noted. If not, the next polls are ordinary ones.
    pub(super) fn may_refetch(&mut self) -> bool {
        let may = self.refetched.is_none_or(|last| last.elapsed() >= REFETCH);
        if may {
            self.refetched = Some(Instant::now());
        } else {
            self.ask_full = false;
        }
        may
    }
}

/// Writes down what is declared. If the disk does not take it, the worker says so and changes nothing until it does.
fn note_desired(worker: &mut Worker) {
    if let Err(error) = worker.save_desired(true) {
        tracing::debug!(error = chain(&error), "what is declared is not written down yet");
    }
}
