//! systemd over D-Bus: one connection, made when it is needed and again when it is lost. No call hangs.

mod signals;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use titan_api::templates::Applier as Kind;
use tokio::{runtime::Handle, time::timeout};
use zbus::{Connection, OwnedObjectPath, OwnedVariant, Type, Variant, connection::Builder};

use super::{
    names,
    states::{Details, State},
};
use crate::{apply::ApplyError, wake::Wake};

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

/// One unit as `ListUnitsByNames` tells of it.
type Listed = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

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

impl From<zbus::Error> for BusError {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, message, _) => {
                let message = message.unwrap_or_else(|| name.to_string());
                Self::Refused { name: name.to_string(), message }
            }
            zbus::Error::FDO(error) => {
                use zbus::DBusError as _;
                let name = error.name().to_string();
                let gone = ["ServiceUnknown", "NameHasNoOwner", "NoReply", "Disconnected", "Spawn"];
                if gone.iter().any(|kind| name.contains(kind)) {
                    Self::Away(error.to_string())
                } else {
                    Self::Refused { message: error.description().unwrap_or(&name).to_owned(), name }
                }
            }
            error => Self::Away(error.to_string()),
        }
    }
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = zbus::Result<T>>) -> Result<T, BusError> {
    match timeout(limit, work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(BusError::Away(format!("nothing came within {} s", limit.as_secs()))),
    }
}

impl Bus {
    /// `kind`: whose things are stirred when a unit changes. `address`: where the bus is, as D-Bus writes it; absent: the system's.
    pub(super) fn new(io: Handle, wake: Wake, kind: Kind, address: Option<String>) -> Self {
        let address = address.unwrap_or_else(|| "unix:path=/run/dbus/system_bus_socket".to_owned());
        Self { io, address, wake, kind, connection: None, watching: false, watched: BTreeSet::new(), reloads: 0 }
    }

    /// Returns the connection, after making it if there is none.
    fn connection(&mut self) -> Result<Connection, BusError> {
        if let Some(connection) = self.connection.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let address = self.address.clone();
        let build = async move { Builder::address(address.as_str()).build().await };
        let connection = self.io.block_on(in_time(PATIENCE, build))?;
        self.connection = Some(connection.clone());
        if self.watching {
            self.watched.clear();
            self.listen(&connection)?;
        }
        Ok(connection)
    }

    fn call<B, R>(
        &mut self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
        limit: Duration,
    ) -> Result<R, BusError>
    where
        B: Serialize + Type,
        R: DeserializeOwned + Type,
    {
        let connection = self.connection()?;
        let call = connection.call_method(Some(SYSTEMD), path, Some(interface), method, body);
        let reply = self.io.block_on(in_time(limit, call));
        if matches!(reply, Err(BusError::Away(_))) {
            // Whatever is wrong with it, the next call begins with a new one.
            self.connection = None;
        }
        reply?.body().deserialize_ignore_signature().map_err(|error: zbus::Error| BusError::Away(error.to_string()))
    }

    fn manager<B, R>(&mut self, method: &str, body: &B) -> Result<R, BusError>
    where
        B: Serialize + Type,
        R: DeserializeOwned + Type,
    {
        self.call(MANAGER_PATH, MANAGER, method, body, PATIENCE)
    }

    /// Has systemd read all its files again.
    pub(in crate::apply) fn reload(&mut self) -> Result<(), BusError> {
        self.reloads += 1;
        self.call::<_, ()>(MANAGER_PATH, MANAGER, "Reload", &(), RELOAD_PATIENCE)
    }

    /// Returns how often systemd was asked to read its files again.
    #[cfg(test)]
    pub(super) const fn reloads(&self) -> u64 {
        self.reloads
    }

    /// Has something done with a unit, without waiting for it: `StartUnit`, `StopUnit`, `RestartUnit`, ...
    pub(in crate::apply) fn ask(&mut self, method: &str, unit: &str) -> Result<(), BusError> {
        tracing::debug!("{method} {unit}");
        self.manager::<_, OwnedObjectPath>(method, &(unit, "replace")).map(drop)
    }

    /// Forgets that a unit failed; it is fine if it did not or is not known.
    pub(in crate::apply) fn forget_failure(&mut self, unit: &str) -> Result<(), BusError> {
        match self.manager::<_, ()>("ResetFailedUnit", &unit) {
            Err(BusError::Refused { .. }) => Ok(()),
            other => other,
        }
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
        let listed: Vec<Listed> = self.manager("ListUnitsByNames", &units)?;
        // A name that is another one for the same unit is told as that one; the order is that of the question.
        let known = units.len() == listed.len();
        let state = |(index, (name, _, load, active, sub, _, _, job, kind, _)): (usize, Listed)| {
            let name = if known { units[index].to_owned() } else { name };
            (name, State { load, active, sub, job: (job != 0).then_some(kind) })
        };
        Ok(listed.into_iter().enumerate().map(state).collect())
    }

    /// Returns one property of a unit, or `None` if it has none of that name and type.
    pub(in crate::apply) fn property<T>(
        &mut self,
        unit: &str,
        interface: &str,
        name: &str,
    ) -> Result<Option<T>, BusError>
    where
        T: TryFrom<OwnedVariant>,
    {
        let interface = format!("{SYSTEMD}.{interface}");
        let path = names::bus_path(unit);
        match self.call::<_, OwnedVariant>(&path, PROPERTIES, "Get", &(interface.as_str(), name), PATIENCE) {
            Ok(value) => Ok(T::try_from(value).ok()),
            Err(BusError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the file that a unit is made from, if there is one.
    pub(in crate::apply) fn file_of(&mut self, unit: &str) -> Result<Option<String>, BusError> {
        self.manager::<_, OwnedObjectPath>("LoadUnit", &unit)?;
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
        let (path, interface) = (names::bus_path(unit), format!("{SYSTEMD}.Unit"));
        match self.call::<_, OwnedVariant>(&path, PROPERTIES, "Get", &(interface.as_str(), "LoadError"), PATIENCE) {
            Ok(value) => {
                let pair = zbus::Structure::try_from(Variant::from(value)).and_then(<(String, String)>::try_from);
                Ok(pair.ok().map(|(_, message)| message))
            }
            Err(BusError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
