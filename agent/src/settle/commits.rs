//! Git after the files: committing what is applied or removed. No failure here fails an apply.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use titan_api::reports::{DeploymentReport, Phase};
use uuid::Uuid;

use super::{Worker, chain};
use crate::{faults::fault, ledger::LedgerEntry};

/// When what could not be committed is tried again, if nothing else happens before.
const AGAIN: Duration = Duration::from_secs(10);

impl Worker {
    /// Commits what is applied or removed and not committed. Returns why something could not be.
    pub(super) fn commit(&mut self) -> BTreeMap<Uuid, String> {
        let mut errors = BTreeMap::new();
        let Some(git) = self.git.as_mut() else { return errors };
        let mut removals = true;
        for (id, removal) in self.ledger.uncommitted.clone() {
            let result = git.commit_removal(&removal).map_err(|error| chain(&error)).and_then(|commit| {
                self.pushes.due = true;
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
                removals = false;
                tracing::warn!("the removal of {}/{} is not committed: {message}", removal.workspace, removal.name);
            }
        }
        let due = |(id, entry): (&Uuid, &LedgerEntry)| {
            let committed = entry.committed.as_ref().is_some_and(|committed| committed.digest == entry.digest);
            // Only what is proven goes into the history.
            let proven = entry.trial.is_none() && entry.unfinished.is_none() && entry.healthy_since.is_some();
            (!committed && proven).then_some(*id)
        };
        for id in self.ledger.entries.iter().filter_map(due).collect::<Vec<_>>() {
            let entry = self.ledger.entries[&id].clone();
            let result = match self.bundles.get(&entry.digest) {
                Ok(Some(bundle)) => git.commit(&entry, &bundle).map_err(|error| chain(&error)),
                Ok(None) => Err("the bundle is not in the cache".to_owned()),
                Err(error) => Err(chain(&error)),
            };
            let noted = result.and_then(|committed| {
                self.pushes.due = true;
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
        self.commit_again = (!removals || !errors.is_empty()).then(|| Instant::now() + AGAIN);
        errors
    }
}
