//! What carries requests: a connection for each agent, HTTP/2 over a few, or a new one each time.

mod dial;
mod http1;
mod mux;
mod once;
mod own;
mod socket;
pub mod tls;

use std::{path::PathBuf, sync::Arc};

pub use dial::Dialer;

use crate::simulator::{
    script::{Carrier, Script},
    tally::Tally,
    wire::{Ask, Fault, Told},
};

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
            Carrier::Own => Self::Own(own::Own::new(dialer, agents)),
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
