//! Deployments: how far they are, with which values, and why on which host.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use axum::{Json as JsonBody, extract::State};
use roaring::RoaringBitmap;
use serde::Deserialize;
use titan_api::{
    Kind, Name, Problem, Revision, Spec, limits,
    pipelines::PipelineLog,
    reports::Phase,
    status::{DeploymentStatus, HostDeployment, Rollout, StatusCounts, Why},
    values::MergedValues,
    workplans::{NodeView, PlanStatus},
    workspaces,
};
use uuid::Uuid;

use crate::{
    fleet::{
        bookings::Bookings,
        contexts,
        graphs::{self, Givers, Known, Touch},
        holders::Holders,
        model::{Deployment, Model},
        moves,
        placements::{self, Footing, shortfalls},
        releases, statuses, why,
    },
    routes::{
        documents::find,
        extract::{Admin, Names, Params, name},
        hosts::{last_seen, online_since},
        respond::Answer,
    },
    state::AppState,
    store::{Assignment, ObservedDeployment, Release, Stored, Tx},
    writing::Place,
};

/// Which host.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValuesParams {
    host: Name,
}

/// Which release's rollout; the newest unless given.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutParams {
    release: Option<i64>,
}

/// `GET .../deployments/{name}/status`.
pub async fn status(
    State(state): State<AppState>,
    _admin: Admin,
    Names((workspace, deployment)): Names<(String, String)>,
) -> Answer<JsonBody<DeploymentStatus>> {
    let place = Place {
        kind: Kind::Deployment,
        workspace: Some(name("workspace", &workspace)?),
        name: name("deployment", &deployment)?,
    };
    Ok(JsonBody(read(&state, place).await?))
}

/// Returns how far a deployment is.
pub(crate) async fn read(state: &AppState, place: Place) -> Result<DeploymentStatus, Problem> {
    let mut tx = state.store.read().await?;
    let stored = find(&mut tx, &place).await?;
    let assignments = tx.assignments_of_deployment(stored.uid).await?;
    let observed = tx.reports_of_deployment(stored.uid).await?;
    let mut observed: HashMap<_, _> = observed.into_iter().map(|observed| (observed.report.id, observed)).collect();
    let problems = tx.render_problems(stored.uid).await?;
    let mut problems: HashMap<_, _> = problems.into_iter().map(|problem| (problem.host, problem.problem)).collect();
    let placed: Vec<_> = assignments.iter().map(|assignment| assignment.host).collect();
    let seen: HashMap<_, _> =
        tx.observed_hosts_of(&placed).await?.into_iter().map(|host| (host.uid, host.last_seen)).collect();
    let release = tx.newest_release(stored.uid).await?;
    let planned = tx.planned().await?;
    let rollout = handed_out(&mut tx, stored.uid).await?;
    let way = Way::read(&mut tx, &stored, release).await?;
    let now = state.clock.now();
    let givers = Givers::of(way.known(now));
    let model = state.model();
    let unplaced = match model.deployment(stored.uid) {
        Some(deployment) => {
            let present = assignments.iter().filter(|assignment| assignment.present());
            let held = model.hosts().numbers(present.map(|assignment| &assignment.host));
            let possible = placements::possible(&model, deployment);
            let bookings = bookings(state, &mut tx, &model, deployment, &possible).await?;
            let absences = state.absences.load();
            let footing = Footing { model: &model, bookings: &bookings, absences: &absences };
            shortfalls::problem(footing, deployment, &held)
        }
        None => None,
    };
    let mut counts = StatusCounts::default();
    let mut hosts = BTreeMap::new();
    let assignments: HashMap<_, _> = assignments.into_iter().map(|assignment| (assignment.host, assignment)).collect();
    let uids: BTreeSet<_> = assignments.keys().chain(problems.keys()).copied().collect();
    for uid in uids {
        let Some(host) = host_name(state, &mut tx, uid).await? else { continue };
        let assignment = assignments.get(&uid);
        let report = assignment.and_then(|assignment| observed.remove(&assignment.id()));
        let row = host_deployment(
            state,
            uid,
            host.clone(),
            assignment,
            report.as_ref(),
            problems.remove(&uid),
            seen.get(&uid).copied().flatten(),
        );
        statuses::count(&mut counts, &row);
        let newest = row.digest.is_some() && way.name.as_ref() == Some(&row.release);
        let after = givers.as_ref().filter(|_| newest).map(|givers| givers.at(row.revision).to_owned());
        hosts.insert(host, HostDeployment { after, ..row });
    }
    Ok(DeploymentStatus {
        name: stored.name.clone(),
        workspace: place.workspace.unwrap_or_else(|| stored.name.clone()),
        graph: graphs::steps(way.known(now)),
        release: way.name,
        revision: stored.deleted.unwrap_or(stored.revision),
        planned,
        counts,
        problems: unplaced.into_iter().collect(),
        rollout,
        hosts: hosts.into_values().collect(),
    })
}

/// Returns how the newest release is handed out, while not all hosts are to have it.
async fn handed_out(tx: &mut Tx, deployment: Uuid) -> Result<Option<Rollout>, Problem> {
    let Some(gate) = tx.gate(deployment).await?.filter(|gate| !gate.is_settled()) else { return Ok(None) };
    let row = tx.plan(gate.plan).await?;
    Ok(row.map(|row| Rollout { plan: gate.plan, state: row.plan.state, reason: row.plan.reason }))
}

/// The way of a deployment's newest release, as it is written down.
struct Way {
    log: PipelineLog,
    change: Option<Touch>,
    release: Option<Release>,
    name: Option<String>,
    plan: Option<PlanStatus>,
    nodes: Vec<NodeView>,
}

impl Way {
    async fn read(tx: &mut Tx, stored: &Stored, release: Option<Release>) -> Result<Self, Problem> {
        let workspace = stored.workspace.as_deref().unwrap_or_default();
        let inputs: serde_json::Value =
            release.as_ref().and_then(|release| serde_json::from_str(&release.inputs).ok()).unwrap_or_default();
        let mut places = vec![(Kind::Deployment, workspace, stored.name.as_str())];
        // By what it is now, until there is a release.
        let Spec::Deployment(spec) = &stored.spec else { return Err(Problem::not_found("deployment", &stored.name)) };
        let workload = inputs["context"]["workload"]["name"].as_str().unwrap_or(&spec.workload);
        places.push((Kind::Workload, workspace, workload));
        if let Some(template) = inputs["template"]["name"].as_str() {
            places.push((Kind::Template, workspace, template));
            places.push((Kind::Template, workspaces::DEFAULT, template));
        }
        let upto = release.as_ref().map_or(Revision::from_micros(i64::MAX), |release| release.revision);
        let mut change: Option<Touch> = None;
        for (kind, workspace, name) in places {
            let touch = tx.last_touch(kind, workspace, name, upto).await?;
            if touch.as_ref().map(|touch| touch.revision) > change.as_ref().map(|change| change.revision) {
                change = touch;
            }
        }
        let log = match tx.document(Kind::Workload, workspace, workload).await? {
            Some(workload) => tx.pipeline_log(workload.uid).await?,
            None => PipelineLog::default(),
        };
        let (mut plan, mut nodes) = (None, Vec::new());
        if let (Some(release), Some(gate)) = (&release, tx.gate(stored.uid).await?)
            && gate.to == release.number
            && let Some(row) = tx.plan(gate.plan).await?
        {
            let mut after = String::new();
            loop {
                let page = tx.plan_node_views(gate.plan, (None, None, &after), limits::PAGE).await?;
                let full = page.len() == limits::PAGE;
                after = page.last().map(|node| node.name.to_string()).unwrap_or_default();
                nodes.extend(page);
                if !full {
                    break;
                }
            }
            plan = Some(super::workplans::status(tx, row, true).await?);
        }
        let name = release.as_ref().map(|release| moves::release_name(&stored.name, release));
        Ok(Self { log, change, release, name, plan, nodes })
    }

    fn known(&self, now: Revision) -> Known<'_> {
        Known {
            log: &self.log,
            change: self.change.as_ref(),
            release: self.release.as_ref().zip(self.name.as_deref()),
            plan: self.plan.as_ref(),
            nodes: &self.nodes,
            now,
        }
    }
}

/// Returns what is taken of some hosts, if it matters to a deployment.
async fn bookings(
    state: &AppState,
    tx: &mut Tx,
    model: &Model,
    deployment: &Deployment,
    hosts: &RoaringBitmap,
) -> Result<Bookings, Problem> {
    if deployment.spec.requests.is_empty() {
        return Ok(Bookings::default());
    }
    let problems = tx.pairs_with_render_problem().await?;
    Ok(Bookings::of(model, &Holders::of_hosts(&state.view, model.hosts(), hosts), &problems))
}

async fn host_name(state: &AppState, tx: &mut Tx, uid: Uuid) -> Result<Option<Name>, Problem> {
    if let Some(host) = state.model().host(uid) {
        return Ok(Some(host.to_name()));
    }
    Ok(tx.document_by_uid(uid).await?.map(|stored| stored.name))
}

fn host_deployment(
    state: &AppState,
    uid: Uuid,
    host: Name,
    assignment: Option<&Assignment>,
    observed: Option<&ObservedDeployment>,
    problem: Option<Problem>,
    seen: Option<Revision>,
) -> HostDeployment {
    let last_seen = last_seen(state, uid, seen);
    let counted = statuses::state(assignment, observed, problem.as_ref(), last_seen, online_since(state));
    let report = observed.map(|observed| &observed.report);
    HostDeployment {
        host,
        state: counted,
        release: assignment.map(|assignment| assignment.description.release.clone()).unwrap_or_default(),
        revision: assignment.map(|assignment| assignment.revision).unwrap_or_default(),
        digest: assignment.and_then(|assignment| assignment.bundle),
        phase: report.map(|report| report.phase),
        observed_digest: report.and_then(|report| report.digest),
        message: report.map(message).unwrap_or_default(),
        drift: report.map(|report| report.drift.clone()).unwrap_or_default(),
        commit: report.and_then(|report| report.commit.clone()),
        reported_at: observed.map(|observed| observed.reported_at),
        age_seconds: observed.map(|observed| graphs::age(observed.reported_at, state.clock.now())),
        after: None,
        last_seen,
        problem,
    }
}

/// Returns what the agent said, with the push's fate if it did not succeed.
fn message(report: &titan_api::reports::DeploymentReport) -> String {
    match &report.push {
        Some(push) if push != "pushed" && report.phase == Phase::Healthy && report.message.is_empty() => {
            format!("not pushed: {push}")
        }
        _ => report.message.clone(),
    }
}

/// `GET .../deployments/{name}/rollout?release=`: the plan that hands its newest release out, or the one of this number.
pub async fn rollout(
    State(state): State<AppState>,
    _admin: Admin,
    Names((workspace, deployment)): Names<(String, String)>,
    Params(params): Params<RolloutParams>,
) -> Answer<JsonBody<PlanStatus>> {
    let (workspace, deployment) = (name("workspace", &workspace)?, name("deployment", &deployment)?);
    let place = Place { kind: Kind::Deployment, workspace: Some(workspace.clone()), name: deployment.clone() };
    let mut tx = state.store.read().await?;
    let stored = find(&mut tx, &place).await?;
    let row = match params.release {
        Some(number) => {
            let release =
                tx.release(stored.uid, number).await?.map(|release| moves::release_name(&deployment, &release));
            let release = release.ok_or_else(|| Problem::not_found("release", format!("{deployment}#{number}")))?;
            tx.plan_named(&workspace, &release).await?
        }
        None => match tx.gate(stored.uid).await? {
            Some(gate) => tx.plan(gate.plan).await?,
            None => None,
        },
    };
    let row = row.ok_or_else(|| Problem::not_found("rollout of deployment", &deployment))?;
    Ok(JsonBody(super::workplans::status(&mut tx, row, true).await?))
}

/// `GET .../deployments/{name}/values?host=`.
pub async fn values(
    State(state): State<AppState>,
    _admin: Admin,
    Names((workspace, deployment)): Names<(String, String)>,
    Params(params): Params<ValuesParams>,
) -> Answer<JsonBody<MergedValues>> {
    let (workspace, deployment) = (name("workspace", &workspace)?, name("deployment", &deployment)?);
    let model = super::plans::caught_up(&state).await?;
    let found = model.deployment_named(&workspace, &deployment);
    let deployment = found.ok_or_else(|| Problem::not_found("deployment", &deployment))?;
    let host = model.host_named(&params.host).ok_or_else(|| Problem::not_found("host", &params.host))?;
    let resolution = releases::resolve(&model, deployment)?;
    Ok(JsonBody(contexts::values_with_origins(&resolution, deployment, host)))
}

/// `GET /v1/hosts/{host}/why/{workspace}/{name}`.
pub async fn why(
    State(state): State<AppState>,
    _admin: Admin,
    Names((host, workspace, deployment)): Names<(String, String, String)>,
) -> Answer<JsonBody<Why>> {
    let (workspace, deployment) = (name("workspace", &workspace)?, name("deployment", &deployment)?);
    let model = super::plans::caught_up(&state).await?;
    let found = model.deployment_named(&workspace, &deployment);
    let deployment = found.ok_or_else(|| Problem::not_found("deployment", &deployment))?;
    let host = model.host_named(&host).ok_or_else(|| Problem::not_found("host", &host))?;
    let mut tx = state.store.read().await?;
    let assignment = tx.assignment(deployment.uid, host.uid()).await?;
    let problem = tx.render_problems(deployment.uid).await?.into_iter().find(|problem| problem.host == host.uid());
    let problem = problem.map(|problem| problem.problem);
    let mut observed = tx.reports_of_deployment(deployment.uid).await?;
    observed.retain(|observed| observed.host == host.uid());
    let held = assignment.as_ref().is_some_and(Assignment::present);
    let alone = [host.number().0].into_iter().collect();
    let bookings = bookings(&state, &mut tx, &model, deployment, &alone).await?;
    let absences = state.absences.load();
    let footing = Footing { model: &model, bookings: &bookings, absences: &absences };
    let steps = why::steps(footing, deployment, host, held);
    let summary = match (held, &problem, steps.iter().find(|step| !step.holds)) {
        (true, None, _) => format!("{} has {}: every rule holds", host.name(), deployment.name),
        (true, Some(problem), _) => {
            format!("{} keeps an older release of {}: {}", host.name(), deployment.name, problem.detail)
        }
        (false, Some(problem), None) => {
            format!("{} would have {}, but it cannot be rendered: {}", host.name(), deployment.name, problem.detail)
        }
        (false, _, Some(step)) => {
            format!("{} does not have {}: '{}' does not hold ({})", host.name(), deployment.name, step.rule, step.found)
        }
        (false, None, None) => format!("{} is about to get {}", host.name(), deployment.name),
    };
    let row = match assignment.is_some() || problem.is_some() {
        true => {
            let (uid, name) = (host.uid(), host.to_name());
            let seen = tx.observed_host(uid).await?.and_then(|host| host.last_seen);
            Some(host_deployment(&state, uid, name, assignment.as_ref(), observed.first(), problem, seen))
        }
        false => None,
    };
    Ok(JsonBody(Why { assigned: held, summary, steps, assignment: row }))
}
