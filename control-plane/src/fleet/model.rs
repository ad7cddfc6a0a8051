//! The model: everything that is declared, in memory, as of one revision.
//!
//! It is built from one snapshot and moved along by the history, so that planning and previews need no query per host.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use titan_api::{
    Document, Kind, Name, Problem, Revision, Spec,
    changes::{Change, Operation},
    hosts::Facts,
    labels::Labels,
    problems::Code,
    workloads::WorkloadSpec,
    workspaces::{self, WorkspaceSpec},
};
use uuid::Uuid;

pub use super::{deployments::Deployment, hosts::Host};
use crate::{
    fleet::{
        deployments::{Deployments, Uses},
        hosts::Hosts,
        matchers::Matcher,
        targets::Targets,
    },
    render,
};

/// A template, parsed.
#[derive(Debug)]
pub struct Template {
    /// The id.
    pub uid: Uuid,
    /// The version.
    pub generation: u64,
    /// The parsed files, or why they cannot be (which validation keeps from happening).
    pub parsed: Result<Arc<render::Template>, Problem>,
}

/// A workload.
#[derive(Debug)]
pub struct Workload {
    /// The id.
    pub uid: Uuid,
    /// The version of the document.
    pub generation: u64,
    /// The labels.
    pub labels: Labels,
    /// What is declared.
    pub spec: WorkloadSpec,
}

/// A place in a workspace: the workspace and the name.
pub type Place = (Name, Name);

/// Everything that is declared, as of one revision. Clones share their content, so that one is cheap even of a large fleet.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// The newest change that is taken into account.
    pub revision: Revision,
    hosts: Hosts,
    workspaces: Arc<HashMap<Name, Arc<WorkspaceSpec>>>,
    templates: Arc<HashMap<Place, Arc<Template>>>,
    workloads: Arc<HashMap<Place, Arc<Workload>>>,
    /// Workloads by the template that they name.
    workload_templates: Arc<Uses<Name, Place>>,
    targets: Arc<Targets>,
    deployments: Arc<Deployments>,
    /// What deployments name as their target, and is none.
    missing_targets: Arc<BTreeSet<Place>>,
}

impl Model {
    /// Takes in a live document. One that cannot be read leaves the model as it was and is an error.
    pub fn put(&mut self, document: &Document) -> Result<(), Problem> {
        let metadata = &document.metadata;
        let spec = Spec::parse(document.kind, document.spec.clone())
            .map_err(|faults| Problem::new(Code::Invalid, "a stored document is not valid").with(faults))?;
        let uid = metadata.uid.unwrap_or_default();
        let name = metadata.name.clone();
        let generation = metadata.generation.unwrap_or_default();
        let labels = metadata.labels.clone();
        let workspace = metadata.workspace.clone().map_or_else(|| Name::new(workspaces::DEFAULT), Ok);
        let workspace = workspace.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        let place = (workspace.clone(), name.clone());
        match spec {
            // What a plan does is not a matter of who has what.
            Spec::WorkPlan(_) => {}
            Spec::Workspace(spec) => {
                Arc::make_mut(&mut self.workspaces).insert(name, Arc::new(spec));
            }
            Spec::Host(spec) => {
                self.hosts.put(uid, &name, &labels, spec);
            }
            Spec::Template(spec) => {
                let parsed = render::Template::parse(&spec).map(Arc::new);
                Arc::make_mut(&mut self.templates).insert(place, Arc::new(Template { uid, generation, parsed }));
            }
            Spec::Workload(spec) => {
                self.remove_workload(&place);
                if let Some(template) = &spec.template {
                    Arc::make_mut(&mut self.workload_templates).insert(template.clone(), place.clone());
                }
                let workload = Workload { uid, generation, labels, spec };
                Arc::make_mut(&mut self.workloads).insert(place, Arc::new(workload));
            }
            Spec::Target(spec) => {
                let matcher = Matcher::new(spec).map_err(invalid)?;
                Arc::make_mut(&mut self.targets).insert(place.clone(), Arc::new(matcher));
                self.check_target(place);
            }
            Spec::Deployment(spec) => {
                let overrides = spec.overrides.iter().map(|entry| Matcher::new(entry.selector.clone()));
                let overrides = overrides.collect::<Result<_, _>>().map_err(invalid)?;
                let revision = metadata.revision.unwrap_or_default();
                let deployment = Deployment { uid, workspace, name, revision, labels, spec, overrides };
                self.remove_deployment(uid);
                let target = deployment.target_place();
                Arc::make_mut(&mut self.deployments).insert(Arc::new(deployment));
                self.check_target(target);
            }
        }
        Ok(())
    }

    /// Takes a document out.
    pub fn remove(&mut self, kind: Kind, workspace: Option<&Name>, name: &Name, uid: Uuid) {
        let place = |workspace: Option<&Name>| workspace.map(|workspace| (workspace.clone(), name.clone()));
        match (kind, place(workspace)) {
            (Kind::Workspace, _) => {
                Arc::make_mut(&mut self.workspaces).remove(name);
            }
            (Kind::Host, _) => self.hosts.remove(uid),
            (Kind::Template, Some(place)) => {
                Arc::make_mut(&mut self.templates).remove(&place);
            }
            (Kind::Workload, Some(place)) => self.remove_workload(&place),
            (Kind::Target, Some(place)) => {
                Arc::make_mut(&mut self.targets).remove(&place);
                self.check_target(place);
            }
            (Kind::Deployment, Some(_)) => self.remove_deployment(uid),
            (Kind::WorkPlan, Some(_)) | (_, None) => {}
        }
    }

    fn remove_workload(&mut self, place: &Place) {
        if let Some(gone) = Arc::make_mut(&mut self.workloads).remove(place)
            && let Some(template) = &gone.spec.template
        {
            Arc::make_mut(&mut self.workload_templates).remove(template, place);
        }
    }

    fn remove_deployment(&mut self, uid: Uuid) {
        if let Some(gone) = Arc::make_mut(&mut self.deployments).remove(uid) {
            self.check_target(gone.target_place());
        }
    }

    /// Notes whether a target is missing.
    fn check_target(&mut self, place: Place) {
        let missing = self.targets.get(&place).is_none() && self.deployments.of_target(&place).next().is_some();
        if missing != self.missing_targets.contains(&place) {
            let all = Arc::make_mut(&mut self.missing_targets);
            if missing {
                all.insert(place)
            } else {
                all.remove(&place)
            };
        }
    }

    /// Takes in all hosts at once, in place of those that are there.
    pub fn set_hosts(&mut self, hosts: Hosts) {
        self.hosts = hosts;
    }

    /// Moves the model along by one change.
    pub fn follow(&mut self, change: &Change) -> Result<(), Problem> {
        let followed = match (&change.operation, &change.after) {
            (Operation::Create | Operation::Update, Some(after)) => self.put(after),
            (Operation::Delete, _) => {
                self.remove(change.kind, change.workspace.as_ref(), &change.name, change.uid);
                Ok(())
            }
            _ => Ok(()),
        };
        self.revision = self.revision.max(change.revision);
        followed
    }

    /// Takes in a host's facts.
    pub fn set_facts(&mut self, host: Uuid, facts: &Facts) {
        self.hosts.set_facts(host, facts);
    }

    /// Returns a workspace.
    #[must_use]
    pub fn workspace(&self, name: &Name) -> Option<&Arc<WorkspaceSpec>> {
        self.workspaces.get(name)
    }

    /// Returns a host.
    #[must_use]
    pub fn host(&self, uid: Uuid) -> Option<Host<'_>> {
        self.hosts.host(self.hosts.number(uid)?)
    }

    /// Returns a host by its name.
    #[must_use]
    pub fn host_named(&self, name: &str) -> Option<Host<'_>> {
        self.hosts.host(self.hosts.number_named(name)?)
    }

    /// Returns the hosts.
    #[must_use]
    pub const fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// Returns a deployment.
    #[must_use]
    pub fn deployment(&self, uid: Uuid) -> Option<&Arc<Deployment>> {
        self.deployments.get(uid)
    }

    /// Returns a deployment by its place.
    #[must_use]
    pub fn deployment_named(&self, workspace: &Name, name: &Name) -> Option<&Arc<Deployment>> {
        self.deployments.named(&(workspace.clone(), name.clone()))
    }

    /// Returns every deployment.
    pub fn deployments(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        self.deployments.iter()
    }

    /// Returns the deployments with replicas or requests, the one that was made first first.
    pub fn deployments_that_book(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        self.deployments.that_book()
    }

    /// Returns the deployments whose replicas may not go where there are too many.
    pub fn deployments_skewed(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        self.deployments.skewed()
    }

    /// Returns the deployments of a workspace.
    pub fn deployments_in(&self, workspace: &Name) -> impl Iterator<Item = &Arc<Deployment>> {
        self.deployments.of_workspace(workspace)
    }

    /// Returns the deployments that name a target of their workspace.
    pub fn deployments_of_target(&self, workspace: &Name, target: &Name) -> impl Iterator<Item = &Arc<Deployment>> {
        self.deployments.of_target(&(workspace.clone(), target.clone()))
    }

    /// Returns the deployments that name a workload of their workspace.
    pub fn deployments_of_workload(&self, workspace: &Name, workload: &Name) -> impl Iterator<Item = &Arc<Deployment>> {
        self.deployments.of_workload(&(workspace.clone(), workload.clone()))
    }

    /// Returns the deployments, of any workspace, that use a template of this name: by themselves or by their workload.
    pub fn deployments_of_template<'a>(&'a self, template: &'a Name) -> impl Iterator<Item = &'a Arc<Deployment>> {
        let workloads = self.workload_templates.of(template);
        let theirs = workloads.flat_map(|place| self.deployments.of_workload(place));
        let theirs = theirs.filter(|deployment| deployment.spec.template.is_none());
        self.deployments.of_template(template).chain(theirs)
    }

    /// Returns the deployments that may be decided to be on a host: every other one is absent there. It is a few of
    /// thousands when targets ask for labels.
    #[must_use]
    pub fn candidates(&self, host: Uuid) -> Vec<&Arc<Deployment>> {
        let Some(host) = self.host(host) else { return Vec::new() };
        let places = self.targets.candidates(host).chain(self.missing_targets.iter());
        places.flat_map(|place| self.deployments.of_target(place)).collect()
    }

    /// Returns a deployment's workload.
    #[must_use]
    pub fn workload(&self, deployment: &Deployment) -> Option<&Arc<Workload>> {
        self.workloads.get(&(deployment.workspace.clone(), deployment.spec.workload.clone()))
    }

    /// Returns the matcher of a deployment's target.
    #[must_use]
    pub fn target(&self, deployment: &Deployment) -> Option<&Arc<Matcher>> {
        self.targets.get(&deployment.target_place())
    }

    /// Returns the name of the template that a deployment uses: its own, or else its workload's.
    #[must_use]
    pub fn template_name<'a>(&'a self, deployment: &'a Deployment) -> Option<&'a Name> {
        deployment.spec.template.as_ref().or_else(|| self.workload(deployment)?.spec.template.as_ref())
    }

    /// Returns the template that a deployment uses: of its own workspace, or else of `default`.
    #[must_use]
    pub fn template(&self, deployment: &Deployment) -> Option<&Arc<Template>> {
        let name = self.template_name(deployment)?;
        let own = self.templates.get(&(deployment.workspace.clone(), name.clone()));
        own.or_else(|| self.templates.get(&(Name::new(workspaces::DEFAULT).ok()?, name.clone())))
    }
}

fn invalid(fault: titan_api::problems::Fault) -> Problem {
    Problem::new(Code::Invalid, "a stored selector is not valid").with([fault])
}
