//! `POST /v1/plan`: which hosts would change, before anything is written.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json as JsonBody,
    extract::{Extension, State},
    http::HeaderMap,
};
use titan_api::{
    Code, Digest, Problem,
    changes::{Action, ApplyRequest, Change, Operation},
    parse,
    plans::{Plan, Unplaced},
    poll::Bundle,
};
use uuid::Uuid;

use crate::{
    fleet::{
        absences::Absences,
        causes,
        model::Model,
        placements::{Footing, shortfalls},
        plans,
        view::Entry,
    },
    planning::{Planned, Planning, Standing},
    routes::{
        apply::checked,
        extract::{Admin, Raw, author},
        respond::{Answer, RequestId},
    },
    state::AppState,
    tasks::follow,
    writing,
};

/// How long a preview waits for the planner to have decided what was written before.
const CATCH_UP: Duration = Duration::from_secs(10);

/// Returns the model once everything that was committed before is in it and decided.
pub(super) async fn caught_up(state: &AppState) -> Result<Arc<Model>, Problem> {
    let clock = state.store.read().await?.clock().await?;
    let deadline = tokio::time::Instant::now() + CATCH_UP;
    loop {
        let model = state.model();
        if model.revision >= clock && state.store.read().await?.planned().await? >= clock {
            return Ok(model);
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(Problem::new(Code::Unavailable, "the planner is behind; try again in a moment"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The handler.
pub async fn plan(
    State(state): State<AppState>,
    admin: Admin,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Answer<JsonBody<Plan>> {
    let request: ApplyRequest = parse::from_slice(&body)?;
    let author = author(&admin.0, &id, &headers, "plan", &body)?;
    let outcome = writing::write(&state, &author, checked(request).await?, "/resources/{}", true).await?;
    let before = caught_up(&state).await?;
    let mut model = Model::clone(&before);
    let mut changes = Vec::new();
    for (result, document) in outcome.answer.results.iter().zip(outcome.documents) {
        let operation = match result.action {
            Action::Created => Operation::Create,
            Action::Updated => Operation::Update,
            Action::Deleted | Action::Unchanged => continue,
        };
        model.put(&document)?;
        changes.push(Change {
            revision: document.metadata.revision.unwrap_or_default(),
            ordinal: 0,
            operation,
            kind: document.kind,
            workspace: document.metadata.workspace.clone(),
            name: document.metadata.name.clone(),
            uid: document.metadata.uid.unwrap_or_default(),
            before: None,
            after: Some(document),
            actor: String::new(),
            reason: None,
            request_id: String::new(),
        });
    }
    let affected = causes::affected(&changes, &model);
    // Whatever was decided before is in the view.
    follow::pass(&state).await?;
    let mut standing = Standing::of(&state.view, &model, &state.store).await?;
    standing.absences = Absences::clone(&state.absences.load());
    let mut planning = Planning {
        model: &model,
        view: &state.view,
        standing: &mut standing,
        store: &state.store,
        renderer: &state.renderer,
    };
    let planned = planning.preview(&affected).await?;
    let bundles = named_bundles(&state, &planned).await?;
    let groups = plans::groups(&planned, &model, &bundles);
    let moved = planned.moved.iter().map(|(after, _)| after.deployment);
    let concerned: BTreeSet<_> = affected.deployments.iter().chain(&affected.targets).copied().chain(moved).collect();
    let unplaced = unplaced(&model, &standing, &concerned);
    Ok(JsonBody(Plan { results: outcome.answer.results, groups, unchanged: planned.unchanged, unplaced }))
}

/// Returns which of the deployments would be on fewer hosts than they are to be, after a preview.
fn unplaced(model: &Model, standing: &Standing, concerned: &BTreeSet<Uuid>) -> Vec<Unplaced> {
    let footing = Footing { model, bookings: &standing.bookings, absences: &standing.absences };
    let deployments = concerned.iter().filter_map(|uid| model.deployment(*uid));
    let short = deployments.filter_map(|deployment| {
        let problem = shortfalls::problem(footing, deployment, &standing.bookings.hosts(deployment.uid))?;
        let (workspace, deployment) = (deployment.workspace.clone(), deployment.name.clone());
        Some(Unplaced { deployment, workspace, detail: problem.detail })
    });
    short.collect()
}

/// Returns every bundle, old or new, that is named in what is planned.
async fn named_bundles(state: &AppState, planned: &Planned) -> Result<HashMap<Digest, Bundle>, Problem> {
    let both = planned.moved.iter().map(|(after, before)| [after.bundle, before.as_ref().and_then(Entry::bundle)]);
    let digests: BTreeSet<_> = both.flatten().flatten().collect();
    let mut bundles = HashMap::new();
    for digest in digests {
        let body = match planned.bundles.get(&digest) {
            Some(body) => Some(body.clone()),
            None => state.bundles.get(&state.store, &digest).await?,
        };
        if let Some(bundle) = body.and_then(|body| serde_json::from_slice(&body).ok()) {
            bundles.insert(digest, bundle);
        }
    }
    Ok(bundles)
}
