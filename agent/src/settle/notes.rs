//! What is to be reported after settling.

use std::collections::BTreeMap;

use titan_api::reports::{DeploymentReport, Orphan, Phase};
use uuid::Uuid;

use super::{Action, Done, Worker};

impl Worker {
    /// Brings the outbox to what holds now.
    pub(super) fn note(
        &mut self,
        failed: &BTreeMap<Uuid, (Phase, String)>,
        git_errors: &BTreeMap<Uuid, String>,
        done: &mut [Done],
    ) {
        for done in &mut *done {
            let committed = self.ledger.entries.get(&done.id).and_then(|entry| entry.committed.as_ref());
            let reported = || self.outbox.reports.get(&done.id).and_then(|report| report.commit.clone());
            done.commit = committed.map(|committed| committed.commit.clone()).or_else(reported);
        }
        for (id, entry) in self.desired.entries.iter().filter(|(_, entry)| !entry.orphan) {
            let owned = self.ledger.entries.get(id);
            let (phase, message) = match failed.get(id) {
                Some((phase, message)) => (*phase, message.clone()),
                // It failed before, and it is not time to try again.
                None if self.failures.contains_key(id) => continue,
                None if owned.is_none() => (Phase::Pending, String::new()),
                None => {
                    let done = done.iter().find(|done| done.id == *id && done.action == Action::Repaired);
                    (Phase::Healthy, done.map(|done| done.message.clone()).unwrap_or_default())
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
                healthy_since: owned.filter(|_| phase == Phase::Healthy).map(|owned| owned.healthy_since),
                commit: committed.map(|committed| committed.commit.clone()),
                push,
                drift: Vec::new(),
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
}
