//! Takes reports in: what many hosts say at the same time is one transaction.
//!
//! A report waits in a bounded queue until the transaction is committed that it is part of. There is no task that idles:
//! whoever finds nobody writing begins to, and writes until the queue is empty.

pub mod listeners;

use std::{
    collections::{HashMap, VecDeque},
    hash::RandomState,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use titan_api::{Code, Problem};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use uuid::Uuid;

use self::listeners::Listeners;
use crate::{
    fleet::{
        reports::{Batch, Said, Taken},
        view::Slot,
    },
    state::AppState,
    store::{Removal, StoreError, Tx},
    tasks::{apart::apart, sweep},
};

/// Bytes of reports that may wait; about 30 000 ordinary ones.
const ROOM: usize = 64 * 1024 * 1024;
/// Bytes that are counted as one.
const UNIT: usize = 256;
/// How long a report waits for room before it is refused.
const PATIENCE: Duration = Duration::from_secs(2);
/// Reports in one transaction.
const BATCH: usize = 512;
/// Bytes of reports in one transaction, or one report. With [`BATCH`] it keeps other writers waiting for some
/// 20 milliseconds.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How often a transaction is done again that lost a race with another replica's.
const RACES: usize = 5;

/// Reports on their way into the database.
#[derive(Debug)]
pub struct Reports {
    /// Another one in each process, for [`Said::new`].
    pub key: RandomState,
    /// Whoever waits for what hosts say.
    pub listeners: Arc<Listeners>,
    room: Arc<Semaphore>,
    units: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Whether somebody takes from the queue.
    writing: bool,
}

/// A report that waits for its commit.
#[derive(Debug)]
struct Waiting {
    said: Said,
    slot: Arc<Slot>,
    bytes: usize,
    done: oneshot::Sender<Result<(), Problem>>,
    _room: OwnedSemaphorePermit,
}

impl Default for Reports {
    fn default() -> Self {
        Self::with_room(ROOM)
    }
}

impl Reports {
    fn with_room(bytes: usize) -> Self {
        let units = bytes / UNIT;
        let (key, listeners, queue) = (RandomState::new(), Arc::default(), Mutex::default());
        Self { key, listeners, room: Arc::new(Semaphore::new(units)), units, queue }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many reports wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue().waiting.len()
    }

    /// Returns which part of the room is taken, 0 to 1.
    #[must_use]
    pub fn filled(&self) -> f64 {
        1.0 - self.room.available_permits() as f64 / self.units as f64
    }

    /// Waits for room for so many bytes, but not for long.
    async fn enter(&self, bytes: usize, patience: Duration) -> Result<OwnedSemaphorePermit, Problem> {
        // The largest possible one has room too, if it waits.
        let units = u32::try_from(bytes.div_ceil(UNIT).min(self.units)).unwrap_or(u32::MAX);
        let room = tokio::time::timeout(patience, Arc::clone(&self.room).acquire_many_owned(units)).await;
        room.ok().and_then(Result::ok).ok_or_else(|| {
            Problem::new(Code::Overloaded, "more reports come in than can be written")
                .hint("send it again after the time in Retry-After")
        })
    }

    /// Puts a report into the queue. Returns whether nobody is writing: the caller begins to.
    fn push(&self, waiting: Waiting) -> bool {
        let mut queue = self.queue();
        queue.waiting.push_back(waiting);
        !std::mem::replace(&mut queue.writing, true)
    }

    /// Whether there is something to write. If not, nobody is writing any more.
    fn go_on(&self) -> bool {
        let mut queue = self.queue();
        queue.writing = !queue.waiting.is_empty();
        queue.writing
    }

    /// Takes what goes into one transaction.
    fn next(&self) -> Vec<Waiting> {
        let mut queue = self.queue();
        let (mut count, mut bytes) = (0, 0);
        while let Some(waiting) = queue.waiting.get(count)
            && count < BATCH
            && (count == 0 || bytes + waiting.bytes <= BATCH_BYTES)
        {
            bytes += waiting.bytes;
            count += 1;
        }
        queue.waiting.drain(..count).collect()
    }
}

/// Takes a report in. Returns when it is on disk, or at once if it only says again what is.
pub async fn take(state: &AppState, slot: &Arc<Slot>, said: Said) -> Result<(), Problem> {
    let nothing_gone = said.removals.is_empty();
    if nothing_gone && slot.told().again(said.print, said.seq, said.acked_cursor) {
        state.metrics.reports_again.inc();
        return Ok(());
    }
    let bytes = said.bytes();
    let room = state.reports.enter(bytes, PATIENCE).await?;
    let (done, committed) = oneshot::channel();
    if state.reports.push(Waiting { said, slot: Arc::clone(slot), bytes, done, _room: room }) {
        // Not in the request that began it: that may be given up by its host.
        apart(Writer { state: state.clone(), over: false }.run());
    }
    committed.await.unwrap_or_else(|_| Err(unwritten()))
}

fn unwritten() -> Problem {
    Problem::new(Code::Unavailable, "the report could not be written").hint("send it again in a moment")
}

/// Whoever writes for all. If he is lost, those that wait are told so, and the next one who reports begins anew.
struct Writer {
    state: AppState,
    over: bool,
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.over {
            *self.state.reports.queue() = Queue::default();
        }
    }
}

impl Writer {
    async fn run(mut self) {
        write(&self.state).await;
        self.over = true;
    }
}

/// Writes until nothing is left.
async fn write(state: &AppState) {
    let reports = &state.reports;
    while reports.go_on() {
        // Begun first: whoever comes while it waits for its turn goes along.
        let begun = state.store.write("report").await;
        let batch = reports.next();
        state.metrics.report_batch.observe(batch.len() as f64);
        match commit(state, begun, &batch).await {
            Ok((taken, removed)) => {
                settle(state, &removed).await;
                for (waiting, taken) in batch.into_iter().zip(taken) {
                    // Whoever gave up does not listen any more.
                    let _heard = waiting.done.send(taken);
                }
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    reports = batch.len(),
                    "reports could not be written"
                );
                for waiting in batch {
                    // It may be on disk all the same.
                    waiting.slot.told().forget();
                    let _heard = waiting.done.send(Err(unwritten()));
                }
            }
        }
    }
}

type Outcome = (Vec<Result<(), Problem>>, Vec<Removal>);

/// Writes a batch, and returns what became of each report and the removals that were true.
async fn commit(state: &AppState, begun: Result<Tx, StoreError>, batch: &[Waiting]) -> Result<Outcome, StoreError> {
    let mut begun = Some(begun);
    let mut races = 0;
    loop {
        let tx = match begun.take() {
            Some(first) => first?,
            None => state.store.write("report").await?,
        };
        match attempt(state, tx, batch).await {
            Err(error) if error.lost_race() && races < RACES => races += 1,
            outcome => return outcome,
        }
    }
}

async fn attempt(state: &AppState, mut tx: Tx, batch: &[Waiting]) -> Result<Outcome, StoreError> {
    let hosts: Vec<_> = batch.iter().map(|waiting| waiting.said.host).collect();
    // As it is now, whichever replica wrote it.
    let mut known: HashMap<Uuid, _> = tx.lock_observed_hosts(&hosts).await?.into_iter().collect();
    let mut written = Batch::default();
    let mut outcomes = Vec::with_capacity(batch.len());
    let mut fresh = Vec::with_capacity(batch.len());
    for Waiting { said, slot, .. } in batch {
        let host = match known.entry(said.host).or_insert_with(|| Ok(Default::default())) {
            Ok(host) => host,
            Err(error) => {
                tracing::error!(error = error as &dyn std::error::Error, "what is known of a host cannot be read");
                outcomes.push(Err(Problem::new(Code::Internal, "what is known of the host cannot be read")));
                continue;
            }
        };
        let (seq, acked) = slot.told().counted(host.report_seq);
        (host.report_seq, host.acked_cursor) = (seq, host.acked_cursor.max(acked));
        if let Some(print) = slot.told().print_of(seq) {
            written.knows(said.host, print);
        }
        let taken = written.take(host, said);
        if taken == Taken::News {
            fresh.push((slot, said));
        }
        outcomes.push(outcome(taken, said.seq));
    }
    let removed = save(&mut tx, state, &written).await?;
    tx.commit().await?;
    state.reports.listeners.tell(written.deployments.values());
    state.reported.send_modify(|commits| *commits += 1);
    for (slot, said) in fresh {
        slot.told().written(said.print, said.seq);
        state.metrics.reports.inc();
    }
    for removal in &removed {
        state.view.forget(removal.host, removal.deployment, removal.revision);
    }
    if !written.facts.is_empty() {
        state.committed();
    }
    Ok((outcomes, removed))
}

/// Writes what is to be written, and returns the removals that were true.
async fn save(tx: &mut Tx, state: &AppState, batch: &Batch) -> Result<Vec<Removal>, StoreError> {
    let hosts: Vec<_> = batch.hosts.values().cloned().collect();
    if hosts.is_empty() {
        return Ok(Vec::new());
    }
    tx.put_observed_hosts(&hosts).await?;
    let removals: Vec<_> = batch.removals.iter().copied().collect();
    let removed = tx.confirm_removals(&removals).await?;
    let deployments: Vec<_> = batch.deployments.values().cloned().collect();
    if !deployments.is_empty() {
        tx.put_reports(&deployments).await?;
    }
    if !batch.facts.is_empty() {
        // Last, as in the planner's transaction: in another order the two could wait for each other.
        let facts: Vec<_> = batch.facts.iter().copied().collect();
        tx.queue_all_facts(&facts, state.clock.now()).await?;
    }
    Ok(removed)
}

fn outcome(taken: Taken, seq: i64) -> Result<(), Problem> {
    match taken {
        Taken::News | Taken::Before => Ok(()),
        // It must not believe that this arrived.
        Taken::Stale(newest) => {
            Err(Problem::new(Code::Stale, format!("report {seq} is older than {newest}, which was taken in before"))
                .at("/seq", newest.to_string())
                .hint("go on counting from the newest number"))
        }
        Taken::Missed(newest) => {
            let detail =
                format!("report {seq} says that nothing changed, but the newest that was taken in is {newest}");
            Err(Problem::new(Code::Stale, detail)
                .at("/unchanged", format!("{newest} is not the number before {seq}"))
                .hint("report everything"))
        }
    }
}

/// Clears away what was waiting for these removals. What is still declared was not; a replica that has yet to read that it is
/// not any more leaves it to the sweep.
async fn settle(state: &AppState, removed: &[Removal]) {
    let model = state.model();
    let declared = |uid: &Uuid| model.host(*uid).is_some() || model.deployment(*uid).is_some();
    let mut uids: Vec<_> = removed.iter().flat_map(|removal| [removal.host, removal.deployment]).collect();
    uids.retain(|uid| !declared(uid));
    drop(model);
    uids.sort_unstable();
    uids.dedup();
    if let Err(error) = sweep::settle_among(state, &uids).await {
        // Sweeping finds it later.
        tracing::warn!(error = &error as &dyn std::error::Error, "what is gone could not be cleared away yet");
    }
}

#[cfg(test)]
mod tests {
    use titan_api::SetDigest;
    use titan_api::reports::Report;

    use super::*;

    async fn waiting(reports: &Reports, bytes: usize) -> Waiting {
        let said = Said::new(
            (Uuid::nil(), titan_api::Revision::ZERO, 1),
            Report::default(),
            (SetDigest::default(), &reports.key),
            |_| None,
        );
        let slot = crate::fleet::view::FleetView::default().slot(Uuid::nil());
        let room = reports.enter(bytes, PATIENCE).await.expect("room");
        Waiting { said, slot, bytes, done: oneshot::channel().0, _room: room }
    }

    #[tokio::test]
    async fn report_waits_for_room_and_is_refused_after_a_while() {
        let reports = Reports::with_room(4 * UNIT);
        let first = waiting(&reports, 3 * UNIT).await;
        let _second = waiting(&reports, 1).await;
        assert!((reports.filled() - 1.0).abs() < f64::EPSILON);
        let refused = reports.enter(UNIT, Duration::from_millis(10)).await.expect_err("full");
        assert_eq!(refused.code, Code::Overloaded);
        let (room, ()) = tokio::join!(reports.enter(2 * UNIT, PATIENCE), async { drop(first) });
        assert!(room.is_ok(), "room was made in time");
    }

    #[tokio::test]
    async fn one_batch_takes_so_many_reports_and_bytes_and_at_least_one() {
        let reports = Reports::default();
        assert!(reports.push(waiting(&reports, 1).await), "nobody writes yet");
        for _ in 0..BATCH {
            assert!(!reports.push(waiting(&reports, 1).await), "somebody writes");
        }
        assert_eq!((reports.next().len(), reports.waiting()), (BATCH, 1));
        for bytes in [BATCH_BYTES - 1, 1, BATCH_BYTES * 2, 1] {
            reports.push(waiting(&reports, bytes).await);
        }
        let sizes: Vec<_> = std::iter::repeat_with(|| reports.next().len()).take_while(|size| *size > 0).collect();
        assert_eq!(sizes, [2, 1, 1, 1]);
        assert!(!reports.go_on() && reports.push(waiting(&reports, 1).await), "nobody writes any more");
    }
}
