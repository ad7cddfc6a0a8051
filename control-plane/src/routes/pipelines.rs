//! Pipelines: what they report of a workload's source and builds.

use axum::{Json as JsonBody, extract::State};
use titan_api::{
    Code, Kind, Name, Problem, Spec,
    pipelines::{PipelineAnswer, PipelineEvent, PipelineLog},
};

use crate::{
    fleet::pipelines,
    routes::{
        documents::find,
        extract::{Admin, Json, Names, name},
        respond::Answer,
    },
    state::AppState,
    store::{Stored, Tx},
    writing::Place,
};

async fn place(tx: &mut Tx, kind: Kind, workspace: &Name, name: Name) -> Result<Stored, Problem> {
    find(tx, &Place { kind, workspace: Some(workspace.clone()), name }).await
}

/// `POST .../deployments/{name}/events`: about the deployment's workload.
pub async fn of_deployment(
    State(state): State<AppState>,
    admin: Admin,
    Names((workspace, deployment)): Names<(String, String)>,
    Json(event): Json<PipelineEvent>,
) -> Answer<JsonBody<PipelineAnswer>> {
    let (workspace, deployment) = (name("workspace", &workspace)?, name("deployment", &deployment)?);
    let stored = place(&mut state.store.read().await?, Kind::Deployment, &workspace, deployment.clone()).await?;
    let Spec::Deployment(spec) = stored.spec else { return Err(Problem::not_found("deployment", &deployment).into()) };
    record(&state, &admin, &workspace, spec.workload, &event).await
}

/// `POST .../workloads/{name}/events`.
pub async fn of_workload(
    State(state): State<AppState>,
    admin: Admin,
    Names((workspace, workload)): Names<(String, String)>,
    Json(event): Json<PipelineEvent>,
) -> Answer<JsonBody<PipelineAnswer>> {
    let (workspace, workload) = (name("workspace", &workspace)?, name("workload", &workload)?);
    record(&state, &admin, &workspace, workload, &event).await
}

/// `GET .../workloads/{name}/events`: the newest first.
pub async fn log(
    State(state): State<AppState>,
    _admin: Admin,
    Names((workspace, workload)): Names<(String, String)>,
) -> Answer<JsonBody<PipelineLog>> {
    let (workspace, workload) = (name("workspace", &workspace)?, name("workload", &workload)?);
    let mut tx = state.store.read().await?;
    let stored = place(&mut tx, Kind::Workload, &workspace, workload).await?;
    Ok(JsonBody(tx.pipeline_log(stored.uid).await?))
}

/// Keeps what was reported. It takes no clock: nothing that a host is to have follows from it.
async fn record(
    state: &AppState,
    admin: &Admin,
    workspace: &Name,
    workload: Name,
    event: &PipelineEvent,
) -> Answer<JsonBody<PipelineAnswer>> {
    let faults = event.faults();
    if !faults.is_empty() {
        return Err(Problem::new(Code::Invalid, "the report is not valid").with(faults).into());
    }
    let (actor, now) = (admin.0.actor(), state.clock.now());
    let mut tx = state.store.write("pipelines").await?;
    let stored = place(&mut tx, Kind::Workload, workspace, workload.clone()).await?;
    let recorded = match event {
        PipelineEvent::Source(report) => {
            let known = tx.source(stored.uid, &report.commit).await?;
            match pipelines::seen(known.as_ref(), report, &actor, now) {
                Some(source) => tx.put_source(stored.uid, &source).await.map(|()| true)?,
                None => false,
            }
        }
        PipelineEvent::Build(report) => {
            let known = tx.build(stored.uid, &report.id).await?;
            match pipelines::built(known.as_ref(), report, &actor, now)? {
                Some(build) => tx.put_build(stored.uid, &build).await?,
                None => false,
            }
        }
    };
    if recorded {
        let version = match &stored.spec {
            Spec::Workload(spec) => spec.version.as_deref().unwrap_or_default(),
            _ => "",
        };
        tx.trim_pipeline_log(stored.uid, version).await?;
        tx.commit().await?;
    }
    Ok(JsonBody(PipelineAnswer { workload, recorded }))
}
