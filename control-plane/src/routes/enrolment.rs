//! Enrolment: how an agent gets its host's credential.

use std::time::Duration;

use axum::{Json as JsonBody, extract::State, http::StatusCode};
use serde_json::json;
use titan_api::{
    Code, Kind, Problem,
    enrolment::{EnrolAnswer, EnrolRequest, EnrolmentToken, EnrolmentTokenRequest},
    tasks::{ENROL, TaskState},
};
use uuid::Uuid;

use crate::{
    access,
    routes::{
        extract::{Admin, Json},
        reports::check_facts,
        respond::Answer,
    },
    state::AppState,
    store::{ObservedHost, TokenKind, TokenRow},
};

/// How long a one-time token can be used, unless told.
const TTL_SECONDS: u32 = 24 * 3600;
/// How long at most.
const TTL_SECONDS_MOST: u32 = 30 * 24 * 3600;

/// `POST /v1/enrolment-tokens`.
pub async fn create_token(
    State(state): State<AppState>,
    _admin: Admin,
    Json(request): Json<EnrolmentTokenRequest>,
) -> Answer<(StatusCode, JsonBody<EnrolmentToken>)> {
    let ttl = request.ttl_seconds.unwrap_or(TTL_SECONDS);
    if !(1..=TTL_SECONDS_MOST).contains(&ttl) {
        let detail = format!("{ttl} seconds; it can be 1 to {TTL_SECONDS_MOST}");
        return Err(Problem::new(Code::Invalid, detail.clone()).at("/ttlSeconds", detail).into());
    }
    let secret = access::new_secret(TokenKind::Join)?;
    let mut tx = state.store.write("request").await?;
    let host = tx.document(Kind::Host, "", &request.host).await?;
    let host = host.ok_or_else(|| {
        Problem::not_found("host", &request.host).hint(format!("make it: titan create host {}", request.host))
    })?;
    let expires_at = state.clock.after(Duration::from_secs(u64::from(ttl)));
    let row = TokenRow {
        id: Uuid::now_v7(),
        kind: TokenKind::Join,
        name: request.host.clone(),
        host: Some(host.uid),
        created_at: state.clock.now(),
        expires_at: Some(expires_at),
        used_by: None,
    };
    tx.add_token(&row, &access::hash(&secret)).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, JsonBody(EnrolmentToken { host: request.host, token: secret, expires_at })))
}

/// `POST /v1/enrol`. The one-time token is its authority; used again by the same attempt, because an answer was lost, it
/// gives a new credential and ends the one before.
pub async fn enrol(State(state): State<AppState>, Json(request): Json<EnrolRequest>) -> Answer<JsonBody<EnrolAnswer>> {
    let refused = || {
        Problem::new(Code::Unauthorized, "the token is unknown, used up, out of date, or for another host")
            .hint("get another one: titan host join-command HOST")
    };
    check_facts(&request.facts)?;
    let now = state.clock.now();
    let hash = access::hash(&request.token);
    // Looked up before anything is locked: whoever guesses tokens holds up nobody.
    state.store.read().await?.token_by_hash(&hash).await?.ok_or_else(refused)?;
    let attempt = request.attempt.to_string();
    let credential = access::new_secret(TokenKind::Host)?;
    let mut tx = state.store.write("request").await?;
    let token = tx.token_by_hash(&hash).await?.ok_or_else(refused)?;
    let usable = token.kind == TokenKind::Join
        && token.name == request.host
        && token.expires_at.is_none_or(|end| end > now)
        && token.used_by.as_ref().is_none_or(|used_by| *used_by == attempt);
    let host = token.host.filter(|_| usable).ok_or_else(refused)?;
    tx.use_join_token(token.id, &attempt).await?;
    tx.remove_host_tokens(host, Some(TokenKind::Host)).await?;
    let row = TokenRow {
        id: Uuid::now_v7(),
        kind: TokenKind::Host,
        name: request.host.clone(),
        host: Some(host),
        created_at: now,
        expires_at: None,
        used_by: None,
    };
    tx.add_token(&row, &access::hash(&credential)).await?;
    let before = tx.observed_host(host).await?.unwrap_or_default();
    let observed = ObservedHost {
        uid: host,
        enrolled_at: Some(now),
        last_seen: Some(now),
        facts: request.facts,
        report_seq: 0,
        ..before
    };
    tx.put_observed_host(&observed).await?;
    tx.queue_facts(host, now).await?;
    let subject = format!("Host {}", request.host);
    tx.end_tasks(ENROL, &subject, TaskState::Completed, &json!({ "enrolledAt": now }), now).await?;
    tx.commit().await?;
    access::forget_host(&state, host);
    // It counts its reports from the beginning.
    state.view.slot(host).told().forget();
    state.committed();
    tracing::info!(host.name = %request.host, "host {} enrolled", request.host);
    Ok(JsonBody(EnrolAnswer { host: request.host, host_id: host, credential }))
}
