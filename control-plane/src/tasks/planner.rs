//! The planner: turns changes into releases and assignments.
//!
//! Every replica keeps its model up to date with the feed; the one that holds the lease also decides and writes. What
//! was decided and how far is one transaction, so a crash repeats a step and loses none.

mod chunks;
mod keeping;
mod pace;

use std::{collections::HashMap, sync::Arc, time::Duration};

use titan_api::{Problem, Revision, changes::Operation};
use uuid::Uuid;

use self::pace::Pace;
use crate::{
    fleet::{
        absences::Absences,
        agenda::{Agenda, Item},
        causes::{self, Affected},
    },
    planning::{Moved, Standing},
    state::AppState,
    store::{ChangeFilter, Lease, StoreError},
    tasks::{absences::Lookout, follow, leads::Leads},
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
    /// Something moved since it was decided; it is decided again.
    #[error("something moved since the plan was made")]
    Overtaken,
    /// A release cannot be handed out.
    #[error("the planner could not hand out a release: {0}")]
    Refused(Box<Problem>),
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
    lease: Option<(Lease, Revision)>,
    leads: Leads,
    leading: Option<Leading>,
    lookout: Lookout,
    pace: Pace,
}

/// What a leader keeps from one step to the next. All of it can be worked out again.
#[derive(Debug)]
struct Leading {
    lease: Lease,
    standing: Standing,
    agenda: Agenda,
    /// Up to where changes are on the agenda, or were.
    read: Revision,
    /// Up to where the database says that everything is decided.
    bookmark: Revision,
    /// Hosts whose facts changed, with the mark under which each was queued.
    queued: HashMap<Uuid, i64>,
    /// Whether something was deleted since the last time that nothing was left to decide.
    deleted: bool,
    /// Up to where gates were read.
    gates: Revision,
    /// Up to where the database says that it is decided what they mean.
    opened: Revision,
    /// What was decided and written last: the view may have yet to read it.
    before: Vec<Item>,
    /// The newest revision under which assignments moved by this leader.
    moved: Revision,
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
        let pace = Pace { pairs: 2048, least: 64, most: 16_384 };
        Self {
            state,
            holder: Uuid::now_v7().to_string(),
            loaded: false,
            lease: None,
            leads: Leads::default(),
            leading: None,
            lookout: Lookout::default(),
            pace,
        }
    }

    /// Writes in transactions of always about `pairs` pairs of deployment and host from now on.
    pub const fn set_chunks(&mut self, pairs: usize) {
        self.pace = Pace { pairs, least: pairs, most: pairs };
    }

    /// Brings the model up to date and, if this replica leads, decides and writes a chunk of what the changes since the
    /// bookmark mean. Returns whether there may be more to do.
    pub async fn pass(&mut self) -> Result<bool, PlannerError> {
        if !self.loaded {
            self.load().await?;
        }
        let queued = self.follow().await?;
        let Some(lease) = self.lead().await? else {
            self.leading = None;
            self.state.absences.store(Arc::default());
            return Ok(false);
        };
        let mut leading = match self.leading.take() {
            Some(leading) if leading.lease == lease => leading,
            _ => {
                // Whatever was written before is in the view.
                follow::pass(&self.state).await?;
                self.begin(lease).await?
            }
        };
        let more = self.read(&mut leading, &queued).await?;
        self.read_gates(&mut leading).await?;
        leading.agenda.add(&self.lookout.pass(&self.state, &mut leading.standing).await?);
        let idle = leading.agenda.is_empty() && leading.read == leading.bookmark && leading.queued.is_empty();
        if idle && leading.gates == leading.opened {
            follow::pass(&self.state).await?;
            self.leading = Some(leading);
            return Ok(more);
        }
        // After an error everything is worked out again.
        self.step(&mut leading).await?;
        self.state.metrics.planned_revision.set(leading.bookmark.micros());
        self.leading = Some(leading);
        Ok(true)
    }

    /// Works out what a leader stands on.
    async fn begin(&self, lease: Lease) -> Result<Leading, PlannerError> {
        let bookmark = self.state.store.read().await?.bookmark("planner").await?;
        self.state.metrics.planned_revision.set(bookmark.micros());
        let mut standing = Standing::of(&self.state.view, &self.state.model(), &self.state.store).await?;
        // Whom this process missed before an error it misses still.
        standing.absences = Absences::clone(&self.state.absences.load());
        let (model, mut agenda, queued) = (self.state.model(), Agenda::default(), HashMap::new());
        // Chunks that nobody finished may have taken replicas off hosts, or made room, and nothing else leads back to that.
        let targets = model.deployments_that_book().map(|deployment| deployment.uid).collect();
        // A gate may have opened for hosts that nobody told yet.
        let deployments = standing.unsettled().collect();
        agenda.add(&Affected { targets, deployments, ..Affected::default() });
        let gates = standing.gates_read();
        Ok(Leading {
            lease,
            standing,
            agenda,
            read: bookmark,
            bookmark,
            queued,
            deleted: false,
            gates,
            opened: Revision::ZERO,
            before: Vec::new(),
            moved: Revision::ZERO,
        })
    }

    /// Puts on the agenda what changed since the last time; returns whether there may be more.
    async fn read(&self, leading: &mut Leading, queued: &[(Uuid, i64)]) -> Result<bool, PlannerError> {
        let model = self.state.model();
        let mut tx = self.state.store.read().await?;
        let (mut changes, end) = tx.changes_page(leading.read.next(), &ChangeFilter::default(), BATCH).await?;
        drop(tx);
        // What the model has not seen yet is for the next pass.
        changes.retain(|change| change.revision <= model.revision);
        let mut affected = causes::affected(&changes, &model);
        for (host, mark) in queued {
            if leading.queued.insert(*host, *mark) != Some(*mark) {
                affected.hosts.insert(*host);
            }
        }
        leading.agenda.add(&affected);
        leading.deleted |= changes.iter().any(|change| change.operation == Operation::Delete);
        let read = end.map_or(leading.read, |end| end.min(model.revision).max(leading.read));
        let more = read > leading.read && changes.len() >= BATCH;
        leading.read = read;
        Ok(more)
    }

    /// Puts on the agenda whom the gates that moved since the last time mean something else for.
    async fn read_gates(&self, leading: &mut Leading) -> Result<(), PlannerError> {
        let moved = self.state.store.read().await?.gates_after(leading.gates).await?;
        let model = self.state.model();
        let mut deployments = std::collections::BTreeSet::new();
        for (gate, revision) in moved {
            leading.gates = leading.gates.max(revision);
            let deployment = gate.deployment;
            match leading.standing.put_gate(gate, &model) {
                Moved::Nobody => {}
                Moved::Some(hosts) => leading.agenda.add_hosts(deployment, &hosts),
                Moved::All => drop(deployments.insert(deployment)),
            }
        }
        leading.agenda.add(&Affected { deployments, ..Affected::default() });
        Ok(())
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
            && self.state.store.postgres().is_some()
            && self.lease.is_none_or(|(held, _)| held.token != lease.token)
        {
            // Whoever led before may have taken facts off the queue that this replica has not seen.
            let observed = self.state.store.read().await?.observed_hosts().await?;
            self.state
                .change_model(|model| observed.into_iter().for_each(|host| model.set_facts(host.uid, &host.facts)));
        }
        self.lease = lease.map(|lease| (lease, self.state.clock.after(LEASE / 3)));
        self.state.metrics.leader.set(i64::from(lease.is_some()));
        self.leads.take("planner", &self.holder, lease);
        Ok(lease)
    }

    /// Plans until shutdown, then gives the lease back.
    pub async fn run(mut self) {
        let mut commits = self.state.commits();
        while !self.state.shutdown.is_cancelled() {
            commits.mark_unchanged();
            match self.pass().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(PlannerError::Overtaken) => continue,
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
            self.leads.take("planner", &self.holder, None);
        }
    }
}
