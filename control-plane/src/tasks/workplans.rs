//! The runner: makes time pass for plans, and does what the control plane does itself.
//!
//! One replica leads. It wakes with commits and when the next thing is due; each step is one transaction, fenced by its
//! lease. Attempts run beside each other; what they come to is a step as well, so that a process that ends at any moment
//! leaves a plan that the next one goes on with. An attempt that was lost that way is made again and does not count.

pub mod executors;
mod releases;

use std::{collections::HashMap, time::Duration};

use titan_api::{
    Revision,
    workplans::{PlanState, attempts::Verdict},
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};
use uuid::Uuid;

use self::executors::Job;
use crate::{
    fleet::workplans::{Finished, Input},
    state::AppState,
    store::{Lease, Queued, StoreError},
    tasks::leads::Leads,
    workplans::{Context, StepError, step},
};

/// How long to wait for a hint before looking anyway.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long a lease lasts without being renewed.
const LEASE: Duration = Duration::from_secs(10);
/// Attempts that the control plane has at once.
const ATTEMPTS: usize = 128;
/// Steps that are looked up at once.
const BATCH: usize = 64;
/// What the uids of the control plane's own processes begin with.
pub const OWN: &str = "titan/";

/// How an attempt ended: what the plan is told.
type Ended = (Uuid, Finished);

/// What makes plans go on.
#[derive(Debug)]
pub struct Runner {
    state: AppState,
    uid: String,
    lease: Option<(Lease, Revision)>,
    leads: Leads,
    /// Attempts that run here, and how to end them.
    running: HashMap<(Uuid, String, u32), AbortHandle>,
    attempts: JoinSet<()>,
    ended: (mpsc::Sender<Ended>, mpsc::Receiver<Ended>),
    /// What ended and is not written yet.
    kept: Vec<Ended>,
}

impl Runner {
    /// Returns a runner that leads nothing yet.
    #[must_use]
    pub fn new(state: AppState) -> Self {
        let uid = format!("{OWN}{}", Uuid::now_v7());
        let (running, attempts, ended) = (HashMap::new(), JoinSet::new(), mpsc::channel(ATTEMPTS * 2));
        Self { state, uid, lease: None, leads: Leads::default(), running, attempts, ended, kept: Vec::new() }
    }

    /// Does all that is due now, if this replica leads. Returns whether there may be more.
    pub async fn pass(&mut self) -> Result<bool, StepError> {
        let Some(lease) = self.lead().await? else {
            self.attempts.abort_all();
            self.running.clear();
            return Ok(false);
        };
        while let Ok(ended) = self.ended.1.try_recv() {
            self.kept.push(ended);
        }
        let mut did = !self.kept.is_empty();
        while let Some((plan, finished)) = self.kept.pop() {
            let key = (plan, finished.node.to_string(), finished.number);
            self.running.remove(&key);
            if let Err(error) = self.one(lease, plan, Input::Finish(Box::new(finished.clone()))).await {
                self.kept.push((plan, finished));
                return Err(error);
            }
        }
        let now = self.state.clock.now();
        let due = self.state.store.read().await?.due_nodes(now, BATCH).await?;
        did |= !due.is_empty();
        for (plan, node) in due {
            self.one(lease, plan, Input::Due(node)).await?;
        }
        // The last word may have been a person's or a worker's, or that of a process that was killed after it.
        let over = self.state.store.read().await?.plans_to_settle().await?;
        for plan in over {
            self.over(lease, plan).await?;
        }
        self.end_what_is_over().await?;
        Ok(self.take(lease).await? || did)
    }

    /// Makes a step of a plan in a transaction of its own. What is refused by the plan is nothing to do.
    async fn one(&mut self, lease: Lease, plan: Uuid, input: Input) -> Result<bool, StepError> {
        let mut tx = self.state.store.write("runner").await?;
        if let Err(error) = tx.check_lease(lease).await {
            self.lease = None;
            return Err(error.into());
        }
        let context = Context { actor: "system", wall: self.state.clock.now() };
        match step(&mut tx, plan, vec![input], context).await {
            Ok(_) => {
                tx.notify().await?;
                tx.commit().await?;
                self.state.committed();
                Ok(true)
            }
            Err(StepError::Refused(problem)) => {
                tracing::debug!(workplan.id = %plan, code = %problem.code, "a step of plan {plan} came too late: {problem}");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Lets everybody have the release of a rollout that succeeded, whenever they come.
    async fn over(&self, lease: Lease, plan: Uuid) -> Result<(), StepError> {
        let mut tx = self.state.store.write("gate").await?;
        // The clock first, always.
        let revision = tx.tick(self.state.clock.now()).await?;
        tx.check_lease(lease).await?;
        let succeeded = tx.plan(plan).await?.is_some_and(|row| row.plan.state == PlanState::Succeeded);
        let Some(mut gate) = tx.gate_of_plan(plan).await?.filter(|gate| succeeded && !gate.is_settled()) else {
            return Ok(());
        };
        gate.from = Some(gate.to);
        gate.openings.clear();
        tx.put_gate(&gate, revision).await?;
        // Whoever was right about it before, it is proven now.
        if let Some(release) = tx.release(gate.deployment, gate.to).await? {
            tx.lift_veto(gate.deployment, &release.inputs_digest).await?;
        }
        tx.notify().await?;
        tx.commit().await?;
        self.state.committed();
        Ok(())
    }

    /// Takes attempts that the control plane does itself, and begins them. Returns whether there may be more.
    async fn take(&mut self, lease: Lease) -> Result<bool, StepError> {
        let free = ATTEMPTS.saturating_sub(self.running.len()).min(BATCH);
        if free == 0 {
            return Ok(false);
        }
        let queued = self.state.store.read().await?.queued_attempts(&[crate::store::OWN_QUEUE], free).await?;
        let more = queued.len() == free;
        for Queued { plan, node, number } in queued {
            let claim = Input::Claim { node: node.clone(), number, uid: self.uid.clone() };
            if !self.one(lease, plan, claim).await? {
                continue;
            }
            let mut tx = self.state.store.read().await?;
            let row = tx.plan(plan).await?;
            let found = tx.plan_nodes(plan, std::slice::from_ref(&node)).await?.pop();
            drop(tx);
            let (Some(row), Some(found)) = (row, found) else { continue };
            let job = Job { state: self.state.clone(), row, node: found, number };
            let (uid, to) = (self.uid.clone(), self.ended.0.clone());
            let key = (plan, node.to_string(), number);
            let handle = self.attempts.spawn(async move {
                let ended = executors::run(job).await;
                let (end, message, details) = (ended.end, ended.message, ended.details);
                let finished = Finished { node, number, uid, end, message, details, results: Vec::new() };
                let _gone_with_the_runner = to.send((plan, finished)).await;
            });
            self.running.insert(key, handle);
        }
        while self.attempts.try_join_next().is_some() {}
        Ok(more)
    }

    /// Ends attempts that run here though their plan no longer knows of them: past their time, skipped, stopped.
    async fn end_what_is_over(&mut self) -> Result<(), StepError> {
        if self.running.is_empty() {
            return Ok(());
        }
        let known = self.state.store.read().await?.running_attempts(&self.uid).await?;
        let known: std::collections::HashSet<_> =
            known.into_iter().map(|(attempt, _)| (attempt.plan, attempt.node.to_string(), attempt.number)).collect();
        self.running.retain(|key, handle| {
            let goes_on = known.contains(key);
            if !goes_on {
                handle.abort();
            }
            goes_on
        });
        Ok(())
    }

    /// Takes or renews the lease; `None` if another replica leads.
    async fn lead(&mut self) -> Result<Option<Lease>, StepError> {
        let now = self.state.clock.now();
        if let Some((lease, renew_at)) = self.lease
            && now < renew_at
        {
            return Ok(Some(lease));
        }
        let mut tx = self.state.store.write("lease").await?;
        let lease = tx.take_lease("workplans", &self.uid, now, self.state.clock.after(LEASE)).await?;
        tx.commit().await?;
        let taken = lease.filter(|lease| self.lease.is_none_or(|(held, _)| held.token != lease.token));
        if let Some(lease) = taken {
            self.inherit(lease).await?;
        }
        self.lease = lease.map(|lease| (lease, self.state.clock.after(LEASE / 3)));
        self.leads.take("plans", &self.uid, lease);
        Ok(lease)
    }

    /// Makes attempts again that whoever led before had begun.
    async fn inherit(&mut self, lease: Lease) -> Result<(), StepError> {
        let lost = self.state.store.read().await?.running_attempts(OWN).await?;
        for (Queued { plan, node, number }, uid) in lost {
            let here = uid == self.uid && self.running.contains_key(&(plan, node.to_string(), number));
            if !here {
                self.one(lease, plan, Input::Interrupted { node, number }).await?;
            }
        }
        Ok(())
    }

    /// Runs until shutdown, then gives the lease back.
    pub async fn run(mut self) {
        let mut commits = self.state.commits();
        while !self.state.shutdown.is_cancelled() {
            commits.mark_unchanged();
            match self.pass().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(StepError::Store(error)) if error.lost_race() => continue,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "plans could not go on, trying again");
                    tokio::time::sleep(INTERVAL).await;
                }
            }
            let wait = self.next().await;
            tokio::select! {
                () = self.state.shutdown.cancelled() => {}
                ended = self.ended.1.recv() => self.kept.extend(ended),
                _ = tokio::time::timeout(wait, commits.changed()) => {}
            }
        }
        self.attempts.abort_all();
        if let Some((lease, _)) = self.lease
            && let Ok(mut tx) = self.state.store.write("lease").await
            && tx.release_lease(lease).await.is_ok()
        {
            let _expires_anyway = tx.commit().await;
            self.leads.take("plans", &self.uid, None);
        }
    }

    /// Returns how long nothing is due.
    async fn next(&self) -> Duration {
        let most = if self.state.store.postgres().is_some() { INTERVAL } else { LEASE / 4 };
        let next = async { self.state.store.read().await?.next_due().await };
        match next.await {
            Ok(Some(due)) => {
                let micros = due.micros().saturating_sub(self.state.clock.now().micros()).max(0);
                Duration::from_micros(micros.unsigned_abs()).min(most).max(Duration::from_millis(1))
            }
            Ok(None) => most,
            Err(StoreError::Database(_)) | Err(_) => INTERVAL,
        }
    }
}

/// How an executor ended.
#[derive(Debug)]
pub struct End {
    /// The job was done and this came of it, or why it was not.
    pub end: Result<Verdict, String>,
    /// What to tell people.
    pub message: Option<String>,
    /// What came of it, for programs.
    pub details: Option<serde_json::Value>,
}

impl End {
    /// The job was not done.
    fn broken(code: &str, message: impl Into<String>) -> Self {
        Self { end: Err(code.to_owned()), message: Some(message.into()), details: None }
    }

    /// The job was done.
    fn known(verdict: Verdict, message: Option<String>, details: Option<serde_json::Value>) -> Self {
        Self { end: Ok(verdict), message, details }
    }
}
