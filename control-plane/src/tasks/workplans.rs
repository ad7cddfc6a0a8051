//! The runner: makes time pass for plans, and does what the control plane does itself.
//!
//! One replica leads. It wakes with commits and when the next thing is due; each step is one transaction, fenced by its
//! lease. Attempts run beside each other; what they come to is a step as well, so that a process that ends at any moment
//! leaves a plan that the next one goes on with. An attempt that was lost that way is made again and does not count.

mod aside;
mod attempts;
pub mod executors;
mod releases;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use titan_api::{
    Name, Revision,
    workplans::{PlanState, attempts::Verdict},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use uuid::Uuid;

use self::{
    aside::Aside,
    attempts::{BUSY, MEASUREMENTS},
};
use crate::{
    fleet::workplans::Input,
    state::AppState,
    store::{Lease, Queued, StoreError},
    tasks::leads::Leads,
    workplans::{Context, StepError, step},
};

/// How long to wait for a hint before looking anyway.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long a lease lasts without being renewed.
const LEASE: Duration = Duration::from_secs(10);
/// How long a plan is left alone that could not be read or written.
const LATER: Duration = Duration::from_secs(5);
/// The shortest time to wait.
const LEAST: Duration = Duration::from_millis(1);
/// Steps that are looked up at once.
const BATCH: usize = 64;
/// What the uids of the control plane's own processes begin with.
pub const OWN: &str = "titan/";

/// What is to be told to a plan about one of its attempts.
#[derive(Debug, Clone)]
struct Word {
    plan: Uuid,
    node: Name,
    number: u32,
    input: Input,
}

/// An attempt that runs here.
#[derive(Debug)]
struct Running {
    handle: AbortHandle,
    /// The queue that it came from: how many of each there may be is told in [`attempts`].
    queue: &'static str,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    /// Something happened.
    Step,
    /// Nothing did, or the plan refused it: it came too late.
    Nothing,
    /// Another transaction was first: it is to be made again at once.
    Raced,
    /// It could not be read or written, and is to be tried again after a while.
    Later,
}

/// What makes plans go on.
#[derive(Debug)]
pub struct Runner {
    state: AppState,
    uid: String,
    lease: Option<(Lease, Revision)>,
    leads: Leads,
    /// Attempts that run here, and how to end them.
    running: HashMap<(Uuid, Name, u32), Running>,
    attempts: JoinSet<()>,
    ended: (mpsc::Sender<Word>, mpsc::Receiver<Word>),
    /// What ended, or was lost with the process that had it, and is not written yet.
    kept: VecDeque<Word>,
    aside: Aside,
    /// Until when it was looked what is due.
    seen: Revision,
    measurements: Arc<Semaphore>,
}

impl Runner {
    /// Returns a runner that leads nothing yet.
    #[must_use]
    pub fn new(state: AppState) -> Self {
        Self {
            state,
            uid: format!("{OWN}{}", Uuid::now_v7()),
            lease: None,
            leads: Leads::default(),
            running: HashMap::new(),
            attempts: JoinSet::new(),
            ended: mpsc::channel(BUSY * 2),
            kept: VecDeque::new(),
            aside: Aside::default(),
            seen: Revision::from_micros(0),
            measurements: Arc::new(Semaphore::new(MEASUREMENTS)),
        }
    }

    /// Does all that is due now, if this replica leads. Returns whether there may be more. What is wrong with one plan is
    /// told and tried again after a while, and holds up no other (law 8).
    pub async fn pass(&mut self) -> Result<bool, StepError> {
        let Some(lease) = self.lead().await? else {
            self.attempts.abort_all();
            self.running.clear();
            self.seen = self.state.clock.now();
            return Ok(false);
        };
        self.aside.let_go(Instant::now());
        while let Ok(ended) = self.ended.1.try_recv() {
            self.kept.push_back(ended);
        }
        let mut did = self.tell_kept(lease).await?;
        let now = self.state.clock.now();
        let due = self.state.store.read().await?.due_nodes(now, BATCH + self.aside.len()).await?;
        self.seen = now;
        for (plan, node) in due {
            if self.aside.holds(plan, node.as_ref()) {
                continue;
            }
            match self.one(lease, (plan, node.as_ref()), Input::Due(node.clone())).await? {
                Made::Step | Made::Raced => did = true,
                // It is due and nothing comes of it: asking again at once would bring no more.
                Made::Nothing => self.aside.put(plan, node.as_ref(), Instant::now() + INTERVAL),
                Made::Later => {}
            }
        }
        // The last word may have been a person's or a worker's, or that of a process that was killed after it.
        let over = self.state.store.read().await?.plans_to_settle().await?;
        for plan in over {
            if !self.aside.holds(plan, None)
                && let Err(error) = self.over(lease, plan).await
            {
                self.failed((plan, None), error)?;
            }
        }
        self.end_what_is_over().await?;
        Ok(self.take(lease).await? || did)
    }

    /// Tells plans what became of attempts. Returns whether anything came of it.
    async fn tell_kept(&mut self, lease: Lease) -> Result<bool, StepError> {
        let mut did = false;
        for _ in 0..self.kept.len() {
            let Some(word) = self.kept.pop_front() else { break };
            self.running.remove(&(word.plan, word.node.clone(), word.number));
            if self.aside.holds(word.plan, Some(&word.node)) {
                self.kept.push_back(word);
                continue;
            }
            match self.one(lease, (word.plan, Some(&word.node)), word.input.clone()).await {
                Ok(Made::Step) => did = true,
                Ok(Made::Nothing) => {}
                Ok(Made::Raced) => {
                    did = true;
                    self.kept.push_back(word);
                }
                Ok(Made::Later) => self.kept.push_back(word),
                Err(error) => {
                    self.kept.push_back(word);
                    return Err(error);
                }
            }
        }
        Ok(did)
    }

    /// Makes a step of a plan in a transaction of its own. Fails only if no other plan would fare better.
    async fn one(
        &mut self,
        lease: Lease,
        (plan, node): (Uuid, Option<&Name>),
        input: Input,
    ) -> Result<Made, StepError> {
        let mut tx = self.state.store.write("runner").await?;
        if let Err(error) = tx.check_lease(lease).await {
            self.lease = None;
            return Err(error.into());
        }
        let context = Context { actor: "system", wall: self.state.clock.now() };
        let written = async {
            let stepped = step(&mut tx, plan, vec![input], context).await?;
            tx.notify().await?;
            tx.commit().await?;
            Ok::<_, StepError>(stepped.moved)
        };
        match written.await {
            Ok(true) => {
                self.state.committed();
                Ok(Made::Step)
            }
            Ok(false) => Ok(Made::Nothing),
            Err(StepError::Refused(problem)) => {
                tracing::debug!(workplan.id = %plan, code = %problem.code, "a step of plan {plan} came too late: {problem}");
                Ok(Made::Nothing)
            }
            Err(error) => self.failed((plan, node), error),
        }
    }

    /// Leaves alone what could not be read or written; hands back what is wrong with more than that.
    fn failed(&mut self, (plan, node): (Uuid, Option<&Name>), error: StepError) -> Result<Made, StepError> {
        match &error {
            StepError::Store(error) if error.lost_race() => Ok(Made::Raced),
            StepError::Store(StoreError::Fenced(_)) => {
                self.lease = None;
                Err(error)
            }
            StepError::Store(failed) if !failed.is_of_a_row() => Err(error),
            _ => {
                let about = node.map_or_else(|| format!("plan {plan}"), |node| format!("node {node} of plan {plan}"));
                tracing::error!(workplan.id = %plan, error = &error as &dyn std::error::Error,
                    "{about} could not go on, trying again in {} s", LATER.as_secs());
                self.aside.put(plan, node, Instant::now() + LATER);
                Ok(Made::Later)
            }
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
        if taken.is_some() {
            // Those that whoever led before had begun are made again.
            let lost = self.state.store.read().await?.running_attempts_like(OWN).await?;
            lost.into_iter().for_each(|(Queued { plan, node, number }, _)| self.lose((plan, node, number)));
        }
        self.lease = lease.map(|lease| (lease, self.state.clock.after(LEASE / 3)));
        self.leads.take("plans", &self.uid, lease);
        Ok(lease)
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

    /// Returns how long nothing is due but what is left alone.
    async fn next(&self) -> Duration {
        let most = if self.state.store.postgres().is_some() { INTERVAL } else { LEASE / 4 };
        let most = self.aside.next(Instant::now()).map_or(most, |aside| aside.clamp(LEAST, most));
        let next = async { self.state.store.read().await?.next_due(self.seen).await };
        match next.await {
            Ok(Some(due)) => {
                let micros = due.micros().saturating_sub(self.state.clock.now().micros()).max(0);
                Duration::from_micros(micros.unsigned_abs()).clamp(LEAST, most)
            }
            Ok(None) => most,
            Err(_) => INTERVAL,
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
