//! A control plane without sockets, tasks and waiting: the real router, planner and view, moved by hand.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use anyhow::{Context as _, bail};
use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use http_body_util::BodyExt as _;
use serde_json::Value;
use titan_api::{Digest, Revision, SetDigest};
use titan_control_plane::{
    clock::Clock,
    fleet::{
        causes::Affected,
        view::{Everything, FleetView},
    },
    planning::{Planning, Standing},
    render::Renderer,
    routes::router::router,
    serve::{open, renderer},
    state::AppState,
    store::{Assignment, Descriptions},
    tasks::{follow, planner::Planner},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::planes;

/// What a request was answered with.
#[derive(Debug)]
pub struct Answered {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: axum::http::HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

/// A control plane that does only what it is told to.
#[derive(Debug)]
pub struct Fleet {
    /// What the handlers share.
    pub state: AppState,
    planner: Planner,
    router: Router,
    admin: String,
    url: String,
    worker: PathBuf,
    now: Arc<AtomicI64>,
}

impl Fleet {
    /// Opens a database; `worker` is the path of this crate's `titan-node`. Time stands at `now` and moves with each
    /// request.
    pub async fn open(url: &str, worker: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("token");
        let now = Arc::new(AtomicI64::new(1_800_000_000_000_000));
        let renderer = renderer(&planes::config(url, worker.into()))?;
        let (state, planner) = Self::start(url, worker.into(), &now, renderer, Some(file.clone())).await?;
        let admin = std::fs::read_to_string(&file).context("a new database gives a token")?.trim().to_owned();
        let router = router(state.clone());
        Ok(Self { state, planner, router, admin, url: url.to_owned(), worker: worker.into(), now })
    }

    async fn start(
        url: &str,
        worker: PathBuf,
        now: &Arc<AtomicI64>,
        renderer: Renderer,
        token: Option<PathBuf>,
    ) -> anyhow::Result<(AppState, Planner)> {
        // Histories come as fast as they can.
        let base = titan_control_plane::Config { requests_per_second: 1_000_000, ..planes::config(url, worker) };
        let config = titan_control_plane::Config { admin_token_file: token, ..base };
        let time = Arc::clone(now);
        let clock = Clock::new(move || Revision::from_micros(time.fetch_add(7, Ordering::Relaxed)));
        Ok(open(config, renderer, clock, CancellationToken::new()).await?)
    }

    /// Ends this control plane as if its process had, and opens the database anew.
    pub async fn restart(self) -> anyhow::Result<Self> {
        let Self { state, planner, router, admin, url, worker, now } = self;
        let (store, renderer) = (state.store.clone(), state.renderer.clone());
        drop((router, planner, state));
        store.close().await;
        // On PostgreSQL the lease of a process that is gone has to run out.
        now.fetch_add(600_000_000, Ordering::Relaxed);
        let mut waited = 0;
        // The lock of the database is given back when the last of its connections is closed.
        let (state, planner) = loop {
            match Self::start(&url, worker.clone(), &now, renderer.clone(), None).await {
                Ok(started) => break started,
                Err(_) if waited < 200 => {
                    waited += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                Err(error) => return Err(error),
            }
        };
        let router = router_of(&state);
        Ok(Self { state, planner, router, admin, url, worker, now })
    }

    /// Moves the wall clock by some microseconds, back if negative.
    pub fn shift_clock(&self, micros: i64) {
        self.now.fetch_add(micros, Ordering::Relaxed);
    }

    /// Lets the planner write in chunks of about `pairs` pairs of deployment and host.
    pub fn plan_in_chunks_of(&mut self, pairs: usize) {
        self.planner.set_chunks(pairs);
    }

    /// Returns whether the view says what one says that is built from the rows.
    pub async fn view_is_rebuilt(&self) -> anyhow::Result<bool> {
        let mut tx = self.state.store.read().await?;
        let (clock, mut all) = (tx.clock().await?, Everything::default());
        tx.assignments_after(&mut Descriptions::default(), Revision::ZERO, |assignment| all.take(assignment)).await?;
        let rebuilt = FleetView::default();
        rebuilt.load(&all, clock);
        Ok(said(&rebuilt) == said(&self.state.view))
    }

    /// Returns the hosts that are to run more than they have room for, of one resource.
    #[must_use]
    pub fn overcommitted(&self, resource: &str) -> Vec<String> {
        let model = self.state.model();
        let crowded = model.hosts().iter().filter(|host| {
            let set = self.state.view.slot(host.uid()).set();
            let present = set.entries().iter().filter(|entry| entry.present());
            let requests =
                present.filter_map(|entry| model.deployment(entry.deployment())?.spec.requests.get(resource));
            host.capacity(resource).is_some_and(|capacity| requests.sum::<u64>() > capacity)
        });
        crowded.map(|host| host.name().to_owned()).collect()
    }

    /// Lets the planner do one step; returns whether there may be more.
    pub async fn plan(&mut self) -> anyhow::Result<bool> {
        Ok(self.planner.pass().await?)
    }

    /// Lets the view follow the feed.
    pub async fn follow(&self) -> anyhow::Result<()> {
        Ok(follow::pass(&self.state).await?)
    }

    /// Lets everything come to rest.
    pub async fn settle(&mut self) -> anyhow::Result<()> {
        while self.plan().await? {}
        self.follow().await
    }

    /// Decides everything from scratch and returns what would be written: nothing, in a fleet at rest whose planner
    /// missed no cause.
    pub async fn undecided(&self) -> anyhow::Result<Vec<String>> {
        let model = self.state.model();
        let mut affected = Affected::default();
        affected.deployments.extend(model.deployments().map(|deployment| deployment.uid));
        affected.hosts.extend(model.hosts().iter().map(|host| host.uid()));
        for host in self.state.store.read().await?.observed_hosts().await? {
            affected.hosts.insert(host.uid);
        }
        let mut standing = Standing::of(&self.state.view, &model, &self.state.store).await?;
        let mut planning = Planning {
            model: &model,
            view: &self.state.view,
            standing: &mut standing,
            store: &self.state.store,
            renderer: &self.state.renderer,
        };
        let planned = planning.preview(&affected).await?;
        let moved = planned.moved.iter().map(|(after, before)| format!("{before:?} would become {after:?}"));
        let releases = planned.releases.iter().map(|release| format!("release {} is missing", release.inputs));
        Ok(moved.chain(releases).collect())
    }

    /// Sends a request with a bearer token.
    pub async fn send(&self, method: Method, path: &str, token: &str, body: &Value) -> anyhow::Result<Answered> {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request =
            Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        let response = self.router.clone().oneshot(request.body(body)?).await?;
        let (parts, body) = response.into_parts();
        Ok(Answered { status: parts.status, headers: parts.headers, body: body.collect().await?.to_bytes().to_vec() })
    }

    /// Sends a request as the admin and returns its answer, which must be a success.
    pub async fn admin(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let answered = self.send(method.clone(), path, &self.admin.clone(), body).await?;
        if !answered.status.is_success() {
            bail!("{method} {path} was answered {}: {}", answered.status, String::from_utf8_lossy(&answered.body));
        }
        Ok(if answered.body.is_empty() { Value::Null } else { serde_json::from_slice(&answered.body)? })
    }

    /// Returns what the admin is answered at a path, as text.
    pub async fn admin_text(&self, path: &str) -> anyhow::Result<String> {
        let answered = self.send(Method::GET, path, &self.admin.clone(), &Value::Null).await?;
        if !answered.status.is_success() {
            bail!("{path} was answered {}", answered.status);
        }
        Ok(String::from_utf8(answered.body)?)
    }

    /// Applies documents.
    pub async fn apply(&self, documents: &[Value]) -> anyhow::Result<Value> {
        self.admin(Method::POST, "/v1/apply", &serde_json::json!({ "resources": documents })).await
    }

    /// Enrols a host and returns its credential.
    pub async fn enrol(&self, host: &str) -> anyhow::Result<String> {
        let token = self.admin(Method::POST, "/v1/enrolment-tokens", &serde_json::json!({ "host": host })).await?;
        let attempt = uuid::Uuid::new_v4();
        let body = serde_json::json!({ "host": host, "token": token["token"], "attempt": attempt });
        let answered = self.send(Method::POST, "/v1/enrol", "", &body).await?;
        let answer: Value = serde_json::from_slice(&answered.body)?;
        Ok(answer["credential"].as_str().context("a credential")?.to_owned())
    }
}

/// Returns what a view says of each host that has anything: its digest, and its assignments in order.
fn said(view: &FleetView) -> BTreeMap<Uuid, (SetDigest, Vec<Assignment>)> {
    let sets = view.sets().into_iter().filter(|(_, set)| !set.entries().is_empty());
    sets.map(|(host, set)| {
        let mut assignments: Vec<_> = set.entries().iter().map(|entry| entry.assignment(host)).collect();
        assignments.sort_by_key(|assignment| assignment.deployment);
        (host, (set.digest(), assignments))
    })
    .collect()
}

fn router_of(state: &AppState) -> Router {
    router(state.clone())
}

/// Returns a document.
#[must_use]
pub fn document(kind: &str, workspace: Option<&str>, name: &str, spec: &Value) -> Value {
    let mut document = serde_json::json!({
        "apiVersion": "titan/v1", "kind": kind, "metadata": { "name": name }, "spec": spec,
    });
    if let Some(workspace) = workspace {
        document["metadata"]["workspace"] = workspace.into();
    }
    document
}

/// Returns the digest of what an answer holds of a bundle.
#[must_use]
pub fn bundle_digest(bundle: &serde_json::value::RawValue) -> Digest {
    Digest::of(bundle.get().as_bytes())
}
