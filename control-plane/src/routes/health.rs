//! Health: alive, ready by component, metrics.

use axum::{
    Json as JsonBody,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::{
    routes::{extract::Admin, respond::Answer},
    state::AppState,
};

/// `GET /healthz`: the process answers.
pub async fn alive() -> &'static str {
    std::future::ready("ok\n").await
}

/// `GET /readyz`: each component by itself; 503 if one is not ready.
pub async fn ready(State(state): State<AppState>) -> (StatusCode, JsonBody<Value>) {
    let read = async {
        let mut tx = state.store.read().await?;
        Ok::<_, crate::store::StoreError>((tx.clock().await?, tx.planned().await?))
    };
    let read = read.await;
    let view = state.view.revision();
    let model = state.model().revision;
    let database = read.is_ok();
    let loaded = database && model > titan_api::Revision::ZERO;
    let draining = state.shutdown.is_cancelled();
    let (clock, planned) = read.unwrap_or_default();
    let lag = |revision: titan_api::Revision| (clock.micros() - revision.micros()).max(0);
    let body = json!({
        "database": { "ready": database },
        "view": { "ready": loaded, "revision": view, "behindMicroseconds": lag(view) },
        "planner": { "ready": loaded, "revision": planned, "leads": state.metrics.leader.get() == 1 },
        "draining": draining,
        "version": env!("CARGO_PKG_VERSION"),
    });
    let status = if database && loaded && !draining { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, JsonBody(body))
}

/// `GET /metrics`.
pub async fn metrics(State(state): State<AppState>, _admin: Admin) -> Answer<Response> {
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, media_type)], state.metrics.text()).into_response())
}
