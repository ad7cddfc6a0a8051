//! What is in place stays as it was applied while what is declared by now cannot be had, has to wait or is refused.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use titan_api::{reports::Phase, templates::Applier as Kind};
use uuid::Uuid;

use super::{
    Action, Done, Pass, Worker,
    courses::Course,
    recovery::Outcome,
    steps::{Brought, Heirs, repaired},
};
use crate::apply::Target;

/// The pause after something could not be put right.
const AGAIN: Duration = Duration::from_secs(15);

impl Worker {
    /// Returns what is in place, if it is neither what is declared nor bad, and is whole: nothing of it was taken down for
    /// what is declared.
    fn stays_meanwhile(&self, id: Uuid, pass: &Pass<'_>) -> Option<Course> {
        let (course, owned) = (self.course(id)?, self.ledger.entries.get(&id)?);
        let declared = course.target.digest;
        let goes_over = || {
            let bundle = self.bundles.get(&declared).ok().flatten();
            bundle.is_some_and(|bundle| bundle.applier != owned.applier)
        };
        let waits = match pass.held.get(&id) {
            Some((phase, _)) => *phase != Phase::Applying || !goes_over(),
            None => self.failures.contains_key(&id),
        };
        let another = declared != owned.digest && !course.returns;
        // What others left to it is of what is declared, and would go.
        let heir = self.ledger.inherited.contains_key(&id) || self.ledger.bequeathed.contains_key(&id);
        let paused = self.keeps.get(&id).is_some_and(|again| Instant::now() < *again);
        let good = !owned.bad.contains_key(&owned.digest) && !self.stuck.contains_key(&id);
        let whole = owned.applier == Kind::Files || !owned.claims.is_empty();
        let due = owned.unfinished.is_some() || pass.checks(Some(owned)) || self.is_told(id);
        (another && good && whole && !heir && due && !paused && waits)
            .then(|| Course { target: Target::in_place(id, owned), returns: false })
    }

    /// Looks after what is in place, if this pass has not brought what is declared instead.
    pub(super) fn keep_right(&mut self, id: Uuid, heirs: &Heirs<'_>, earlier: &BTreeSet<Uuid>, pass: &mut Pass<'_>) {
        let Some(course) = self.stays_meanwhile(id, pass) else { return };
        let Ok(Some(bundle)) = self.bundles.get(&course.target.digest) else { return };
        let result = match self.bring(&course, &bundle, heirs, earlier) {
            // Drift that is only told.
            Ok(Brought::Held(_)) => return,
            Ok(Brought::There(applied)) => Ok(applied),
            Err(error) => Err(error),
        };
        let Some(entry) = self.desired.entries.get(&id).cloned() else { return };
        let (title, release) = (course.target.home(), &course.target.release);
        self.keeps.remove(&id);
        match self.conclude(id, result) {
            Outcome::Done(applied) if applied.repaired.is_empty() => {}
            Outcome::Done(applied) => {
                let message = repaired(&applied.repaired);
                tracing::info!(deployment.title = %title, release, "{title} stays at {release}: {message}");
                pass.done.push(Done::of(id, &entry, Action::Repaired, message));
            }
            Outcome::Failed(message) | Outcome::Stuck(message) => {
                self.keeps.insert(id, Instant::now() + AGAIN);
                tracing::warn!(deployment.title = %title, release, "{title} is not as it was applied, and cannot be made so: {message}");
            }
        }
    }
}
