//! Moves: from placements and renderings to what is written.

use std::sync::Arc;

use titan_api::{Digest, Name, Revision, deployments::OnRemove, poll::RemovalReason};
use uuid::Uuid;

use crate::{
    fleet::{model::Deployment, view::Entry},
    store::{Assignment, Description, Release},
};

/// Returns the name of a release: `prod#7`.
#[must_use]
pub fn release_name(deployment: &Name, release: &Release) -> String {
    format!("{deployment}#{}", release.number)
}

/// Returns what hosts are told of a release.
#[must_use]
pub fn description(deployment: &Deployment, release: &Release) -> Description {
    Description {
        deployment: deployment.uid,
        workspace: deployment.workspace.clone(),
        name: deployment.name.clone(),
        release: release_name(&deployment.name, release),
        depends_on: deployment.spec.depends_on.clone(),
        on_remove: deployment.spec.on_remove,
        reason: None,
    }
}

/// Returns what is written for a host that is to have `bundle`, given what is there: nothing, if it has it already and
/// handles it as the deployment now says. The revision is filled in by the commit.
#[must_use]
pub fn present(told: &Arc<Description>, host: Uuid, existing: Option<&Entry>, bundle: Digest) -> Option<Assignment> {
    let same = existing.is_some_and(|existing| {
        existing.bundle() == Some(bundle)
            && existing.description.depends_on == told.depends_on
            && existing.description.on_remove == told.on_remove
    });
    let assignment = || Assignment {
        deployment: told.deployment,
        host,
        description: Arc::clone(told),
        revision: Revision::ZERO,
        bundle: Some(bundle),
    };
    (!same).then(assignment)
}

/// Returns how a host is told that it is to remove what it was told of as `told`.
#[must_use]
pub fn removal(told: &Description, reason: RemovalReason, on_remove: OnRemove) -> Description {
    Description { reason: Some(reason), on_remove, ..told.clone() }
}

/// Returns what is written where a deployment is not to be: a tombstone, if it is there.
#[must_use]
pub fn absent(existing: &Entry, host: Uuid, told: &Arc<Description>) -> Option<Assignment> {
    let tombstone = || Assignment {
        deployment: existing.deployment(),
        host,
        description: Arc::clone(told),
        revision: Revision::ZERO,
        bundle: None,
    };
    existing.present().then(tombstone)
}
