//! When the hosts of a stage were seen, as it was written down: by this process before it began, and by other replicas.
//!
//! Whom this process has heard of lately is not asked for; a fleet that it has yet to hear of is read in one go.

use titan_api::Revision;
use uuid::Uuid;

use super::{PART, Stride};
use crate::{
    fleet::rollouts::{Progress, Seat},
    routes::hosts,
    state::AppState,
    store::{Result, Tx},
};

/// More hosts than these are not looked up one by one.
const FEW: usize = 16 * PART;

/// When hosts were seen, by their places in the stage.
#[derive(Debug)]
pub(super) struct Written(Vec<Revision>);

impl Written {
    /// Reads when the hosts were seen of whom nothing was heard lately.
    pub(super) async fn begin(state: &AppState, progress: &Progress) -> Result<Self> {
        let mut written = Self(vec![Revision::ZERO; progress.size()]);
        let mut unheard = Vec::new();
        let mut stride = Stride::over(&state.crowds, progress.size()).await;
        for seat in progress.seats(0, progress.size()) {
            stride.pass().await;
            if is_unheard(state, seat.host) {
                unheard.push(seat.host);
            }
        }
        let mut tx = state.store.read().await?;
        if unheard.len() > FEW {
            tx.each_seen(|host, at| written.take(progress, host, at)).await?;
        } else {
            written.look_up(&mut tx, progress, &unheard).await?;
        }
        Ok(written)
    }

    /// Reads anew when these hosts were seen, for those of whom nothing was heard lately: other replicas are polled too.
    pub(super) async fn refresh(&mut self, state: &AppState, progress: &Progress, seats: &[Seat]) -> Result<()> {
        if state.store.postgres().is_none() {
            return Ok(());
        }
        let unheard: Vec<_> = seats.iter().map(|seat| seat.host).filter(|host| is_unheard(state, *host)).collect();
        if unheard.is_empty() {
            return Ok(());
        }
        self.look_up(&mut state.store.read().await?, progress, &unheard).await
    }

    /// Returns when the host of a place was seen, if that is written down and was asked for.
    pub(super) fn at(&self, place: u32) -> Option<Revision> {
        self.0.get(place as usize).copied().filter(|seen| *seen > Revision::ZERO)
    }

    async fn look_up(&mut self, tx: &mut Tx, progress: &Progress, hosts: &[Uuid]) -> Result<()> {
        for hosts in hosts.chunks(PART) {
            for (host, at) in tx.seen_of(hosts).await? {
                self.take(progress, host, at);
            }
        }
        Ok(())
    }

    fn take(&mut self, progress: &Progress, host: Uuid, at: Revision) {
        if let Some(seen) = progress.place(host).and_then(|place| self.0.get_mut(place as usize)) {
            *seen = (*seen).max(at);
        }
    }
}

/// Whether nothing was heard of a host for so long that it would not count as there.
fn is_unheard(state: &AppState, host: Uuid) -> bool {
    state.view.seen(host).is_none_or(|seen| seen < hosts::online_since(state))
}
