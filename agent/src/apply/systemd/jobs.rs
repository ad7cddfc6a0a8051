//! Having systemd stop, start and restart units. Nothing is waited for: how it went is observed.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Systemd,
    bus::BusError,
    names,
    states::State,
    units::{OnChange, Start, Units},
};
use crate::faults::fault;

impl Systemd {
    /// Has units that leave stop, those first that start others. Returns those that have not stopped yet.
    pub(super) fn stop(&mut self, leaving: &BTreeSet<&str>) -> Result<BTreeSet<String>, BusError> {
        let mut order: Vec<&str> = leaving.iter().copied().collect();
        order.sort_by_key(|unit| (unit.ends_with(".service"), unit.ends_with(".mount")));
        let states = self.bus.states(order.iter().copied())?;
        for unit in order {
            let state = states.get(unit);
            let stops = |state: &State| state.rests() || state.job.as_deref() == Some("stop");
            if state.is_some_and(|state| !stops(state) && state.active != "deactivating") {
                match self.bus.ask("StopUnit", unit) {
                    // It is not there any more.
                    Err(error) if error.is_about_the_unit() => {}
                    other => other?,
                }
            }
        }
        let running = |(_, state): &(&String, &State)| !state.rests();
        let states = self.bus.states(leaving.iter().copied())?;
        Ok(states.iter().filter(running).map(|(unit, _)| unit.clone()).collect())
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

    /// Starts, restarts or reloads what is new or changed.
    pub(super) fn start(
        &mut self,
        units: &Units,
        fresh: &BTreeSet<&str>,
        changed: &BTreeSet<&str>,
    ) -> Result<(), BusError> {
        for (name, unit) in &units.own {
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
                for activated in unit.activates.iter().filter(|activated| units.own.contains_key(*activated)) {
                    match self.bus.ask("StopUnit", activated) {
                        Err(error) if error.is_about_the_unit() => {}
                        other => other?,
                    }
                }
            }
            match self.bus.ask(method, name) {
                Err(error) if error.is_about_the_unit() => {
                    self.refused.insert(name.to_owned(), error.to_string());
                }
                other => other?,
            }
            fault!("unit-asked");
        }
        Ok(())
    }
}
