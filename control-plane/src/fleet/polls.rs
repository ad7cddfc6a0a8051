//! Polls: what a host is told.

use std::sync::Arc;

use titan_api::{
    Revision, SetDigest,
    poll::{DesiredDeployment, RemovalReason, Tombstone},
};

use crate::{fleet::view::HostSet, store::Assignment};

/// What a host is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing moved.
    Unchanged,
    /// These moved.
    Delta(Vec<Arc<Assignment>>),
    /// This is everything.
    Full(Vec<Arc<Assignment>>),
}

/// Decides what to tell a host that asks for what moved at or after `since` and holds a set of digest `have`.
///
/// Without `since` it is told everything. If nothing moved and yet the digests differ, it is told everything too: the
/// cursor is for speed, the digest is the truth.
#[must_use]
pub fn answer(set: &HostSet, since: Option<Revision>, have: Option<SetDigest>) -> Answer {
    let all = || set.assignments().cloned().collect();
    let Some(since) = since else { return Answer::Full(all()) };
    let moved: Vec<_> = set.assignments().filter(|assignment| assignment.revision >= since).cloned().collect();
    if !moved.is_empty() {
        Answer::Delta(moved)
    } else if have.is_some_and(|have| have != set.digest()) {
        Answer::Full(all())
    } else {
        Answer::Unchanged
    }
}

/// Splits assignments into what is to be there, without bundles, and what is to go.
#[must_use]
pub fn split(assignments: &[Arc<Assignment>]) -> (Vec<DesiredDeployment>, Vec<Tombstone>) {
    let mut deployments = Vec::new();
    let mut tombstones = Vec::new();
    for assignment in assignments {
        match assignment.bundle.filter(|_| assignment.present) {
            Some(digest) => deployments.push(DesiredDeployment {
                id: assignment.id,
                name: assignment.name.clone(),
                workspace: assignment.workspace.clone(),
                release: assignment.release.clone(),
                revision: assignment.revision,
                digest,
                depends_on: assignment.depends_on.clone(),
                on_remove: assignment.on_remove,
                bundle: None,
            }),
            None => tombstones.push(Tombstone {
                id: assignment.id,
                name: assignment.name.clone(),
                workspace: assignment.workspace.clone(),
                revision: assignment.revision,
                deleted_at: assignment.revision,
                reason: assignment.reason.unwrap_or(RemovalReason::Unmatched),
                on_remove: assignment.on_remove,
            }),
        }
    }
    (deployments, tombstones)
}
