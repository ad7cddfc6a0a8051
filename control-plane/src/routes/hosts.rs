//! Hosts: their status, and making many at once.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json as JsonBody,
    extract::{Extension, State},
    http::{HeaderMap, StatusCode},
};
use titan_api::{
    Code, Kind, Name, Problem, Revision,
    changes::{ApplyAnswer, Operation},
    documents::Declared,
    drift::Drift,
    hosts::{BulkCreate, HostStatus},
    limits, parse,
    poll::RemovalReason,
    reports::{PruneAnswer, PruneRequest},
};
use uuid::Uuid;

use crate::{
    routes::{
        extract::{Admin, Json, Names, Raw, author, name},
        respond::{Answer, RequestId},
    },
    state::AppState,
    store::{Assignment, Description, ObservedHost, Written},
    tasks::heartbeats,
    writing::{self, Intent},
};

/// Returns since when a host must not have been seen to count as offline.
#[must_use]
pub(crate) fn online_since(state: &AppState) -> Revision {
    state.clock.before(heartbeats::silence(state))
}

/// Returns when a host was last seen: in memory or as written down.
pub(crate) fn last_seen(state: &AppState, uid: Uuid, written: Option<Revision>) -> Option<Revision> {
    state.view.seen(uid).max(written)
}

/// Returns the status part of a document.
pub(super) fn status(
    state: &AppState,
    kind: Kind,
    observed: Option<&ObservedHost>,
    deleting_since: Option<Revision>,
    drift: BTreeMap<String, Vec<Drift>>,
) -> Option<serde_json::Value> {
    if kind != Kind::Host {
        return None;
    }
    let mut status = observed.map_or_else(HostStatus::default, |host| {
        let last_seen = last_seen(state, host.uid, host.last_seen);
        HostStatus {
            enrolled_at: host.enrolled_at,
            last_seen,
            online: last_seen >= Some(online_since(state)),
            facts: host.facts.clone(),
            orphans: host.orphans.clone(),
            ..HostStatus::default()
        }
    });
    (status.deleting_since, status.drift) = (deleting_since, drift);
    serde_json::to_value(status).ok()
}

/// `POST /v1/hosts:bulkCreate`: all the hosts with a task for each, or nothing.
pub async fn bulk_create(
    State(state): State<AppState>,
    admin: Admin,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Answer<(StatusCode, JsonBody<ApplyAnswer>)> {
    let request: BulkCreate = parse::from_slice(&body)?;
    if request.hosts.is_empty() || request.hosts.len() > limits::BULK_HOSTS {
        let detail = format!("{} hosts; one request takes 1 to {}", request.hosts.len(), limits::BULK_HOSTS);
        return Err(Problem::new(Code::TooLarge, detail.clone()).at("/hosts", detail).into());
    }
    let mut intents = Vec::with_capacity(request.hosts.len());
    for (index, value) in request.hosts.into_iter().enumerate() {
        let at = |problem: Problem| problem.under(&format!("/hosts/{index}"));
        let declared = Declared::parse(value, None).map_err(at)?;
        if declared.kind != Kind::Host {
            return Err(at(Problem::new(Code::Invalid, "only hosts can be made here").at("/kind", "not a Host")).into());
        }
        intents.push(Intent::Create(Box::new(declared)));
    }
    let mut author = author(&admin.0, &id, &headers, "bulkCreate", &body)?;
    author.reason = request.reason.or(author.reason);
    let outcome = writing::write(&state, &author, intents, "/hosts/{}", false).await?;
    Ok((StatusCode::CREATED, JsonBody(outcome.answer)))
}

/// `POST /v1/hosts/{name}/prune`: tells a host to remove what it runs though nobody declares it.
pub async fn prune(
    State(state): State<AppState>,
    Admin(principal): Admin,
    Names(host): Names<String>,
    Extension(id): Extension<RequestId>,
    Json(request): Json<PruneRequest>,
) -> Answer<JsonBody<PruneAnswer>> {
    let host: Name = name("host", &host)?;
    let mut tx = state.store.write("prune").await?;
    let revision = tx.tick(state.clock.now()).await?;
    let stored = tx.document(Kind::Host, "", &host).await?.ok_or_else(|| Problem::not_found("host", &host))?;
    let orphans = tx.observed_host(stored.uid).await?.map(|observed| observed.orphans).unwrap_or_default();
    let pruned: Vec<_> = match &request.ids {
        None => orphans,
        Some(ids) => {
            for id in ids {
                if !orphans.iter().any(|orphan| orphan.id == *id) {
                    return Err(Problem::not_found("orphan", id).into());
                }
            }
            orphans.into_iter().filter(|orphan| ids.contains(&orphan.id)).collect()
        }
    };
    if pruned.is_empty() {
        return Ok(JsonBody(PruneAnswer { pruned }));
    }
    let known = tx.assignments_of_host(stored.uid).await?;
    let mut tombstones = Vec::new();
    for orphan in &pruned {
        let known = known.iter().find(|known| known.id() == orphan.id);
        if known.is_some_and(Assignment::present) {
            continue;
        }
        tombstones.push(match known {
            // It is told once more.
            Some(known) => Assignment { revision, ..known.clone() },
            None => Assignment {
                deployment: orphan.id,
                host: stored.uid,
                description: Arc::new(Description {
                    deployment: orphan.id,
                    workspace: orphan.workspace.clone(),
                    name: orphan.name.clone(),
                    release: String::new(),
                    depends_on: Vec::new(),
                    on_remove: titan_api::deployments::OnRemove::Delete,
                    reason: Some(RemovalReason::Pruned),
                }),
                revision,
                bundle: None,
            },
        });
    }
    tx.put_assignments(&tombstones, state.clock.now()).await?;
    let named: Vec<_> = pruned.iter().map(|orphan| format!("{}/{}", orphan.workspace, orphan.name)).collect();
    let reason = request.reason.map_or_else(String::new, |reason| format!(": {reason}"));
    let reason = format!("orphans pruned: {}{reason}", named.join(", "));
    let document = stored.document();
    let written = Written {
        operation: Operation::Update,
        before: Some(&document),
        after: Some(&document),
        actor: &principal.actor(),
        reason: Some(&reason),
        request_id: &id.0,
    };
    tx.add_change(revision, 0, &document, &written).await?;
    tx.notify().await?;
    tx.commit().await?;
    state.committed();
    tracing::info!(host.name = %host, orphans = pruned.len(), "orphans of host {host} are to be removed");
    Ok(JsonBody(PruneAnswer { pruned }))
}
