//! The agent: polls, folds, fetches, settles, reports, and does it again.

mod polling;
mod pushing;
mod reporting;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use titan_api::{
    Code, Digest, Name,
    client::{Client, ClientError},
    hosts::Facts,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    config::Settings,
    disk::DiskError,
    facts,
    identity::Identity,
    pace,
    settle::{Done, SettleError, Worker, chain},
    state::StateDir,
    status::Contact,
    summary::OnceSummary,
};
use polling::PollFault;
use pushing::Pushing;

/// How long a round waits for a push that it began, so that one that goes well is reported at once.
const PUSH_PATIENCE: Duration = Duration::from_millis(500);
/// How long [`Agent::once`] waits for a push; one that is silent ends itself sooner.
const PUSH_PATIENCE_ONCE: Duration = Duration::from_mins(10);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The host has not enrolled.
    #[error("this host has not enrolled: there is no identity in {0}")]
    NotEnrolled(String),
    /// The state directory, or what is on the host.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// The control plane's address or the HTTP client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The work ended without a result.
    #[error("the work on this host was cut short")]
    Aborted,
}

impl From<DiskError> for AgentError {
    fn from(error: DiskError) -> Self {
        Self::Settle(error.into())
    }
}

/// An agent that holds its state directory.
#[derive(Debug)]
pub struct Agent {
    settings: Settings,
    host: Name,
    client: Client,
    worker: Arc<Mutex<Worker>>,
    facts: Facts,
    ask_full: bool,
    refetched: Option<Instant>,
    mismatches: u64,
    contact: Contact,
    pushing: Option<Pushing>,
}

impl Agent {
    /// Takes the state directory, finishes what was interrupted, and gets ready to poll. Only one agent can hold a
    /// state directory.
    pub fn open(settings: Settings) -> Result<Self, AgentError> {
        let state = StateDir::new(&settings.state_dir);
        let not_enrolled = || AgentError::NotEnrolled(settings.state_dir.display().to_string());
        let identity = Identity::read(&state)?.ok_or_else(not_enrolled)?;
        let credential = Identity::credential(&state)?.ok_or_else(not_enrolled)?;
        let server = settings.server.as_deref().unwrap_or(&identity.server);
        let client = Client::new(server, Some(credential.reveal().to_owned()))?;
        let worker = Arc::new(Mutex::new(Worker::open(&settings)?));
        let contact = Contact::read(&state);
        let facts = facts::gather();
        let (host, ask_full, refetched, mismatches) = (identity.host, false, None, 0);
        Ok(Self { settings, host, client, worker, facts, ask_full, refetched, mismatches, contact, pushing: None })
    }

    /// Returns the host's name.
    #[must_use]
    pub const fn host(&self) -> &Name {
        &self.host
    }

    /// Returns how often an answer did not fit what the agent held.
    #[must_use]
    pub const fn mismatches(&self) -> u64 {
        self.mismatches
    }

    /// Polls once without waiting, brings the host to what is desired, checks everything for drift, commits, pushes
    /// and reports. An unreachable control plane is no error: the host is settled to what it was told last, and the
    /// summary says so.
    pub async fn once(&mut self) -> Result<OnceSummary, AgentError> {
        let mut summary = OnceSummary::default();
        match self.poll(0).await {
            Ok(_) if self.ask_full && self.may_refetch() => {
                if let Err(fault) = self.poll(0).await {
                    self.note_fault(fault, &mut summary);
                }
            }
            Ok(_) => {}
            Err(PollFault::Client(error)) if error.code() == Some(Code::CursorAhead) => {
                if let Err(fault) = self.poll(0).await {
                    self.note_fault(fault, &mut summary);
                }
            }
            Err(fault) => self.note_fault(fault, &mut summary),
        }
        let reachable = summary.fault.is_none();
        summary.done = self.settle(true, reachable).await?;
        if reachable {
            summary.unreported = self.report(true).await;
        }
        if self.push(true, PUSH_PATIENCE_ONCE).await && reachable {
            summary.unreported = self.report(false).await.or(summary.unreported);
        }
        summary.orphans = self.with_worker(|worker| {
            let title = |(id, entry): (Uuid, &crate::desired::DesiredEntry)| {
                (id, format!("{}/{}", entry.workspace, entry.name))
            };
            worker.desired.orphans().map(title).collect()
        });
        let trouble = self.with_worker(|worker| worker.trouble());
        let unheard = summary.fault.as_ref().map(|fault| chain(fault)).or_else(|| summary.refused.clone());
        self.tell(trouble.or(unheard));
        Ok(summary)
    }

    /// Polls, settles and reports until `shutdown`. What is at hand then is finished.
    ///
    /// Nothing that the control plane, the network or a full disk does ends it: it says why and tries again.
    pub async fn run(&mut self, shutdown: CancellationToken) {
        let mut failures: u32 = 0;
        let mut beat: Option<Instant> = None;
        tracing::info!(host.name = %self.host, server = self.client.server(), "host {} begins to poll", self.host);
        while !shutdown.is_cancelled() {
            let whole = beat.is_none_or(|last| last.elapsed() >= self.settings.polling.beat);
            let round = match self.round(whole, &shutdown).await {
                Ok(Some(round)) => round,
                Ok(None) => break,
                Err(error) => Round::Trouble { why: chain(&error), asked: None, at_once: false },
            };
            if whole {
                beat = Some(Instant::now());
            }
            let pause = match round {
                Round::Well(pause) => {
                    failures = 0;
                    let trouble = self.with_worker(|worker| worker.trouble());
                    self.tell(trouble);
                    // A beat that is due is not slept through.
                    let spent = beat.map_or(Duration::ZERO, |last| last.elapsed());
                    pause.min(self.settings.polling.beat.saturating_sub(spent))
                }
                Round::Trouble { at_once: true, .. } if failures == 0 => {
                    failures = 1;
                    Duration::ZERO
                }
                Round::Trouble { why, asked, .. } => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(failures, "this host goes on with what it has: {why}");
                    self.tell(Some(why));
                    pace::after_failure(failures, self.settings.polling.max_backoff, asked, pace::chance())
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        tracing::info!(host.name = %self.host, "host {} stops polling; what runs on it goes on", self.host);
    }

    /// Polls, settles and reports once; with `whole`, everything. `None` if it was told to stop while it waited.
    async fn round(&mut self, whole: bool, shutdown: &CancellationToken) -> Result<Option<Round>, AgentError> {
        if whole {
            self.facts = facts::gather();
        }
        // Where everything is to be checked, the answer is wanted now.
        let held = if whole || self.ask_full { 0 } else { self.settings.polling.wait.as_secs() };
        let began = Instant::now();
        let asked = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(None),
            asked = self.poll(held) => asked,
        };
        let reachable = asked.is_ok();
        self.settle(whole, reachable).await?;
        let mut unreported = if reachable { self.report(whole).await } else { None };
        if !shutdown.is_cancelled() && self.push(false, PUSH_PATIENCE).await && reachable && unreported.is_none() {
            unreported = self.report(false).await;
        }
        Ok(Some(match (asked, unreported) {
            (Ok(_), None) if self.ask_full && self.may_refetch() => Round::Well(Duration::ZERO),
            (Ok(asked), None) => {
                let (elapsed, chance) = (began.elapsed(), pace::chance());
                Round::Well(pace::after_success(asked.poll_after, elapsed, held > 0, asked.changed, chance))
            }
            (Ok(_), Some(error)) => Round::Trouble {
                why: format!("the report did not get through and is sent again: {}", chain(&error)),
                asked: error.retry_after(),
                at_once: false,
            },
            (Err(PollFault::Client(error)), _) => Round::Trouble {
                why: chain(&error),
                asked: error.retry_after(),
                at_once: error.code() == Some(Code::CursorAhead),
            },
            (Err(PollFault::Refused(why)), _) => Round::Trouble { why, asked: None, at_once: false },
        }))
    }

    async fn settle(&mut self, all: bool, reachable: bool) -> Result<Vec<Done>, AgentError> {
        let mut unfetched: BTreeMap<Digest, String> = BTreeMap::new();
        for digest in self.with_worker(|worker| worker.missing_bundles()) {
            let fetched = if reachable {
                let bundles = self.with_worker(|worker| worker.bundles.clone());
                bundles.fetch(&self.client, &self.host, &digest).await
            } else {
                Err("the control plane does not answer".to_owned())
            };
            if let Err(message) = fetched {
                unfetched.insert(digest, message);
            }
        }
        self.blocking(move |worker| worker.settle(all, &unfetched)).await
    }

    fn note_fault(&self, fault: PollFault, summary: &mut OnceSummary) {
        match fault {
            PollFault::Client(error) => summary.fault = Some(error),
            PollFault::Refused(why) => summary.refused = Some(why),
        }
    }

    /// Leaves word for `titan-agent status`.
    fn tell(&mut self, trouble: Option<String>) {
        if self.contact.changed(trouble) {
            let state = self.with_worker(|worker| worker.state.clone());
            if let Err(error) = self.contact.write(&state) {
                tracing::debug!(error = chain(&error), "the status cannot be written");
            }
        }
    }

    fn with_worker<T>(&self, act: impl FnOnce(&mut Worker) -> T) -> T {
        act(&mut self.worker.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Worker) -> T + Send + 'static,
    ) -> Result<T, AgentError> {
        let worker = self.worker.clone();
        let task = tokio::task::spawn_blocking(move || act(&mut worker.lock().unwrap_or_else(PoisonError::into_inner)));
        task.await.map_err(|_| AgentError::Aborted)
    }
}

/// How a round went.
enum Round {
    /// Well; the next one comes after a pause.
    Well(Duration),
    /// Not well: why, after how long the control plane wants to be asked again, and whether another poll may mend it.
    Trouble { why: String, asked: Option<Duration>, at_once: bool },
}
