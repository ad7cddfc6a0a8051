//! Removals: what a tombstone names goes, and nothing else.

use std::collections::BTreeMap;

use titan_api::{
    deployments::OnRemove,
    poll::Tombstone,
    reports::{DeploymentReport, Phase},
    templates::Applier as Kind,
};
use uuid::Uuid;

use super::{Action, Done, Worker, chain, recovery::Outcome, steps::waits_for};
use crate::{
    apply::{Applied, ApplyError, Target, switch::SwitchError},
    claims::Claims,
    config::appliers::HookKind,
    faults::fault,
    ledger::LedgerEntry,
};

/// What came of giving a deployment up.
enum Given {
    /// It is gone from the ledger.
    Up(Applied),
    /// Something is on its way, such as a hook or a stop.
    Underway(String),
}

impl Worker {
    /// Removes what a tombstone names. With `awaited`, a deployment that may take over what is to go, it waits.
    pub(super) fn remove(&mut self, id: Uuid, heirs: &BTreeMap<&str, Uuid>, awaited: Option<&str>) -> Option<Done> {
        self.leaving.remove(&id);
        let tombstone = self.desired.removals.get(&id).cloned()?;
        let title = format!("{}/{}", tombstone.workspace, tombstone.name);
        let owned = self.ledger.owned_paths(id);
        let deletes = tombstone.on_remove == OnRemove::Delete;
        let heir = self.desired.declared(&tombstone.workspace, &tombstone.name).filter(|_| deletes);
        let postponed = awaited.filter(|_| !owned.is_empty() && deletes && heir.is_none());
        let (action, message) = if let Some(other) = postponed {
            (Action::Waiting, waits_for(other))
        } else if let Some(why) = self.closed() {
            (Action::Waiting, why)
        } else if let Some(other) = self.leaves_before(id) {
            (Action::Waiting, format!("{other}, which depends on it, goes first"))
        } else if owned.is_empty() && !self.ledger.entries.contains_key(&id) {
            (Action::Removed, String::new())
        } else {
            let result = match heir {
                Some(heir) => self.leave_to(id, heir).map(Given::Up),
                None => self.give_up(id, &tombstone, heirs),
            };
            match result {
                Ok(Given::Underway(message)) => {
                    self.leaving.insert(id);
                    (Action::Waiting, message)
                }
                Ok(Given::Up(applied)) => self.gone(id, &tombstone, Ok(applied)),
                Err(error) => self.gone(id, &tombstone, Err(error)),
            }
        };
        let gone = matches!(action, Action::Removed | Action::Released);
        if gone {
            let reason = tombstone.reason.as_str();
            tracing::info!(deployment.title = %title, reason, "{title} {}", action.as_str());
        } else if action != Action::Waiting {
            tracing::warn!(deployment.title = %title, "{title} cannot be removed: {message}");
        }
        self.outbox.note(DeploymentReport {
            id,
            release: String::new(),
            revision: tombstone.revision,
            digest: self.ledger.entries.get(&id).map(|entry| entry.digest),
            phase: if gone { Phase::Removed } else { Phase::Removing },
            message: message.clone(),
            healthy_since: None,
            commit: None,
            push: None,
            drift: Vec::new(),
        });
        // The report must be on disk before the tombstone leaves it.
        if gone {
            self.forget(id);
            let noted = self.outbox.save_for_sure(&self.state).and_then(|()| {
                self.desired.removals.remove(&id);
                self.save_desired(false)
            });
            match noted {
                Ok(()) => {
                    fault!("removal-settled");
                }
                Err(error) => tracing::warn!("that {title} is removed is noted again: {}", chain(&error)),
            }
        }
        Some(Done { id, title, release: String::new(), action, message, commit: None })
    }

    /// Leaves everything to a deployment of the same workspace and name, which was made again: no file moves, and its own
    /// step takes what it does not want away together with everything else that changes.
    fn leave_to(&mut self, id: Uuid, heir: Uuid) -> Result<Applied, ApplyError> {
        if self.stuck.contains_key(&id) || self.stuck.contains_key(&heir) {
            return Err(SwitchError::Unfinished.into());
        }
        let mut next = self.ledger.clone();
        next.hand_over(id, heir);
        next.write(&self.state).map_err(SwitchError::from)?;
        self.ledger = next;
        Ok(Applied::default())
    }

    /// Returns what a removal came to.
    fn gone(&mut self, id: Uuid, tombstone: &Tombstone, result: Result<Applied, ApplyError>) -> (Action, String) {
        match self.conclude(id, result) {
            Outcome::Done(_) if tombstone.on_remove == OnRemove::Orphan => (Action::Released, String::new()),
            Outcome::Done(_) => (Action::Removed, String::new()),
            Outcome::Failed(message) => (Action::Failed, message),
            Outcome::Stuck(message) => (Action::Stuck, message),
        }
    }

    /// Returns a deployment that is on its way out and depends on this one, as `workspace/name`.
    fn leaves_before(&self, id: Uuid) -> Option<String> {
        let own = self.ledger.entries.get(&id)?;
        let depends = |other: &&Uuid| {
            let Some(entry) = self.ledger.entries.get(*other).filter(|_| **other != id) else { return false };
            let on = |from: &LedgerEntry, to: &LedgerEntry| {
                from.workspace == to.workspace && from.depends_on.iter().any(|dependency| dependency.name == to.name)
            };
            // Of two that depend on each other neither waits.
            on(entry, own) && !on(own, entry)
        };
        self.desired.removals.keys().find(depends).and_then(|other| Some(self.ledger.entries.get(other)?.title()))
    }

    /// Takes down what a deployment that leaves has beside files, then what was left to it, which may hold that; but for what an
    /// `heir` takes over. Returns what is still under way, if anything is.
    fn clear(&mut self, id: Uuid, heir: &dyn Fn(&str) -> Option<Uuid>) -> Result<Option<String>, ApplyError> {
        if let Some(entry) = self.ledger.entries.get(&id) {
            let target = Target::in_place(id, entry);
            if let Some(why) = self.take_down(&target, heir)? {
                return Ok(Some(why));
            }
            fault!("taken-down");
        }
        self.decline(id, &Claims::new(), heir, OnRemove::Delete)
    }

    /// Takes everything away, or leaves it and forgets it.
    fn give_up(&mut self, id: Uuid, tombstone: &Tombstone, heirs: &BTreeMap<&str, Uuid>) -> Result<Given, ApplyError> {
        if self.stuck.contains_key(&id) {
            return Err(SwitchError::Unfinished.into());
        }
        match tombstone.on_remove {
            OnRemove::Orphan => {
                let nobody = |_: &str| None;
                if let Some(why) = self.decline(id, &Claims::new(), &nobody, OnRemove::Orphan)? {
                    return Ok(Given::Underway(why));
                }
                if let Some(entry) = self.ledger.entries.get(&id) {
                    let target = Target::in_place(id, entry);
                    if let Some(why) = self.let_go(&target)? {
                        return Ok(Given::Underway(why));
                    }
                }
                let mut next = self.ledger.clone();
                next.entries.remove(&id);
                next.inherited.remove(&id);
                next.bequeathed.remove(&id);
                next.tidy();
                next.write(&self.state).map_err(SwitchError::from)?;
                self.ledger = next;
                Ok(Given::Up(Applied::default()))
            }
            OnRemove::Delete => {
                let heir = |path: &str| heirs.get(path).copied();
                if let Some(entry) = self.ledger.entries.get(&id) {
                    let target = Target::in_place(id, entry);
                    if let Ok(Some(bundle)) = self.bundles.get(&target.digest)
                        && let Some((_, why)) = self.hooked(HookKind::OnRemove, &target, &bundle)?
                    {
                        return Ok(Given::Underway(why));
                    }
                }
                match self.clear(id, &heir) {
                    Ok(None) => {}
                    Ok(Some(why)) => return Ok(Given::Underway(why)),
                    Err(error) => {
                        // Whoever takes something over need not wait for what cannot go.
                        self.hand_on(id, &heir)?;
                        return Err(error);
                    }
                }
                let left = self.left_with(id, &Claims::new(), &heir);
                let heir = |path: &str| heir(path).or_else(|| left.get(path).copied());
                self.open_files()?;
                let files = self.files.as_ref().ok_or(ApplyError::NotAllowed(Kind::Files))?;
                let noted = self.git.is_some().then_some(tombstone.revision);
                files.remove(&mut self.ledger, id, noted, &heir).map(Given::Up)
            }
        }
    }
}
