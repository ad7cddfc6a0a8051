//! What deployments leave to each other: to whom, and what goes with it.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Pass, Worker, steps::Wants};
use crate::{
    apply::{ApplyError, Target},
    claims::Claims,
};

impl Worker {
    /// Returns what those are to own that are neither at what they are to be nor tried now: they failed, or wait. What others
    /// give up of that is left to them all the same.
    pub(super) fn meant(&mut self, due: &Wants) -> Wants {
        let mut meant = Wants::new();
        for id in self.desired.entries.keys().copied().filter(|id| !due.contains_key(id)).collect::<Vec<_>>() {
            let Some(course) = self.course(id) else { continue };
            if self.in_place(id) != Some(course.target.digest)
                && let Ok(Some(bundle)) = self.bundles.get(&course.target.digest)
                && let Ok(wants) = self.wants(&course.target, &bundle)
            {
                meant.insert(id, wants);
            }
        }
        meant
    }

    /// Returns those that failed before and were left something in this pass: it may be what they failed for.
    pub(super) fn heirs_that_failed(&mut self, pass: &Pass<'_>) -> Vec<Uuid> {
        let heirs = self.ledger.inherited.keys().chain(self.ledger.bequeathed.keys());
        let mut heirs: Vec<Uuid> = heirs.filter(|id| !pass.tried.contains(*id)).copied().collect();
        heirs.dedup();
        heirs.retain(|id| self.failures.remove(id).is_some());
        heirs
    }

    /// Returns the files, by path below the root, that what a deployment gives up rests on, each with whoever takes that over.
    /// `after` is what it keeps.
    pub(super) fn left_with(
        &mut self,
        id: Uuid,
        after: &Claims,
        heir: &dyn Fn(&str) -> Option<Uuid>,
    ) -> Result<BTreeMap<String, Uuid>, ApplyError> {
        let mut given: BTreeMap<Uuid, Claims> = BTreeMap::new();
        for (claim, digest) in self.ledger.claims(id).into_iter().filter(|(claim, _)| !after.contains_key(claim)) {
            if let Some(heir) = heir(&claim.path()).filter(|heir| *heir != id) {
                given.entry(heir).or_default().insert(claim, digest);
            }
        }
        let mut left = BTreeMap::new();
        let Some(entry) = self.ledger.entries.get(&id).filter(|_| !given.is_empty()) else { return Ok(left) };
        let (target, kind) = (Target::in_place(id, entry), entry.applier);
        let Some(bundle) = self.bundles.get(&target.digest).ok().flatten() else { return Ok(left) };
        let Some(applier) = self.appliers.of(kind)? else { return Ok(left) };
        for (heir, claims) in given {
            let files = applier.rests_on(&target, &bundle, &claims)?;
            left.extend(files.into_iter().map(|file| (format!("{}/{file}", target.home()), heir)));
        }
        Ok(left)
    }
}
