//! Being told when a unit changes, instead of asking again and again.

use std::time::Duration;

use titan_api::templates::Applier as Kind;
use tokio::{sync::watch, time::sleep};

use super::{Argument, Bus, BusError, MANAGER, MANAGER_PATH, PATIENCE, PROPERTIES, SYSTEMD, bus_call, manager_call};
use crate::{apply::systemd::names, wake::Wake};

/// Units that are watched one by one; with more of them all units of the host are. A bus allows 512 rules.
const SINGLE: usize = 256;
/// Between two times that the agent is woken: a unit that is restarted again and again does not keep it busy.
const REST: Duration = Duration::from_millis(250);
/// The rule for all units.
const ALL: &str = "path_namespace='/org/freedesktop/systemd1/unit'";

impl Bus {
    /// Wakes the agent from now on whenever a unit that it asked for changes.
    pub(in crate::apply) fn watch(&mut self) {
        self.watching = true;
    }

    /// Has systemd send signals over the connection that there is, and listens to them.
    pub(super) fn listen(&mut self) -> Result<(), BusError> {
        self.say(manager_call("Subscribe"), &[], PATIENCE)?;
        for member in ["Reloading", "UnitFilesChanged"] {
            self.match_rule(&format!(
                "type='signal',sender='{SYSTEMD}',path='{MANAGER_PATH}',interface='{MANAGER}',member='{member}'"
            ))?;
        }
        if let Some(connection) = &self.connection {
            self.io.spawn(hear(connection.signals(), self.wake.clone(), self.kind));
        }
        Ok(())
    }

    /// Listens to what these units do, if it does not yet.
    pub(super) fn watch_units(&mut self, units: &[&str]) -> Result<(), BusError> {
        if !self.watching {
            return Ok(());
        }
        self.connect()?;
        for unit in units {
            if self.watched.contains(*unit) || self.watched.contains(ALL) {
                continue;
            }
            let all = self.watched.len() >= SINGLE;
            self.match_rule(&if all { changes_of(ALL) } else { changes_of_unit(unit) })?;
            self.watched.insert(if all { ALL } else { *unit }.to_owned());
        }
        Ok(())
    }

    /// Listens no more to a unit that leaves, should it be listened to by itself: those of a host that gets new ones again
    /// and again are no more than it has.
    pub(in crate::apply) fn unwatch(&mut self, unit: &str) -> Result<(), BusError> {
        if self.connection.is_none() || !self.watched.remove(unit) {
            return Ok(());
        }
        match self.say(bus_call("RemoveMatch"), &[Argument::Text(&changes_of_unit(unit))], PATIENCE) {
            Err(BusError::Refused { .. }) => Ok(()),
            other => other.map(drop),
        }
    }

    fn match_rule(&mut self, rule: &str) -> Result<(), BusError> {
        self.say(bus_call("AddMatch"), &[Argument::Text(rule)], PATIENCE).map(drop)
    }
}

/// Returns the rule for changes of a unit's state.
fn changes_of_unit(unit: &str) -> String {
    changes_of(&format!("path='{}'", names::bus_path(unit)))
}

fn changes_of(which: &str) -> String {
    format!(
        "type='signal',sender='{SYSTEMD}',{which},interface='{PROPERTIES}',member='PropertiesChanged',arg0='{SYSTEMD}.Unit'"
    )
}

/// Wakes the agent for signals until the connection ends, and once more then.
async fn hear(mut signals: watch::Receiver<()>, wake: Wake, kind: Kind) {
    while signals.changed().await.is_ok() {
        wake.stirred(kind);
        sleep(REST).await;
    }
    wake.stirred(kind);
}
