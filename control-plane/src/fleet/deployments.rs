//! Deployments, found by whatever they name.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::Arc,
};

use titan_api::{Name, Revision, deployments::DeploymentSpec, labels::Labels};
use uuid::Uuid;

use crate::fleet::{matchers::Matcher, model::Place};

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

impl Deployment {
    /// Returns the place of its target.
    #[must_use]
    pub fn target_place(&self) -> Place {
        (self.workspace.clone(), self.spec.target.clone())
    }

    fn workload_place(&self) -> Place {
        (self.workspace.clone(), self.spec.workload.clone())
    }
}

/// Who uses what.
#[derive(Debug, Clone)]
pub struct Uses<K, V>(HashMap<K, BTreeSet<V>>);

impl<K, V> Default for Uses<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V: Ord> Uses<K, V> {
    /// Notes that `user` uses `used`.
    pub fn insert(&mut self, used: K, user: V) {
        self.0.entry(used).or_default().insert(user);
    }

    /// Notes that `user` no longer uses `used`.
    pub fn remove(&mut self, used: &K, user: &V) {
        if let Some(users) = self.0.get_mut(used) {
            users.remove(user);
            if users.is_empty() {
                self.0.remove(used);
            }
        }
    }

    /// Returns who uses `used`, in order.
    pub fn of<'a>(&'a self, used: &K) -> impl Iterator<Item = &'a V> + use<'a, K, V> {
        self.0.get(used).into_iter().flatten()
    }
}

/// Every deployment.
#[derive(Debug, Clone, Default)]
pub struct Deployments {
    all: HashMap<Uuid, Arc<Deployment>>,
    names: HashMap<Place, Uuid>,
    workspaces: Uses<Name, Uuid>,
    targets: Uses<Place, Uuid>,
    workloads: Uses<Place, Uuid>,
    /// By the template that they name themselves.
    templates: Uses<Name, Uuid>,
    /// Those that are booked on the hosts that they are on: with replicas or requests.
    booking: BTreeSet<Uuid>,
    /// Those of them whose replicas may not go where there are too many.
    skewed: BTreeSet<Uuid>,
}

impl Deployments {
    /// Takes in a deployment whose id is not there.
    pub fn insert(&mut self, deployment: Arc<Deployment>) {
        let uid = deployment.uid;
        self.names.insert((deployment.workspace.clone(), deployment.name.clone()), uid);
        self.workspaces.insert(deployment.workspace.clone(), uid);
        self.targets.insert(deployment.target_place(), uid);
        self.workloads.insert(deployment.workload_place(), uid);
        if let Some(template) = &deployment.spec.template {
            self.templates.insert(template.clone(), uid);
        }
        if deployment.spec.replicas.is_some() || !deployment.spec.requests.is_empty() {
            self.booking.insert(uid);
        }
        if deployment.spec.spread.as_ref().is_some_and(|spread| spread.max_skew.is_some()) {
            self.skewed.insert(uid);
        }
        self.all.insert(uid, deployment);
    }

    /// Takes a deployment out.
    pub fn remove(&mut self, uid: Uuid) -> Option<Arc<Deployment>> {
        let gone = self.all.remove(&uid)?;
        let place = (gone.workspace.clone(), gone.name.clone());
        if self.names.get(&place) == Some(&uid) {
            self.names.remove(&place);
        }
        self.workspaces.remove(&gone.workspace, &uid);
        self.targets.remove(&gone.target_place(), &uid);
        self.workloads.remove(&gone.workload_place(), &uid);
        if let Some(template) = &gone.spec.template {
            self.templates.remove(template, &uid);
        }
        self.booking.remove(&uid);
        self.skewed.remove(&uid);
        Some(gone)
    }

    /// Returns a deployment.
    #[must_use]
    pub fn get(&self, uid: Uuid) -> Option<&Arc<Deployment>> {
        self.all.get(&uid)
    }

    /// Returns the deployment of a place.
    #[must_use]
    pub fn named(&self, place: &Place) -> Option<&Arc<Deployment>> {
        self.all.get(self.names.get(place)?)
    }

    /// Returns every deployment.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        self.all.values()
    }

    /// Returns the deployments of a workspace.
    pub fn of_workspace<'a>(&'a self, workspace: &Name) -> impl Iterator<Item = &'a Arc<Deployment>> + use<'a> {
        self.workspaces.of(workspace).filter_map(|uid| self.get(*uid))
    }

    /// Returns the deployments with replicas or requests, the one that was made first first.
    pub fn that_book(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        self.booking.iter().filter_map(|uid| self.get(*uid))
    }

    /// Returns the deployments whose replicas may not go where there are too many.
    pub fn skewed(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        self.skewed.iter().filter_map(|uid| self.get(*uid))
    }

    /// Returns the deployments that name a target.
    pub fn of_target<'a>(&'a self, target: &Place) -> impl Iterator<Item = &'a Arc<Deployment>> + use<'a> {
        self.targets.of(target).filter_map(|uid| self.get(*uid))
    }

    /// Returns the deployments that name a workload.
    pub fn of_workload<'a>(&'a self, workload: &Place) -> impl Iterator<Item = &'a Arc<Deployment>> + use<'a> {
        self.workloads.of(workload).filter_map(|uid| self.get(*uid))
    }

    /// Returns the deployments, of any workspace, that themselves name a template.
    pub fn of_template<'a>(&'a self, template: &Name) -> impl Iterator<Item = &'a Arc<Deployment>> + use<'a> {
        self.templates.of(template).filter_map(|uid| self.get(*uid))
    }
}
