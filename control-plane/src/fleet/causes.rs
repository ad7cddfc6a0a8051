//! Causes: what a change makes worth deciding again (law 4).

use std::{collections::BTreeSet, sync::Arc};

use titan_api::{
    Kind,
    changes::{Change, Operation},
    workspaces,
};
use uuid::Uuid;

use crate::fleet::model::{Deployment, Model};

/// What is to be decided again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Affected {
    /// These deployments, on all hosts.
    pub deployments: BTreeSet<Uuid>,
    /// Which hosts have these deployments.
    pub targets: BTreeSet<Uuid>,
    /// These hosts, for all deployments.
    pub hosts: BTreeSet<Uuid>,
}

impl Affected {
    /// Whether there is nothing to decide.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deployments.is_empty() && self.targets.is_empty() && self.hosts.is_empty()
    }

    fn take<'a>(&mut self, deployments: impl Iterator<Item = &'a Arc<Deployment>>) {
        self.deployments.extend(deployments.map(|deployment| deployment.uid));
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
    let workspace = change.workspace.iter();
    let in_workspace = |workspace: &str| change.workspace.as_deref() == Some(workspace);
    match change.kind {
        // Made, edited (values, overrides, replicas, target, ...) or deleted.
        Kind::Deployment => {
            affected.deployments.insert(change.uid);
        }
        // A target that was edited matches other hosts.
        Kind::Target => affected.targets.extend(
            workspace.flat_map(|own| model.deployments_of_target(own, &change.name)).map(|deployment| deployment.uid),
        ),
        // A workload brings its version, values and default template.
        Kind::Workload => affected.take(workspace.flat_map(|own| model.deployments_of_workload(own, &change.name))),
        // A template of `default` is used by other workspaces too, unless they have one of the name: one that is made
        // there hides it, and one that is deleted there uncovers it.
        Kind::Template => affected.take(
            model
                .deployments_of_template(&change.name)
                .filter(|deployment| in_workspace(&deployment.workspace) || in_workspace(workspaces::DEFAULT)),
        ),
        // Templates read the workspace's config.
        Kind::Workspace => affected.take(model.deployments_in(&change.name)),
        // Plans go on by themselves.
        Kind::WorkPlan => {}
        // Made, relabelled, cordoned, closed to a workspace, given values, or deleted.
        Kind::Host => {
            affected.hosts.insert(change.uid);
        }
    }
}
