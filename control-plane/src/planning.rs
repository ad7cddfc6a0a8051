//! Planning: from what is to be decided to what is written.
//!
//! [`Planning::decide`] works out what each host of some [`Item`]s is to have, and renders what was never rendered before,
//! without holding a transaction; [`Planned::write`] writes it. The planner task does both, chunk by chunk; a preview only
//! the first.

mod groups;
mod removals;
mod renderings;
mod rollouts;
mod standing;
mod written;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use titan_api::{Digest, Problem, poll::RemovalReason, problems::Code};
use uuid::Uuid;

use crate::{
    fleet::{
        agenda::{Agenda, Ground, Item},
        bookings::is_booked,
        causes::Affected,
        model::{Deployment, Model},
        moves,
        placements::{self, Footing, Placement},
        releases::{self, Resolution, Restored},
        view::{Entry, FleetView},
    },
    planning::{
        groups::Groups,
        removals::Removals,
        renderings::{Deciding, Waiting},
        rollouts::Choice,
    },
    render::Renderer,
    store::{Assignment, Release, Store},
};

pub use rollouts::{Moved, Rollout};
pub use standing::Standing;
pub use written::{WriteError, Writing};

/// Pairs of deployment and host that a preview decides at a time.
const PREVIEWED: usize = 8192;

/// After so many hosts others may use the processor: polls, and the writing of what was decided before.
const BREATH: usize = 256;

/// What is to be written.
#[derive(Debug, Default)]
pub struct Planned {
    /// Assignments that move, with what was there before.
    pub moved: Vec<(Assignment, Option<Entry>)>,
    /// Render problems that came (`Some`) or went, by deployment and host.
    pub problems: Vec<(Uuid, Uuid, Option<Problem>)>,
    /// New releases.
    pub releases: Vec<Release>,
    /// How they are handed out.
    pub rollouts: Vec<Rollout>,
    /// What was rendered for assignments that move.
    pub bundles: BTreeMap<Digest, Bytes>,
    /// Bundles of assignments that move which were rendered before.
    pub reused: BTreeSet<Digest>,
    /// What outcomes came to that were not known.
    pub renderings: BTreeMap<Digest, Digest>,
    /// How many pairs of deployment and host were looked at and stay.
    pub unchanged: usize,
    /// Hosts on which there is room that was taken before.
    pub freed: BTreeSet<Uuid>,
    /// Deployments with replicas that are to go elsewhere than it was thought when they were put on the agenda.
    pub again: BTreeSet<Uuid>,
}

/// Everything that decisions stand on, and what renders.
#[derive(Debug)]
pub struct Planning<'a> {
    /// What is declared.
    pub model: &'a Model,
    /// What each host has.
    pub view: &'a FleetView,
    /// What else is there.
    pub standing: &'a mut Standing,
    /// The database.
    pub store: &'a Store,
    /// What renders.
    pub renderer: &'a Renderer,
}

impl Planning<'_> {
    /// Decides everything that is affected, without writing.
    pub async fn preview(&mut self, affected: &Affected) -> Result<Planned, Problem> {
        let mut agenda = Agenda::default();
        self.standing.previews = true;
        agenda.add(affected);
        let mut planned = Planned::default();
        while !agenda.is_empty() {
            let items = self.next(&mut agenda, PREVIEWED);
            let decided = self.decide(&items).await?;
            agenda.add(&decided.follow_up());
            agenda.shift(decided.freed.iter().copied());
            self.standing.take(&decided, self.model);
            // What was decided before for lack of room, or for room that others have taken, is decided anew.
            let books = |item: &&Item| self.model.deployment(item.deployment).is_some_and(|of| is_booked(of));
            planned.forget(items.iter().filter(books));
            planned.join(decided);
        }
        Ok(planned)
    }

    /// Takes what is to be decided next off the agenda, about `limit` pairs.
    pub fn next(&self, agenda: &mut Agenda, limit: usize) -> Vec<Item> {
        let Standing { holders, problems, bookings, absences, .. } = &*self.standing;
        agenda.take(Ground { model: self.model, holders, held: self.view, problems, bookings, absences }, limit)
    }

    /// Decides what is written, rendering once per distinct outcome that is not known.
    ///
    /// A template that cannot be rendered is a problem of its hosts and part of the result; rendering that does not work at
    /// all is an error, after which everything is as it was.
    pub async fn decide(&mut self, items: &[Item]) -> Result<Planned, Problem> {
        let mut deciding = Deciding::default();
        for item in items {
            match self.model.deployment(item.deployment).cloned() {
                Some(deployment) => self.decide_deployment(&deployment, item, &mut deciding).await?,
                None => self.remove_deployment(item, &mut deciding.planned),
            }
        }
        self.render(deciding).await
    }

    fn footing(&self) -> Footing<'_> {
        Footing { model: self.model, bookings: &self.standing.bookings, absences: &self.standing.absences }
    }

    /// Books a deployment on a host, so that whoever is decided next finds what is left.
    fn book(&mut self, deployment: &Deployment, host: Uuid) {
        if is_booked(deployment)
            && let Some(number) = self.model.hosts().number(host)
        {
            self.standing.bookings.book(deployment, number);
        }
    }

    /// Ends the booking of a deployment on a host.
    fn release_booking(&mut self, deployment: Uuid, host: Uuid, planned: &mut Planned) {
        if self.standing.bookings.has(deployment)
            && let Some(number) = self.model.hosts().number(host)
            && self.standing.bookings.release(deployment, number)
        {
            planned.freed.insert(host);
        }
    }

    fn existing(&self, deployment: Uuid, host: Uuid) -> Option<Entry> {
        self.view.find(host)?.entry(deployment)
    }

    async fn decide_deployment(
        &mut self,
        deployment: &Arc<Deployment>,
        item: &Item,
        deciding: &mut Deciding,
    ) -> Result<(), Problem> {
        let resolution = releases::resolve(self.model, deployment);
        let release = match &resolution {
            Ok(resolution) => Some(self.release(deployment, resolution, &mut deciding.planned).await?),
            Err(_) => None,
        };
        let restored = match &release {
            Some(release) => self.restored_for(deployment, release, item, &deciding.planned).await?,
            None => BTreeMap::new(),
        };
        let barrier = release.as_ref().and_then(|release| self.barrier(release, &deciding.planned));
        let mut choices: BTreeMap<i64, Choice<'_>> = BTreeMap::new();
        if let (Ok(resolution), Some(release)) = (&resolution, &release) {
            let newest = Choice::new(self.model, deployment, resolution, release, item.hosts.len());
            choices.insert(release.number, newest);
        }
        for restored in restored.values().filter_map(|restored| restored.as_ref().ok()) {
            let Restored { resolution, deployment, release } = &**restored;
            let choice = Choice::new(self.model, deployment, resolution, release, item.hosts.len());
            choices.insert(release.number, choice);
        }
        let chosen = deployment
            .spec
            .replicas
            .and_then(|_| placements::place_set(self.footing(), deployment, &self.standing.holders.of(deployment.uid)));
        let mut removals = Removals::default();
        let slots = self.view.find_all(item.hosts.iter().copied());
        for (number, (uid, slot)) in item.hosts.iter().zip(slots).enumerate() {
            breathe(number).await;
            let existing = slot.and_then(|slot| slot.entry(deployment.uid));
            let held = existing.as_ref().is_some_and(Entry::present);
            let placement = placements::place_chosen(self.footing(), deployment, chosen.as_ref(), *uid, held);
            match placement {
                Placement::Absent(_) => self.release_booking(deployment.uid, *uid, &mut deciding.planned),
                Placement::Present | Placement::Undecided(_) => self.book(deployment, *uid),
            }
            let planned = &mut deciding.planned;
            let (placement, number) = match (placement, self.model.host(*uid), &barrier) {
                (Placement::Present, Some(host), Some(barrier)) => match barrier.release(host, existing.as_ref()) {
                    Some(number) => (Placement::Present, Some(number)),
                    // The first release was taken back.
                    None if held => (Placement::Absent(RemovalReason::RolledBack), None),
                    None => {
                        self.stays(planned, deployment.uid, *uid, None);
                        continue;
                    }
                },
                (placement, ..) => (placement, release.as_ref().map(|release| release.number)),
            };
            let choice = number.and_then(|number| choices.get_mut(&number));
            match (placement, self.model.host(*uid), choice) {
                (Placement::Absent(reason), ..) => {
                    let moved = existing.as_ref().and_then(|existing| {
                        let told = removals.told(&existing.description, reason, deployment.spec.on_remove);
                        moves::absent(existing, *uid, &told)
                    });
                    match moved {
                        Some(moved) => self.moves(planned, moved, existing),
                        None => self.stays(planned, deployment.uid, *uid, None),
                    }
                }
                (Placement::Undecided(detail), ..) => {
                    self.stays(planned, deployment.uid, *uid, Some(Problem::new(Code::Invalid, detail)));
                }
                (Placement::Present, Some(host), Some(Choice { told, groups })) => {
                    let key = groups.key(host, &mut deciding.jobs);
                    deciding.waiting.push(Waiting { told: Arc::clone(told), host: *uid, key, existing });
                }
                (Placement::Present, ..) => {
                    let unknown = || Problem::new(Code::Internal, "the host is not in the model");
                    let lost = number.and_then(|number| restored.get(&number)?.as_ref().err());
                    let problem = resolution.as_ref().err().or(lost).cloned().unwrap_or_else(unknown);
                    self.stays(planned, deployment.uid, *uid, Some(problem));
                }
            }
        }
        if item.last {
            // Others may have taken what it was to have, while it was decided for other hosts.
            let booked = self.standing.bookings.hosts(deployment.uid);
            if chosen.as_ref().is_some_and(|chosen| !chosen.is_subset(&booked)) {
                deciding.planned.again.insert(deployment.uid);
            }
            // A host that is no longer concerned has no problem with it any more.
            let over = |host: Uuid| {
                let held = self.existing(deployment.uid, host).is_some_and(|existing| existing.present());
                let placement = placements::place_chosen(self.footing(), deployment, chosen.as_ref(), host, false);
                !held && matches!(placement, Placement::Absent(_))
            };
            let settled = self.settle_problems(&mut deciding.planned, deployment.uid, over);
            for host in settled {
                self.release_booking(deployment.uid, host, &mut deciding.planned);
            }
        }
        Ok(())
    }

    /// Returns the newest release if the deployment still resolves to the same, or else the next one.
    async fn release(
        &mut self,
        deployment: &Deployment,
        resolution: &Resolution,
        planned: &mut Planned,
    ) -> Result<Release, Problem> {
        let newest = match self.standing.releases.get(&deployment.uid) {
            Some(newest) => newest.clone(),
            None => {
                let newest = self.store.read().await?.newest_release(deployment.uid).await?;
                self.standing.releases.insert(deployment.uid, newest.clone());
                newest
            }
        };
        let begun = planned.releases.iter().find(|release| release.deployment == deployment.uid);
        if let Some(same) = begun.or(newest.as_ref()).filter(|newest| newest.inputs_digest == resolution.digest) {
            return Ok(same.clone());
        }
        let before = newest.map(|newest| newest.number);
        let release = Release {
            id: Uuid::now_v7(),
            deployment: deployment.uid,
            number: before.map_or(1, |before| before + 1),
            revision: self.model.revision,
            inputs_digest: resolution.digest,
            inputs: resolution.inputs.to_string(),
        };
        planned.releases.push(release.clone());
        if !self.standing.previews {
            let rollout = self.hand_out(deployment, &release, before).await?;
            planned.rollouts.push(rollout);
        }
        Ok(release)
    }

    /// Plans that an assignment moves.
    fn moves(&self, planned: &mut Planned, moved: Assignment, before: Option<Entry>) {
        if self.standing.problems.contains(&(moved.host, moved.deployment)) {
            planned.problems.push((moved.deployment, moved.host, None));
        }
        planned.moved.push((moved, before));
    }

    /// Plans that an assignment stays, with or without a problem.
    fn stays(&self, planned: &mut Planned, deployment: Uuid, host: Uuid, problem: Option<Problem>) {
        if problem.is_some() || self.standing.problems.contains(&(host, deployment)) {
            planned.problems.push((deployment, host, problem));
        }
        planned.unchanged += 1;
    }

    /// Plans the end of the problems of a deployment with hosts that it no longer concerns, and returns those hosts.
    fn settle_problems(&self, planned: &mut Planned, deployment: Uuid, over: impl Fn(Uuid) -> bool) -> Vec<Uuid> {
        let named: BTreeSet<_> =
            planned.problems.iter().filter(|(of, ..)| *of == deployment).map(|(_, host, _)| *host).collect();
        let problems = self.standing.problems.iter().filter(|(_, of)| *of == deployment).map(|(host, _)| *host);
        let settled: Vec<_> = problems.filter(|host| !named.contains(host) && over(*host)).collect();
        planned.problems.extend(settled.iter().map(|host| (deployment, *host, None)));
        settled
    }
}

/// Lets others go on between many hosts.
async fn breathe(number: usize) {
    if number % BREATH == BREATH - 1 {
        tokio::task::yield_now().await;
    }
}
