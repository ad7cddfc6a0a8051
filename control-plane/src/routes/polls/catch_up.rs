//! Cursors that this replica does not cover yet, or never did.

use std::{sync::atomic::Ordering, time::Duration};

use titan_api::{Code, Problem, Revision};

use crate::state::AppState;

/// How long a poll waits for this replica to catch up with the host's cursor.
const CATCH_UP: Duration = Duration::from_secs(5);
/// How far ahead of the wall clock a cursor may be before it is refused.
const AHEAD: Duration = Duration::from_secs(60);
/// How often the clock is moved past a cursor at most: hosts after a restore come together, and one move serves them all.
const CLOCK_MOVES: Duration = Duration::from_secs(1);

/// Whether the view covers a cursor.
pub(crate) fn covered(state: &AppState, since: Revision) -> bool {
    since <= state.view.revision().next()
}

/// Sees to it that the view covers the host's cursor. Returns the cursor to answer from: none, if the database is older
/// than what the host has seen, which means that it was restored or replaced.
pub(super) async fn catch_up(state: &AppState, since: Revision) -> Result<Option<Revision>, Problem> {
    let clock = state.store.read().await?.clock().await?;
    if since <= clock.next() {
        let deadline = tokio::time::Instant::now() + CATCH_UP;
        while !covered(state, since) {
            if tokio::time::Instant::now() >= deadline {
                return Err(Problem::new(Code::Unavailable, "this replica has yet to catch up with the cursor"));
            }
            state.committed();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        return Ok(Some(since));
    }
    if since > state.clock.after(AHEAD) {
        return Err(Problem::new(Code::CursorAhead, format!("the cursor {since} is ahead of the clock"))
            .hint("ask without a cursor"));
    }
    let now = state.clock.now().micros();
    let before = state.clock_moved_at.swap(now, Ordering::AcqRel);
    if now.saturating_sub(before) < i64::try_from(CLOCK_MOVES.as_micros()).unwrap_or(i64::MAX) && before != 0 {
        return Err(Problem::new(Code::Unavailable, "the clock was moved past another host's cursor a moment ago"));
    }
    restored(state, since).await?;
    Ok(None)
}

/// Moves the clock past a cursor from before a restore, and says so in the history.
async fn restored(state: &AppState, cursor: Revision) -> Result<(), Problem> {
    let mut tx = state.store.write("restored").await?;
    if cursor > tx.clock().await?.next() {
        let revision = tx.tick_past(state.clock.now(), cursor).await?;
        tx.add_clock_change(revision, cursor).await?;
        tx.notify().await?;
        tx.commit().await?;
        tracing::warn!(%cursor, %revision, "a host has seen {cursor}, which this database has not: it was restored or replaced");
    }
    crate::tasks::follow::pass(state).await?;
    state.committed();
    Ok(())
}
