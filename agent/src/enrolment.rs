//! Enrolling: a one-time token is traded for the host's own credential.

use serde::{Deserialize, Serialize};
use titan_api::{
    Digest, Name,
    client::{Client, ClientError, SystemTrust},
    enrolment::EnrolRequest,
};
use uuid::Uuid;

use crate::{
    config::{Secret, Settings},
    disk::{self, DiskError},
    facts,
    identity::Identity,
    ledger::Ledger,
    state::{StateDir, StateError},
};

const ATTEMPT: &str = "enrolment.json";

/// Why a host cannot enrol.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The control plane did not answer, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The state directory belongs to another host that still runs something.
    #[error("{dir} belongs to host {host}, which has {count} deployments; use another --state-dir")]
    OtherHost {
        /// The state directory.
        dir: String,
        /// The host that it belongs to.
        host: Name,
        /// How many deployments it has.
        count: usize,
    },
}

impl From<DiskError> for EnrolError {
    fn from(error: DiskError) -> Self {
        Self::State(error.into())
    }
}

/// An attempt to enrol, kept until an answer came, so that a lost answer does not waste the token.
#[derive(Serialize, Deserialize)]
struct Attempt {
    key: Uuid,
    host: Name,
    token: Digest,
}

/// Enrols the host at `server` with a one-time `token`, and writes identity and credential into the state directory.
/// The same call again, after an answer that got lost, gets a credential again.
pub async fn enrol(settings: &Settings, server: &str, host: &Name, token: &Secret) -> Result<(), EnrolError> {
    let client = Client::trusting(server, None, SystemTrust::on_a_host(None))?;
    let state = StateDir::new(&settings.state_dir);
    let _lock = state.lock_soon()?;
    if let Some(other) = Identity::read(&state)?.filter(|known| known.host != *host) {
        let count = Ledger::read(&state)?.entries.len();
        if count > 0 {
            let dir = settings.state_dir.display().to_string();
            return Err(EnrolError::OtherHost { dir, host: other.host, count });
        }
    }
    let digest = Digest::of(token.reveal().as_bytes());
    let known: Option<Attempt> = disk::read_json(&state.file(ATTEMPT))?;
    let attempt = match known.filter(|known| known.host == *host && known.token == digest) {
        Some(known) => known.key,
        None => {
            let key = Uuid::new_v4();
            disk::write_json(&state.file(ATTEMPT), &Attempt { key, host: host.clone(), token: digest })?;
            key
        }
    };
    let request =
        EnrolRequest { host: host.clone(), token: token.reveal().to_owned(), attempt, facts: facts::gather() };
    let answer = client.enrol(&request).await?;
    let identity = Identity { host: answer.host, host_id: answer.host_id, server: client.server().to_owned() };
    let changed = Identity::read(&state)?.is_some_and(|known| known.host_id != identity.host_id);
    if changed {
        // Another host: what the former one was told means nothing to it.
        disk::remove(&state.file("desired.json"))?;
        disk::remove(&state.file("outbox.json"))?;
    }
    identity.write(&state, &Secret::new(answer.credential))?;
    disk::remove(&state.file(ATTEMPT))?;
    Ok(())
}
