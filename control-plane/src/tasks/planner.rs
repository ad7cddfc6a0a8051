//! The planner: turns changes into releases and assignments.
//!
//! Every replica keeps its model up to date with the feed; the one that holds the lease also decides and writes. What
//! was decided and how far is one transaction, so a crash repeats a step and loses none.

use std::time::Duration;

use titan_api::{
    Problem, Revision,
    changes::{Change, Operation},
};
use uuid::Uuid;

use crate::{
    fleet::causes::{self, Affected},
    planning,
    state::AppState,
    store::{ChangeFilter, Lease, StoreError, Tx},
    tasks::sweep,
};

/// How long to wait for a hint before looking anyway.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long a lease lasts without being renewed.
const LEASE: Duration = Duration::from_secs(10);
/// Changes read at a time.
const BATCH: usize = 500;

/// Why a step of the planner failed; it is repeated.
#[derive(Debug, thiserror::Error)]
pub enum PlannerError {
    /// The database failed, or another replica leads.
    #[error("the planner could not read or write")]
    Store(#[from] StoreError),
    /// Nothing can be rendered.
    #[error("the planner could not render: {0}")]
    Render(Box<Problem>),
}

impl From<Problem> for PlannerError {
    fn from(problem: Problem) -> Self {
        Self::Render(Box::new(problem))
    }
}

/// The planner's own state.
#[derive(Debug)]
pub struct Planner {
    state: AppState,
    holder: String,
    loaded: bool,
    /// Up to which revision this replica has decided.
    planned: Revision,
    lease: Option<(Lease, Revision)>,
}

impl std::fmt::Debug for AppState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AppState")
    }
}

impl Planner {
    /// Returns a planner that has yet to load its model.
    #[must_use]
    pub fn new(state: AppState) -> Self {
        Self { state, holder: Uuid::now_v7().to_string(), loaded: false, planned: Revision::ZERO, lease: None }
    }

    /// Brings the model up to date and, if this replica leads, decides what the changes since the bookmark mean and
    /// writes it. Returns whether there may be more to do.
    pub async fn pass(&mut self) -> Result<bool, PlannerError> {
        if !self.loaded {
            self.load().await?;
        }
        let queued = self.follow().await?;
        let Some(lease) = self.lead().await? else { return Ok(false) };
        let (changes, upto) = {
            let mut tx = self.state.store.read().await?;
            let bookmark = tx.bookmark("planner").await?;
            let seen = self.state.model().revision;
            let (mut changes, end) = tx.changes_page(bookmark.next(), &ChangeFilter::default(), BATCH).await?;
            // What the model has not seen yet is for the next pass.
            changes.retain(|change| change.revision <= seen);
            (changes, end.map_or(bookmark, |end| end.min(seen)))
        };
        if changes.is_empty() && queued.is_empty() && self.planned >= upto {
            return Ok(false);
        }
        self.write(lease, &changes, &queued, upto).await?;
        self.planned = upto;
        self.state.metrics.planned_revision.set(upto.micros());
        Ok(true)
    }

    /// Builds the model from one snapshot.
    async fn load(&mut self) -> Result<(), StoreError> {
        if self.state.store.postgres().is_none() {
            // This process holds the file's lock: whoever held a lease is gone.
            let mut tx = self.state.store.write("lease").await?;
            tx.end_leases().await?;
            tx.commit().await?;
        }
        let mut tx = self.state.store.read().await?;
        let revision = tx.clock().await?;
        let documents = tx.all_documents().await?;
        let observed = tx.observed_hosts().await?;
        drop(tx);
        self.state.change_model(|model| {
            *model = crate::fleet::model::Model::default();
            for stored in &documents {
                if let Err(problem) = model.put(&stored.document()) {
                    unreadable(&stored.name, &problem);
                }
            }
            for host in observed {
                model.set_facts(host.uid, &host.facts);
            }
            model.revision = revision;
        });
        self.loaded = true;
        Ok(())
    }

    /// Moves the model along by the history, and returns the hosts whose facts changed.
    async fn follow(&mut self) -> Result<Vec<(Uuid, i64)>, StoreError> {
        let mut tx = self.state.store.read().await?;
        let clock = tx.clock().await?;
        let mut seen = self.state.model().revision;
        while seen < clock {
            let (changes, end) = tx.changes_page(seen.next(), &ChangeFilter::default(), BATCH).await?;
            let Some(end) = end else { break };
            self.state.change_model(|model| {
                for change in &changes {
                    if let Err(problem) = model.follow(change) {
                        unreadable(&change.name, &problem);
                    }
                }
            });
            // A host that was made a moment ago may have reported facts before the model knew it.
            for change in changes.iter().filter(|change| change.kind == titan_api::Kind::Host) {
                take_facts(&self.state, &mut tx, change.uid).await?;
            }
            seen = end;
        }
        self.state.change_model(|model| model.revision = model.revision.max(clock));
        let queued = tx.queued_facts().await?;
        for (host, _) in &queued {
            take_facts(&self.state, &mut tx, *host).await?;
        }
        Ok(queued)
    }

    /// Takes or renews the lease; `None` if another replica leads.
    async fn lead(&mut self) -> Result<Option<Lease>, StoreError> {
        let now = self.state.clock.now();
        if let Some((lease, renew_at)) = self.lease
            && now < renew_at
        {
            return Ok(Some(lease));
        }
        let mut tx = self.state.store.write("lease").await?;
        let lease = tx.take_lease("planner", &self.holder, now, self.state.clock.after(LEASE)).await?;
        tx.commit().await?;
        if let Some(lease) = lease
            && self.lease.is_none_or(|(held, _)| held.token != lease.token)
        {
            // Whoever led before may have taken facts off the queue that this replica has not seen.
            let observed = self.state.store.read().await?.observed_hosts().await?;
            self.state
                .change_model(|model| observed.into_iter().for_each(|host| model.set_facts(host.uid, &host.facts)));
        }
        self.lease = lease.map(|lease| (lease, self.state.clock.after(LEASE / 3)));
        self.state.metrics.leader.set(i64::from(lease.is_some()));
        Ok(lease)
    }

    /// Decides and writes. If the lease was lost meanwhile, nothing is written.
    async fn write(
        &mut self,
        lease: Lease,
        changes: &[Change],
        queued: &[(Uuid, i64)],
        upto: Revision,
    ) -> Result<(), PlannerError> {
        let model = self.state.model();
        let mut affected: Affected = causes::affected(changes, &model);
        affected.hosts.extend(queued.iter().map(|(host, _)| *host));
        let present = planning::gather(&mut self.state.store.read().await?, &model, &affected).await?;
        let planned = planning::decide(&model, &present, &self.state.renderer).await?;
        let mut tx = self.state.store.write("planner").await?;
        let written = planned.write(&mut tx, lease, upto, self.state.clock.now()).await;
        if matches!(written, Err(StoreError::Fenced(_))) {
            self.lease = None;
        }
        let revision = written?;
        for (host, mark) in queued {
            tx.unqueue_facts(*host, *mark).await?;
        }
        tx.commit().await?;
        for (digest, body) in &planned.bundles {
            self.state.bundles.put(*digest, body.clone());
        }
        if let Some(revision) = revision {
            tracing::info!(moved = planned.moved.len(), unchanged = planned.unchanged, %revision, "assignments moved");
        }
        self.state.committed();
        if changes.iter().any(|change| change.operation == Operation::Delete) {
            // What no host has to confirm is gone at once.
            sweep::settle(&self.state).await?;
        }
        Ok(())
    }

    /// Plans until shutdown, then gives the lease back.
    pub async fn run(mut self) {
        let mut commits = self.state.commits();
        while !self.state.shutdown.is_cancelled() {
            commits.mark_unchanged();
            match self.pass().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "planning failed, trying again");
                    tokio::time::sleep(INTERVAL).await;
                }
            }
            tokio::select! {
                () = self.state.shutdown.cancelled() => {}
                _ = tokio::time::timeout(INTERVAL, commits.changed()) => {}
            }
        }
        if let Some((lease, _)) = self.lease
            && let Ok(mut tx) = self.state.store.write("lease").await
            && tx.release_lease(lease).await.is_ok()
        {
            let _expires_anyway = tx.commit().await;
        }
    }
}

async fn take_facts(state: &AppState, tx: &mut Tx, host: Uuid) -> Result<(), StoreError> {
    if let Some(observed) = tx.observed_host(host).await? {
        state.change_model(|model| model.set_facts(host, &observed.facts));
    }
    Ok(())
}

/// A stored document that cannot be read holds up nobody else; it is said once each time that it is met.
fn unreadable(name: &str, problem: &Problem) {
    tracing::error!(document.name = name, %problem, errors = ?problem.errors, "a stored document cannot be read");
}
