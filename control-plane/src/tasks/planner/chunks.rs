//! Chunks: what is decided together, and written in one transaction.
//!
//! While a decision about many hosts goes on, a chunk is written beside the deciding of the next one, and the view reads the
//! one before: all three are about other pairs of deployment and host.

use std::time::{Duration, Instant};

use titan_api::Revision;

use super::{Leading, Planner, PlannerError};
use crate::{
    fleet::{agenda::Item, model::Model},
    planning::{Planned, Planning, Standing, WriteError, Writing},
    state::AppState,
    store::{Lease, StoreError, Tx},
    tasks::{follow, sweep},
};

/// Chunks of one run at most: after them it is looked what else is to be done.
const RUN: usize = 4;

/// What is decided.
#[derive(Debug)]
struct Chunk {
    items: Vec<Item>,
    planned: Planned,
    /// Up to where assignments that moved are taken into account, beside those that this leader moved.
    view: Revision,
    /// Whether nothing is left to decide.
    last: bool,
}

/// What became of a chunk.
#[derive(Debug)]
struct Wrote {
    /// Under which assignments moved, if any did.
    revision: Option<Revision>,
    took: Duration,
}

impl Chunk {
    fn is_empty(&self) -> bool {
        !self.last && self.planned.is_empty()
    }
}

impl Planner {
    /// Decides and writes some chunks. If the lease was lost meanwhile, nothing is written. After an error all that the leader
    /// stood on is worked out again.
    pub(super) async fn step(&mut self, leading: &mut Leading) -> Result<(), PlannerError> {
        let beside = leading.agenda.goes_on();
        if !beside {
            follow::pass(&self.state).await?;
        }
        let items = self.next(leading);
        if beside && items.iter().any(|item| item.last || item.meets(&leading.before)) {
            follow::pass(&self.state).await?;
        }
        let mut chunk = decide(&self.state, leading, items).await?;
        for _ in 1..RUN {
            if chunk.last || !leading.agenda.goes_on() {
                break;
            }
            let items = self.next(leading);
            let met = |item: &Item| item.last || item.meets(&chunk.items) || item.meets(&leading.before);
            if items.iter().any(met) {
                self.write(leading, chunk).await?;
                follow::pass(&self.state).await?;
                chunk = decide(&self.state, leading, items).await?;
                continue;
            }
            leading.standing.take(&chunk.planned, &self.state.model());
            let (lease, view) = (leading.lease, chunk.view.max(leading.moved));
            let written = write(&self.state, lease, view, &chunk, async |_| Ok(()));
            let (wrote, next) = tokio::join!(written, decide(&self.state, leading, items));
            self.wrote(leading, chunk, wrote).await?;
            chunk = next?;
        }
        self.write(leading, chunk).await
    }

    /// Takes what is to be decided next off the agenda.
    fn next(&self, leading: &mut Leading) -> Vec<Item> {
        let Leading { standing, agenda, .. } = leading;
        let model = self.state.model();
        planning(&self.state, &model, standing).next(agenda, self.pace.pairs)
    }

    /// Writes a chunk, and if it is the last one, up to where everything is decided.
    async fn write(&mut self, leading: &mut Leading, chunk: Chunk) -> Result<(), PlannerError> {
        leading.standing.take(&chunk.planned, &self.state.model());
        let (lease, view) = (leading.lease, chunk.view.max(leading.moved));
        let (last, read) = (chunk.last, leading.read);
        let gates = leading.gates;
        let queued: Vec<_> = leading.queued.iter().map(|(host, mark)| (*host, *mark)).collect();
        let wrote = write(&self.state, lease, view, &chunk, async |tx| {
            if last {
                tx.set_bookmark("planner", read).await?;
                tx.set_bookmark("gates", gates).await?;
                tx.unqueue_facts(&queued).await?;
            }
            Ok(())
        })
        .await;
        self.wrote(leading, chunk, wrote).await?;
        if last {
            leading.bookmark = leading.read;
            leading.opened = leading.gates;
            leading.queued.clear();
            if std::mem::take(&mut leading.deleted) {
                // What no host has to confirm is gone at once.
                sweep::settle(&self.state).await?;
            }
        }
        Ok(())
    }

    /// Takes in what became of a chunk.
    async fn wrote(
        &mut self,
        leading: &mut Leading,
        chunk: Chunk,
        wrote: Result<Wrote, PlannerError>,
    ) -> Result<(), PlannerError> {
        if matches!(wrote, Err(PlannerError::Store(StoreError::Fenced(_)))) {
            self.lease = None;
        }
        let (wrote, state) = (wrote?, &self.state);
        leading.standing.written();
        if chunk.is_empty() {
            return Ok(());
        }
        self.pace.took(chunk.planned.moved.len(), wrote.took);
        for (digest, body) in &chunk.planned.bundles {
            state.bundles.put(*digest, body.clone());
        }
        let before = leading.moved;
        if let Some(revision) = wrote.revision {
            leading.moved = revision;
            let (moved, unchanged) = (chunk.planned.moved.len(), chunk.planned.unchanged);
            tracing::info!(moved, unchanged, %revision, "assignments moved");
        }
        leading.before = chunk.items;
        state.committed();
        // Never more than the newest is missing in the view, beside what is written just now.
        if state.view.revision() < before {
            follow::pass(state).await?;
        }
        Ok(())
    }
}

fn planning<'a>(state: &'a AppState, model: &'a Model, standing: &'a mut Standing) -> Planning<'a> {
    Planning { model, view: &state.view, standing, store: &state.store, renderer: &state.renderer }
}

/// Decides a chunk.
async fn decide(state: &AppState, leading: &mut Leading, items: Vec<Item>) -> Result<Chunk, PlannerError> {
    let (model, view) = (state.model(), state.view.revision());
    let planned = planning(state, &model, &mut leading.standing).decide(&items).await?;
    leading.agenda.add(&planned.follow_up());
    leading.agenda.shift(planned.freed.iter().copied());
    Ok(Chunk { items, planned, view, last: leading.agenda.is_empty() })
}

/// Writes a chunk, if there is anything to write, and whatever else belongs to it.
async fn write(
    state: &AppState,
    lease: Lease,
    view: Revision,
    chunk: &Chunk,
    more: impl AsyncFnOnce(&mut Tx) -> Result<(), StoreError>,
) -> Result<Wrote, PlannerError> {
    if chunk.is_empty() {
        return Ok(Wrote { revision: None, took: Duration::ZERO });
    }
    let mut tx = state.store.write("planner").await?;
    let begun = Instant::now();
    let writing = Writing { lease, model: state.model().revision, view, wall: state.clock.now() };
    let revision = match chunk.planned.write(&mut tx, writing).await {
        Ok(revision) => revision,
        Err(WriteError::Overtaken) => return Err(PlannerError::Overtaken),
        Err(WriteError::Refused(problem)) => return Err(PlannerError::Refused(problem)),
        Err(WriteError::Store(error)) => return Err(error.into()),
    };
    more(&mut tx).await?;
    tx.commit().await?;
    Ok(Wrote { revision, took: begun.elapsed() })
}
