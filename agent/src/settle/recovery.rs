//! What comes before a pass: switches that were interrupted, and deployments that came back under another id.

use std::collections::BTreeMap;

use titan_api::reports::Phase;
use uuid::Uuid;

use super::{Action, Done, Pass, Worker, chain};
use crate::{
    apply::{
        Applied, ApplyError,
        switch::{self, Ended},
    },
    disk::DiskError,
};

/// What came of one step.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is done.
    Done(Applied),
    /// It is not done, and what was there before still is.
    Failed(String),
    /// It is neither done nor undone.
    Stuck(String),
}

impl Worker {
    /// Brings switches that were interrupted to their end. Returns how they ended, or `None` if nothing may be changed on
    /// this host, since it is not known what holds on it.
    pub(super) fn recover(&mut self) -> Option<BTreeMap<Uuid, Ended>> {
        let recovery = match switch::recover(&self.state, &mut self.ledger) {
            Ok(recovery) => recovery,
            Err(error) => {
                let message = format!("a switch that was interrupted cannot be brought to its end: {}", chain(&error));
                self.halt(message);
                return None;
            }
        };
        self.halted = None;
        for (name, ended) in &recovery.ended {
            let word = if *ended == Ended::New { "finished" } else { "undone" };
            tracing::info!(deployment.id = %name, "a switch of {name} that was interrupted was {word}");
        }
        let by_id = |name: &str| Uuid::parse_str(name).unwrap_or_default();
        self.stuck = recovery.stuck.into_iter().map(|(name, stuck)| (by_id(&name), stuck)).collect();
        Some(recovery.ended.iter().map(|(name, ended)| (by_id(name), *ended)).collect())
    }

    /// Returns what came of a step, after seeing to a switch that it left open.
    pub(super) fn conclude(&mut self, id: Uuid, result: Result<Applied, ApplyError>) -> Outcome {
        let plain = |result: Result<Applied, ApplyError>| match result {
            Ok(applied) => Outcome::Done(applied),
            Err(error) => Outcome::Failed(chain(&error)),
        };
        if self.stuck.contains_key(&id) {
            return Outcome::Stuck(self.stuck[&id].message.clone());
        }
        if !switch::is_open(&self.state).unwrap_or(true) {
            return plain(result);
        }
        match (self.recover(), result) {
            (_, Ok(applied)) => Outcome::Done(applied),
            (Some(ended), Err(_)) if ended.get(&id) == Some(&Ended::New) => {
                Outcome::Done(Applied { written: 1, ..Applied::default() })
            }
            (Some(_), Err(error)) if !self.stuck.contains_key(&id) => Outcome::Failed(chain(&error)),
            (_, Err(error)) => Outcome::Stuck(chain(&error)),
        }
    }

    /// Says of everything that is to change that it cannot, if it cannot.
    pub(super) fn tell_halted(&self, pass: &mut Pass<'_>) {
        let Some(why) = &self.halted else { return };
        let culprit = switch::open_name(&self.state).and_then(|name| Uuid::parse_str(&name).ok());
        for (id, entry) in &self.desired.entries {
            if pass.held.contains_key(id) {
                continue;
            }
            if culprit == Some(*id) {
                pass.held.insert(*id, (Phase::Failed, why.clone()));
                pass.done.push(Done::of(*id, entry, Action::Stuck, why.clone()));
            } else if !self.is_settled(*id) && !entry.orphan {
                pass.held.insert(*id, (Phase::Pending, format!("nothing is changed on this host: {why}")));
            } else if self.is_on_trial(*id) {
                let message = format!("nobody looks how it does, for nothing is changed on this host: {why}");
                pass.held.insert(*id, (Phase::Applying, message));
            }
        }
    }

    /// Hands what orphans own over to deployments of the same workspace and name that are declared: they are what became
    /// of them. No file moves; the next step takes it from there.
    pub(super) fn succeed(&mut self) -> Result<(), DiskError> {
        let successions = self.desired.successions();
        let free = |id: &Uuid| !self.stuck.contains_key(id);
        let successions: Vec<_> = successions.into_iter().filter(|(old, new)| free(old) && free(new)).collect();
        if successions.is_empty() {
            return Ok(());
        }
        let mut next = self.ledger.clone();
        for (old, new) in &successions {
            next.hand_over(*old, *new);
        }
        if next != self.ledger {
            next.write(&self.state)?;
            self.ledger = next;
        }
        for (old, new) in &successions {
            tracing::info!(deployment.id = %new, "deployment {new} takes the place of the orphan {old}");
            self.desired.entries.remove(old);
            self.failures.remove(old);
            self.failures.remove(new);
        }
        self.save_desired(false)
    }
}
