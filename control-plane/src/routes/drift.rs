//! Drift: what hosts report of it, and what a person makes of that.

use std::collections::{BTreeMap, HashMap};

use axum::{
    Json as JsonBody,
    extract::{Extension, State},
    http::HeaderMap,
};
use serde_json::{Value, json};
use titan_api::{
    Code, Kind, Name, Problem, Spec,
    drift::{AdoptAnswer, AdoptRequest, DeploymentDrift, Drift, HostDrift},
    parse,
    poll::Bundle,
};
use uuid::Uuid;

use crate::{
    fleet,
    routes::{
        documents::find,
        extract::{Admin, Names, Raw, author, name},
        respond::{Answer, RequestId},
    },
    state::AppState,
    store::{Stored, Tx},
    writing::{self, Author, Intent, Place},
};

/// Returns the place and the name of the deployment of each assignment of a host.
async fn deployments(tx: &mut Tx, host: Uuid) -> Result<HashMap<Uuid, (Name, Name)>, Problem> {
    let assignments = tx.assignments_of_host(host).await?;
    let named = |of: &crate::store::Description| (of.workspace.clone(), of.name.clone());
    Ok(assignments.iter().map(|assignment| (assignment.id(), named(&assignment.description))).collect())
}

/// Returns what has drifted on a host by `workspace/deployment`, without the differences.
pub(super) async fn by_deployment(tx: &mut Tx, host: Uuid) -> Result<BTreeMap<String, Vec<Drift>>, Problem> {
    let observed = tx.drifted_on_host(host).await?;
    if observed.is_empty() {
        return Ok(BTreeMap::new());
    }
    let names = deployments(tx, host).await?;
    let named = observed.into_iter().filter_map(|observed| {
        let (workspace, name) = names.get(&observed.report.id)?;
        Some((format!("{workspace}/{name}"), observed.report.drift))
    });
    Ok(named.collect())
}

fn place(host: &str) -> Result<Place, Problem> {
    Ok(Place { kind: Kind::Host, workspace: None, name: name("host", host)? })
}

/// `GET /v1/hosts/{name}/drift`.
pub async fn drift(
    State(state): State<AppState>,
    _admin: Admin,
    Names(host): Names<String>,
) -> Answer<JsonBody<HostDrift>> {
    let mut tx = state.store.read().await?;
    let host = find(&mut tx, &place(&host)?).await?;
    let names = deployments(&mut tx, host.uid).await?;
    let drift = tx.drift_of_host(host.uid).await?.into_iter().filter_map(|observed| {
        let (workspace, deployment) = names.get(&observed.report.id)?.clone();
        let report = observed.report;
        Some(DeploymentDrift {
            workspace,
            deployment,
            release: report.release,
            digest: report.digest,
            phase: report.phase,
            reported_at: observed.reported_at,
            drift: report.drift,
        })
    });
    let mut deployments: Vec<_> = drift.collect();
    deployments.sort_by(|a, b| (&a.workspace, &a.deployment).cmp(&(&b.workspace, &b.deployment)));
    Ok(JsonBody(HostDrift { host: host.name, deployments }))
}

/// Reads what is asked for, and by whom.
fn read(
    principal: &crate::access::Principal,
    id: &RequestId,
    headers: &HeaderMap,
    subject: &str,
    body: &[u8],
) -> Result<(Author, AdoptRequest, (Name, Name)), Problem> {
    let request: AdoptRequest = parse::from_slice(body)?;
    let mut author = author(principal, id, headers, subject, body)?;
    author.reason = request.reason.clone().or(author.reason);
    let names = request.deployment.split_once('/').map(|(workspace, name)| (Name::new(workspace), Name::new(name)));
    let Some((Ok(workspace), Ok(deployment))) = names else {
        return Err(Problem::new(Code::Invalid, "the request names no deployment")
            .at("/deployment", format!("{:?} is not a deployment; write workspace/name", request.deployment)));
    };
    if request.paths.as_ref().is_some_and(Vec::is_empty) {
        let detail = "an empty list names nothing; leave it out for every file";
        return Err(Problem::new(Code::Invalid, "the request names no file").at("/paths", detail));
    }
    Ok((author, request, (workspace, deployment)))
}

/// Writes the files of a deployment, given as a merge patch, into a host's document.
async fn write(
    state: &AppState,
    author: &Author,
    host: &Stored,
    home: &str,
    files: &Value,
) -> Result<AdoptAnswer, Problem> {
    let place = Place { kind: Kind::Host, workspace: None, name: host.name.clone() };
    let patch = json!({ "spec": { "files": { home: files } } });
    let outcome = writing::write(state, author, vec![Intent::Patch(place, patch)], "", false).await?;
    let spec = outcome.documents.into_iter().next().map(|document| Spec::parse(Kind::Host, document.spec));
    let kept = match spec {
        Some(Ok(Spec::Host(mut spec))) => spec.files.remove(home).unwrap_or_default(),
        _ => return Err(Problem::new(Code::Internal, "the written document was lost")),
    };
    Ok(AdoptAnswer { revision: outcome.answer.revision, paths: kept.into_keys().collect() })
}

/// Returns the first answer to a request that is sent again under its idempotency key. By now the host may say otherwise.
async fn again(state: &AppState, author: &Author, host: &Stored, home: &str) -> Result<Option<AdoptAnswer>, Problem> {
    let Some((key, _)) = &author.once else { return Ok(None) };
    if state.store.read().await?.keyed_answer(&author.actor, key).await?.is_none() {
        return Ok(None);
    }
    // Nothing is written: the key is known.
    write(state, author, host, home, &json!({})).await.map(Some)
}

/// `POST /v1/hosts/{name}/drift:adopt`: what was found on the host becomes the declared state there.
pub async fn adopt(
    State(state): State<AppState>,
    Admin(principal): Admin,
    Names(host): Names<String>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Answer<JsonBody<AdoptAnswer>> {
    let (author, request, (workspace, deployment)) = read(&principal, &id, &headers, &format!("adopt {host}"), &body)?;
    let mut tx = state.store.read().await?;
    let host = find(&mut tx, &place(&host)?).await?;
    let of = Place { kind: Kind::Deployment, workspace: Some(workspace), name: deployment };
    let wanted = find(&mut tx, &of).await?;
    let home = &request.deployment;
    if let Some(answer) = again(&state, &author, &host, home).await? {
        return Ok(JsonBody(answer));
    }
    let nothing = || Problem::new(Code::NotFound, format!("{} does not have {home}", host.name));
    let assignment = tx.assignment(wanted.uid, host.uid).await?.ok_or_else(nothing)?;
    let digest = assignment.bundle.ok_or_else(nothing)?;
    let drift = tx.drift_of_host(host.uid).await?;
    drop(tx);
    let report = drift.into_iter().map(|observed| observed.report).find(|report| report.id == assignment.id());
    let report = report.ok_or_else(|| Problem::new(Code::NotFound, format!("nothing of {home} has drifted")))?;
    if report.digest != Some(digest) {
        return Err(Problem::new(
            Code::Stale,
            format!("what {} reported of {home} is about another bundle", host.name),
        )
        .hint("look again when the host has the newest one")
        .into());
    }
    let lost = || Problem::new(Code::Internal, format!("the bundle {digest} is lost"));
    let body = state.bundles.get(&state.store, &digest).await?.ok_or_else(lost)?;
    let bundle: Bundle = serde_json::from_slice(&body).map_err(|_| lost())?;
    let adopted = fleet::drift::adopted(home, &bundle, &report.drift, request.paths.as_deref())?;
    let answer = write(&state, &author, &host, home, &json!(adopted)).await?;
    tracing::info!(host.name = %host.name, deployment = %home, "files of {home} on host {} are adopted", host.name);
    Ok(JsonBody(answer))
}

/// `POST /v1/hosts/{name}/drift:unadopt`: files of the host return to what the template says.
pub async fn unadopt(
    State(state): State<AppState>,
    Admin(principal): Admin,
    Names(host): Names<String>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Answer<JsonBody<AdoptAnswer>> {
    let (mut author, request, _) = read(&principal, &id, &headers, &format!("unadopt {host}"), &body)?;
    let host = find(&mut state.store.read().await?, &place(&host)?).await?;
    let home = &request.deployment;
    if let Some(answer) = again(&state, &author, &host, home).await? {
        return Ok(JsonBody(answer));
    }
    let Spec::Host(spec) = &host.spec else { return Err(Problem::not_found("host", &host.name).into()) };
    let nothing = || Problem::new(Code::NotFound, format!("nothing of {home} on {} is adopted", host.name));
    let kept = spec.files.get(home).ok_or_else(nothing)?;
    let paths = fleet::drift::unadopted(home, kept, request.paths.as_deref())?;
    let all = kept.keys().all(|path| paths.contains(path));
    let gone: serde_json::Map<_, _> = paths.into_iter().map(|path| (path, Value::Null)).collect();
    let files = if all { Value::Null } else { Value::Object(gone) };
    // What stays was decided from the document as it was read.
    author.if_match = author.if_match.or(Some(host.revision));
    Ok(JsonBody(write(&state, &author, &host, home, &files).await?))
}
