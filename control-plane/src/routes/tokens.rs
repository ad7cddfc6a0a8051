//! Tokens of people and pipelines.

use std::time::Duration;

use axum::{Json as JsonBody, extract::State, http::StatusCode};
use titan_api::{
    Problem,
    enrolment::{NewToken, Token, TokenRequest},
    pages::Page,
};
use uuid::Uuid;

use crate::{
    access,
    routes::{
        extract::{Admin, Json, Names},
        respond::Answer,
    },
    state::AppState,
    store::TokenRow,
};

fn record(row: TokenRow) -> Token {
    Token { id: row.id, name: row.name, created_at: row.created_at, expires_at: row.expires_at }
}

/// `POST /v1/tokens`.
pub async fn create(
    State(state): State<AppState>,
    _admin: Admin,
    Json(request): Json<TokenRequest>,
) -> Answer<(StatusCode, JsonBody<NewToken>)> {
    let expires_at = request.ttl_seconds.map(|ttl| state.clock.after(Duration::from_secs(u64::from(ttl))));
    let mut tx = state.store.write("request").await?;
    let (row, token) = access::add_admin_token(&mut tx, request.name, state.clock.now(), expires_at).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, JsonBody(NewToken { record: record(row), token })))
}

/// `GET /v1/tokens`.
pub async fn list(State(state): State<AppState>, _admin: Admin) -> Answer<JsonBody<Page<Token>>> {
    let rows = state.store.read().await?.admin_tokens().await?;
    Ok(JsonBody(Page { items: rows.into_iter().map(record).collect(), next: None }))
}

/// `DELETE /v1/tokens/{id}`. The last one cannot be ended: nobody could get in any more.
pub async fn delete(State(state): State<AppState>, _admin: Admin, Names(id): Names<Uuid>) -> Answer<StatusCode> {
    let mut tx = state.store.write("request").await?;
    let all = tx.admin_tokens().await?;
    if all.len() == 1 && all.iter().any(|token| token.id == id) {
        return Err(Problem::new(titan_api::Code::InUse, "the last token cannot be ended")
            .hint("make another one first")
            .into());
    }
    if !tx.remove_admin_token(id).await? {
        return Err(Problem::not_found("token", id).into());
    }
    tx.commit().await?;
    access::forget_all(&state);
    Ok(StatusCode::NO_CONTENT)
}
