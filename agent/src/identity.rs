//! Who the host is towards the control plane: its name, and the credential that proves it.

use serde::{Deserialize, Serialize};
use titan_api::Name;
use uuid::Uuid;

use crate::{
    config::Secret,
    disk::{self, DiskError},
    state::StateDir,
};

const IDENTITY: &str = "identity.json";
const CREDENTIAL: &str = "credential";

/// The host's identity as enrolling gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Identity {
    /// The host's name.
    pub(crate) host: Name,
    /// The host's id.
    pub(crate) host_id: Uuid,
    /// The control plane that it enrolled with.
    pub(crate) server: String,
}

impl Identity {
    /// Returns the identity in a state directory, or `None` before enrolling.
    pub(crate) fn read(state: &StateDir) -> Result<Option<Self>, DiskError> {
        disk::read_json(&state.file(IDENTITY))
    }

    /// Returns the credential, or `None` before enrolling.
    pub(crate) fn credential(state: &StateDir) -> Result<Option<Secret>, DiskError> {
        let bytes = disk::read(&state.file(CREDENTIAL))?;
        Ok(bytes.map(|bytes| Secret::new(String::from_utf8_lossy(&bytes).trim().to_owned())))
    }

    /// Writes both down; the identity last, so that it never stands without a credential.
    pub(crate) fn write(&self, state: &StateDir, credential: &Secret) -> Result<(), DiskError> {
        disk::write(&state.file(CREDENTIAL), credential.reveal().as_bytes())?;
        disk::write_json(&state.file(IDENTITY), self)
    }
}
