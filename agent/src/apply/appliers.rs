//! The appliers of this host: those that the owner allows, opened when the first deployment needs them.

use std::collections::{BTreeMap, BTreeSet};

use titan_api::{Digest, templates::Applier as Kind};
use tokio::runtime::Handle;

use super::{Applier, ApplyError, compose::Compose, podman::Podman, systemd::Systemd};
use crate::{config::appliers::Appliers as Allowed, settle::chain, state::StateDir, wake::Wake};

/// What an applier may use of the agent.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    /// Runs what waits, on the agent's one thread.
    pub(crate) io: Handle,
    /// Wakes the agent.
    pub(crate) wake: Wake,
    /// Where it may keep what it has to remember, below a folder of its own.
    pub(crate) state: StateDir,
}

/// The appliers.
#[derive(Debug)]
pub(crate) struct Appliers {
    allowed: Allowed,
    ground: Ground,
    open: BTreeMap<Kind, Box<dyn Applier>>,
}

impl Appliers {
    pub(crate) const fn new(allowed: Allowed, ground: Ground) -> Self {
        Self { allowed, ground, open: BTreeMap::new() }
    }

    /// Returns what looks after bundles of a kind beside their files: nobody, if they are nothing but files.
    pub(crate) fn of(&mut self, kind: Kind) -> Result<Option<&mut dyn Applier>, ApplyError> {
        if kind == Kind::Files {
            return Ok(None);
        }
        if !self.open.contains_key(&kind) {
            let mut applier = open(kind, &self.allowed, &self.ground)?;
            applier.watch();
            self.open.insert(kind, applier);
        }
        // Not `map(Box::as_mut)`: the object's lifetime would be that of the box.
        match self.open.get_mut(&kind) {
            Some(applier) => Ok(Some(applier.as_mut())),
            None => Ok(None),
        }
    }

    /// Whether something that one of them began is still being done, which ends with the process.
    pub(crate) fn are_busy(&self) -> bool {
        self.open.values().any(|applier| applier.is_busy())
    }

    /// Has a test's applier look after bundles of a kind.
    #[cfg(test)]
    pub(crate) fn put(&mut self, kind: Kind, applier: Box<dyn Applier>) {
        self.open.insert(kind, applier);
    }

    /// Lets those that were opened let go of what they fetched for bundles other than these.
    pub(crate) fn keep(&mut self, bundles: &BTreeSet<Digest>) {
        for (kind, applier) in &mut self.open {
            if let Err(error) = applier.keep(bundles) {
                tracing::warn!("what {} fetched and nobody needs stays for now: {}", kind.as_str(), chain(&error));
            }
        }
    }
}

/// Opens the applier of a kind, if the owner allows it.
fn open(kind: Kind, allowed: &Allowed, ground: &Ground) -> Result<Box<dyn Applier>, ApplyError> {
    let refused = || ApplyError::NotAllowed(kind);
    Ok(match kind {
        Kind::Files => return Err(refused()),
        Kind::Systemd => Box::new(Systemd::new(allowed.systemd.as_ref().ok_or_else(refused)?, ground)),
        Kind::Podman => {
            let switch = allowed.files.as_ref().map(|files| files.switch).unwrap_or_default();
            Box::new(Podman::open(allowed.podman.as_ref().ok_or_else(refused)?, switch, ground)?)
        }
        Kind::Compose => Box::new(Compose::open(allowed.compose.as_ref().ok_or_else(refused)?, ground)?),
        Kind::Kubernetes => {
            let allowed = allowed.kubernetes.as_ref().ok_or_else(refused)?;
            #[cfg(feature = "kubernetes")]
            let open = Box::new(super::kubernetes::Kubernetes::open(allowed.clone(), ground)?);
            #[cfg(not(feature = "kubernetes"))]
            let open = not_built(kind, allowed)?;
            open
        }
    })
}

#[cfg(not(feature = "kubernetes"))]
fn not_built(kind: Kind, _: &crate::config::appliers::Kubernetes) -> Result<Box<dyn Applier>, ApplyError> {
    Err(ApplyError::NotBuilt(kind))
}
