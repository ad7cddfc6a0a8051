//! What is to be reported after settling.

use std::collections::BTreeMap;

use titan_api::reports::{DeploymentReport, Orphan, Phase};
use uuid::Uuid;

use super::{Action, Done, Worker, gates::Held};

impl Worker {
    /// Brings the outbox to what holds now.
    pub(super) fn note(&mut self, held: &BTreeMap<Uuid, Held>, git_errors: &BTreeMap<Uuid, String>, done: &mut [Done]) {
        for done in &mut *done {
            let committed = self.ledger.entries.get(&done.id).and_then(|entry| entry.committed.as_ref());
            let reported = || self.outbox.reports.get(&done.id).and_then(|report| report.commit.clone());
            done.commit = committed.map(|committed| committed.commit.clone()).or_else(reported);
        }
        for (id, entry) in self.desired.entries.iter().filter(|(_, entry)| !entry.orphan) {
            let owned = self.ledger.entries.get(id);
            let (phase, message) = match held.get(id) {
                Some((phase, message)) => (*phase, message.clone()),
                // It failed before, and it is not time to try again; or it stands as it did, and drift is yet to be told.
                None if self.failures.contains_key(id) || (self.halted.is_none() && self.untold.contains_key(id)) => {
                    if let Some(report) = self.outbox.reports.get(id).cloned() {
                        let drift = self.drifts.get(id).cloned().unwrap_or_default();
                        self.outbox.note(DeploymentReport { drift, ..report });
                    }
                    continue;
                }
                None => {
                    let done = done.iter().find(|done| done.id == *id && done.action == Action::Repaired);
                    self.stands(*id, done.map(|done| done.message.clone()).unwrap_or_default())
                }
            };
            let committed = owned.and_then(|owned| owned.committed.as_ref());
            let push = match git_errors.get(id) {
                Some(error) => Some(format!("not committed: {error}")),
                None => self.pushes.status.clone().filter(|_| committed.is_some()),
            };
            self.outbox.note(DeploymentReport {
                id: *id,
                release: entry.release.clone(),
                revision: entry.revision,
                digest: owned.map(|owned| owned.digest),
                phase,
                message,
                healthy_since: owned.filter(|_| phase == Phase::Healthy).and_then(|owned| owned.healthy_since),
                commit: committed.map(|committed| committed.commit.clone()),
                push,
                drift: self.drifts.get(id).cloned().unwrap_or_default(),
            });
        }
        let orphans = self.desired.orphans().map(|(id, entry)| Orphan {
            id,
            name: entry.name.clone(),
            workspace: entry.workspace.clone(),
            revision: entry.revision,
        });
        self.outbox.note_orphans(orphans.collect());
        let (desired, outbox) = (&self.desired, &mut self.outbox);
        outbox
            .keep(|id| desired.entries.get(id).is_some_and(|entry| !entry.orphan) || desired.removals.contains_key(id));
        self.outbox.save(&self.state);
    }

    /// Returns how a deployment stands with which nothing is wrong now as far as its files go.
    fn stands(&self, id: Uuid, repaired: String) -> Held {
        let Some(owned) = self.ledger.entries.get(&id) else { return (Phase::Pending, String::new()) };
        if let Some(why) = self.proved_bad(id) {
            let bad_in_place = self.desired.entries.get(&id).is_some_and(|entry| entry.digest == owned.digest);
            let also = self.degraded(id).map(|why| format!("; the bundle before it is not well either: {why}"));
            return if bad_in_place {
                (Phase::Failed, format!("there is no bundle to return to: {why}"))
            } else {
                (Phase::RolledBack, format!("{why}{}", also.unwrap_or_default()))
            };
        }
        if owned.trial.is_some() || owned.unfinished.is_some() {
            return (Phase::Applying, self.awaits(id));
        }
        if let Some(why) = self.degraded(id) {
            return (Phase::Degraded, why);
        }
        if let Some(why) = self.burden(id) {
            return (Phase::Degraded, format!("what was left to it is not down: {why}"));
        }
        let unrepaired = self.drifts.get(&id).into_iter().flatten().filter(|drift| !drift.repaired);
        let what: Vec<_> = unrepaired.map(|drift| format!("{} ({})", drift.what, drift.how)).collect();
        if !what.is_empty() {
            return (Phase::Degraded, format!("it is not as it was applied: {}", what.join(", ")));
        }
        (Phase::Healthy, repaired)
    }
}
