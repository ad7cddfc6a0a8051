//! What `titan-agent status` says: read from the state directory, beside an agent that may be running.

use serde::{Deserialize, Serialize};
use titan_api::{Name, Revision, reports::Phase};
use uuid::Uuid;

use crate::{
    desired::Desired,
    disk::{self, DiskError},
    identity::Identity,
    ledger::Ledger,
    outbox::Outbox,
    settle::now,
    state::{StateDir, StateError},
};

const FILE: &str = "status.json";

/// How the last contact with the control plane went. Only a hint: written when it changes, not waited for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Contact {
    /// Why the control plane's word does not get through, if it does not.
    trouble: Option<String>,
    /// Since when it is like that.
    since: Revision,
}

impl Contact {
    pub(crate) fn read(state: &StateDir) -> Self {
        disk::read_json(&state.file(FILE)).ok().flatten().unwrap_or_default()
    }

    /// Takes note; returns whether it is news.
    pub(crate) fn changed(&mut self, trouble: Option<String>) -> bool {
        let news = self.trouble != trouble || self.since == Revision::ZERO;
        if news {
            *self = Self { trouble, since: now() };
        }
        news
    }

    pub(crate) fn write(&self, state: &StateDir) -> Result<(), DiskError> {
        disk::write_hint(&state.file(FILE), self)
    }
}

/// Everything there is to say about this host.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) host: Option<Name>,
    pub(crate) server: Option<String>,
    pub(crate) running: bool,
    pub(crate) cursor: Option<Revision>,
    pub(crate) trouble: Option<String>,
    pub(crate) since: Option<Revision>,
    pub(crate) unsent: usize,
    pub(crate) deployments: Vec<Line>,
}

/// One deployment.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Line {
    pub(crate) id: Uuid,
    pub(crate) workspace: Name,
    pub(crate) name: Name,
    pub(crate) release: String,
    pub(crate) digest: Option<String>,
    pub(crate) phase: String,
    pub(crate) files: usize,
    pub(crate) commit: Option<String>,
    pub(crate) push: Option<String>,
    pub(crate) message: String,
}

impl Status {
    /// Reads the status from a state directory.
    pub(crate) fn read(state: &StateDir, configured: Option<&str>) -> Result<Self, StateError> {
        let identity = Identity::read(state)?;
        let desired: Desired = disk::read_json(&state.file("desired.json"))?.unwrap_or_default();
        let (ledger, outbox) = (Ledger::read(state)?, Outbox::read(state)?);
        let contact = Contact::read(state);
        // Taking the lock for an instant tells whether somebody has it.
        let running = state.path().exists() && matches!(state.lock(), Err(StateError::InUse(_)));
        let line = |id: Uuid, workspace: &Name, name: &Name, release: &str, phase: &str| {
            let (owned, report) = (ledger.entries.get(&id), outbox.reports.get(&id));
            Line {
                id,
                workspace: workspace.clone(),
                name: name.clone(),
                release: release.to_owned(),
                digest: owned.map(|owned| owned.digest.short()),
                phase: phase.to_owned(),
                files: owned.map_or(0, |owned| owned.files.len()),
                commit: owned.and_then(|owned| owned.committed.as_ref()).map(|committed| committed.commit.clone()),
                push: report.and_then(|report| report.push.clone()),
                message: report.map(|report| report.message.clone()).unwrap_or_default(),
            }
        };
        let entries = desired.entries.iter().map(|(id, entry)| {
            let known = outbox.reports.get(id).map_or(Phase::Pending, |report| report.phase);
            let phase = if entry.orphan { "orphan" } else { known.as_str() };
            line(*id, &entry.workspace, &entry.name, &entry.release, phase)
        });
        let orphan = |id: &&Uuid| !desired.entries.contains_key(*id) && !desired.removals.contains_key(*id);
        let unknown = ledger.entries.keys().filter(orphan).map(|id| {
            let entry = &ledger.entries[id];
            line(*id, &entry.workspace, &entry.name, &entry.release, "orphan")
        });
        let removals = desired
            .removals
            .iter()
            .map(|(id, removal)| line(*id, &removal.workspace, &removal.name, "", Phase::Removing.as_str()));
        let mut deployments: Vec<_> = entries.chain(unknown).chain(removals).collect();
        deployments.sort_by(|one, other| (&one.workspace, &one.name).cmp(&(&other.workspace, &other.name)));
        Ok(Self {
            host: identity.as_ref().map(|identity| identity.host.clone()),
            server: configured.map(str::to_owned).or_else(|| identity.map(|identity| identity.server)),
            running,
            cursor: desired.cursor,
            trouble: contact.trouble,
            since: Some(contact.since).filter(|since| *since != Revision::ZERO),
            unsent: outbox.unsent.len(),
            deployments,
        })
    }
}
