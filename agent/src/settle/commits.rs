//! Git after the files: committing what is applied or removed. No failure here fails an apply.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use titan_api::{
    Digest,
    reports::{DeploymentReport, Phase},
};
use uuid::Uuid;

use super::{Worker, chain};
use crate::{faults::fault, git::Sink, ledger::LedgerEntry, pace};

/// What could not be committed, and when that is tried again.
#[derive(Debug, Default)]
pub(super) struct Commits {
    /// By deployment: the bundle, which a removal has not, and why.
    failing: BTreeMap<Uuid, (Option<Digest>, String)>,
    failures: u32,
    again: Option<Instant>,
}

impl Commits {
    /// Returns when what could not be committed is tried again, if nothing has it tried before.
    pub(super) const fn again(&self) -> Option<Instant> {
        self.again
    }

    /// Returns why something could not be committed a moment ago and is not tried now.
    fn pauses(&self, id: Uuid, digest: Option<Digest>, now: Instant) -> Option<String> {
        self.again.filter(|again| now < *again)?;
        self.failing.get(&id).filter(|(known, _)| *known == digest).map(|(_, why)| why.clone())
    }

    /// Notes why something could not be committed. Returns whether that is another reason than before.
    fn failed(&mut self, id: Uuid, digest: Option<Digest>, why: &str) -> bool {
        let known = self.failing.insert(id, (digest, why.to_owned()));
        known.is_none_or(|(_, known)| known != why)
    }

    /// Notes what failed in a pass: the pause that is over by `now` is followed by a longer one.
    fn end(&mut self, failing: &BTreeSet<Uuid>, now: Instant) {
        self.failing.retain(|id, _| failing.contains(id));
        if failing.is_empty() {
            (self.failures, self.again) = (0, None);
        } else if self.again.is_none_or(|again| again <= now) {
            self.failures = self.failures.saturating_add(1);
            self.again = Some(now + pace::before_push(self.failures, pace::chance()));
        }
    }
}

impl Worker {
    /// Commits what is applied or removed and not committed; with `all`, though that failed a moment ago. Returns why
    /// something could not be.
    pub(super) fn commit(&mut self, all: bool) -> BTreeMap<Uuid, String> {
        let mut errors = BTreeMap::new();
        let Some(git) = self.git.clone() else { return errors };
        let now = Instant::now();
        if all {
            self.commits.again = None;
        }
        let (mut failing, mut committed) = (BTreeSet::new(), false);
        for id in self.ledger.uncommitted.keys().copied().collect::<Vec<_>>() {
            if self.commits.pauses(id, None, now).is_some() {
                failing.insert(id);
            } else if let Err(message) = self.commit_removal(&git, id) {
                failing.insert(id);
                if self.commits.failed(id, None, &message) {
                    let removal = &self.ledger.uncommitted[&id];
                    tracing::warn!("the removal of {}/{} is not committed: {message}", removal.workspace, removal.name);
                }
            }
        }
        let due = |(id, entry): (&Uuid, &LedgerEntry)| {
            let committed = entry.committed.as_ref().is_some_and(|committed| committed.digest == entry.digest);
            // Only what is proven goes into the history.
            let proven = entry.trial.is_none() && entry.unfinished.is_none() && entry.healthy_since.is_some();
            (!committed && proven).then_some((*id, entry.digest))
        };
        for (id, digest) in self.ledger.entries.iter().filter_map(due).collect::<Vec<_>>() {
            let message = match self.commits.pauses(id, Some(digest), now) {
                Some(message) => message,
                None => match self.commit_one(&git, id) {
                    Ok(()) => {
                        committed = true;
                        continue;
                    }
                    Err(message) => message,
                },
            };
            failing.insert(id);
            if self.commits.failed(id, Some(digest), &message) {
                let title = self.ledger.entries[&id].title();
                tracing::warn!(deployment.title = %title, "{title} is not committed: {message}");
            }
            errors.insert(id, message);
        }
        self.commits.end(&failing, now);
        if committed {
            // What comes with answers is not asked for, so this is where a small host looks.
            let _told_when_a_bundle_is_fetched = self.lacks_room();
        }
        errors
    }

    fn commit_removal(&mut self, git: &Sink, id: Uuid) -> Result<(), String> {
        let Some(mut removal) = self.ledger.uncommitted.get(&id).cloned() else { return Ok(()) };
        // A deployment that was made again under the same name may have been committed since.
        let committed = self.ledger.entries.values().filter_map(|entry| entry.committed.as_ref());
        for path in committed.flat_map(|committed| &committed.paths) {
            removal.paths.remove(path);
        }
        let commit = git.commit_removal(&removal).map_err(|error| chain(&error))?;
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
    }

    fn commit_one(&mut self, git: &Sink, id: Uuid) -> Result<(), String> {
        let Some(entry) = self.ledger.entries.get(&id).cloned() else { return Ok(()) };
        let committed = match self.bundles.get(&entry.digest) {
            Ok(Some(bundle)) => git.commit(&entry, &bundle).map_err(|error| chain(&error))?,
            Ok(None) => return Err("the bundle is not in the cache".to_owned()),
            Err(error) => return Err(chain(&error)),
        };
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
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_cannot_be_committed_is_tried_again_after_pauses_that_grow_to_ten_minutes() {
        let (mut commits, mut now) = (Commits::default(), Instant::now());
        let (id, digest) = (Uuid::from_u128(1), Digest::of(b"1"));
        let mut pause = Duration::ZERO;
        for round in 0..12 {
            assert_eq!(commits.pauses(id, Some(digest), now), None);
            assert_eq!(commits.failed(id, Some(digest), "no room"), round == 0, "told once");
            commits.end(&[id].into(), now);
            pause = commits.again().expect("again") - now;
            assert!(pause <= Duration::from_mins(10), "{pause:?}");
            assert_eq!(commits.pauses(id, Some(digest), now).as_deref(), Some("no room"), "not at once");
            assert_eq!(commits.pauses(id, Some(Digest::of(b"2")), now), None, "another bundle is tried at once");
            assert_eq!(commits.pauses(Uuid::from_u128(2), None, now), None, "another deployment too");
            now += pause;
        }
        assert!(pause >= Duration::from_mins(5), "{pause:?}");
        assert!(commits.failed(id, Some(digest), "locked"), "another reason is told");
        commits.end(&BTreeSet::new(), now);
        assert_eq!((commits.again(), commits.failures), (None, 0));
    }
}
