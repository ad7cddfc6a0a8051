//! What deployments leave to each other: to whom, and what goes with it.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Pass, Worker, steps::Wants};
use crate::{
    apply::{ApplyError, Target, files::Files, switch::SwitchError},
    bundles::Bundle,
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

    /// Returns how much was left to whom, who does not have it yet.
    pub(super) fn heirs(&self) -> BTreeMap<Uuid, usize> {
        let mut heirs = BTreeMap::new();
        let files = self.ledger.inherited.iter().map(|(id, files)| (*id, files.len()));
        let claims = self.ledger.bequeathed.iter().map(|(id, claims)| (*id, claims.len()));
        files.chain(claims).for_each(|(id, count)| *heirs.entry(id).or_default() += count);
        heirs
    }

    /// Returns those that failed earlier and were left something since there were these `heirs`: it may be what they failed for.
    pub(super) fn heirs_that_failed(&self, heirs: &BTreeMap<Uuid, usize>, pass: &Pass<'_>) -> Vec<Uuid> {
        let more = |(id, count): &(Uuid, usize)| heirs.get(id).is_none_or(|before| count > before);
        let fails =
            |id: &Uuid| self.failures.contains_key(id) && !pass.tried.contains(id) && !pass.held.contains_key(id);
        self.heirs().into_iter().filter(more).map(|(id, _)| id).filter(fails).collect()
    }

    /// Takes back what was left to others, who do not have it yet, and what is to be in place again needs.
    pub(super) fn take_back(&mut self, target: &Target, bundle: &Bundle, after: &Claims) -> Result<(), ApplyError> {
        let paths = Files::wants(target, bundle)?;
        let mut next = self.ledger.clone();
        next.take_back(target.id, &paths, after);
        if next != self.ledger {
            next.write(&self.state).map_err(SwitchError::from)?;
            self.ledger = next;
        }
        Ok(())
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
            left.extend(applier.rests_on(&target, &bundle, &claims)?.into_iter().map(|path| (path, heir)));
        }
        Ok(left)
    }
}
