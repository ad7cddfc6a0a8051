//! Being told when a unit changes, instead of asking again and again.

use std::{future::poll_fn, pin::Pin, time::Duration};

use titan_api::templates::Applier as Kind;
use tokio::time::{Instant, sleep_until};
use zbus::{Connection, MessageStream, export::futures_core::Stream as _, message::Type};

use super::{Bus, BusError, MANAGER, MANAGER_PATH, PATIENCE, PROPERTIES, SYSTEMD, in_time};
use crate::{apply::systemd::names, wake::Wake};

const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
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

    /// Has systemd send signals, and listens to them.
    pub(super) fn listen(&self, connection: &Connection) -> Result<(), BusError> {
        let subscribe = connection.call_method(Some(SYSTEMD), MANAGER_PATH, Some(MANAGER), "Subscribe", &());
        self.io.block_on(in_time(PATIENCE, subscribe))?;
        for member in ["Reloading", "UnitFilesChanged"] {
            self.match_rule(
                connection,
                &format!(
                    "type='signal',sender='{SYSTEMD}',path='{MANAGER_PATH}',interface='{MANAGER}',member='{member}'"
                ),
            )?;
        }
        let (stream, wake) = (MessageStream::from(connection), self.wake.clone());
        self.io.spawn(hear(stream, wake, self.kind));
        Ok(())
    }

    /// Listens to what these units do, if it does not yet.
    pub(super) fn watch_units(&mut self, units: &[&str]) -> Result<(), BusError> {
        if !self.watching {
            return Ok(());
        }
        let connection = self.connection()?;
        for unit in units {
            if self.watched.contains(*unit) || self.watched.contains(ALL) {
                continue;
            }
            let all = self.watched.len() >= SINGLE;
            let which = if all { ALL.to_owned() } else { format!("path='{}'", names::bus_path(unit)) };
            let rule = format!(
                "type='signal',sender='{SYSTEMD}',{which},interface='{PROPERTIES}',member='PropertiesChanged',arg0='{SYSTEMD}.Unit'"
            );
            self.match_rule(&connection, &rule)?;
            self.watched.insert(if all { ALL } else { *unit }.to_owned());
        }
        Ok(())
    }

    fn match_rule(&self, connection: &Connection, rule: &str) -> Result<(), BusError> {
        let add = connection.call_method(Some(BUS), BUS_PATH, Some(BUS), "AddMatch", &rule);
        self.io.block_on(in_time(PATIENCE, add)).map(drop)
    }
}

/// Wakes the agent for signals until the connection ends, and once more then.
async fn hear(mut stream: MessageStream, wake: Wake, kind: Kind) {
    let mut rests_until = Instant::now();
    let mut due = false;
    loop {
        let next = poll_fn(|context| Pin::new(&mut stream).poll_next(context));
        tokio::select! {
            message = next => match message {
                Some(Ok(message)) => due |= message.message_type() == Type::Signal,
                // Some were lost: that is as good as one that came.
                Some(Err(_)) => due = true,
                None => break,
            },
            () = sleep_until(rests_until), if due => {
                wake.stirred(kind);
                due = false;
                rests_until = Instant::now() + REST;
            }
        }
    }
    wake.stirred(kind);
}
