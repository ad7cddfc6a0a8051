//! Documents of every kind: make, read, put, patch, delete, history.

pub mod lists;

use axum::{
    Json as JsonBody,
    extract::{FromRequest, FromRequestParts, Request, State},
    http::{HeaderValue, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use titan_api::{
    Code, Document, Kind, Name, Problem, Revision,
    changes::{ApplyAnswer, Change},
    documents::Declared,
    limits,
    pages::Page,
    parse, workspaces,
};

use crate::{
    access,
    routes::{
        extract::{Admin, Names, Params, Raw, author, name},
        respond::{Answer, Failure, RequestId},
    },
    state::AppState,
    store::{Stored, Tx},
    writing::{self, Author, Intent, Place},
};

/// Which state of a document to read.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetParams {
    at: Option<Revision>,
}

/// How to delete.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteParams {
    #[serde(default)]
    force: bool,
}

/// Returns a document, with its status unless as of the past.
async fn get(state: &AppState, place: &Place, at: Option<Revision>) -> Answer<Document> {
    let mut tx = state.store.read().await?;
    let workspace = place.workspace.as_deref().unwrap_or_default();
    if let Some(at) = at {
        let found = tx.documents_at(place.kind, workspace, &place.name, at).await?.pop();
        return found.ok_or_else(|| Problem::not_found(place.kind, format!("{} at {at}", place.name)).into());
    }
    let stored = find(&mut tx, place).await?;
    let mut document = stored.document();
    if place.kind == Kind::Host {
        let observed = tx.observed_host(stored.uid).await?;
        let drift = super::drift::by_deployment(&mut tx, stored.uid).await?;
        document.status = super::hosts::status(state, place.kind, observed.as_ref(), stored.deleted, drift);
    }
    Ok(document)
}

/// Returns a document; a deployment or host also while it waits for its hosts to confirm the removal.
pub(super) async fn find(tx: &mut Tx, place: &Place) -> Result<Stored, Problem> {
    let workspace = place.workspace.as_deref().unwrap_or_default();
    let found = match tx.document(place.kind, workspace, &place.name).await? {
        Some(found) => Some(found),
        None => tx.deleted_document(place.kind, workspace, &place.name).await?,
    };
    found.ok_or_else(|| Problem::not_found(place.kind, &place.name))
}

/// Where the path points: at all documents of a kind, or at one.
#[derive(Debug, Clone)]
pub struct At {
    kind: Kind,
    workspace: Option<Name>,
    name: Option<Name>,
}

impl At {
    fn of(path: &[(String, String)], uri: &Uri) -> Result<Self, Problem> {
        let part = |wanted: &str| path.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.as_str());
        let mut segments = uri.path().trim_start_matches("/v1/").split('/');
        let first = segments.next().unwrap_or_default();
        let kind = if part("workspace").is_some() { segments.nth(1).unwrap_or_default() } else { first };
        let nothing = |_| Problem::new(Code::NotFound, format!("there is nothing at {}", uri.path()));
        let kind: Kind = kind.parse().map_err(nothing)?;
        Ok(Self {
            kind,
            workspace: part("workspace").map(|text| name("workspace", text)).transpose()?,
            name: part("name").map(|text| name(kind.as_str(), text)).transpose()?,
        })
    }

    /// Returns the place of the one document that the path points at.
    fn one(self) -> Result<Place, Problem> {
        let name = self.name.ok_or_else(|| Problem::new(Code::NotFound, "no name was given"))?;
        Ok(Place { kind: self.kind, workspace: self.workspace, name })
    }

    /// Reads a document that is to be where the path points.
    fn read(&self, body: &[u8]) -> Result<Declared, Problem> {
        let value: Value = parse::from_slice(body)?;
        let declared = Declared::parse(value, self.workspace.as_ref())?;
        let mismatch = |pointer: &str, detail: String| {
            Err(Problem::new(Code::Invalid, "the document does not belong at this path").at(pointer, detail))
        };
        if declared.kind != self.kind {
            return mismatch("/kind", format!("this path takes a {}", self.kind));
        }
        if declared.metadata.workspace != self.workspace {
            return mismatch("/metadata/workspace", "this path is of another workspace".to_owned());
        }
        if self.name.as_ref().is_some_and(|name| *name != declared.metadata.name) {
            return mismatch("/metadata/name", "this path is of another name".to_owned());
        }
        Ok(declared)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for At {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Names(path) = Names::<Vec<(String, String)>>::from_request_parts(parts, state).await?;
        Ok(Self::of(&path, &parts.uri)?)
    }
}

/// A write of one document: where, by whom and under which conditions, and the body.
#[derive(Debug, Clone)]
pub struct Write {
    at: At,
    author: Author,
    body: Bytes,
}

impl FromRequest<AppState> for Write {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        let Admin(principal) = Admin::from_request_parts(&mut parts, state).await?;
        let at = At::from_request_parts(&mut parts, state).await?;
        let id = parts.extensions.get::<RequestId>().cloned().unwrap_or_else(|| RequestId(String::new()));
        let (headers, subject) = (parts.headers.clone(), format!("{} {}", parts.method, parts.uri));
        let Raw(body) = Raw::from_request(Request::from_parts(parts, body), state).await?;
        let author = author(&principal, &id, &headers, &subject, &body)?;
        Ok(Self { at, author, body })
    }
}

impl Write {
    /// Reads and checks the document in the body. A large template takes its time: not on the threads of requests.
    async fn declared(&self) -> Result<Box<Declared>, Problem> {
        let declared = self.at.read(&self.body)?;
        let checked = tokio::task::spawn_blocking(move || writing::check(&declared).map(|()| Box::new(declared))).await;
        checked.map_err(|_| Problem::new(Code::Internal, "checking the document failed"))?
    }

    /// Does one thing with the document and returns it as it is after.
    async fn done(&self, state: &AppState, intent: Intent) -> Result<(ApplyAnswer, Document), Problem> {
        let outcome = writing::write(state, &self.author, vec![intent], "", false).await?;
        let document = outcome.documents.into_iter().next();
        let document = document.ok_or_else(|| Problem::new(Code::Internal, "the written document was lost"))?;
        Ok((outcome.answer, document))
    }
}

fn tagged(status: StatusCode, document: Document) -> Response {
    let tag = document.metadata.revision.and_then(|revision| HeaderValue::from_str(&format!("\"{revision}\"")).ok());
    let mut response = (status, JsonBody(document)).into_response();
    if let Some(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// `POST` of a new document.
pub async fn create_route(State(state): State<AppState>, write: Write) -> Answer<Response> {
    let intent = Intent::Create(write.declared().await?);
    Ok(tagged(StatusCode::CREATED, write.done(&state, intent).await?.1))
}

/// `GET` of a document.
pub async fn get_route(
    State(state): State<AppState>,
    _admin: Admin,
    at: At,
    Params(params): Params<GetParams>,
) -> Answer<Response> {
    Ok(tagged(StatusCode::OK, get(&state, &at.one()?, params.at).await?))
}

/// `PUT` of a document.
pub async fn put_route(State(state): State<AppState>, write: Write) -> Answer<Response> {
    let intent = Intent::Put(write.declared().await?);
    Ok(tagged(StatusCode::OK, write.done(&state, intent).await?.1))
}

/// `PATCH` of a document.
pub async fn patch_route(State(state): State<AppState>, write: Write) -> Answer<Response> {
    let intent = Intent::Patch(write.at.clone().one()?, parse::from_slice(&write.body)?);
    Ok(tagged(StatusCode::OK, write.done(&state, intent).await?.1))
}

/// `DELETE` of a document.
pub async fn delete_route(
    State(state): State<AppState>,
    Params(params): Params<DeleteParams>,
    write: Write,
) -> Answer<JsonBody<ApplyAnswer>> {
    let place = write.at.clone().one()?;
    let kind = place.kind;
    let (answer, document) = write.done(&state, Intent::Delete(place, params.force)).await?;
    // A host without an agent is gone at once, too.
    if kind == Kind::Host
        && let Some(uid) = document.metadata.uid
        && state.store.read().await?.document_by_uid(uid).await?.is_none()
    {
        state.view.forget_host(uid);
        access::forget_host(&state, uid);
    }
    Ok(JsonBody(answer))
}

/// Which part of a history to read.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryParams {
    limit: Option<usize>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

/// `GET` of a document's history, newest first.
pub async fn history_route(
    State(state): State<AppState>,
    _admin: Admin,
    at: At,
    Params(params): Params<HistoryParams>,
) -> Answer<JsonBody<Page<Change>>> {
    let place = at.one()?;
    let document = (place.kind, place.workspace.as_deref().unwrap_or_default(), &*place.name);
    let limit = params.limit.unwrap_or(limits::PAGE).clamp(1, limits::PAGE);
    let before = params.next.as_deref().map(parse_next).transpose()?;
    let after = before.unwrap_or((Revision::from_micros(i64::MAX), 0));
    let history = |mut tx: Tx| async move { tx.history_before(document, after, limit + 1).await };
    let mut items = state.store.read_aside(history).await?;
    if items.is_empty() && before.is_none() {
        return Err(Problem::not_found(place.kind, &place.name).into());
    }
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| format!("{}.{}", last.revision.micros(), last.ordinal));
    Ok(JsonBody(Page { items, next }))
}

/// Reads after which change a page begins.
fn parse_next(text: &str) -> Result<(Revision, u32), Problem> {
    let parts = text.split_once('.').and_then(|(at, ordinal)| Some((at.parse().ok()?, ordinal.parse().ok()?)));
    let (at, ordinal): (i64, u32) =
        parts.ok_or_else(|| Problem::new(Code::BadParameter, "continue: take it from the page before"))?;
    Ok((Revision::from_micros(at), ordinal))
}

/// Makes the workspace `default` if there is none.
pub async fn ensure_default_workspace(state: &AppState) -> Result<(), Problem> {
    let value = serde_json::json!({
        "apiVersion": titan_api::documents::API_VERSION, "kind": "Workspace",
        "metadata": { "name": workspaces::DEFAULT },
        "spec": { "description": "The workspace that exists from the start" },
    });
    if state.store.read().await?.document(Kind::Workspace, "", workspaces::DEFAULT).await?.is_some() {
        return Ok(());
    }
    let author = writing::Author {
        actor: "system".to_owned(),
        reason: Some("first start".to_owned()),
        request_id: uuid::Uuid::now_v7().to_string(),
        if_match: None,
        once: None,
    };
    let declared = Declared::parse(value, None)?;
    writing::write(state, &author, vec![Intent::Put(Box::new(declared))], "", false).await.map(drop)
}
