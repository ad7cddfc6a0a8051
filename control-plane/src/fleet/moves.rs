//! Moves: from placements and renderings to what is written.

use titan_api::{Digest, Name, Problem, deployments::OnRemove, poll::RemovalReason};
use uuid::Uuid;

use crate::{
    fleet::model::Deployment,
    store::{Assignment, Release},
};

/// What is decided for one deployment on one host, and rendered where there was need.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The host is to have this bundle.
    Bundle {
        /// Over all that the rendering depends on.
        key: Digest,
        /// What was rendered.
        bundle: Digest,
    },
    /// Nothing that the rendering depends on has changed.
    Same,
    /// It cannot be rendered or decided: whatever is, stays, with this problem (law 8).
    Problem(Problem),
    /// The host is not to have it.
    Absent(RemovalReason),
}

/// What is written for one deployment on one host.
#[derive(Debug, Clone, PartialEq)]
pub enum Move {
    /// The assignment moves: its revision is that of the commit.
    Put(Box<Assignment>),
    /// The assignment stays, though it was rendered from something else.
    Outcome(Uuid, Digest),
    /// Nothing.
    Nothing,
}

/// Returns the id of the assignment of a deployment to a host: a UUID of version 8 made of both ids.
#[must_use]
pub fn assignment_id(deployment: Uuid, host: Uuid) -> Uuid {
    let hash = Digest::of(&[*deployment.as_bytes(), *host.as_bytes()].concat());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Returns the name of a release: `prod#7`.
#[must_use]
pub fn release_name(deployment: &Name, release: &Release) -> String {
    format!("{deployment}#{}", release.number)
}

/// Decides what is written for a live deployment on a host, given what is there. The revision of what is put is filled
/// in by the commit.
#[must_use]
pub fn decide(
    deployment: &Deployment,
    release: &Release,
    host: Uuid,
    existing: Option<&Assignment>,
    outcome: &Outcome,
) -> Move {
    match outcome {
        Outcome::Same | Outcome::Problem(_) => Move::Nothing,
        Outcome::Absent(reason) => absent(existing, *reason, deployment.spec.on_remove),
        Outcome::Bundle { key, bundle } => {
            if let Some(existing) = existing
                && existing.present
                && existing.bundle == Some(*bundle)
                && same_handling(deployment, existing)
            {
                return if existing.outcome == Some(*key) { Move::Nothing } else { Move::Outcome(existing.id, *key) };
            }
            Move::Put(Box::new(Assignment {
                id: assignment_id(deployment.uid, host),
                deployment: deployment.uid,
                host,
                workspace: deployment.workspace.clone(),
                name: deployment.name.clone(),
                release: release_name(&deployment.name, release),
                revision: titan_api::Revision::ZERO,
                present: true,
                outcome: Some(*key),
                bundle: Some(*bundle),
                depends_on: deployment.spec.depends_on.clone(),
                on_remove: deployment.spec.on_remove,
                reason: None,
            }))
        }
    }
}

/// Decides what is written where a deployment is not to be.
#[must_use]
pub fn absent(existing: Option<&Assignment>, reason: RemovalReason, on_remove: OnRemove) -> Move {
    match existing {
        Some(existing) if existing.present => Move::Put(Box::new(Assignment {
            present: false,
            outcome: None,
            bundle: None,
            reason: Some(reason),
            on_remove,
            ..existing.clone()
        })),
        _ => Move::Nothing,
    }
}

/// Whether the host already handles the assignment as the deployment now says.
#[must_use]
pub fn same_handling(deployment: &Deployment, existing: &Assignment) -> bool {
    existing.depends_on == deployment.spec.depends_on && existing.on_remove == deployment.spec.on_remove
}
