//! Word to the service manager that started the agent, as `sd_notify(3)` describes it: ready, alive, stopping.

use std::{
    convert::Infallible,
    ffi::OsString,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use crate::pulse::Pulse;

/// The service manager, if there is one that wants to hear anything.
#[derive(Debug, Default)]
pub(crate) struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Returns the one that the environment (through `env`) names for process `id`.
    pub(crate) fn of(id: u32, env: impl Fn(&str) -> Option<OsString>) -> Self {
        let socket = env("NOTIFY_SOCKET").and_then(|name| {
            let opened = address(name.as_bytes()).and_then(|address| Ok((UnixDatagram::unbound()?, address)));
            opened.inspect_err(|error| tracing::warn!("the service manager cannot be told anything: {error}")).ok()
        });
        let number = |key: &str| env(key)?.to_str()?.parse::<u64>().ok();
        let for_another = env("WATCHDOG_PID").is_some() && number("WATCHDOG_PID") != Some(u64::from(id));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && !for_another);
        Self { socket, watchdog: watchdog.map(Duration::from_micros) }
    }

    /// Says that the agent has its state directory and begins to poll.
    pub(crate) fn ready(&self) {
        self.say("READY=1");
    }

    /// Says that the agent ends because it was told to.
    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Says twice in the watchdog's time that the agent is alive, for good; where nobody watches it just stays.
    ///
    /// It has to run on the thread that polls: should that one ever hang, nothing more is said. Nor is it while `pulse` is not
    /// felt.
    pub(crate) async fn keep_alive(&self, pulse: &Pulse) -> Infallible {
        let Some(pause) = self.watchdog.map(|watchdog| watchdog / 2) else { return std::future::pending().await };
        loop {
            if pulse.is_felt() {
                self.say("WATCHDOG=1");
            } else {
                tracing::error!(
                    "the work on this host does not come to an end: the service manager is to start the agent anew"
                );
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn say(&self, word: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(word.as_bytes(), address) {
            tracing::warn!("the service manager cannot be told {word}: {error}");
        }
    }
}

/// Returns the address that `NOTIFY_SOCKET` means: a path, or after `@` a name of Linux's own.
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    match name.split_first() {
        Some((b'@', rest)) => SocketAddr::from_abstract_name(rest),
        Some((b'/', _)) => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)),
        _ => Err(io::Error::other("NOTIFY_SOCKET is neither a path nor a name after @")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(socket: &str, id: u32, more: &[(&str, &str)]) -> ServiceManager {
        let value = |key: &str| {
            let named = more.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
            named.or((key == "NOTIFY_SOCKET").then_some(socket)).map(OsString::from)
        };
        ServiceManager::of(id, value)
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 64];
        let length = socket.recv(&mut bytes).expect("a word");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn the_service_manager_hears_that_the_agent_is_ready_alive_and_stopping() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let manager =
            manager(path.to_str().expect("a path"), 7, &[("WATCHDOG_USEC", "20000000"), ("WATCHDOG_PID", "7")]);
        manager.ready();
        // The clock stands at 0, 10 and 20 s when it is told, and at 30 s when this ends.
        let told = tokio::time::timeout(Duration::from_secs(29), manager.keep_alive(&Pulse::default())).await;
        assert!(told.is_err(), "it goes on");
        manager.stopping();
        let words: Vec<_> = (0..5).map(|_| heard(&socket)).collect();
        assert_eq!(words, ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_said_while_the_work_does_not_come_to_an_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let manager = manager(path.to_str().expect("a path"), 7, &[("WATCHDOG_USEC", "9600000000")]);
        let pulse = Pulse::default();
        let _hangs = pulse.begin();
        // Told at once and after 80 minutes; not after 160 and 240.
        let told = tokio::time::timeout(Duration::from_mins(250), manager.keep_alive(&pulse)).await;
        assert!(told.is_err(), "it goes on");
        manager.stopping();
        let words: Vec<_> = (0..3).map(|_| heard(&socket)).collect();
        assert_eq!(words, ["WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]);
    }

    #[test]
    fn names_of_linux_s_own_are_understood() {
        let name = format!("titan-agent-{}", std::process::id());
        let socket =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).expect("a name")).expect("a socket");
        manager(&format!("@{name}"), 7, &[]).ready();
        assert_eq!(heard(&socket), "READY=1");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_watchdog_or_with_one_for_another_process_nothing_is_repeated() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_nonblocking(true).expect("a socket that does not wait");
        for more in [&[][..], &[("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "8")], &[("WATCHDOG_USEC", "soon")]] {
            let manager = manager(path.to_str().expect("a path"), 7, more);
            assert!(tokio::time::timeout(Duration::from_secs(9), manager.keep_alive(&Pulse::default())).await.is_err());
            assert!(socket.recv(&mut [0; 64]).is_err(), "{more:?}");
        }
        manager("nowhere", 7, &[("WATCHDOG_USEC", "1000")]).ready();
    }
}
