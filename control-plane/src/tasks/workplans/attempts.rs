//! The attempts that the control plane does itself: which are taken, and which are over.

use std::collections::HashSet;

use titan_api::Name;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    BATCH, INTERVAL, Made, Runner, Running, Word,
    executors::{self, Job},
};
use crate::{
    fleet::workplans::{Finished, Input},
    store::{BUSY_QUEUE, Lease, OWN_QUEUE, Queued, StoreError, UNDO_QUEUE},
    workplans::StepError,
};

/// Requests and preflights that the control plane has at once, and besides these as many requests that undo something.
pub(super) const BUSY: usize = 128;
/// Measurements that are taken at once; others wait for their turn.
pub(super) const MEASUREMENTS: usize = 64;
/// The queues that are taken from, and how many attempts of each there are at once.
///
/// What mostly waits (stages of releases, their way back, health, the pauses between measurements) is not counted: it may
/// wait for as long as a window is closed, a plan is paused or a host is away, and would keep out all others. What bounds it
/// is the database: a node has one attempt at a time, a deployment one rollout and a rollout one stage, whose hosts are no
/// more than the view holds of that deployment.
const QUEUES: [(&str, usize); 3] = [(OWN_QUEUE, usize::MAX), (UNDO_QUEUE, BUSY), (BUSY_QUEUE, BUSY)];

impl Runner {
    /// Takes attempts that the control plane does itself, and begins them. Returns whether there may be more.
    pub(super) async fn take(&mut self, lease: Lease) -> Result<bool, StepError> {
        let mut more = false;
        for (queue, most) in QUEUES {
            let has = self.running.values().filter(|running| running.queue == queue).count();
            let free = most.saturating_sub(has).min(BATCH);
            if free == 0 {
                continue;
            }
            let queued = self.state.store.read().await?.queued_attempts(&[queue], free + self.aside.len()).await?;
            let mut begun = 0;
            for queued in queued {
                if begun == free {
                    break;
                }
                let Queued { plan, node, number } = &queued;
                if self.aside.holds(*plan, Some(node)) {
                    continue;
                }
                let claim = Input::Claim { node: node.clone(), number: *number, uid: self.uid.clone() };
                match self.one(lease, (*plan, Some(node)), claim).await? {
                    Made::Step => begun += usize::from(self.begin(queued, queue).await?),
                    Made::Nothing => self.aside.put(*plan, Some(node), Instant::now() + INTERVAL),
                    Made::Raced => more = true,
                    Made::Later => {}
                }
            }
            more |= begun == BATCH;
        }
        while self.attempts.try_join_next().is_some() {}
        Ok(more)
    }

    /// Begins an attempt that was taken. One of which nothing can be read is lost, and made again with the next pass.
    async fn begin(&mut self, queued: Queued, queue: &'static str) -> Result<bool, StepError> {
        let Queued { plan, node, number } = queued;
        let read = async {
            let mut tx = self.state.store.read().await?;
            Ok::<_, StoreError>((tx.plan(plan).await?, tx.plan_nodes(plan, std::slice::from_ref(&node)).await?.pop()))
        };
        let (row, found) = match read.await {
            Ok((Some(row), Some(found))) => (row, found),
            Ok(_) => return Ok(false),
            Err(error) => return self.failed((plan, Some(&node)), StepError::Store(error)).map(|_| false),
        };
        let job = Job { state: self.state.clone(), row, node: found, number, measurements: self.measurements.clone() };
        let (uid, to, key) = (self.uid.clone(), self.ended.0.clone(), (plan, node.clone(), number));
        let handle = self.attempts.spawn(async move {
            let ended = executors::run(job).await;
            let (end, message, details) = (ended.end, ended.message, ended.details);
            let finished = Finished { node: node.clone(), number, uid, end, message, details, results: Vec::new() };
            let _gone_with_the_runner =
                to.send(Word { plan, node, number, input: Input::Finish(Box::new(finished)) }).await;
        });
        self.running.insert(key, Running { handle, queue });
        Ok(true)
    }

    /// Ends attempts that run here though their plan no longer knows of them: past their time, skipped, stopped. Those that
    /// it takes to run here though they do not are lost.
    pub(super) async fn end_what_is_over(&mut self) -> Result<(), StepError> {
        let known = self.state.store.read().await?.running_attempts(&self.uid).await?;
        let known: HashSet<_> = known.into_iter().map(|Queued { plan, node, number }| (plan, node, number)).collect();
        self.running.retain(|key, running| {
            let goes_on = known.contains(key);
            if !goes_on {
                running.handle.abort();
            }
            goes_on
        });
        for key in known {
            self.lose(key);
        }
        Ok(())
    }

    /// Has an attempt made again, unless it runs here or its end is known.
    pub(super) fn lose(&mut self, key: (Uuid, Name, u32)) {
        let told = |word: &Word| (word.plan, &word.node, word.number) == (key.0, &key.1, key.2);
        if !self.running.contains_key(&key) && !self.kept.iter().any(told) {
            let (plan, node, number) = key;
            let input = Input::Interrupted { node: node.clone(), number };
            self.kept.push_back(Word { plan, node, number, input });
        }
    }
}
