//! Git after the files: committing what is applied or removed, and pushing it. No failure here fails an apply.

use std::collections::BTreeMap;

use titan_api::{
    poll::Bundle,
    reports::{DeploymentReport, Phase},
};
use uuid::Uuid;

use super::{SettleError, Worker, chain};
use crate::{faults::fault, ledger::LedgerEntry};

impl Worker {
    /// Pushes what is committed and not pushed; what was tried before is tried again only with `again`. Returns whether there is something new to report.
    pub(crate) fn push(&mut self, again: bool) -> Result<bool, SettleError> {
        if !std::mem::take(&mut self.unpushed) && !again {
            return Ok(false);
        }
        let Some(git) = self.git.as_mut().filter(|git| git.has_remote()) else { return Ok(false) };
        let status = match git.sync() {
            Ok(moved) => {
                let mut next = self.ledger.clone();
                for committed in next.entries.values_mut().filter_map(|entry| entry.committed.as_mut()) {
                    if let Some(new) = moved.get(&committed.commit) {
                        committed.commit.clone_from(new);
                    }
                }
                if next != self.ledger {
                    next.write(&self.state)?;
                    self.ledger = next;
                }
                for report in self.outbox.reports.values().cloned().collect::<Vec<_>>() {
                    if let Some(new) = report.commit.as_ref().and_then(|commit| moved.get(commit)) {
                        self.outbox.note(DeploymentReport { commit: Some(new.clone()), ..report });
                    }
                }
                "pushed".to_owned()
            }
            Err(error) => {
                let message = chain(&error);
                tracing::warn!("commits cannot be pushed: {message}");
                message
            }
        };
        self.push = Some(status);
        let before = self.outbox.unsent.len();
        for report in self.outbox.reports.values().filter(|report| report.commit.is_some()).cloned().collect::<Vec<_>>()
        {
            self.outbox.note(DeploymentReport { push: self.push.clone(), ..report });
        }
        self.outbox.save(&self.state)?;
        Ok(self.outbox.unsent.len() != before || !self.outbox.unsent.is_empty())
    }

    /// Commits what is applied or removed and not committed. Returns why something could not be.
    pub(super) fn commit(&mut self, bundles: &BTreeMap<Uuid, Bundle>) -> BTreeMap<Uuid, String> {
        let mut errors = BTreeMap::new();
        let Some(git) = self.git.as_mut() else { return errors };
        for (id, removal) in self.ledger.uncommitted.clone() {
            let result = git.commit_removal(&removal).map_err(|error| chain(&error)).and_then(|commit| {
                self.unpushed = true;
                fault!("git-committed");
                let mut next = self.ledger.clone();
                next.uncommitted.remove(&id);
                next.write(&self.state).map_err(|error| chain(&error))?;
                self.ledger = next;
                if let Some(report) = self.outbox.reports.get(&id).filter(|report| report.phase == Phase::Removed) {
                    self.outbox.note(DeploymentReport { commit: Some(commit), ..report.clone() });
                }
                Ok(())
            });
            if let Err(message) = result {
                tracing::warn!("the removal of {}/{} is not committed: {message}", removal.workspace, removal.name);
            }
        }
        let due = |(id, entry): (&Uuid, &LedgerEntry)| {
            let committed = entry.committed.as_ref().is_some_and(|committed| committed.digest == entry.digest);
            (!committed).then_some(*id)
        };
        for id in self.ledger.entries.iter().filter_map(due).collect::<Vec<_>>() {
            let entry = self.ledger.entries[&id].clone();
            let kept = bundles
                .get(&id)
                .filter(|_| self.desired.entries.get(&id).is_some_and(|desired| desired.digest == entry.digest));
            let bundle = match kept {
                Some(bundle) => Ok(Some(bundle.clone())),
                None => self.bundles.get(&entry.digest),
            };
            let result = match bundle {
                Ok(Some(bundle)) => git.commit(&entry, &bundle).map_err(|error| chain(&error)),
                Ok(None) => Err("the bundle is not in the cache".to_owned()),
                Err(error) => Err(chain(&error)),
            };
            let noted = result.and_then(|committed| {
                self.unpushed = true;
                fault!("git-committed");
                let mut next = self.ledger.clone();
                if let Some(entry) = next.entries.get_mut(&id) {
                    entry.committed = Some(committed);
                }
                next.write(&self.state).map_err(|error| chain(&error))?;
                self.ledger = next;
                fault!("git-noted");
                Ok(())
            });
            if let Err(message) = noted {
                let title = entry.title();
                tracing::warn!(deployment.title = %title, "{title} is not committed: {message}");
                errors.insert(id, message);
            }
        }
        errors
    }
}
