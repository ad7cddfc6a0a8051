//! The model: everything that is declared, in memory, as of one revision.
//!
//! It is built from one snapshot and moved along by the history, so that planning and previews need no query per host.

use std::{collections::HashMap, sync::Arc};

use titan_api::{
    Document, Kind, Name, Problem, Revision, Spec,
    changes::{Change, Operation},
    deployments::DeploymentSpec,
    hosts::{Facts, HostSpec},
    labels::Labels,
    problems::Code,
    workloads::WorkloadSpec,
    workspaces::{self, WorkspaceSpec},
};
use uuid::Uuid;

use crate::{fleet::matchers::Matcher, render};

/// A host as it is declared, with its facts.
#[derive(Debug, Clone)]
pub struct Host {
    /// The id.
    pub uid: Uuid,
    /// The name.
    pub name: Name,
    /// The labels.
    pub labels: Labels,
    /// What is declared.
    pub spec: HostSpec,
    /// What its agent reported.
    pub facts: Facts,
}

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

/// A deployment.
#[derive(Debug)]
pub struct Deployment {
    /// The id.
    pub uid: Uuid,
    /// The workspace.
    pub workspace: Name,
    /// The name.
    pub name: Name,
    /// When the document last changed.
    pub revision: Revision,
    /// The labels.
    pub labels: Labels,
    /// What is declared.
    pub spec: DeploymentSpec,
    /// The selectors of the overrides, in order.
    pub overrides: Vec<Matcher>,
}

/// A place in a workspace.
type Place = (Name, Name);

/// Everything that is declared, as of one revision. Clones share their content.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// The newest change that is taken into account.
    pub revision: Revision,
    workspaces: HashMap<Name, Arc<WorkspaceSpec>>,
    hosts: HashMap<Uuid, Arc<Host>>,
    host_names: HashMap<Name, Uuid>,
    templates: HashMap<Place, Arc<Template>>,
    workloads: HashMap<Place, Arc<Workload>>,
    targets: HashMap<Place, Arc<Matcher>>,
    deployments: HashMap<Uuid, Arc<Deployment>>,
    deployment_names: HashMap<Place, Uuid>,
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
            Spec::Workspace(spec) => {
                self.workspaces.insert(name, Arc::new(spec));
            }
            Spec::Host(spec) => {
                let facts = self.hosts.get(&uid).map(|host| host.facts.clone()).unwrap_or_default();
                self.host_names.insert(name.clone(), uid);
                self.hosts.insert(uid, Arc::new(Host { uid, name, labels, spec, facts }));
            }
            Spec::Template(spec) => {
                let parsed = render::Template::parse(&spec).map(Arc::new);
                self.templates.insert(place, Arc::new(Template { uid, generation, parsed }));
            }
            Spec::Workload(spec) => {
                self.workloads.insert(place, Arc::new(Workload { uid, generation, labels, spec }));
            }
            Spec::Target(spec) => {
                let matcher = Matcher::new(spec).map_err(invalid)?;
                self.targets.insert(place, Arc::new(matcher));
            }
            Spec::Deployment(spec) => {
                let overrides = spec.overrides.iter().map(|entry| Matcher::new(entry.selector.clone()));
                let overrides = overrides.collect::<Result<_, _>>().map_err(invalid)?;
                let revision = metadata.revision.unwrap_or_default();
                self.deployment_names.insert(place, uid);
                let deployment = Deployment { uid, workspace, name, revision, labels, spec, overrides };
                self.deployments.insert(uid, Arc::new(deployment));
            }
        }
        Ok(())
    }

    /// Takes a document out.
    pub fn remove(&mut self, kind: Kind, workspace: Option<&Name>, name: &Name, uid: Uuid) {
        let place = |workspace: Option<&Name>| workspace.map(|workspace| (workspace.clone(), name.clone()));
        match (kind, place(workspace)) {
            (Kind::Workspace, _) => {
                self.workspaces.remove(name);
            }
            (Kind::Host, _) => {
                self.hosts.remove(&uid);
                if self.host_names.get(name) == Some(&uid) {
                    self.host_names.remove(name);
                }
            }
            (Kind::Template, Some(place)) => {
                self.templates.remove(&place);
            }
            (Kind::Workload, Some(place)) => {
                self.workloads.remove(&place);
            }
            (Kind::Target, Some(place)) => {
                self.targets.remove(&place);
            }
            (Kind::Deployment, Some(place)) => {
                self.deployments.remove(&uid);
                if self.deployment_names.get(&place) == Some(&uid) {
                    self.deployment_names.remove(&place);
                }
            }
            (_, None) => {}
        }
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
    pub fn set_facts(&mut self, host: Uuid, facts: Facts) {
        if let Some(host) = self.hosts.get_mut(&host) {
            Arc::make_mut(host).facts = facts;
        }
    }

    /// Returns a workspace.
    #[must_use]
    pub fn workspace(&self, name: &Name) -> Option<&Arc<WorkspaceSpec>> {
        self.workspaces.get(name)
    }

    /// Returns a host.
    #[must_use]
    pub fn host(&self, uid: Uuid) -> Option<&Arc<Host>> {
        self.hosts.get(&uid)
    }

    /// Returns a host by its name.
    #[must_use]
    pub fn host_named(&self, name: &str) -> Option<&Arc<Host>> {
        self.hosts.get(self.host_names.get(name)?)
    }

    /// Returns every host.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.hosts.values()
    }

    /// Returns a deployment.
    #[must_use]
    pub fn deployment(&self, uid: Uuid) -> Option<&Arc<Deployment>> {
        self.deployments.get(&uid)
    }

    /// Returns a deployment by its place.
    #[must_use]
    pub fn deployment_named(&self, workspace: &Name, name: &Name) -> Option<&Arc<Deployment>> {
        self.deployments.get(self.deployment_names.get(&(workspace.clone(), name.clone()))?)
    }

    /// Returns every deployment.
    pub fn deployments(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        self.deployments.values()
    }

    /// Returns a deployment's workload.
    #[must_use]
    pub fn workload(&self, deployment: &Deployment) -> Option<&Arc<Workload>> {
        self.workloads.get(&(deployment.workspace.clone(), deployment.spec.workload.clone()))
    }

    /// Returns the matcher of a deployment's target.
    #[must_use]
    pub fn target(&self, deployment: &Deployment) -> Option<&Arc<Matcher>> {
        self.targets.get(&(deployment.workspace.clone(), deployment.spec.target.clone()))
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
