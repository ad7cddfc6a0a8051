//! systemd over D-Bus: one connection, made when it is needed and again when it is lost. No call hangs.

mod connection;
mod signals;
#[cfg(test)]
mod tests;
mod values;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    time::Duration,
};

use titan_api::templates::Applier as Kind;
use tokio::{runtime::Handle, time::timeout};

use self::{
    connection::Connection,
    values::Value,
    wire::{Argument, Call},
};
use super::{
    names,
    states::{Details, State},
};
use crate::{apply::ApplyError, wake::Wake};

const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long systemd may take to read all its files.
const RELOAD_PATIENCE: Duration = Duration::from_secs(10);

/// Why a call failed.
#[derive(Debug)]
pub(in crate::apply) enum BusError {
    /// systemd could not be reached.
    Away(String),
    /// It said no.
    Refused {
        /// The error's name, such as `org.freedesktop.systemd1.NoSuchUnit`.
        name: String,
        /// What it said.
        message: String,
    },
}

/// The connection.
pub(in crate::apply) struct Bus {
    io: Handle,
    address: String,
    wake: Wake,
    kind: Kind,
    connection: Option<Connection>,
    watching: bool,
    watched: BTreeSet<String>,
    reloads: u64,
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("address", &self.address).finish_non_exhaustive()
    }
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(message) => write!(f, "systemd does not answer on the bus: {message}"),
            Self::Refused { message, .. } => f.write_str(message),
        }
    }
}

impl BusError {
    pub(in crate::apply) fn doing(self, what: &str) -> ApplyError {
        ApplyError::Platform { what: what.to_owned(), message: self.to_string() }
    }

    /// Whether it is about the unit alone, whose state then tells of it.
    pub(super) fn is_about_the_unit(&self) -> bool {
        matches!(self, Self::Refused { name, .. } if name.starts_with(SYSTEMD))
    }
}

impl BusError {
    /// Returns what an answer of this name means.
    fn said(name: String, message: Option<String>) -> Self {
        let gone = ["ServiceUnknown", "NameHasNoOwner", "NoReply", "Disconnected", "Spawn"];
        let of_the_bus = name.strip_prefix("org.freedesktop.DBus.Error.");
        if of_the_bus.is_some_and(|kind| gone.iter().any(|gone| kind.contains(gone))) {
            return Self::Away(message.unwrap_or(name));
        }
        Self::Refused { message: message.unwrap_or_else(|| name.clone()), name }
    }

    fn strange() -> Self {
        Self::Away("it answers what it should not".to_owned())
    }
}

/// Returns a call of the bus itself.
const fn bus_call(method: &str) -> Call<'_> {
    Call { destination: BUS, path: BUS_PATH, interface: BUS, method }
}

/// Returns a call of systemd's manager.
const fn manager_call(method: &str) -> Call<'_> {
    Call { destination: SYSTEMD, path: MANAGER_PATH, interface: MANAGER, method }
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = Result<T, BusError>>) -> Result<T, BusError> {
    match timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(BusError::Away(format!("nothing came within {} s", limit.as_secs()))),
    }
}

impl Bus {
    /// `kind`: whose things are stirred when a unit changes. `address`: where the bus is, as D-Bus writes it; absent: the system's.
    pub(super) fn new(io: Handle, wake: Wake, kind: Kind, address: Option<String>) -> Self {
        let address = address.unwrap_or_else(|| "unix:path=/run/dbus/system_bus_socket".to_owned());
        Self { io, address, wake, kind, connection: None, watching: false, watched: BTreeSet::new(), reloads: 0 }
    }

    /// Makes a connection if there is none.
    fn connect(&mut self) -> Result<(), BusError> {
        if self.connection.as_ref().is_some_and(|connection| !connection.is_closed()) {
            return Ok(());
        }
        let open = in_time(PATIENCE, Connection::open(&self.address));
        self.connection = Some(self.io.block_on(open)?);
        if self.watching {
            self.watched.clear();
            let listens = self.listen();
            if listens.is_err() {
                // The next one listens, or is none either.
                self.connection = None;
            }
            return listens;
        }
        Ok(())
    }

    fn call(&mut self, call: Call<'_>, arguments: &[Argument<'_>], limit: Duration) -> Result<Vec<Value>, BusError> {
        self.connect()?;
        self.say(call, arguments, limit)
    }

    /// Makes a call over the connection that there is.
    fn say(&mut self, call: Call<'_>, arguments: &[Argument<'_>], limit: Duration) -> Result<Vec<Value>, BusError> {
        let gone = || BusError::Away("the connection has ended".to_owned());
        let connection = self.connection.as_mut().ok_or_else(gone)?;
        let answer = self.io.block_on(in_time(limit, connection.call(call, arguments)));
        if matches!(answer, Err(BusError::Away(_))) {
            // Whatever is wrong with it, the next call begins with a new one.
            self.connection = None;
        }
        answer
    }

    fn manager(&mut self, method: &str, arguments: &[Argument<'_>]) -> Result<Vec<Value>, BusError> {
        self.call(manager_call(method), arguments, PATIENCE)
    }

    /// Has systemd read all its files again.
    pub(in crate::apply) fn reload(&mut self) -> Result<(), BusError> {
        self.reloads += 1;
        self.call(manager_call("Reload"), &[], RELOAD_PATIENCE).map(drop)
    }

    /// Returns how often systemd was asked to read its files again.
    #[cfg(test)]
    pub(super) const fn reloads(&self) -> u64 {
        self.reloads
    }

    /// Has something done with a unit, without waiting for it: `StartUnit`, `StopUnit`, `RestartUnit`, ...
    pub(in crate::apply) fn ask(&mut self, method: &str, unit: &str) -> Result<(), BusError> {
        tracing::debug!("{method} {unit}");
        self.manager(method, &[Argument::Text(unit), Argument::Text("replace")]).map(drop)
    }

    /// Forgets that a unit failed; it is fine if it did not or is not known.
    pub(super) fn forget_failure(&mut self, unit: &str) -> Result<(), BusError> {
        match self.manager("ResetFailedUnit", &[Argument::Text(unit)]) {
            Err(BusError::Refused { .. }) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Forgets a unit that leaves: that it failed, and to listen to it.
    pub(in crate::apply) fn leave(&mut self, unit: &str) -> Result<(), BusError> {
        self.forget_failure(unit)?;
        self.unwatch(unit)
    }

    /// Returns the states of units, in one call.
    pub(in crate::apply) fn states<'a>(
        &mut self,
        units: impl IntoIterator<Item = &'a str>,
    ) -> Result<BTreeMap<String, State>, BusError> {
        let units: Vec<&str> = units.into_iter().collect();
        if units.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.watch_units(&units)?;
        let answer = self.manager("ListUnitsByNames", &[Argument::Texts(&units)])?;
        let Some(Value::List(listed)) = answer.into_iter().next() else { return Err(BusError::strange()) };
        // A name that is another one for the same unit is told as that one; the order is that of the question.
        let known = units.len() == listed.len();
        let state = |(index, row): (usize, Value)| {
            let (name, state) = listed_unit(row).ok_or_else(BusError::strange)?;
            Ok((if known { units[index].to_owned() } else { name }, state))
        };
        listed.into_iter().enumerate().map(state).collect()
    }

    /// Returns the instances of a template that systemd knows.
    pub(super) fn instances(&mut self, template: &str) -> Result<Vec<String>, BusError> {
        let pattern = names::instances_pattern(template);
        let arguments = [Argument::Texts(&[]), Argument::Texts(&[&pattern])];
        let answer = self.manager("ListUnitsByPatterns", &arguments)?;
        let Some(Value::List(listed)) = answer.into_iter().next() else { return Err(BusError::strange()) };
        let names = listed.into_iter().filter_map(|row| Some(listed_unit(row)?.0));
        Ok(names.filter(|name| names::instance(name).is_some_and(|(of, _)| of == template)).collect())
    }

    /// Returns one property of a unit, or `None` if it has none of that name and type.
    pub(in crate::apply) fn property<T>(
        &mut self,
        unit: &str,
        interface: &str,
        name: &str,
    ) -> Result<Option<T>, BusError>
    where
        T: TryFrom<Value>,
    {
        Ok(self.value(unit, interface, name)?.and_then(|value| T::try_from(value).ok()))
    }

    fn value(&mut self, unit: &str, interface: &str, name: &str) -> Result<Option<Value>, BusError> {
        let interface = format!("{SYSTEMD}.{interface}");
        let path = names::bus_path(unit);
        let get = Call { destination: SYSTEMD, path: &path, interface: PROPERTIES, method: "Get" };
        match self.call(get, &[Argument::Text(&interface), Argument::Text(name)], PATIENCE) {
            Ok(values) => Ok(values.into_iter().next()),
            Err(BusError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the file that a unit is made from, if there is one.
    pub(in crate::apply) fn file_of(&mut self, unit: &str) -> Result<Option<String>, BusError> {
        self.manager("LoadUnit", &[Argument::Text(unit)])?;
        Ok(self.property::<String>(unit, "Unit", "FragmentPath")?.filter(|path| !path.is_empty()))
    }

    /// Returns what more there is to know about a unit that is not as it should be.
    pub(super) fn details(&mut self, unit: &str, state: &State) -> Result<Details, BusError> {
        let mut details = Details::default();
        if state.load != "loaded" {
            details.load_error = self.load_error(unit)?;
            return Ok(details);
        }
        let interface = match names::suffix(unit) {
            Some(".service") => "Service",
            Some(".socket") => "Socket",
            Some(".timer") => "Timer",
            Some(".path") => "Path",
            Some(".mount") => "Mount",
            Some(".automount") => "Automount",
            Some(".swap") => "Swap",
            _ => "Unit",
        };
        details.result = self.property(unit, interface, "Result")?;
        if interface == "Service" {
            details.exit = self.property(unit, interface, "ExecMainStatus")?;
            details.restarts = self.property(unit, interface, "NRestarts")?;
        }
        if state.active == "inactive" {
            let tried = |time: Option<u64>| time.is_some_and(|time| time > 0);
            details.passed_over = tried(self.property(unit, "Unit", "ConditionTimestamp")?)
                && self.property(unit, "Unit", "ConditionResult")? == Some(false);
            details.asserted = tried(self.property(unit, "Unit", "AssertTimestamp")?)
                && self.property(unit, "Unit", "AssertResult")? == Some(false);
        }
        Ok(details)
    }

    fn load_error(&mut self, unit: &str) -> Result<Option<String>, BusError> {
        // An error's name and what it says.
        let Some(Value::Row(pair)) = self.value(unit, "Unit", "LoadError")? else { return Ok(None) };
        Ok(pair.into_iter().nth(1).and_then(|message| message.try_into().ok()))
    }
}

/// Returns one unit as `ListUnitsByNames` tells of it.
fn listed_unit(row: Value) -> Option<(String, State)> {
    let Value::Row(row) = row else { return None };
    let [name, _, load, active, sub, _, _, job, kind, _] = <[Value; 10]>::try_from(row).ok()?;
    let text = |value: Value| String::try_from(value).ok();
    let job = (u32::try_from(job).ok()? != 0).then_some(text(kind)?);
    Some((text(name)?, State { load: text(load)?, active: text(active)?, sub: text(sub)?, job }))
}
