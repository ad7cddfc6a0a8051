//! Causes: what a change makes worth deciding again (law 4).

use std::collections::BTreeSet;

use titan_api::{
    Kind,
    changes::{Change, Operation},
    workspaces,
};
use uuid::Uuid;

use crate::fleet::model::Model;

/// What is to be decided again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Affected {
    /// These deployments, on all hosts.
    pub deployments: BTreeSet<Uuid>,
    /// These hosts, for all deployments.
    pub hosts: BTreeSet<Uuid>,
}

impl Affected {
    /// Whether there is nothing to decide.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deployments.is_empty() && self.hosts.is_empty()
    }
}

/// Returns what the changes affect, given the model after them.
pub fn affected<'a>(changes: impl IntoIterator<Item = &'a Change>, model: &Model) -> Affected {
    let mut affected = Affected::default();
    for change in changes {
        one(change, model, &mut affected);
    }
    affected
}

fn one(change: &Change, model: &Model, affected: &mut Affected) {
    if change.operation == Operation::ClockMoved {
        return;
    }
    let in_workspace = |workspace: &str| change.workspace.as_deref() == Some(workspace);
    match change.kind {
        // Made, edited (values, overrides, replicas, target, ...) or deleted.
        Kind::Deployment => {
            affected.deployments.insert(change.uid);
        }
        // A target that was edited matches other hosts.
        Kind::Target => affected.deployments.extend(
            model
                .deployments()
                .filter(|deployment| in_workspace(&deployment.workspace) && deployment.spec.target == change.name)
                .map(|deployment| deployment.uid),
        ),
        // A workload brings its version, values and default template.
        Kind::Workload => affected.deployments.extend(
            model
                .deployments()
                .filter(|deployment| in_workspace(&deployment.workspace) && deployment.spec.workload == change.name)
                .map(|deployment| deployment.uid),
        ),
        // A template of `default` is used by other workspaces too, unless they have one of the name: one that is made
        // there hides it, and one that is deleted there uncovers it.
        Kind::Template => affected.deployments.extend(
            model
                .deployments()
                .filter(|deployment| {
                    model.template_name(deployment) == Some(&change.name)
                        && (in_workspace(&deployment.workspace) || in_workspace(workspaces::DEFAULT))
                })
                .map(|deployment| deployment.uid),
        ),
        // Templates read the workspace's config.
        Kind::Workspace => affected.deployments.extend(
            model
                .deployments()
                .filter(|deployment| deployment.workspace == change.name)
                .map(|deployment| deployment.uid),
        ),
        // Made, relabelled, cordoned, closed to a workspace, given values, or deleted.
        Kind::Host => {
            affected.hosts.insert(change.uid);
        }
    }
}
