//! Plans: making them, reading how far they are, writing nodes, telling them something.

pub mod attempts;
pub mod events;

use std::time::Duration;

use axum::{
    Json as JsonBody,
    extract::{Extension, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use titan_api::{
    Code, Document, Kind, Name, Problem, Revision, Spec,
    documents::{API_VERSION, Declared, Metadata},
    limits,
    pages::Page,
    workplans::{
        NewPlan, NodeKind, NodeState, NodeView, ParentView, PlanStatus, SignalAnswer, SignalRequest, WriteNodes,
        WrittenNodes, check_groups,
    },
};
use uuid::Uuid;

use crate::{
    fleet::workplans::Input,
    routes::{
        documents::lists::{ListParams, list as list_documents},
        extract::{Admin, Json, Large, Names, Params, author},
        respond::{Answer, RequestId},
    },
    state::AppState,
    store::{PlanRow, StoreError, Tx},
    workplans::{self, StepError},
    writing::{self, Intent, plans},
};

/// Nodes that have begun, in the answer to how far a plan is.
const CURRENT: usize = 50;
/// Errors in it.
const ERRORS: usize = 10;

/// Which plans.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlansParams {
    workspace: Option<Name>,
    limit: Option<usize>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

/// How long to wait for its end.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitParams {
    wait: Option<u64>,
}

/// Which nodes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodesParams {
    kind: Option<NodeKind>,
    state: Option<NodeState>,
    limit: Option<usize>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

/// Returns how far a plan is; in a list without what goes on in it.
pub(super) async fn status(tx: &mut Tx, row: PlanRow, whole: bool) -> Result<PlanStatus, StoreError> {
    let PlanRow { plan, workspace, name, version, parent, created_at, .. } = row;
    let at = Revision::from_micros;
    let deadline_at = plan.deadline().and_then(|deadline| plan.wall(deadline)).map(at);
    Ok(PlanStatus {
        id: plan.id,
        state: plan.state,
        reason: plan.reason.clone(),
        counts: tx.plan_counts(plan.id).await?,
        current: if whole { tx.plan_current(plan.id, CURRENT).await? } else { Vec::new() },
        recent_errors: if whole { tx.plan_errors(plan.id, ERRORS).await? } else { Vec::new() },
        retries: plan.retries,
        started_at: plan.started_at.map(at),
        finished_at: plan.finished_at.map(at),
        parent: parent.map(|parent| ParentView { plan: parent.plan, node: parent.node, number: parent.number }),
        author: plan.author,
        values: if whole { plan.head.values } else { titan_api::values::Values::new() },
        deadline: plan.head.deadline,
        name,
        workspace,
        version,
        created_at,
        deadline_at,
    })
}

async fn found(tx: &mut Tx, id: Uuid) -> Result<PlanRow, Problem> {
    tx.plan(id).await?.ok_or_else(|| Problem::not_found("plan", id))
}

fn tagged(code: StatusCode, status: PlanStatus) -> Response {
    let tag = HeaderValue::from_str(&format!("\"{}\"", status.version)).ok();
    let mut response = (code, JsonBody(status)).into_response();
    if let Some(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Returns the version that the header `if-match` names.
fn if_match(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim_matches('"');
    if text == "*" {
        return Ok(None);
    }
    let malformed = |_| {
        Problem::new(Code::BadParameter, "the header if-match is malformed")
            .hint("it is the plan's version in quotes, as in its ETag")
    };
    text.parse().map(Some).map_err(malformed)
}

/// `GET /v1/workplans`: the newest first.
pub async fn list(
    State(state): State<AppState>,
    _admin: Admin,
    Params(params): Params<PlansParams>,
) -> Answer<JsonBody<Page<PlanStatus>>> {
    let limit = params.limit.unwrap_or(50).clamp(1, limits::PAGE);
    let malformed = || Problem::new(Code::BadParameter, "the parameter continue is malformed");
    let before = params.next.as_deref().map(|text| {
        let (at, id) = text.split_once('/').ok_or_else(malformed)?;
        Ok::<_, Problem>((at.parse().map_err(|_| malformed())?, id.parse().map_err(|_| malformed())?))
    });
    let (workspace, before) = (params.workspace.as_deref().unwrap_or_default(), before.transpose()?);
    let plans = |mut tx: Tx| async move {
        let mut items = Vec::with_capacity(limit + 1);
        for row in tx.plans(workspace, before, limit + 1).await? {
            items.push(status(&mut tx, row, false).await?);
        }
        Ok(items)
    };
    let mut items = state.store.read_aside(plans).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| format!("{}/{}", last.created_at, last.id));
    Ok(JsonBody(Page { items, next }))
}

/// `POST /v1/workplans`: declares a plan, which may have no nodes yet.
pub async fn create(
    State(state): State<AppState>,
    admin: Admin,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    Large(new): Large<NewPlan>,
) -> Answer<Response> {
    let spec = Spec::WorkPlan(new.spec).to_value();
    let metadata = Metadata::new(new.name, Some(new.workspace));
    let document = Document { api_version: API_VERSION.to_owned(), kind: Kind::WorkPlan, metadata, spec, status: None };
    let value = serde_json::to_value(document)
        .map_err(|error| Problem::new(Code::Internal, format!("the plan cannot be written: {error}")))?;
    let body = value.to_string();
    let author = author(&admin.0, &id, &headers, "workplans", body.as_bytes())?;
    let declared = Declared::parse(value, None)?;
    writing::check(&declared)?;
    let outcome = writing::write(&state, &author, vec![Intent::Create(Box::new(declared))], "", false).await?;
    let made = outcome.documents.first().and_then(|document| document.metadata.uid);
    let made = made.ok_or_else(|| Problem::new(Code::Internal, "the plan was lost"))?;
    let mut tx = state.store.read().await?;
    let row = found(&mut tx, made).await?;
    Ok(tagged(StatusCode::CREATED, status(&mut tx, row, true).await?))
}

/// `GET /v1/workplans/{id}`: waits for its end.
pub async fn get(
    State(state): State<AppState>,
    _admin: Admin,
    Names(id): Names<Uuid>,
    Params(params): Params<WaitParams>,
) -> Answer<Response> {
    let wait = Duration::from_secs(params.wait.unwrap_or(0).min(limits::WAIT_SECONDS));
    let deadline = tokio::time::Instant::now() + wait;
    let mut commits = state.commits();
    loop {
        commits.mark_unchanged();
        let mut tx = state.store.read().await?;
        let row = found(&mut tx, id).await?;
        if row.plan.state.is_final() || tokio::time::Instant::now() >= deadline || state.shutdown.is_cancelled() {
            return Ok(tagged(StatusCode::OK, status(&mut tx, row, true).await?));
        }
        drop(tx);
        changed(&state, &mut commits, deadline).await;
    }
}

/// Waits for a commit, a second at most, or the deadline: another replica's commit may come without a hint.
async fn changed(state: &AppState, commits: &mut tokio::sync::watch::Receiver<u64>, deadline: tokio::time::Instant) {
    let next = deadline.min(tokio::time::Instant::now() + Duration::from_secs(1));
    tokio::select! {
        _ = commits.changed() => {}
        () = tokio::time::sleep_until(next) => {}
        () = state.shutdown.cancelled() => {}
    }
}

/// `GET /v1/workplans/{id}/nodes`.
pub async fn nodes(
    State(state): State<AppState>,
    _admin: Admin,
    Names(id): Names<Uuid>,
    Params(params): Params<NodesParams>,
) -> Answer<JsonBody<Page<NodeView>>> {
    let limit = params.limit.unwrap_or(100).clamp(1, limits::PAGE);
    let filter = (params.kind, params.state, params.next.as_deref().unwrap_or_default());
    let nodes = |mut tx: Tx| async move {
        if tx.plan(id).await?.is_none() {
            return Ok(None);
        }
        tx.plan_node_views(id, filter, limit + 1).await.map(Some)
    };
    let mut items = state.store.read_aside(nodes).await?.ok_or_else(|| Problem::not_found("plan", id))?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| last.name.to_string());
    Ok(JsonBody(Page { items, next }))
}

/// `GET /v1/workplans/{id}/nodes/{node}`: with all attempts and results.
pub async fn node(
    State(state): State<AppState>,
    _admin: Admin,
    Names((id, node)): Names<(Uuid, Name)>,
) -> Answer<JsonBody<NodeView>> {
    let mut tx = state.store.read().await?;
    found(&mut tx, id).await?;
    let view = tx.plan_node_view(id, &node).await?.ok_or_else(|| Problem::not_found("node", &node))?;
    Ok(JsonBody(view))
}

/// `POST /v1/workplans/{id}/nodes`: all of them, or none.
pub async fn write_nodes(
    State(state): State<AppState>,
    admin: Admin,
    Names(id): Names<Uuid>,
    headers: HeaderMap,
    Large(write): Large<WriteNodes>,
) -> Answer<JsonBody<WrittenNodes>> {
    let wanted = if_match(&headers)?;
    let nodes = titan_api::workplans::WorkPlanSpec { nodes: write.nodes, ..Default::default() };
    let faults = nodes.faults("");
    if !faults.is_empty() {
        return Err(Problem::new(Code::Invalid, "the nodes are not valid").with(faults).into());
    }
    check_groups(&nodes.nodes, "/nodes")?;
    for (name, node) in &nodes.nodes {
        plans::check_run(node.run.as_ref(), &format!("/nodes/{name}/run"))?;
    }
    let actor = admin.0.actor();
    let mut tx = state.store.write("workplan").await?;
    let row = tx.plan_for_step(id).await?.ok_or_else(|| Problem::not_found("plan", id))?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != row.version) {
        return Err(workplans::stale(wanted, row.version).into());
    }
    let context = workplans::Context { actor: &actor, wall: state.clock.now() };
    let stepped = workplans::step(&mut tx, id, vec![Input::Write(nodes.nodes)], context).await;
    let stepped = stepped.map_err(|error| match error {
        StepError::Store(error) if error.lost_race() => workplans::stale(row.version, row.version + 1),
        error => error.into(),
    })?;
    tx.notify().await?;
    tx.commit().await?;
    state.committed();
    Ok(JsonBody(WrittenNodes { version: stepped.row.version }))
}

/// `POST /v1/workplans/{id}/signals`.
pub async fn signal(
    State(state): State<AppState>,
    admin: Admin,
    Names(id): Names<Uuid>,
    headers: HeaderMap,
    Json(request): Json<SignalRequest>,
) -> Answer<JsonBody<SignalAnswer>> {
    let wanted = if_match(&headers)?;
    Ok(JsonBody(workplans::tell(&state, id, &request, (&admin.0.actor(), wanted)).await?))
}

/// `GET /v1/workspaces/-/workplans`: the documents of plans of every workspace.
pub async fn documents(
    State(state): State<AppState>,
    _admin: Admin,
    Params(params): Params<ListParams>,
) -> Answer<JsonBody<Page<Document>>> {
    list_documents(&state, Kind::WorkPlan, None, params).await
}
