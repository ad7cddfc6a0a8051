//! Cadence: how long a host waits before it asks again.

use crate::state::AppState;

/// Polls a second that one control plane is asked for at most: with more hosts they come less often.
const POLLS_PER_SECOND: usize = 20_000;

/// Returns how many seconds a host waits before it asks again; `held`: this poll was held to its end, and has waited.
pub(crate) fn poll_after(state: &AppState, held: bool) -> u32 {
    let least = if held { 1 } else { state.config.poll_after_seconds };
    let needed = u32::try_from(state.view.hosts() / POLLS_PER_SECOND).unwrap_or(u32::MAX);
    least.max(needed)
}
