//! Standing: what a planner knows beside what is declared and what each host has.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use titan_api::{Digest, Revision};
use uuid::Uuid;

use crate::{
    fleet::{
        absences::Absences,
        bookings::{Bookings, is_booked},
        holders::Holders,
        hosts::HostNumber,
        model::Model,
        releases::Restored,
        rollouts::barriers::Barrier,
        view::FleetView,
    },
    planning::Planned,
    store::{Release, Store, StoreError},
};

/// What is there beside the view and the model.
#[derive(Debug, Default)]
pub struct Standing {
    /// Who has what.
    pub holders: Holders,
    /// Pairs of host and deployment that cannot be rendered.
    pub problems: BTreeSet<(Uuid, Uuid)>,
    /// What is taken of the hosts, by what is written and by what is decided.
    pub bookings: Bookings,
    /// Who is missed.
    pub absences: Absences,
    /// What stands before newest releases, by deployment.
    pub barriers: HashMap<Uuid, Arc<Barrier>>,
    /// When the last of them moved.
    pub(super) gates: Revision,
    /// Whether it is only looked what would be.
    pub(super) previews: bool,
    /// The newest release of the deployments that were decided lately.
    pub(super) releases: HashMap<Uuid, Option<Release>>,
    /// The bundles of outcomes that are being written: the database does not know them yet.
    pub(super) rendered: HashMap<Digest, Digest>,
    /// Releases that are not the newest, by deployment, number, and when the deployment was declared.
    pub(super) restored: HashMap<(Uuid, i64, Revision), Arc<Restored>>,
}

impl Standing {
    /// Returns what is there according to the view and the database.
    pub async fn of(view: &FleetView, model: &Model, store: &Store) -> Result<Self, StoreError> {
        let problems = store.read().await?.pairs_with_render_problem().await?;
        let holders = Holders::of_view(view, model.hosts());
        let bookings = Bookings::of(model, &holders, &problems);
        let mut standing = Self { holders, problems, bookings, ..Self::default() };
        for (gate, revision) in store.read().await?.gates_after(Revision::ZERO).await? {
            standing.gates = standing.gates.max(revision);
            standing.put_gate(gate, model);
        }
        Ok(standing)
    }

    /// Takes in that a deployment is declared anew. Returns the hosts on which it takes another amount. One that is declared
    /// no longer takes what it took until its hosts are told.
    pub fn rebook(&mut self, deployment: Uuid, model: &Model) -> Vec<Uuid> {
        let Some(declared) = model.deployment(deployment) else { return Vec::new() };
        if !is_booked(declared) && !self.bookings.has(deployment) {
            return Vec::new();
        }
        let troubled = self.problems.iter().filter(|(_, of)| *of == deployment).map(|(host, _)| host);
        let on = self.holders.of(deployment) | model.hosts().numbers(troubled);
        let shifted = self.bookings.rebook(declared, &on);
        model.hosts().among(&shifted).map(|host| host.uid()).collect()
    }

    /// Takes a host out whose number will be another's.
    pub fn remove_host(&mut self, host: HostNumber) {
        self.holders.remove_host(host);
        self.bookings.remove_host(host);
    }

    /// Takes in what is being written, or would be.
    pub fn take(&mut self, planned: &Planned, model: &Model) {
        self.rendered.extend(&planned.renderings);
        for (assignment, _) in &planned.moved {
            if let Some(number) = model.hosts().number(assignment.host) {
                self.holders.set(assignment.deployment, number, assignment.present());
            }
        }
        for (deployment, host, problem) in &planned.problems {
            match problem {
                Some(_) => self.problems.insert((*host, *deployment)),
                None => self.problems.remove(&(*host, *deployment)),
            };
        }
        for release in &planned.releases {
            self.releases.insert(release.deployment, Some(release.clone()));
        }
        for rollout in &planned.rollouts {
            self.barriers.insert(rollout.barrier.gate().deployment, Arc::clone(&rollout.barrier));
        }
    }

    /// Takes in that what was taken is written: the database knows its outcomes from now on.
    pub fn written(&mut self) {
        self.rendered.clear();
    }
}
