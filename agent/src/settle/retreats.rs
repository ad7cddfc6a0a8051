//! Retreats: what proved bad does not stay while what is declared by now has to wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    Action, Done, Pass, Worker,
    courses::Course,
    recovery::Outcome,
    steps::{Brought, Heirs},
};
use crate::{apply::Target, ledger::Previous};

/// The pause after a way back that failed.
const AGAIN: Duration = Duration::from_secs(15);

impl Worker {
    /// Returns the way back from what is in place, if that proved bad and is not what is declared any more.
    fn way_back(&self, id: Uuid) -> Option<Course> {
        let (entry, owned) = (self.desired.entries.get(&id)?, self.ledger.entries.get(&id)?);
        if owned.digest == entry.digest || !owned.bad.contains_key(&owned.digest) || self.stuck.contains_key(&id) {
            return None;
        }
        let good = |previous: &Previous| !owned.bad.contains_key(&previous.digest);
        let Previous { digest, release, revision } = owned.previous.clone().filter(good)?;
        Some(Course { target: Target { digest, release, revision, ..Target::new(id, entry) }, returns: true })
    }

    /// Takes a deployment back to the bundle before, if what is in place proved bad and this pass has not brought what is
    /// declared instead. `awaited` are those whose bundles are not there.
    pub(super) fn retreat(
        &mut self,
        id: Uuid,
        heirs: &Heirs<'_>,
        earlier: &BTreeSet<Uuid>,
        awaited: &BTreeMap<Uuid, String>,
        pass: &mut Pass<'_>,
    ) {
        let Some(course) = self.way_back(id) else { return };
        let now = Instant::now();
        if self.retreats.get(&id).is_some_and(|again| now < *again) {
            return;
        }
        let Ok(Some(bundle)) = self.bundles.get(&course.target.digest) else { return };
        let wants = self.wants(&course.target, &bundle).unwrap_or_default();
        let gives_up = self.ledger.owned_paths(id).iter().any(|path| !wants.contains(path));
        if gives_up && awaited.keys().any(|other| *other != id) {
            return;
        }
        let owned = self.ledger.entries.get(&id);
        let why = owned.and_then(|owned| owned.bad.get(&owned.digest)).cloned().unwrap_or_default();
        let result = match self.bring(&course, &bundle, heirs, earlier) {
            // It is on its way, such as an image that is pulled.
            Ok(Brought::Held(_)) => return,
            Ok(Brought::There(applied)) => Ok(applied),
            Err(error) => Err(error),
        };
        let Some(entry) = self.desired.entries.get(&id).cloned() else { return };
        let done = Done::of(id, &entry, Action::RolledBack, why);
        let (title, release) = (&done.title, &course.target.release);
        match self.conclude(id, result) {
            Outcome::Done(_) => {
                self.retreats.remove(&id);
                tracing::info!(deployment.title = %title, release, "{title} went back to {release}: it proved bad");
                pass.done.push(done);
            }
            Outcome::Failed(message) | Outcome::Stuck(message) => {
                tracing::warn!(deployment.title = %title, release, "{title} cannot go back to {release}: {message}");
                self.retreats.insert(id, now + AGAIN);
            }
        }
    }
}
