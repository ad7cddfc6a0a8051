//! Documents of every kind: make, read, put, patch, delete, history.

pub mod lists;

use axum::{
    Json as JsonBody,
    extract::{Extension, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::Value;
use titan_api::{
    Code, Document, Kind, Name, Problem, Revision,
    changes::{ApplyAnswer, Change},
    documents::Declared,
    limits,
    pages::Page,
    parse,
    workspaces,
};

use crate::{
    routes::{
        extract::{Admin, Names, Params, Raw, author, name},
        respond::{Answer, RequestId},
    },
    state::AppState,
    store::{Stored, Tx},
    writing::{self, Intent, Place},
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
        document.status = super::hosts::status(state, place.kind, observed.as_ref(), stored.deleted);
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

/// What writes a document takes.
pub(super) struct Writing<'a> {
    pub(super) state: &'a AppState,
    pub(super) admin: &'a Admin,
    pub(super) id: &'a RequestId,
    pub(super) headers: &'a HeaderMap,
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
}

impl Writing<'_> {
    /// Does one thing with one document and returns it as it is after.
    async fn one(&self, intent: Intent, body: &[u8]) -> Result<(ApplyAnswer, Document), Problem> {
        let subject = format!("{} {}", self.method, self.uri);
        let author = author(&self.admin.0, self.id, self.headers, &subject, body)?;
        let outcome = writing::write(self.state, &author, vec![intent], "", false).await?;
        let document = outcome.documents.into_iter().next();
        let document = document.ok_or_else(|| Problem::new(Code::Internal, "the written document was lost"))?;
        Ok((outcome.answer, document))
    }

    /// Reads a document that is to be at `place`.
    fn declared(place: &PlaceOrList, body: &[u8]) -> Result<Declared, Problem> {
        let value: Value = parse::from_slice(body)?;
        let declared = Declared::parse(value, place.workspace.as_ref())?;
        let mismatch = |pointer: &str, detail: String| {
            Err(Problem::new(Code::Invalid, "the document does not belong at this path").at(pointer, detail))
        };
        if declared.kind != place.kind {
            return mismatch("/kind", format!("this path takes a {}", place.kind));
        }
        if declared.metadata.workspace != place.workspace {
            return mismatch("/metadata/workspace", "this path is of another workspace".to_owned());
        }
        if place.name.as_ref().is_some_and(|name| *name != declared.metadata.name) {
            return mismatch("/metadata/name", "this path is of another name".to_owned());
        }
        writing::check(&declared)?;
        Ok(declared)
    }
}

struct PlaceOrList {
    kind: Kind,
    workspace: Option<Name>,
    name: Option<Name>,
}

fn tagged(status: StatusCode, document: Document) -> Response {
    let tag = document.metadata.revision.and_then(|revision| HeaderValue::from_str(&format!("\"{revision}\"")).ok());
    let mut response = (status, JsonBody(document)).into_response();
    if let Some(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// The path of documents: an optional workspace, the kind, an optional name.
fn place(path: &[(String, String)], uri: &Uri) -> Result<PlaceOrList, Problem> {
    let part = |wanted: &str| path.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.as_str());
    let mut segments = uri.path().trim_start_matches("/v1/").split('/');
    let first = segments.next().unwrap_or_default();
    let kind = match (part("workspace"), first) {
        (Some(_), _) => segments.nth(1).unwrap_or_default(),
        (None, first) => first,
    };
    let kind: Kind =
        kind.parse().map_err(|_| Problem::new(Code::NotFound, format!("there is nothing at {}", uri.path())))?;
    Ok(PlaceOrList {
        kind,
        workspace: part("workspace").map(|text| name("workspace", text)).transpose()?,
        name: part("name").map(|text| name(kind.as_str(), text)).transpose()?,
    })
}

fn named(place: PlaceOrList) -> Result<Place, Problem> {
    let name = place.name.ok_or_else(|| Problem::new(Code::NotFound, "no name was given"))?;
    Ok(Place { kind: place.kind, workspace: place.workspace, name })
}

/// `POST` of a new document.
#[expect(clippy::too_many_arguments, reason = "each is an extractor")]
pub async fn create_route(
    State(state): State<AppState>,
    admin: Admin,
    Names(path): Names<Vec<(String, String)>>,
    Extension(id): Extension<RequestId>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Answer<Response> {
    let place = place(&path, &uri)?;
    let declared = Writing::declared(&place, &body)?;
    let writing = Writing { state: &state, admin: &admin, id: &id, headers: &headers, method: &method, uri: &uri };
    let (_, document) = writing.one(Intent::Create(Box::new(declared)), &body).await?;
    Ok(tagged(StatusCode::CREATED, document))
}

/// `GET` of a document.
pub async fn get_route(
    State(state): State<AppState>,
    _admin: Admin,
    Names(path): Names<Vec<(String, String)>>,
    uri: Uri,
    Params(params): Params<GetParams>,
) -> Answer<Response> {
    let place = named(place(&path, &uri)?)?;
    Ok(tagged(StatusCode::OK, get(&state, &place, params.at).await?))
}

/// `PUT` of a document.
#[expect(clippy::too_many_arguments, reason = "each is an extractor")]
pub async fn put_route(
    State(state): State<AppState>,
    admin: Admin,
    Names(path): Names<Vec<(String, String)>>,
    Extension(id): Extension<RequestId>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Answer<Response> {
    let place = place(&path, &uri)?;
    let declared = Writing::declared(&place, &body)?;
    let writing = Writing { state: &state, admin: &admin, id: &id, headers: &headers, method: &method, uri: &uri };
    let (_, document) = writing.one(Intent::Put(Box::new(declared)), &body).await?;
    Ok(tagged(StatusCode::OK, document))
}

/// `PATCH` of a document.
#[expect(clippy::too_many_arguments, reason = "each is an extractor")]
pub async fn patch_route(
    State(state): State<AppState>,
    admin: Admin,
    Names(path): Names<Vec<(String, String)>>,
    Extension(id): Extension<RequestId>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Answer<Response> {
    let place = named(place(&path, &uri)?)?;
    let patch: Value = parse::from_slice(&body)?;
    let writing = Writing { state: &state, admin: &admin, id: &id, headers: &headers, method: &method, uri: &uri };
    let (_, document) = writing.one(Intent::Patch(place, patch), &body).await?;
    Ok(tagged(StatusCode::OK, document))
}

/// `DELETE` of a document.
#[expect(clippy::too_many_arguments, reason = "each is an extractor")]
pub async fn delete_route(
    State(state): State<AppState>,
    admin: Admin,
    Names(path): Names<Vec<(String, String)>>,
    Params(params): Params<DeleteParams>,
    Extension(id): Extension<RequestId>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Answer<JsonBody<ApplyAnswer>> {
    let place = named(place(&path, &uri)?)?;
    let kind = place.kind;
    let writing = Writing { state: &state, admin: &admin, id: &id, headers: &headers, method: &method, uri: &uri };
    let (answer, document) = writing.one(Intent::Delete(place, params.force), &[]).await?;
    // A host without an agent is gone at once, too.
    if kind == Kind::Host
        && let Some(uid) = document.metadata.uid
        && state.store.read().await?.document_by_uid(uid).await?.is_none()
    {
        state.view.forget_host(uid);
        state.credentials.forget_host(uid);
    }
    Ok(JsonBody(answer))
}

/// `GET` of a document's history, newest first.
pub async fn history_route(
    State(state): State<AppState>,
    _admin: Admin,
    Names(path): Names<Vec<(String, String)>>,
    uri: Uri,
) -> Answer<JsonBody<Page<Change>>> {
    let place = named(place(&path, &uri)?)?;
    let workspace = place.workspace.as_deref().unwrap_or_default();
    let items = state.store.read().await?.history(place.kind, workspace, &place.name, limits::PAGE).await?;
    if items.is_empty() {
        return Err(Problem::not_found(place.kind, &place.name).into());
    }
    Ok(JsonBody(Page { items, next: None }))
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
