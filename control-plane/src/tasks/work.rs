//! Does tasks that are due: takes one, holds it, does it, and says what came of it.
//!
//! Every replica does tasks. One that is taken is held for [`HELD`]; whoever is not heard of in time is replaced, and
//! what it writes afterwards is refused. What fails is tried again, after a pause that doubles, [`ATTEMPTS`] times.

use std::time::Duration;

use serde_json::json;
use titan_api::tasks::REMOVE;
use uuid::Uuid;

use crate::{
    state::AppState,
    store::{Ended, Held, StoreError},
    tasks::sweep,
};

/// How long a task is held.
pub const HELD: Duration = Duration::from_secs(30);
/// How often one is tried.
pub const ATTEMPTS: u32 = 10;
/// The first pause before one is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest.
const PAUSE_MOST: Duration = Duration::from_secs(60);
/// How soon, and how late, it is looked again at what has not come about.
const LOOK: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// How long nothing is due before it is looked for all the same: another replica may have written it.
const IDLE: Duration = Duration::from_secs(5);

/// Does tasks until the control plane stops.
pub async fn run(state: AppState) {
    let holder = format!("worker-{}", Uuid::now_v7());
    let mut commits = state.commits();
    loop {
        commits.mark_unchanged();
        let wait = match pass(&state, &holder).await {
            Ok(true) => continue,
            Ok(false) => idle(&state).await,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "tasks cannot be done now");
                IDLE
            }
        };
        tokio::select! {
            () = state.shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            // A commit may have brought one; commits that come one after the other are looked at together.
            _ = commits.changed() => tokio::time::sleep(LOOK.0).await,
        }
    }
}

/// Returns how long nothing is due.
async fn idle(state: &AppState) -> Duration {
    let due = async { state.store.read().await?.next_task_due().await };
    let due = due.await.ok().flatten().map(|due| due.micros().saturating_sub(state.clock.now().micros()));
    due.map_or(IDLE, |micros| Duration::from_micros(u64::try_from(micros).unwrap_or_default())).clamp(LOOK.0, IDLE)
}

/// Does one task that is due. Returns whether there was one.
pub async fn pass(state: &AppState, holder: &str) -> Result<bool, StoreError> {
    let now = state.clock.now();
    // Looked for before anything is locked: most of the time there is nothing.
    if state.store.read().await?.next_task_due().await?.is_none_or(|due| due > now) {
        return Ok(false);
    }
    let mut tx = state.store.write("tasks").await?;
    let held = tx.take_task(holder, now, state.clock.after(HELD)).await?;
    tx.commit().await?;
    let Some(held) = held else { return Ok(false) };
    let ended = match act(state, &held).await {
        Ok(ended) => ended,
        Err(error) => again(state, &held, &error),
    };
    let mut tx = state.store.write("tasks").await?;
    match tx.end_task(&held, &ended, state.clock.now()).await {
        // It took too long: another does it now, or has done it.
        Err(StoreError::Fenced(_)) => {
            tracing::warn!(task.id = %held.task.id, "task {} was taken by another meanwhile", held.task.id);
            return Ok(true);
        }
        written => written?,
    }
    tx.notify().await?;
    tx.commit().await?;
    state.committed();
    Ok(true)
}

async fn act(state: &AppState, held: &Held) -> Result<Ended, StoreError> {
    match held.task.kind.as_str() {
        REMOVE => remove(state, held).await,
        other => Ok(Ended::Failed(format!("this version does no tasks of kind {other:?}"))),
    }
}

/// Returns what becomes of a task that could not be done.
fn again(state: &AppState, held: &Held, error: &StoreError) -> Ended {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        why.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    if held.task.attempts >= ATTEMPTS {
        return Ended::Failed(why);
    }
    let pause = PAUSE.saturating_mul(1 << held.task.attempts.saturating_sub(1).min(10)).min(PAUSE_MOST);
    Ended::Again(state.clock.after(pause), why)
}

/// Looks whether a deployment or host that was deleted is gone everywhere.
async fn remove(state: &AppState, held: &Held) -> Result<Ended, StoreError> {
    let Some(uid) = held.task.payload["uid"].as_str().and_then(|uid| uid.parse::<Uuid>().ok()) else {
        return Ok(Ended::Failed("its payload names no uid".to_owned()));
    };
    sweep::settle_among(state, &[uid]).await?;
    let mut tx = state.store.read().await?;
    if tx.document_by_uid(uid).await?.is_none() {
        return Ok(Ended::Completed(json!({ "gone": true })));
    }
    let left = tx.assignments_left(uid).await?;
    drop(tx);
    // The longer it takes the less often it is looked at.
    let now = state.clock.now();
    let age = u64::try_from(now.micros().saturating_sub(held.task.created_at.micros())).unwrap_or_default();
    let pause = Duration::from_micros(age / 8).clamp(LOOK.0, LOOK.1);
    Ok(Ended::Waits(state.clock.after(pause), json!({ "left": left })))
}
