//! What carries requests: a connection for each agent, HTTP/2 over a few, or a new one each time.

mod dial;
mod http1;
mod mux;
mod once;
mod own;
mod socket;
pub mod tls;

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, ensure};

pub use dial::Dialer;

use crate::simulator::{
    script::{Carrier, Script},
    tally::Tally,
    wire::{Ask, Fault, Told},
};

/// Files that are open beside the agents' connections.
const SPARE: usize = 64;

/// Returns how many files this process may have open.
fn files() -> anyhow::Result<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft =
        line.and_then(|line| line.split_whitespace().next()).context("/proc/self/limits tells no limit of files")?;
    Ok(soft.parse().unwrap_or(usize::MAX))
}

/// Where the control plane is.
#[derive(Debug, Clone)]
pub struct Place {
    /// `HOST:PORT`.
    pub address: String,
    /// The certificates that are trusted, PEM; with them connections are encrypted.
    pub trusted: Option<PathBuf>,
}

/// What carries requests.
#[derive(Debug)]
pub enum Transport {
    /// A kept connection for each agent.
    Own(own::Own),
    /// HTTP/2 over a few connections.
    Mux(mux::Mux),
    /// A new connection each time.
    Once(once::Once),
}

impl Transport {
    /// Makes what `script` asks for, for agents from 0 to `agents`.
    pub fn new(place: &Place, script: &Script, agents: usize, tally: &Arc<Tally>) -> anyhow::Result<Self> {
        let protocol: &[u8] = if script.carrier == Carrier::Mux { b"h2" } else { b"http/1.1" };
        let dialer = Dialer::new(place, protocol, script.resumption, Arc::clone(tally))?;
        Ok(match script.carrier {
            Carrier::Own => {
                let most = files()?.saturating_sub(SPARE);
                ensure!(
                    agents <= most,
                    "a connection each for {agents} agents is more than this process may have open ({most}); raise the \
                     limit (`ulimit -n`), or let them share connections with `--carrier mux`"
                );
                Self::Own(own::Own::new(dialer, agents))
            }
            Carrier::Mux => Self::Mux(mux::Mux::new(dialer, script.connections.min(agents.max(1)))),
            Carrier::Once => Self::Once(once::Once::new(dialer)),
        })
    }

    /// Sends a request of an agent and returns the answer; a `slow` agent reads it in small bites, with pauses.
    pub async fn exchange(&self, agent: u32, ask: &Ask, slow: bool) -> Result<Told, Fault> {
        let mut told = match self {
            Self::Mux(mux) => mux.exchange(agent, ask, slow).await,
            // Those with a connection of their own are fewer, and are larger.
            Self::Own(own) => Box::pin(own.exchange(agent, ask, slow)).await,
            Self::Once(once) => Box::pin(once.exchange(ask, slow)).await,
        }?;
        told.unpack()?;
        Ok(told)
    }

    /// Closes the connection that an agent has to itself.
    pub fn close(&self, agent: u32) {
        if let Self::Own(own) = self {
            own.close(agent);
        }
    }

    /// Drops every connection that is open.
    pub async fn drop_all(&self) {
        match self {
            Self::Own(own) => own.drop_all(),
            Self::Mux(mux) => mux.drop_all().await,
            Self::Once(_) => {}
        }
    }
}
