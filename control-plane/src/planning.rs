//! Planning: from what is affected to what is written.
//!
//! Three steps: gather what is there from the store, decide and render without holding a transaction, write. The planner
//! task does all three; a preview stops before the last.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use titan_api::{Digest, Problem, Revision, problems::Code};
use uuid::Uuid;

use crate::{
    fleet::{
        causes::Affected,
        contexts,
        model::{Deployment, Model},
        moves,
        placements::{self, Placement},
        releases::{self, Resolution},
        view::Entry,
    },
    render::{self, Job, Renderer},
    store::{Assignment, Lease, Release, StoreError, Tx},
};

/// What is there of one deployment that is to be decided.
#[derive(Debug, Default)]
struct Gathered {
    /// Only these hosts; absent: all of them.
    hosts: Option<BTreeSet<Uuid>>,
    existing: HashMap<Uuid, Assignment>,
    newest_release: Option<Release>,
    problems: BTreeSet<Uuid>,
}

/// Everything that is there of what is to be decided.
#[derive(Debug, Default)]
pub struct Present(BTreeMap<Uuid, Gathered>);

/// What is to be written.
#[derive(Debug, Default)]
pub struct Planned {
    /// Assignments that move, with what was there before.
    pub moved: Vec<(Assignment, Option<Assignment>)>,
    /// What outcomes came to that were not known.
    pub renderings: BTreeMap<Digest, Digest>,
    /// Render problems that came (`Some`) or went, by deployment and host.
    pub problems: Vec<(Uuid, Uuid, Option<Problem>)>,
    /// New releases.
    pub releases: Vec<Release>,
    /// What was rendered for assignments that move.
    pub bundles: BTreeMap<Digest, Bytes>,
    /// How many pairs of deployment and host were looked at and stay.
    pub unchanged: usize,
}

/// Gathers what is there of what is affected.
pub async fn gather(tx: &mut Tx, model: &Model, affected: &Affected) -> Result<Present, StoreError> {
    let mut present = BTreeMap::new();
    for uid in &affected.deployments {
        present.insert(*uid, Gathered::default());
    }
    for host in &affected.hosts {
        let existing = tx.assignments_of_host(*host).await?;
        let held: BTreeSet<_> = existing.iter().filter(|a| a.present()).map(|a| a.deployment).collect();
        let gone = held.iter().filter(|uid| model.deployment(**uid).is_none()).copied();
        let concerned = model.deployments().filter(|deployment| {
            let placement = placements::place_one(model, deployment, *host, held.contains(&deployment.uid));
            held.contains(&deployment.uid) || !matches!(placement, Placement::Absent(_))
        });
        let troubled = tx.pairs_with_render_problem().await?;
        let troubled = troubled.into_iter().filter(|(troubled, _)| troubled == host).map(|(_, deployment)| deployment);
        for uid in concerned.map(|deployment| deployment.uid).chain(gone).chain(troubled).collect::<BTreeSet<_>>() {
            let replicated = model.deployment(uid).is_some_and(|deployment| deployment.spec.replicas.is_some());
            if replicated {
                // A host that comes or goes may move a replica elsewhere: all hosts are looked at.
                present.entry(uid).or_default().hosts = None;
                continue;
            }
            let gathered =
                present.entry(uid).or_insert_with(|| Gathered { hosts: Some(BTreeSet::new()), ..Gathered::default() });
            if let Some(hosts) = &mut gathered.hosts {
                hosts.insert(*host);
                gathered.existing.extend(existing.iter().filter(|a| a.deployment == uid).map(|a| (*host, a.clone())));
            }
        }
    }
    for (uid, gathered) in &mut present {
        if gathered.hosts.is_none() {
            gathered.existing = tx.assignments_of_deployment(*uid).await?.into_iter().map(|a| (a.host, a)).collect();
        }
        gathered.newest_release = tx.newest_release(*uid).await?;
        gathered.problems = tx.render_problems(*uid).await?.into_iter().map(|problem| problem.host).collect();
    }
    Ok(Present(present))
}

/// A pair of deployment and host that waits for its rendering.
struct Waiting {
    deployment: Arc<Deployment>,
    release: Release,
    host: Uuid,
    key: Digest,
}

/// Decides what is written, rendering once per distinct outcome.
///
/// A template that cannot be rendered is a problem of its hosts and part of the result; rendering that does not work at
/// all is an error, after which everything is as it was.
pub async fn decide(model: &Model, present: &Present, renderer: &Renderer) -> Result<Planned, Problem> {
    let mut planned = Planned::default();
    let mut waiting = Vec::new();
    let mut jobs: BTreeMap<Digest, Job> = BTreeMap::new();
    for (uid, gathered) in &present.0 {
        match model.deployment(*uid) {
            Some(deployment) => {
                decide_deployment(model, deployment, gathered, &mut planned, &mut waiting, &mut jobs);
            }
            None => {
                for (host, existing) in &gathered.existing {
                    let reason = titan_api::poll::RemovalReason::DeploymentDeleted;
                    let told = moves::removal(&existing.description, reason, existing.description.on_remove);
                    let entry = Entry::from(existing.clone());
                    planned.take(moves::absent(&entry, *host, &Arc::new(told)), *uid, *host, gathered, None);
                }
                let leftover = gathered.problems.iter().filter(|host| !gathered.existing.contains_key(host));
                planned.problems.extend(leftover.map(|host| (*uid, *host, None)));
            }
        }
    }
    let (keys, jobs): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
    let rendered: HashMap<_, _> = keys.into_iter().zip(renderer.render(jobs).await).collect();
    for Waiting { deployment, release, host, key } in waiting {
        let Some(gathered) = present.0.get(&deployment.uid) else { continue };
        let bundle = match rendered.get(&key) {
            Some(Ok(bundle)) => bundle,
            Some(Err(problem)) if problem.code == Code::Internal => return Err(problem.clone()),
            Some(Err(problem)) => {
                planned.take(None, deployment.uid, host, gathered, Some(problem.clone()));
                continue;
            }
            None => return Err(Problem::new(Code::Internal, "a rendering was lost")),
        };
        let existing = gathered.existing.get(&host).cloned().map(Entry::from);
        let told = Arc::new(moves::description(&deployment, &release));
        let decided = moves::present(&told, host, existing.as_ref(), bundle.digest);
        if decided.is_some() {
            planned.bundles.insert(bundle.digest, bundle.body.clone());
            planned.renderings.insert(key, bundle.digest);
        }
        planned.take(decided, deployment.uid, host, gathered, None);
    }
    planned.moved.sort_by_key(|(assignment, _)| (assignment.deployment, assignment.host));
    Ok(planned)
}

fn decide_deployment(
    model: &Model,
    deployment: &Arc<Deployment>,
    gathered: &Gathered,
    planned: &mut Planned,
    waiting: &mut Vec<Waiting>,
    jobs: &mut BTreeMap<Digest, Job>,
) {
    let held: BTreeSet<_> = gathered.existing.values().filter(|a| a.present()).map(|a| a.host).collect();
    let placements = match &gathered.hosts {
        None => placements::place_all(model, deployment, &held),
        Some(hosts) => hosts
            .iter()
            .map(|host| (*host, placements::place_one(model, deployment, *host, held.contains(host))))
            .collect(),
    };
    let resolution = releases::resolve(model, deployment);
    let release = match &resolution {
        Ok(resolution) => {
            let release = newest_or_next(deployment, gathered.newest_release.as_ref(), resolution, model.revision);
            if gathered.newest_release.as_ref().is_none_or(|newest| newest.id != release.id) {
                planned.releases.push(release.clone());
            }
            Some(release)
        }
        Err(_) => None,
    };
    if gathered.hosts.is_none() {
        // A host that is no longer concerned has no problem with it any more.
        let settled = gathered.problems.iter().filter(|host| !placements.contains_key(host));
        planned.problems.extend(settled.map(|host| (deployment.uid, *host, None)));
    }
    for (host, placement) in placements {
        let existing = gathered.existing.get(&host);
        let outcome = match (placement, &resolution, &release, model.host(host)) {
            (Placement::Absent(reason), ..) => {
                let decided = existing.and_then(|existing| {
                    let told = moves::removal(&existing.description, reason, deployment.spec.on_remove);
                    moves::absent(&Entry::from(existing.clone()), host, &Arc::new(told))
                });
                planned.take(decided, deployment.uid, host, gathered, None);
                continue;
            }
            (Placement::Undecided(detail), ..) => Err(Problem::new(Code::Invalid, detail)),
            (Placement::Present, Ok(resolution), Some(release), Some(model_host)) => {
                Ok((resolution, release, contexts::context(resolution, deployment, release.number, model_host)))
            }
            (Placement::Present, Err(problem), ..) => Err(problem.clone()),
            (Placement::Present, ..) => Err(Problem::new(Code::Internal, "the host is not in the model")),
        };
        match outcome {
            Err(problem) => planned.take(None, deployment.uid, host, gathered, Some(problem)),
            Ok((resolution, release, context)) => {
                let key = render::outcome_key(&resolution.template, &context);
                jobs.entry(key)
                    .or_insert_with(|| Job { template: Arc::clone(&resolution.template), context: Arc::new(context) });
                waiting.push(Waiting { deployment: Arc::clone(deployment), release: release.clone(), host, key });
            }
        }
    }
}

/// Returns the newest release if it resolved to the same, or else the next one.
fn newest_or_next(
    deployment: &Deployment,
    newest: Option<&Release>,
    resolution: &Resolution,
    revision: Revision,
) -> Release {
    match newest {
        Some(newest) if newest.inputs_digest == resolution.digest => newest.clone(),
        _ => Release {
            id: Uuid::now_v7(),
            deployment: deployment.uid,
            number: newest.map_or(1, |newest| newest.number + 1),
            revision,
            inputs_digest: resolution.digest,
            inputs: resolution.inputs.to_string(),
        },
    }
}

impl Planned {
    fn take(
        &mut self,
        decided: Option<Assignment>,
        deployment: Uuid,
        host: Uuid,
        gathered: &Gathered,
        problem: Option<Problem>,
    ) {
        if problem.is_some() || gathered.problems.contains(&host) {
            self.problems.push((deployment, host, problem));
        }
        match decided {
            Some(assignment) => self.moved.push((assignment, gathered.existing.get(&host).cloned())),
            None => self.unchanged += 1,
        }
    }

    /// Writes everything in one transaction: the clock moves only if an assignment does. Returns the revision if so.
    pub async fn write(
        &self,
        tx: &mut Tx,
        lease: Lease,
        bookmark: Revision,
        wall: Revision,
    ) -> Result<Option<Revision>, StoreError> {
        // The clock first, always: whoever holds it is alone.
        let revision = if self.moved.is_empty() { None } else { Some(tx.tick(wall).await?) };
        tx.check_lease(lease).await?;
        for release in &self.releases {
            tx.add_release(release).await?;
        }
        for (digest, body) in &self.bundles {
            tx.put_bundle(digest, body, wall).await?;
        }
        if let Some(revision) = revision {
            // A host that was removed by force since it was decided gets none.
            let gone = tx.hosts_deleted_after(bookmark).await?;
            let moved = self.moved.iter().filter(|(assignment, _)| !gone.contains(&assignment.host));
            let moved: Vec<_> = moved.map(|(assignment, _)| Assignment { revision, ..assignment.clone() }).collect();
            tx.put_assignments(&moved, wall).await?;
        }
        tx.put_renderings(&self.renderings).await?;
        for (deployment, host, problem) in &self.problems {
            let problem = problem.as_ref().map(|problem| (problem, bookmark));
            tx.set_render_problem(*deployment, *host, problem).await?;
        }
        tx.set_bookmark("planner", bookmark).await?;
        tx.notify().await?;
        Ok(revision)
    }
}
