//! Probes: questions that tell whether a deployment works. Each gets an answer within its timeout, or counts as failed.
//!
//! A probe tells the control plane whether, not what: neither the body of an answer nor the content of a file goes into
//! what is reported, and a file that not everybody on the host may read is not searched.

mod exec;
mod file;
mod http;
mod tcp;

use std::{path::PathBuf, time::Duration};

use titan_api::health::Probe;

use crate::{apply::Target, config::appliers::Exec};
pub(crate) use http::Callers;

/// How much of a body or a file is searched, in bytes.
const SEARCHED: usize = 64 * 1024;

/// What a probe needs beside what it says itself.
#[derive(Debug, Clone)]
pub(crate) struct ProbeGround {
    /// The deployment.
    pub(crate) target: Target,
    /// The deployment's own directory, absolute.
    pub(crate) home: PathBuf,
    /// What the host's owner allows of commands.
    pub(crate) exec: Option<Exec>,
    /// How long a probe may take.
    pub(crate) timeout: Duration,
    /// Whether the control plane answered a poll since the switch.
    pub(crate) polled: bool,
    /// Who asks URLs.
    pub(crate) callers: Callers,
}

/// Asks a probe. The error says why it does not hold, for people.
///
/// Needs a runtime with IO and time; blocks nothing.
pub(crate) async fn ask(probe: &Probe, ground: &ProbeGround) -> Result<(), String> {
    let answer = async {
        match probe {
            Probe::Http(probe) => http::ask(probe, &ground.callers).await,
            Probe::Tcp(probe) => tcp::ask(probe).await,
            Probe::Exec(probe) => exec::ask(probe, ground).await,
            Probe::File(probe) => file::ask(probe, &ground.home).await,
            Probe::ControlPlane {} if ground.polled => Ok(()),
            Probe::ControlPlane {} => Err("the control plane has not answered a poll since the switch".to_owned()),
        }
    };
    // A command minds its time itself, so that what it wrote until then is told.
    if matches!(probe, Probe::Exec(_)) {
        return answer.await;
    }
    let late = |_| Err(format!("no answer within {:?}", ground.timeout));
    tokio::time::timeout(ground.timeout, answer).await.unwrap_or_else(late)
}

/// Whether `text` is in `bytes`, of which the caller has seen to it that they are few.
fn holds(bytes: &[u8], text: &str) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[cfg(test)]
mod tests;
