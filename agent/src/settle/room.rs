//! Whether there is room: in the state directory for another bundle, and on the host's disks for a change.

use super::{Worker, chain, courses::Course};
use crate::{
    apply::{ApplyError, Work},
    bundles::Bundle,
    claims::Claims,
    spaces::{Limits, Need, NoRoom},
};

impl Worker {
    /// Returns why no bundle can be fetched, if the state directory holds all that it may.
    pub(crate) fn refuses_bundles(&self) -> Option<String> {
        self.lacks_room().map(|lack| chain(&lack))
    }

    /// Returns what the state directory lacks for another bundle, though old history was let go where that helps.
    pub(super) fn lacks_room(&self) -> Option<NoRoom> {
        let (needed, state) = (titan_api::limits::INLINE_BUNDLE_BYTES as u64, self.state.path());
        let mut before = u64::MAX;
        loop {
            let lack = self.limits.check_state(state, needed).err()?;
            let NoRoom::State { held, allowed, .. } = &lack else { return Some(lack) };
            let excess = held.saturating_add(needed).saturating_sub(*allowed);
            let helped = std::mem::replace(&mut before, *held) > *held;
            let Some(git) = self.git.as_ref().filter(|_| helped) else { return Some(lack) };
            match git.forget_oldest(state, excess) {
                Ok(0) => return Some(lack),
                Ok(commits) => {
                    tracing::info!("{} was full; its repository let go of {commits} commits", state.display())
                }
                Err(error) => {
                    tracing::warn!("old history cannot be let go: {}", chain(&error));
                    return Some(lack);
                }
            }
        }
    }

    /// Refuses a bundle for which there is no room, for its files or for what is to be written beside them. A way back may
    /// use what stays free otherwise.
    pub(super) fn check_room(&mut self, course: &Course, bundle: &Bundle, after: &Claims) -> Result<(), ApplyError> {
        let (target, home) = (&course.target, self.home(&course.target));
        let (Some(files), Some(settings)) = (&self.files, &self.settings) else { return Ok(()) };
        let mut needs = vec![
            (settings.root.clone(), files.need(&self.ledger, target, bundle)),
            (self.state.path().to_owned(), Need { bytes: 0, files: 1 }),
        ];
        let before = self.ledger.claims(target.id);
        if let Some(applier) = self.appliers.of(bundle.applier)? {
            needs.extend(applier.room(&Work { target, home: &home, bundle: Some(bundle), before: &before, after }));
        }
        let reserve_bytes = if course.returns { Some(0) } else { self.limits.reserve_bytes };
        Ok(Limits { reserve_bytes, ..self.limits }.check_disks(&needs)?)
    }
}
