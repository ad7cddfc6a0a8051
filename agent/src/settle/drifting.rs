//! Drift: what others did to what was applied. It is written down before it is put right, and reported if that is possible.

use std::collections::BTreeSet;

use titan_api::{
    drift::{Drift, DriftPolicy},
    limits,
    reports::Phase,
};
use uuid::Uuid;

use super::{Worker, gates::Held};
use crate::{
    apply::{ApplyError, Condition, Observation, Strays, Target, Work, switch::SwitchError},
    bundles::Bundle,
    claims::{Claim, Claims},
    drifts,
};

/// How appliers call what is there and does not run.
const STOPPED: &str = "stopped";

/// What is to be done with a deployment whose bundle is in place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Drifted {
    /// It is brought to its bundle; usually there is nothing to do.
    Enforce,
    /// It is left as it is, for this reason if there is one.
    Leave(Option<Held>),
}

impl Worker {
    /// Looks for what is not as it was applied, writes it down, and returns what is to be done about it.
    pub(super) fn see_to_drift(
        &mut self,
        target: &Target,
        bundle: &Bundle,
        after: &Claims,
    ) -> Result<Drifted, ApplyError> {
        // What was taken down on the way to another applier, which this bundle is back from, is no drift.
        let unfinished = self.ledger.entries.get(&target.id).is_some_and(|entry| entry.unfinished.is_some());
        let lacks = !unfinished && !self.ledger.has(target.id).keys().eq(after.keys());
        if bundle.drift == DriftPolicy::Once && !lacks {
            self.restamp(target)?;
            return Ok(Drifted::Leave(None));
        }
        let (mut drifts, strays) = match &self.files {
            Some(files) => files.examine(&self.ledger, target, bundle)?,
            None => (Vec::new(), Strays::new()),
        };
        let files_strayed = !drifts.is_empty();
        let mut strayed = Vec::new();
        if !unfinished && !self.is_on_trial(target.id) {
            for observation in self.observe(target, bundle)? {
                if let Some(drift) = observation.drift {
                    // What others added is told; it is not the deployment's to put right.
                    if after.contains_key(&observation.claim) {
                        strayed.push(observation.claim);
                    }
                    drifts.push(drift);
                }
            }
        }
        if !strayed.is_empty() {
            drifts.extend(self.adoptable(target, bundle)?);
        }
        if drifts.is_empty() {
            self.untold.remove(&target.id);
            if !unfinished {
                self.forget_drift(target.id, bundle.drift);
            }
            return Ok(Drifted::Enforce);
        }
        let drifts = drifts::bounded(drifts);
        let news = self.note_drift(target, &drifts);
        if bundle.drift == DriftPolicy::Report && !lacks {
            self.restamp(target)?;
            let what: Vec<_> = drifts.iter().map(|drift| format!("{} ({})", drift.what, drift.how)).collect();
            let held = (Phase::Degraded, format!("it is not as it was applied: {}", what.join(", ")));
            return Ok(Drifted::Leave(Some(held)));
        }
        if !lacks && !unfinished && !self.is_on_trial(target.id) && self.tells_first(target.id, news) {
            return Ok(Drifted::Leave(None));
        }
        if !strayed.is_empty() || (files_strayed && !after.is_empty()) {
            // What is left out of what was there before is made again, after a crash as well.
            let mut before =
                if files_strayed { self.untouched(target, bundle, after, &strays)? } else { after.clone() };
            before.retain(|claim, _| !strayed.contains(claim));
            self.amend(target.id, |entry| {
                let before = match &entry.unfinished {
                    Some(earlier) => in_both(before, earlier, after),
                    None => before,
                };
                entry.unfinished = Some(before);
            })
            .map_err(SwitchError::from)?;
        }
        Ok(Drifted::Enforce)
    }

    /// Brings back what of the bundle in place went down with the host, which nobody stopped: whatever is to be done about
    /// drift, and though another bundle may be declared that has yet to wait. `seen_to` says that it is looked for drift now.
    pub(super) fn bring_back(&mut self, id: Uuid, seen_to: bool) -> Result<(), ApplyError> {
        let boot = self.proofs.boot();
        let Some(entry) = self.ledger.entries.get(&id) else { return Ok(()) };
        if entry.claims.is_empty() || entry.unfinished.is_some() || entry.boot.as_deref() == Some(&*boot) {
            return Ok(());
        }
        let (target, claims, rebooted) = (Target::in_place(id, entry), entry.claims.clone(), entry.boot.is_some());
        let Some(bundle) = self.bundles.get(&target.digest).ok().flatten() else { return Ok(()) };
        let put_right = seen_to && bundle.drift == DriftPolicy::Enforce && !self.is_on_trial(id);
        let mut stands = claims.clone();
        if rebooted && !put_right {
            let observed = self.observe(&target, &bundle)?;
            for claim in self.fallen(id, &observed) {
                stands.remove(&claim);
            }
            let starts = |seen: &Observation| {
                matches!(seen.condition, Condition::Starting(_)) && claims.contains_key(&seen.claim)
            };
            if stands == claims && observed.iter().any(starts) {
                // Whether that comes to anything is to be seen.
                return Ok(());
            }
        }
        let fell = stands != claims;
        self.amend(id, |entry| {
            entry.boot = Some(boot.to_string());
            entry.unfinished = fell.then_some(stands);
        })
        .map_err(SwitchError::from)?;
        if fell {
            let title = target.home();
            tracing::info!(deployment.title = %title, "what went down of {title} with the host is brought back");
            self.enliven(&target, &bundle)?;
        }
        Ok(())
    }

    /// Returns what is down, but for what was down before already, and for what somebody changed otherwise as well.
    fn fallen(&self, id: Uuid, observed: &[Observation]) -> Vec<Claim> {
        let known = self.drifts.get(&id).into_iter().flatten().filter(|drift| !drift.repaired);
        let known: BTreeSet<_> = known.map(|drift| drift.what.as_str()).collect();
        let is_down = |drift: &Drift| drift.how == STOPPED;
        let changed = |claim: &Claim| {
            let otherwise = |seen: &&Observation| seen.drift.as_ref().is_some_and(|drift| !is_down(drift));
            observed.iter().filter(otherwise).any(|seen| seen.claim.name == claim.name)
        };
        let down = observed.iter().filter(|seen| {
            seen.drift.as_ref().is_some_and(|drift| is_down(drift) && !known.contains(drift.what.as_str()))
        });
        down.map(|seen| seen.claim.clone()).filter(|claim| !changed(claim)).collect()
    }

    /// Returns what of a deployment runs as it was made, though others changed files of it.
    fn untouched(
        &mut self,
        target: &Target,
        bundle: &Bundle,
        after: &Claims,
        strays: &Strays,
    ) -> Result<Claims, ApplyError> {
        let home = self.home(target);
        match self.appliers.of(bundle.applier)? {
            Some(applier) => {
                applier.untouched(&Work { target, home: &home, bundle: Some(bundle), before: after, after }, strays)
            }
            None => Ok(after.clone()),
        }
    }

    /// Returns what files of the bundle would have to say for what runs to be right, so that a person can adopt it.
    fn adoptable(&mut self, target: &Target, bundle: &Bundle) -> Result<Vec<Drift>, ApplyError> {
        let (claims, home) = (self.ledger.claims(target.id), self.home(target));
        let Some(applier) = self.appliers.of(bundle.applier)? else { return Ok(Vec::new()) };
        let work = Work { target, home: &home, bundle: Some(bundle), before: &claims, after: &claims };
        let drift = |(path, text): (String, String)| Drift {
            what: format!("{}/{path}", target.home()),
            how: "what runs would need it to be otherwise".to_owned(),
            diff: String::new(),
            found: Some(text).filter(|text| text.len() <= limits::DRIFT_BYTES),
            repaired: false,
        };
        Ok(applier.adopt(&work)?.into_iter().map(drift).collect())
    }

    /// Writes drift down where reports are kept, so that it is told whatever happens next. Returns whether it was not known.
    fn note_drift(&mut self, target: &Target, drifts: &[Drift]) -> bool {
        let known = self.drifts.get(&target.id);
        let same =
            |one: &Drift, other: &Drift| (&one.what, &one.how, &one.diff) == (&other.what, &other.how, &other.diff);
        let news = known.is_none_or(|known| {
            known.len() != drifts.len()
                || !known.iter().zip(drifts).all(|(one, other)| same(one, other) && !one.repaired)
        });
        if !news {
            return false;
        }
        for Drift { what, how, .. } in drifts {
            let title = target.home();
            tracing::warn!(deployment.title = %title, drift.what = %what, "{what} of {title} is not as it was applied: {how}");
        }
        self.drifts.insert(target.id, drifts.to_vec());
        if let Some(report) = self.outbox.reports.get(&target.id).cloned() {
            self.outbox.note(titan_api::reports::DeploymentReport { drift: drifts.to_vec(), ..report });
            self.outbox.save(&self.state);
        }
        true
    }

    /// Forgets drift that is there no more. What nobody was told yet was put right before the agent could say so.
    fn forget_drift(&mut self, id: Uuid, policy: DriftPolicy) {
        let Some(drifts) = self.drifts.get_mut(&id) else { return };
        if drifts.iter().all(|drift| drift.repaired) {
            return;
        }
        if policy == DriftPolicy::Enforce && self.outbox.unsent.contains(&id) {
            drifts.retain(|drift| drift.how != drifts::ADDED);
            drifts.iter_mut().for_each(|drift| drift.repaired = true);
        } else {
            self.drifts.remove(&id);
        }
    }

    /// Marks drift as put right. Returns phrases for what no file says.
    pub(super) fn drift_is_repaired(&mut self, id: Uuid, files: &[String]) -> Vec<String> {
        let Some(drifts) = self.drifts.get_mut(&id) else { return Vec::new() };
        let mut phrases = Vec::new();
        for drift in drifts.iter_mut().filter(|drift| !drift.repaired && drift.how != drifts::ADDED) {
            drift.repaired = true;
            let phrase = format!("{} ({})", drift.what, drift.how);
            if !files.contains(&phrase) {
                phrases.push(phrase);
            }
        }
        phrases
    }

    /// Notes the release and revision under which the bundle that is in place is declared now; nothing else changes.
    fn restamp(&mut self, target: &Target) -> Result<(), ApplyError> {
        let mut next = self.ledger.clone();
        if let Some(entry) = next.entries.get_mut(&target.id) {
            entry.release.clone_from(&target.release);
            entry.revision = target.revision;
            entry.depends_on.clone_from(&target.depends_on);
        }
        if next != self.ledger {
            next.write(&self.state).map_err(SwitchError::from)?;
            self.ledger = next;
        }
        Ok(())
    }
}

/// Returns what runs as it was made, as far as two looks agree about it.
fn in_both(mut one: Claims, other: &Claims, made: &Claims) -> Claims {
    one.retain(|claim, digest| other.contains_key(claim) || made.get(claim) != Some(digest));
    for (claim, digest) in other.iter().filter(|(claim, digest)| made.get(*claim) != Some(*digest)) {
        let is = one.entry(claim.clone()).or_insert(*digest);
        if made.get(claim) == Some(is) {
            *is = *digest;
        }
    }
    one
}

#[cfg(test)]
mod tests {
    use titan_api::Digest;

    use super::*;

    #[test]
    fn what_one_look_found_changed_stays_so() {
        let claims = |parts: &[(&str, &str)]| -> Claims {
            parts.iter().map(|(name, made)| (Claim::new("unit", *name), Digest::of(made.as_bytes()))).collect()
        };
        let made = claims(&[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")]);
        let one = claims(&[("a", "1"), ("b", "x"), ("c", "1"), ("d", "1")]);
        let other = claims(&[("a", "1"), ("b", "1"), ("d", "x"), ("gone", "1")]);
        let expected = claims(&[("a", "1"), ("b", "x"), ("d", "x"), ("gone", "1")]);
        assert_eq!(in_both(one.clone(), &other, &made), expected);
        assert_eq!(in_both(other, &one, &made), expected);
    }
}
