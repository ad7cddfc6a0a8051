//! Health: alive, ready by component, metrics.

use std::time::Duration;

use axum::{
    Json as JsonBody,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use titan_api::{
    Revision,
    readiness::{DatabaseReadiness, PlannerReadiness, QueueReadiness, Readiness, ViewReadiness},
};

use crate::{
    routes::{extract::Admin, respond::Answer},
    state::AppState,
    store::{StoreError, Waiting},
};

/// How long something may wait before whoever is to decide or do it is not ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long `/metrics` waits for the database before it tells what it told before.
const METRICS_WAIT: Duration = Duration::from_secs(2);

/// `GET /healthz`: the process answers.
pub async fn alive() -> &'static str {
    std::future::ready("ok\n").await
}

/// `GET /readyz`: each component by itself. 503 if hosts and people cannot be answered; a planner that is stuck keeps
/// nobody from that.
pub async fn ready(State(state): State<AppState>) -> (StatusCode, JsonBody<Readiness>) {
    let read = async {
        let mut tx = state.store.read().await?;
        Ok::<_, StoreError>((tx.clock().await?, tx.planned().await?, tx.waiting().await?))
    };
    let read = read.await;
    let view = state.view.revision();
    let model = state.model().revision;
    let database = read.is_ok();
    let loaded = database && model > Revision::ZERO;
    let draining = state.shutdown.is_cancelled();
    let (clock, planned, waiting) = read.unwrap_or_default();
    let ages = Ages::of(&waiting, state.clock.now());
    let queue = |age| QueueReadiness { ready: database && age < PATIENCE.as_secs_f64(), oldest_pending_seconds: age };
    let body = Readiness {
        database: DatabaseReadiness { ready: database },
        view: ViewReadiness {
            ready: loaded,
            revision: view,
            behind_microseconds: (clock.micros() - view.micros()).max(0),
        },
        planner: PlannerReadiness {
            ready: loaded && ages.planner < PATIENCE.as_secs_f64(),
            revision: planned,
            behind_seconds: ages.planner,
            leads: state.metrics.leader.get() == 1,
        },
        tasks: queue(ages.tasks),
        workplans: queue(ages.workplans),
        draining,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let status = if database && loaded && !draining { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, JsonBody(body))
}

/// For how many seconds the oldest of each sort has waited.
#[derive(Debug, PartialEq)]
struct Ages {
    planner: f64,
    tasks: f64,
    workplans: f64,
}

impl Ages {
    fn of(waiting: &Waiting, now: Revision) -> Self {
        let age = |since: Option<Revision>| {
            let micros = since.map_or(0, |since| now.micros().saturating_sub(since.micros()).max(0));
            Duration::from_micros(micros.unsigned_abs()).as_secs_f64()
        };
        let workplans = age(waiting.plan).max(age(waiting.attempt));
        Self { planner: age(waiting.change), tasks: age(waiting.task), workplans }
    }
}

/// `GET /metrics`.
pub async fn metrics(State(state): State<AppState>, _admin: Admin) -> Answer<Response> {
    // Asked of the database by whoever looks: a planner that hangs, or none that leads, tells nothing about itself.
    let waiting = async { state.store.read().await?.waiting().await };
    if let Ok(Ok(waiting)) = tokio::time::timeout(METRICS_WAIT, waiting).await {
        let ages = Ages::of(&waiting, state.clock.now());
        state.metrics.planner_behind.set(ages.planner);
        state.metrics.tasks_queue_age.set(ages.tasks);
        state.metrics.workplans_queue_age.set(ages.workplans);
    }
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, media_type)], state.metrics.text()).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_due_yet_does_not_wait() {
        let at = |seconds: i64| Some(Revision::from_micros(seconds * 1_000_000));
        let now = Revision::from_micros(100_000_000);
        assert_eq!(Ages::of(&Waiting::default(), now), Ages { planner: 0.0, tasks: 0.0, workplans: 0.0 });
        let waiting = Waiting { change: at(39), task: at(130), plan: at(98), attempt: at(95) };
        assert_eq!(Ages::of(&waiting, now), Ages { planner: 61.0, tasks: 0.0, workplans: 5.0 });
    }
}
