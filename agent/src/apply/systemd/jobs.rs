//! Having systemd stop, start and restart units. Nothing is waited for: how it went is observed.

use std::collections::{BTreeMap, BTreeSet};

use titan_api::templates::Applier as Kind;
use tokio::runtime::Handle;

use super::{
    bus::{Bus, BusError},
    checks, names,
    states::{self, State},
    units::{OnChange, Start, Unit},
};
use crate::{apply::Condition, faults::fault, wake::Wake};

/// Whoever has things done with units, and knows what came of it.
#[derive(Debug)]
pub(in crate::apply) struct Jobs {
    io: Handle,
    pub(in crate::apply) bus: Bus,
    /// Whether the journal of this host is that of the units.
    journal: bool,
    /// What systemd said when it would not start a unit.
    refused: BTreeMap<String, String>,
    /// What was last said of a unit that is not well, with the lines of the journal that belong to it.
    told: BTreeMap<String, (String, String)>,
}

impl Jobs {
    /// `kind`: whose things are stirred when a unit changes. `bus`: where it is; absent: the system's.
    pub(in crate::apply) fn new(io: Handle, wake: Wake, kind: Kind, bus: Option<String>) -> Self {
        let (refused, told) = (BTreeMap::new(), BTreeMap::new());
        // What is on another bus has its journal elsewhere.
        let journal = bus.is_none();
        Self { bus: Bus::new(io.clone(), wake, kind, bus), io, journal, refused, told }
    }

    /// Forgets what was said of a unit.
    pub(in crate::apply) fn forget(&mut self, unit: &str) {
        self.refused.remove(unit);
        self.told.remove(unit);
    }

    /// Returns the last lines of a unit's journal, which are read anew when something else is to be said of it.
    fn with_lines(&mut self, unit: &str, why: String) -> String {
        if !self.journal {
            return why;
        }
        if self.told.get(unit).is_none_or(|(known, _)| *known != why) {
            let lines = checks::last_lines(&self.io, unit);
            self.told.insert(unit.to_owned(), (why.clone(), lines));
        }
        let lines = self.told.get(unit).map(|(_, lines)| lines.as_str()).unwrap_or_default();
        if lines.is_empty() { why } else { format!("{why}\n{lines}") }
    }

    /// Returns how a unit does, and whether somebody stopped it.
    pub(in crate::apply) fn condition(
        &mut self,
        name: &str,
        unit: &Unit,
        state: &State,
    ) -> Result<(Condition, bool), BusError> {
        let mut details = states::Details::default();
        let restarts = name.ends_with(".service") && state.active != "inactive";
        if !state.is_plain() {
            details = self.bus.details(name, state)?;
        } else if restarts && unit.start == Start::Now {
            self.forget(name);
        }
        let states::Verdict { condition, stopped } = states::judge(unit, state, &details);
        let refused = self.refused.get(name).filter(|_| stopped || state.load != "loaded").cloned();
        Ok(match (condition, refused) {
            (Condition::Ill(_) | Condition::Failed(_), Some(refused)) => {
                (Condition::Failed(format!("systemd does not start it: {refused}")), false)
            }
            (Condition::Ill(why), None) => (Condition::Ill(self.with_lines(name, why)), stopped),
            (Condition::Failed(why), None) => (Condition::Failed(self.with_lines(name, why)), stopped),
            (other, _) => (other, stopped),
        })
    }

    /// Has units that leave stop, those first that start others. Returns those that have not stopped yet. That one runs which
    /// must not be stopped (`RefuseManualStop=`) is an error, once all others are told to.
    pub(in crate::apply) fn stop(&mut self, leaving: &BTreeSet<&str>) -> Result<BTreeSet<String>, BusError> {
        let mut order: Vec<&str> = leaving.iter().copied().collect();
        order.sort_by_key(|unit| (unit.ends_with(".service"), unit.ends_with(".mount")));
        let states = self.bus.states(order.iter().copied())?;
        let mut refused = BTreeMap::new();
        for unit in order {
            let state = states.get(unit);
            let stops = |state: &State| state.rests() || state.job.as_deref() == Some("stop");
            if state.is_some_and(|state| !stops(state) && state.active != "deactivating") {
                match self.bus.ask("StopUnit", unit) {
                    // It may not be there any more.
                    Err(error) if error.is_about_the_unit() => {
                        refused.insert(unit.to_owned(), error);
                    }
                    other => other?,
                }
            }
        }
        let states = self.bus.states(leaving.iter().copied())?;
        if let Some((_, error)) = refused.into_iter().find(|(unit, _)| states.get(unit).is_some_and(runs_on)) {
            return Err(error);
        }
        Ok(states.into_iter().filter(|(_, state)| !state.rests()).map(|(unit, _)| unit).collect())
    }

    /// Has units of others that lost or got drop-ins run with them; with those of a template all its instances.
    pub(super) fn restart_others(&mut self, others: &BTreeMap<&str, OnChange>) -> Result<(), BusError> {
        let mut units: BTreeMap<String, OnChange> = BTreeMap::new();
        for (template, on_change) in others.iter().filter(|(unit, _)| names::is_template(unit)) {
            units.extend(self.bus.instances(template)?.into_iter().map(|unit| (unit, *on_change)));
        }
        let single = others.iter().filter(|(unit, _)| !names::is_template(unit));
        units.extend(single.map(|(unit, on_change)| ((*unit).to_owned(), *on_change)));
        for (unit, on_change) in &units {
            let method = match on_change {
                OnChange::Restart => "TryRestartUnit",
                OnChange::Reload => "ReloadOrTryRestartUnit",
                OnChange::Nothing => continue,
            };
            match self.bus.ask(method, unit) {
                Err(error) if error.is_about_the_unit() => tracing::debug!("{unit} is not restarted: {error}"),
                other => other?,
            }
        }
        Ok(())
    }

    /// Starts, restarts or reloads what is new or changed. Returns what runs on as it was, since systemd does not restart it,
    /// with what it says.
    pub(in crate::apply) fn start(
        &mut self,
        units: &BTreeMap<String, Unit>,
        fresh: &BTreeSet<&str>,
        changed: &BTreeSet<&str>,
    ) -> Result<BTreeMap<String, String>, BusError> {
        let mut refused = BTreeMap::new();
        for (name, unit) in units {
            let name = name.as_str();
            let touched = fresh.contains(name) || changed.contains(name);
            let passive = matches!(unit.start, Start::ByOthers { .. });
            if touched || passive {
                self.refused.remove(name);
                self.bus.forget_failure(name)?;
            }
            let method = match (unit.start, unit.on_change) {
                _ if !touched => continue,
                (Start::Never | Start::ByOthers { restart: false }, _) => continue,
                (Start::ByOthers { .. }, OnChange::Nothing) => continue,
                (Start::ByOthers { .. }, OnChange::Reload) => "ReloadOrTryRestartUnit",
                (Start::ByOthers { .. }, OnChange::Restart) => "TryRestartUnit",
                (Start::Now, OnChange::Restart) if changed.contains(name) => "RestartUnit",
                (Start::Now, OnChange::Reload) if changed.contains(name) => "ReloadOrRestartUnit",
                (Start::Now, _) => "StartUnit",
            };
            if name.ends_with(".socket") && method == "RestartUnit" {
                // systemd does not listen anew for a service that runs.
                for activated in unit.activates.iter().filter(|activated| units.contains_key(*activated)) {
                    match self.bus.ask("StopUnit", activated) {
                        Err(error) if error.is_about_the_unit() => {}
                        other => other?,
                    }
                }
            }
            match self.bus.ask(method, name) {
                Err(error) if error.is_about_the_unit() => {
                    self.refused.insert(name.to_owned(), error.to_string());
                    if changed.contains(name) {
                        refused.insert(name.to_owned(), error.to_string());
                    }
                }
                other => other?,
            }
            fault!("unit-asked");
        }
        let states = self.bus.states(refused.keys().map(String::as_str))?;
        refused.retain(|unit, _| states.get(unit).is_some_and(runs_on));
        Ok(refused)
    }
}

/// Whether a unit runs, is not about to stop, and has a file that can be read: nothing else tells that systemd leaves it so.
fn runs_on(state: &State) -> bool {
    let ends = state.active == "deactivating" || state.job.as_deref() == Some("stop");
    state.load == "loaded" && !state.rests() && !ends
}
