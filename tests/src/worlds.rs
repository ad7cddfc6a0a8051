//! A control plane with hosts that speak the agent's protocol but run no agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::Value;
use sqlx::Connection as _;
use titan_api::{
    Digest, Revision, SetDigest,
    changes::{ApplyAnswer, ApplyRequest},
    client::{Client, Polled, WriteOptions},
    drift::Drift,
    enrolment::{EnrolRequest, EnrolmentTokenRequest},
    hosts::Facts,
    poll::{Bundle, PollAnswer, Tombstone},
    reports::{DeploymentReport, Phase, Report},
};
use uuid::Uuid;

use crate::{
    databases::{self, Database},
    manifests,
    planes::Plane,
};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `ready` gives something; fails with `what` after [`PATIENCE`].
pub async fn until<T>(what: &str, mut ready: impl AsyncFnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ready().await? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("waited {PATIENCE:?} for {what}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A control plane over a database of its own.
#[derive(Debug)]
pub struct World {
    /// The control plane.
    pub plane: Plane,
    /// A client that may do everything.
    pub admin: Client,
    /// Its database.
    pub database: Database,
}

/// What was answered to a request that was made by hand.
#[derive(Debug, Clone)]
pub struct Raw {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, `Null` if it is not JSON.
    pub body: Value,
    /// The body as text.
    pub text: String,
}

impl Raw {
    /// Returns a header's text, empty if it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Returns the code of the problem, empty if it is none.
    #[must_use]
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// Returns the pointers of the problem's faults.
    #[must_use]
    pub fn pointers(&self) -> Vec<&str> {
        let faults = self.body["errors"].as_array();
        faults.into_iter().flatten().filter_map(|fault| fault["pointer"].as_str()).collect()
    }
}

impl World {
    /// Starts a control plane over a new SQLite database. `worker`: path of this crate's `titan-node`.
    pub async fn start(worker: &str) -> anyhow::Result<Self> {
        Self::over(databases::sqlite(), worker).await
    }

    /// Starts a control plane over a new database.
    pub async fn over(database: Database, worker: &str) -> anyhow::Result<Self> {
        let plane = Plane::start(&database, worker, "").await?;
        let admin = plane.client();
        Ok(Self { plane, admin, database })
    }

    /// Writes documents, all or none.
    pub async fn apply(&self, resources: impl IntoIterator<Item = Value>) -> anyhow::Result<ApplyAnswer> {
        let request = ApplyRequest { resources: resources.into_iter().collect(), ..ApplyRequest::default() };
        Ok(self.admin.apply(&request, &WriteOptions::default()).await?)
    }

    /// Makes a host and enrols it.
    pub async fn host(&self, name: &str, labels: &str) -> anyhow::Result<PolledHost> {
        self.apply([manifests::host(name, labels)]).await?;
        self.enrol(name).await
    }

    /// Enrols a host that is there.
    pub async fn enrol(&self, name: &str) -> anyhow::Result<PolledHost> {
        let host: titan_api::Name = name.parse()?;
        let request = EnrolmentTokenRequest { host: host.clone(), ttl_seconds: None };
        let token = self.admin.enrolment_token(&request).await?.token;
        let request = EnrolRequest { host, token, attempt: Uuid::now_v7(), facts: Facts::new() };
        let answer = Client::new(&self.plane.server, None)?.enrol(&request).await?;
        Ok(PolledHost::new(Client::new(&self.plane.server, Some(answer.credential.clone()))?, name, answer.credential))
    }

    /// Waits until everything that was written is decided. Returns the first revision that is not covered.
    pub async fn settled(&self) -> anyhow::Result<Revision> {
        self.admin.plan(&ApplyRequest::default()).await?;
        self.clock().await
    }

    /// Returns the first revision after everything that was committed.
    pub async fn clock(&self) -> anyhow::Result<Revision> {
        // A page that begins far ahead is empty and tells where the clock is; the clock is behind it.
        let mut since = None;
        loop {
            let page = self.admin.changes(since, 0).await?;
            if page.items.is_empty() {
                return Ok(page.cursor);
            }
            since = Some(page.cursor);
        }
    }

    /// Counts the rows of every table but those of leases; for SQLite.
    pub async fn rows(&self) -> anyhow::Result<BTreeMap<String, i64>> {
        let mut connection = sqlx::SqliteConnection::connect(&self.database.url).await?;
        let names: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table'")
            .fetch_all(&mut connection)
            .await?;
        let mut rows = BTreeMap::new();
        for name in names.into_iter().filter(|name| name != "leases") {
            let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {name}"));
            let count = sqlx::query_scalar(sql).fetch_one(&mut connection).await?;
            rows.insert(name, count);
        }
        Ok(rows)
    }

    /// Makes a request by hand, with a token if one is given.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> anyhow::Result<Raw> {
        // What comes over the wire is shown as it comes.
        let client = reqwest::Client::builder().no_gzip().build()?;
        let mut request = client.request(method, format!("{}{path}", self.plane.server));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.body(body).send().await.context("the control plane answers")?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let text = String::from_utf8_lossy(&answer.bytes().await?).into_owned();
        let body = serde_json::from_str(&text).unwrap_or_default();
        Ok(Raw { status, headers, body, text })
    }

    /// Makes a request by hand with the admin token.
    pub async fn admin_call(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> anyhow::Result<Raw> {
        self.call(method, path, Some(&self.plane.token), &[], body).await
    }

    /// Sends a document set to `POST /v1/apply` by hand.
    pub async fn raw_apply(&self, resources: &[Value]) -> anyhow::Result<Raw> {
        let body = serde_json::json!({ "resources": resources }).to_string();
        self.admin_call(Method::POST, "/v1/apply", body).await
    }
}

/// One deployment as a host was told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The assignment's id.
    pub id: Uuid,
    /// When it last moved.
    pub revision: Revision,
    /// The release.
    pub release: String,
    /// The bundle's digest.
    pub digest: Digest,
    /// The files by path.
    pub files: BTreeMap<String, String>,
}

/// A host that folds what it is told, as an agent does.
#[derive(Debug)]
pub struct PolledHost {
    /// Its name.
    pub name: String,
    /// A client with its credential.
    pub client: Client,
    /// Its credential.
    pub credential: String,
    /// From where it asks next.
    pub cursor: Option<Revision>,
    /// What it has, by `<workspace>/<name>`.
    pub held: BTreeMap<String, Held>,
    /// The number of its last report.
    pub seq: u64,
}

/// What polls brought.
#[derive(Debug, Default)]
pub struct News {
    /// Deployments that were new or moved.
    pub moved: BTreeSet<String>,
    /// Tombstones.
    pub removed: BTreeMap<String, Tombstone>,
    /// Whether an answer held everything.
    pub full: bool,
}

impl PolledHost {
    /// Returns a host that has nothing yet and was told nothing.
    #[must_use]
    pub fn new(client: Client, name: &str, credential: String) -> Self {
        Self { name: name.to_owned(), client, credential, cursor: None, held: BTreeMap::new(), seq: 0 }
    }

    /// Returns the digest of what it has.
    #[must_use]
    pub fn have(&self) -> SetDigest {
        SetDigest::of(self.held.values().map(|held| (held.id, held.revision)))
    }

    /// Polls once and folds the answer. Returns `None` if nothing had changed.
    pub async fn poll(&mut self, wait: u64) -> anyhow::Result<Option<News>> {
        let have = self.cursor.map(|_| self.have());
        match self.client.poll(&self.name, self.cursor, have, wait).await? {
            Polled::Unchanged { cursor, .. } => {
                ensure!(Some(cursor) >= self.cursor, "the cursor of {} fell", self.name);
                self.cursor = Some(cursor);
                Ok(None)
            }
            Polled::Changed(answer) => self.fold(*answer).await.map(Some),
        }
    }

    async fn fold(&mut self, answer: PollAnswer) -> anyhow::Result<News> {
        let mut news = News { full: answer.full, ..News::default() };
        for told in answer.deployments {
            let title = format!("{}/{}", told.workspace, told.name);
            let bytes = match told.bundle {
                Some(raw) => raw.get().as_bytes().to_vec(),
                None => self.client.bundle(&self.name, &told.digest).await?.bytes().await?,
            };
            ensure!(Digest::of(&bytes) == told.digest, "the bundle of {title} is not what its digest says");
            let bundle: Bundle = serde_json::from_slice(&bytes)?;
            let text =
                |file: &titan_api::poll::BundleFile| file.bytes().map(|b| String::from_utf8_lossy(&b).into_owned());
            let files = bundle.files.iter().map(|file| (file.path.clone(), text(file).unwrap_or_default())).collect();
            let held = Held { id: told.id, revision: told.revision, release: told.release, digest: told.digest, files };
            self.held.insert(title.clone(), held);
            news.moved.insert(title);
        }
        for tombstone in answer.tombstones {
            let title = format!("{}/{}", tombstone.workspace, tombstone.name);
            self.held.remove(&title);
            news.removed.insert(title, tombstone);
        }
        ensure!(Some(answer.cursor) >= self.cursor, "the cursor of {} fell", self.name);
        self.cursor = Some(answer.cursor);
        ensure!(self.have() == answer.digest, "{} folded to another set than it was told", self.name);
        Ok(news)
    }

    /// Polls until everything before `revision` is covered and returns all that came.
    pub async fn catch_up(&mut self, revision: Revision) -> anyhow::Result<News> {
        let mut all = News::default();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(news) = self.poll(0).await? {
                all.full |= news.full;
                for title in &news.moved {
                    all.removed.remove(title);
                }
                for title in news.removed.keys() {
                    all.moved.remove(title);
                }
                all.moved.extend(news.moved);
                all.removed.extend(news.removed);
            }
            if self.cursor >= Some(revision) {
                return Ok(all);
            }
            ensure!(Instant::now() < deadline, "{} was not told of everything before {revision}", self.name);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Reports everything it has as healthy, and these tombstones as done.
    pub async fn report(&mut self, news: &News) -> anyhow::Result<()> {
        self.seq += 1;
        let report = |id, revision, release: &str, digest, phase| DeploymentReport {
            id,
            release: release.to_owned(),
            revision,
            digest,
            phase,
            message: String::new(),
            healthy_since: None,
            commit: None,
            push: None,
            drift: Vec::new(),
        };
        let held = self.held.values().map(|h| report(h.id, h.revision, &h.release, Some(h.digest), Phase::Healthy));
        let gone = news.removed.values().map(|t| report(t.id, t.revision, "", None, Phase::Removed));
        let deployments = held.chain(gone).collect();
        let report = Report { seq: self.seq, acked_cursor: self.cursor, deployments, ..Report::default() };
        Ok(self.client.report(&self.name, &report).await?)
    }

    /// Reports what it has of a deployment in this phase, with this drift.
    pub async fn report_drift(&mut self, title: &str, phase: Phase, drift: Vec<Drift>) -> anyhow::Result<()> {
        self.seq += 1;
        let held = self.held.get(title).with_context(|| format!("{} does not have {title}", self.name))?;
        let said = DeploymentReport {
            id: held.id,
            release: held.release.clone(),
            revision: held.revision,
            digest: Some(held.digest),
            phase,
            message: String::new(),
            healthy_since: None,
            commit: None,
            push: None,
            drift,
        };
        let report = Report { seq: self.seq, deployments: vec![said], ..Report::default() };
        Ok(self.client.report(&self.name, &report).await?)
    }

    /// Reports facts.
    pub async fn report_facts(&mut self, facts: Facts) -> anyhow::Result<()> {
        self.seq += 1;
        let report = Report { seq: self.seq, facts: Some(facts), ..Report::default() };
        Ok(self.client.report(&self.name, &report).await?)
    }
}
