//! Clears away what nothing refers to any more: settled deletions, hosts that are gone, unused bundles, what expired.
//!
//! No transaction that writes does more than [`CHUNK`] at a time: whoever writes waits some milliseconds for it.

use std::{collections::HashSet, time::Duration};

use titan_api::{Kind, Revision, changes::Operation};
use uuid::Uuid;

use crate::{
    access,
    fleet::view::Entry,
    state::AppState,
    store::{ChangeFilter, StoreError, Tx},
};

/// How often to look for what is settled and gone.
const INTERVAL: Duration = Duration::from_secs(30);
/// How often to look for what is unused and expired, which may mean reading whole tables.
const LONG_INTERVAL: Duration = Duration::from_secs(3600);
/// How long an unused bundle and an idempotency key are kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long a task is kept that has ended.
const TASKS_KEPT: Duration = Duration::from_hours(90 * 24);
/// Rows removed, or hosts looked at, by one transaction.
const CHUNK: usize = 500;

fn limit() -> i64 {
    i64::try_from(CHUNK).unwrap_or(i64::MAX)
}

/// Purges deleted deployments and hosts that no host has any more.
pub async fn settle(state: &AppState) -> Result<(), StoreError> {
    loop {
        let settled = state.store.read().await?.settled_deletions(limit()).await?;
        if purge(state, &settled).await? == 0 {
            return Ok(());
        }
    }
}

/// Purges those of these deployments and hosts that are deleted and that no host has any more.
pub async fn settle_among(state: &AppState, uids: &[Uuid]) -> Result<(), StoreError> {
    for uids in uids.chunks(CHUNK) {
        let settled = state.store.read().await?.settled_among(uids).await?;
        purge(state, &settled).await?;
    }
    Ok(())
}

/// Purges what is still settled, and returns how much that was.
async fn purge(state: &AppState, settled: &[(Kind, Uuid)]) -> Result<usize, StoreError> {
    if settled.is_empty() {
        return Ok(0);
    }
    let uids: Vec<_> = settled.iter().map(|(_, uid)| *uid).collect();
    let mut tx = state.store.write("sweep").await?;
    let settled = tx.settled_among(&uids).await?;
    if settled.is_empty() {
        return Ok(0);
    }
    tx.purge_settled(&settled).await?;
    tx.commit().await?;
    for (_, host) in settled.iter().filter(|(kind, _)| *kind == Kind::Host) {
        forget(state, *host);
    }
    Ok(settled.len())
}

fn forget(state: &AppState, host: Uuid) {
    state.view.forget_host(host);
    access::forget_host(state, host);
}

/// Sweeps, and knows which hosts are on their way out.
#[derive(Debug)]
pub struct Sweeper {
    state: AppState,
    /// Up to where deletions of hosts were read.
    read: Option<Revision>,
    /// Hosts that were deleted and are not gone yet.
    leaving: HashSet<Uuid>,
}

impl Sweeper {
    /// Returns a sweeper that has yet to look for the first time.
    #[must_use]
    pub fn new(state: AppState) -> Self {
        Self { state, read: None, leaving: HashSet::new() }
    }

    /// Clears away what is settled and gone.
    pub async fn pass(&mut self) -> Result<(), StoreError> {
        settle(&self.state).await?;
        forget_confirmed(&self.state).await?;
        self.forget_gone().await
    }

    /// Takes hosts out of the view that are gone: by force, or because another replica purged them. The feed tells that
    /// they were deleted, but not when that is settled.
    async fn forget_gone(&mut self) -> Result<(), StoreError> {
        let state = &self.state;
        let mut tx = state.store.read().await?;
        let upto = tx.clock().await?;
        match self.read {
            None => {
                self.leaving.extend(tx.hosts_leaving().await?);
                self.leaving.extend(state.view.leaving());
            }
            Some(read) => {
                let filter = ChangeFilter { kind: Some(Kind::Host), ..ChangeFilter::default() };
                let mut from = read.next();
                loop {
                    let (changes, end) = tx.changes_page(from, &filter, CHUNK).await?;
                    let deleted = changes.iter().filter(|change| change.operation == Operation::Delete);
                    self.leaving.extend(deleted.map(|change| change.uid));
                    let Some(end) = end else { break };
                    from = end.next();
                }
            }
        }
        drop(tx);
        self.read = Some(upto);
        let leaving: Vec<_> = self.leaving.iter().copied().collect();
        for hosts in leaving.chunks(CHUNK) {
            // An older snapshot of the feed must not put back what is forgotten now.
            let _alone = state.following.lock().await;
            let there = state.store.read().await?.hosts_among(hosts).await?;
            for host in hosts.iter().filter(|host| !there.contains(host)) {
                forget(state, *host);
                self.leaving.remove(host);
            }
        }
        Ok(())
    }

    /// Sweeps until shutdown.
    pub async fn run(mut self) {
        let mut long = tokio::time::Instant::now();
        while !self.state.shutdown.is_cancelled() {
            let now = tokio::time::Instant::now();
            let mut swept = self.pass().await;
            if now >= long && swept.is_ok() {
                swept = clear(&self.state).await;
                long = now + LONG_INTERVAL;
            }
            if let Err(error) = swept {
                tracing::warn!(error = &error as &dyn std::error::Error, "sweeping failed");
            }
            let _cancelled = tokio::time::timeout(INTERVAL, self.state.shutdown.cancelled()).await;
        }
    }
}

/// Takes tombstones out of the view that hosts have confirmed to another replica: the feed does not tell of it.
async fn forget_confirmed(state: &AppState) -> Result<(), StoreError> {
    if state.store.postgres().is_none() {
        return Ok(());
    }
    for hosts in state.view.leaving().chunks(CHUNK) {
        // The view first: what is in it and not among the rows that are read after it is gone.
        let sets = hosts.iter().filter_map(|host| Some((*host, state.view.find(*host)?.set())));
        let sets: Vec<_> = sets.collect();
        let left = state.store.read().await?.tombstones_of(hosts).await?;
        for (host, set) in sets {
            let gone = |entry: &&Entry| !entry.present() && !left.contains(&(entry.deployment(), host));
            for entry in set.entries().iter().filter(gone) {
                state.view.forget(host, entry.deployment(), entry.revision);
            }
        }
    }
    Ok(())
}

/// Clears away what is unused and what expired.
async fn clear(state: &AppState) -> Result<(), StoreError> {
    let before = state.clock.before(KEPT);
    let bundles = sweep_unused(state, before).await?;
    if bundles > 0 {
        tracing::info!(bundles, "unused bundles were cleared away");
    }
    loop {
        let ended = state.store.read().await?.tokens_ended(before, limit()).await?;
        if ended.is_empty() {
            break;
        }
        written(state, async |tx| tx.remove_tokens(&ended).await).await?;
    }
    let before = state.clock.before(TASKS_KEPT);
    while written(state, async |tx| tx.forget_tasks(before, limit()).await).await? > 0 {}
    let before = state.clock.before(KEPT);
    loop {
        let expired = state.store.read().await?.answers_before(before, limit()).await?;
        if expired.is_empty() {
            break;
        }
        written(state, async |tx| tx.remove_answers(&expired).await).await?;
    }
    Ok(())
}

/// Removes bundles and descriptions that no assignment has and that nobody counted on since `before`, and returns how many
/// bundles that were. What assignments have is read once, from a snapshot; whoever counts on something after that marks it
/// as young.
pub async fn sweep_unused(state: &AppState, before: Revision) -> Result<usize, StoreError> {
    let unused = state.store.read().await?.unused(before).await?;
    let mut gone = 0;
    for bundles in unused.bundles.chunks(CHUNK) {
        gone += written(state, async |tx| tx.remove_bundles(bundles, before).await).await?;
    }
    for descriptions in unused.descriptions.chunks(CHUNK) {
        written(state, async |tx| tx.remove_descriptions(descriptions, before).await).await?;
    }
    Ok(gone)
}

async fn written<T>(
    state: &AppState,
    write: impl AsyncFnOnce(&mut Tx) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut tx = state.store.write("sweep").await?;
    let outcome = write(&mut tx).await?;
    tx.commit().await?;
    Ok(outcome)
}

/// Clears everything away that can be, once.
pub async fn pass(state: &AppState) -> Result<(), StoreError> {
    Sweeper::new(state.clone()).pass().await?;
    clear(state).await
}
