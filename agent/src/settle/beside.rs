//! What lives beside files: prepared before a switch, brought in line after it, taken down before a removal.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use titan_api::reports::Phase;
use uuid::Uuid;

use super::{Worker, chain, gates::Held};
use crate::{
    apply::{ApplyError, Observation, Readiness, Target, Work, switch::SwitchError},
    bundles::Bundle,
    claims::Claims,
    faults::fault,
};

/// How long it is taken for granted that what of a deployment was taken down is down, while what was left to it is not.
const DOWN: Duration = Duration::from_mins(1);

impl Worker {
    /// Returns a deployment's own directory.
    pub(super) fn home(&self, target: &Target) -> PathBuf {
        self.settings.as_ref().map(|files| files.root.join(target.home())).unwrap_or_default()
    }

    /// Has everything fetched and checked that a switch needs. Returns why that is not done, if it is not.
    pub(super) fn prepare(
        &mut self,
        target: &Target,
        bundle: &Bundle,
        after: &Claims,
    ) -> Result<Option<Held>, ApplyError> {
        let (mut before, home) = (self.ledger.claims(target.id), self.home(target));
        let goes_over = self.ledger.entries.get(&target.id).is_some_and(|entry| entry.applier != bundle.applier);
        if goes_over {
            // What both appliers call the same is handed from one to the other; all else has to be free.
            before.retain(|claim, _| after.contains_key(claim));
        }
        let prepared = goes_over && self.prepared.get(&target.id) == Some(&target.digest);
        if !prepared && let Some(applier) = self.appliers.of(bundle.applier)? {
            let work = Work { target, home: &home, bundle: Some(bundle), before: &before, after };
            if let Readiness::Underway(text) = applier.prepare(&work)? {
                return Ok(Some((Phase::Applying, text)));
            }
        }
        if !goes_over {
            return Ok(None);
        }
        // Only now: what cannot be prepared leaves what is there running. It may take a while to stop, and nothing is
        // prepared again for that.
        self.prepared.insert(target.id, target.digest);
        let held = self.take_down_others(target, bundle)?;
        if held.is_none() {
            self.prepared.remove(&target.id);
        }
        Ok(held)
    }

    /// Takes down what another applier looked after, where a deployment goes over to a new one.
    fn take_down_others(&mut self, target: &Target, bundle: &Bundle) -> Result<Option<Held>, ApplyError> {
        let other = self.ledger.entries.get(&target.id).map(|entry| entry.applier);
        let Some(other) = other.filter(|other| *other != bundle.applier) else { return Ok(None) };
        let (before, home, after) = (self.ledger.has(target.id), self.home(target), Claims::new());
        let Some(applier) = self.appliers.of(other)?.filter(|_| !before.is_empty()) else { return Ok(None) };
        match applier.remove(&Work { target, home: &home, bundle: None, before: &before, after: &after })? {
            Readiness::Underway(text) => Ok(Some((Phase::Applying, text))),
            Readiness::Ready => {
                let mut next = self.ledger.clone();
                if let Some(entry) = next.entries.get_mut(&target.id) {
                    (entry.claims, entry.unfinished) = (Claims::new(), None);
                }
                next.write(&self.state).map_err(SwitchError::from)?;
                self.ledger = next;
                Ok(None)
            }
        }
    }

    /// Brings what runs in line with the files that are in place, if that is not done. Returns whether it had to be.
    pub(super) fn enliven(&mut self, target: &Target, bundle: &Bundle) -> Result<bool, ApplyError> {
        let brought = self.bring_in_line(target, bundle);
        match &brought {
            Ok(_) => self.proofs.hindered.remove(&target.id),
            Err(error) => self.proofs.hindered.insert(target.id, chain(error)),
        };
        brought
    }

    fn bring_in_line(&mut self, target: &Target, bundle: &Bundle) -> Result<bool, ApplyError> {
        let Some(entry) = self.ledger.entries.get(&target.id) else { return Ok(false) };
        let Some(before) = entry.unfinished.clone() else { return Ok(false) };
        let (after, home) = (entry.claims.clone(), self.home(target));
        if let Some(applier) = self.appliers.of(bundle.applier)? {
            applier.apply(&Work { target, home: &home, bundle: Some(bundle), before: &before, after: &after })?;
        }
        fault!("beside-applied");
        let mut next = self.ledger.clone();
        if let Some(entry) = next.entries.get_mut(&target.id) {
            entry.unfinished = None;
        }
        next.tidy();
        next.write(&self.state).map_err(SwitchError::from)?;
        self.ledger = next;
        Ok(true)
    }

    /// Returns how what a deployment owns beside files does.
    pub(super) fn observe(&mut self, target: &Target, bundle: &Bundle) -> Result<Vec<Observation>, ApplyError> {
        let (claims, home) = (self.ledger.has(target.id), self.home(target));
        match self.appliers.of(bundle.applier)? {
            Some(applier) => {
                applier.observe(&Work { target, home: &home, bundle: Some(bundle), before: &claims, after: &claims })
            }
            None => Ok(Vec::new()),
        }
    }

    /// Takes down what a deployment owns beside files, but for what somebody else takes over. Returns what is still under
    /// way, if anything is.
    pub(super) fn take_down(
        &mut self,
        target: &Target,
        heir: &dyn Fn(&str) -> Option<Uuid>,
    ) -> Result<Option<String>, ApplyError> {
        let Some(applier) = self.ledger.entries.get(&target.id).map(|entry| entry.applier) else { return Ok(None) };
        let mut before = self.ledger.has(target.id);
        before.retain(|claim, _| heir(&claim.path()).is_none_or(|heir| heir == target.id));
        let (home, after) = (self.home(target), Claims::new());
        let is_down = |(at, down): &(Instant, Claims)| at.elapsed() < DOWN && *down == before;
        if before.is_empty() || self.down.get(&target.id).is_some_and(is_down) {
            return Ok(None);
        }
        let Some(applier) = self.appliers.of(applier)? else { return Ok(None) };
        let bundle = self.bundles.get(&target.digest).ok().flatten();
        let work = Work { target, home: &home, bundle: bundle.as_ref(), before: &before, after: &after };
        if let Readiness::Underway(text) = applier.remove(&work)? {
            return Ok(Some(text));
        }
        self.down.insert(target.id, (Instant::now(), before));
        Ok(None)
    }

    /// Lets go of what a deployment owns beside files, which stays. Returns what is still under way, if anything is. Whoever
    /// takes an applier away from the agent has it let go of everything at once.
    pub(super) fn let_go(&mut self, target: &Target) -> Result<Option<String>, ApplyError> {
        let Some(applier) = self.ledger.entries.get(&target.id).map(|entry| entry.applier) else { return Ok(None) };
        let (before, home, after) = (self.ledger.has(target.id), self.home(target), Claims::new());
        let applier = match self.appliers.of(applier) {
            Err(ApplyError::NotAllowed(_)) => return Ok(None),
            #[cfg(not(feature = "kubernetes"))]
            Err(ApplyError::NotBuilt(_)) => return Ok(None),
            applier => applier?,
        };
        let Some(applier) = applier.filter(|_| !before.is_empty()) else { return Ok(None) };
        match applier.release(&Work { target, home: &home, bundle: None, before: &before, after: &after })? {
            Readiness::Ready => Ok(None),
            Readiness::Underway(text) => Ok(Some(text)),
        }
    }
}
