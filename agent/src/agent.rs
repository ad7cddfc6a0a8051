//! The agent: polls, folds, fetches, settles, reports, and does it again.

mod errands;
mod polling;
mod pushing;
mod reporting;
mod running;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use titan_api::{
    Code, Digest, Name,
    client::{Client, ClientError, SystemTrust},
    hosts::Facts,
};
use tokio::{runtime::Handle, sync::Mutex};
use uuid::Uuid;

use crate::{
    config::Settings,
    disk::DiskError,
    facts,
    identity::Identity,
    pulse::Pulse,
    settle::{Done, Scope, SettleError, Worker, chain},
    state::StateDir,
    status::Contact,
    summary::OnceSummary,
    wake::Wake,
};
use polling::PollFault;
use pushing::Pushing;

/// How long to wait before looking again at what is on its way, if nobody says.
const LOOK: Duration = Duration::from_secs(1);
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
    wake: Wake,
    pulse: Pulse,
    facts: Facts,
    unfetched: BTreeMap<Digest, String>,
    ask_full: bool,
    /// Whether the control plane answered when it was asked last.
    in_touch: bool,
    refetched: Option<Instant>,
    recounted: bool,
    mismatches: u64,
    contact: Contact,
    pushing: Option<Pushing>,
}

impl Agent {
    /// Takes the state directory, finishes what was interrupted, and gets ready to poll. Only one agent can hold a
    /// state directory.
    ///
    /// `io` is the runtime on which the agent is going to run.
    pub fn open(settings: Settings, io: &Handle) -> Result<Self, AgentError> {
        let state = StateDir::new(&settings.state_dir);
        let not_enrolled = || AgentError::NotEnrolled(settings.state_dir.display().to_string());
        let identity = Identity::read(&state)?.ok_or_else(not_enrolled)?;
        let credential = Identity::credential(&state)?.ok_or_else(not_enrolled)?;
        let server = settings.server.as_deref().unwrap_or(&identity.server);
        let wake = Wake::default();
        let worker = Worker::open(&settings, io, &wake)?;
        let trust = SystemTrust::on_a_host(worker.saved_cursor());
        let client = Client::trusting(server, Some(credential.reveal().to_owned()), trust)?;
        let worker = Arc::new(Mutex::new(worker));
        let contact = Contact::read(&state);
        let facts = facts::gather();
        let (host, unfetched) = (identity.host, BTreeMap::new());
        Ok(Self {
            settings,
            host,
            client,
            worker,
            wake,
            pulse: Pulse::default(),
            facts,
            unfetched,
            ask_full: false,
            in_touch: false,
            refetched: None,
            recounted: false,
            mismatches: 0,
            contact,
            pushing: None,
        })
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

    /// Polls once without waiting, brings the host to what is desired, waits for what that sets in motion (hooks, pulls,
    /// proofs of health), checks everything for drift, commits, pushes and reports. An unreachable control plane is no
    /// error: the host is settled to what it was told last, and the summary says so.
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
        self.in_touch = reachable;
        self.fetch_all(reachable).await;
        let mut scope = Scope { all: true, ..Scope::default() };
        loop {
            let done = self.work(&scope).await?;
            summary.take(done);
            scope = Scope::default();
            if self.in_touch && self.with_worker(|worker| worker.has_untold()).await {
                // What drifts away again meanwhile is put right at once: this comes to an end.
                summary.unreported = self.report(false).await;
                self.in_touch = false;
                continue;
            }
            let (busy, idle) = self.with_worker(|worker| (worker.is_busy(), worker.idle_for())).await;
            if !busy {
                break;
            }
            let wake = self.wake.clone();
            tokio::select! {
                () = wake.notified() => {}
                () = tokio::time::sleep(idle.unwrap_or(LOOK)) => {}
            }
        }
        if reachable {
            summary.unreported = self.report(true).await;
        }
        if self.push(true, PUSH_PATIENCE_ONCE).await && reachable {
            summary.unreported = self.report(false).await.or(summary.unreported);
        }
        let (orphans, trouble) = self
            .with_worker(|worker| {
                let title = |(id, entry): (Uuid, &crate::desired::DesiredEntry)| {
                    (id, format!("{}/{}", entry.workspace, entry.name))
                };
                (worker.desired.orphans().map(title).collect(), worker.trouble())
            })
            .await;
        summary.orphans = orphans;
        let unheard = summary.fault.as_ref().map(|fault| chain(fault)).or_else(|| summary.refused.clone());
        self.tell(trouble.or(unheard)).await;
        Ok(summary)
    }

    /// Fetches a bundle into the cache.
    async fn fetch(&self, digest: Digest) -> Result<(), String> {
        self.fetching(digest).await.await.1
    }

    /// Returns a bundle that is being fetched into the cache, which can be waited for beside other things.
    async fn fetching(&self, digest: Digest) -> impl Future<Output = (Digest, Result<(), String>)> + use<> {
        let (client, host) = (self.client.clone(), self.host.clone());
        let bundles = self.with_worker(|worker| worker.bundles.clone()).await;
        // It looks at all that the agent keeps.
        let refused = self.blocking(|worker| worker.refuses_bundles()).await;
        let refused = refused.unwrap_or_else(|error| Some(chain(&error)));
        async move {
            match refused {
                Some(why) => (digest, Err(why)),
                None => (digest, bundles.fetch(&client, &host, &digest).await),
            }
        }
    }

    /// Asks what is missing of the bundles, one after the other.
    async fn fetch_all(&mut self, reachable: bool) {
        for digest in self.with_worker(|worker| worker.missing_bundles()).await {
            let fetched =
                if reachable { self.fetch(digest).await } else { Err("the control plane does not answer".to_owned()) };
            if let Err(message) = fetched {
                self.unfetched.insert(digest, message);
            }
        }
    }

    /// Brings the host to what is desired, on a thread that may block.
    async fn work(&mut self, scope: &Scope) -> Result<Vec<Done>, AgentError> {
        let scope = Scope { in_touch: self.in_touch, unfetched: self.unfetched.clone(), ..scope.clone() };
        self.blocking(move |worker| worker.settle(&scope)).await
    }

    fn note_fault(&self, fault: PollFault, summary: &mut OnceSummary) {
        match fault {
            PollFault::Client(error) => summary.fault = Some(error),
            PollFault::Refused(why) => summary.refused = Some(why),
        }
    }

    /// Leaves word for `titan-agent status`.
    async fn tell(&mut self, trouble: Option<String>) {
        if self.contact.changed(trouble) {
            let state = self.with_worker(|worker| worker.state.clone()).await;
            if let Err(error) = self.contact.write(&state) {
                tracing::debug!(error = chain(&error), "the status cannot be written");
            }
        }
    }

    /// Waits rather than blocks while somebody else works: that one may need this thread to go on.
    async fn with_worker<T>(&self, act: impl FnOnce(&mut Worker) -> T) -> T {
        act(&mut *self.worker.lock().await)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Worker) -> T + Send + 'static,
    ) -> Result<T, AgentError> {
        let mut worker = self.worker.clone().lock_owned().await;
        let beat = self.pulse.begin();
        let work = move || {
            let _beat = beat;
            act(&mut worker)
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| AgentError::Aborted)
    }

    /// Returns what tells whether the agent's work on the host comes to an end.
    pub(crate) fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }
}
