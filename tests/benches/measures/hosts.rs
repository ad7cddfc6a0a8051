//! Fleets to measure on: many hosts that are only declared, a few that have enrolled.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use titan_api::{
    Name, Revision, SetDigest,
    changes::{ApplyAnswer, ApplyRequest},
    client::{Client, Polled, WriteOptions},
    enrolment::{EnrolRequest, EnrolmentTokenRequest},
    hosts::BulkCreate,
};
use titan_tests::manifests;
use uuid::Uuid;

use crate::children::Plane;

/// The file that stands for an ordinary one: 0.6 KB of it the same on every host.
const FILE: &str = include_str!("settings.conf.j2");
/// Lines that read the host, which makes each host's bundle its own.
const OWN: &str = "\nhost = {{ host.name }}\nsite = {{ host.labels.site }}\n";

/// Assignments that have moved, as the control plane counts them once they are in the view.
pub(crate) const MOVED: &str = "titan_assignments_moved_total";
/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host that has enrolled and polled once.
#[derive(Debug)]
pub(crate) struct Polling {
    /// Its name.
    pub(crate) name: String,
    /// A client with its credential.
    pub(crate) client: Client,
    /// From where it asks next.
    pub(crate) cursor: Revision,
    /// The digest of what it was told.
    pub(crate) have: SetDigest,
}

/// Writes documents, all or none.
pub(crate) async fn apply(plane: &Plane, resources: Vec<Value>) -> anyhow::Result<ApplyAnswer> {
    let request = ApplyRequest { resources, ..ApplyRequest::default() };
    Ok(plane.admin.apply(&request, &WriteOptions::default()).await?)
}

/// Declares hosts `host-<first>` and so on, in one request.
pub(crate) async fn declare(plane: &Plane, first: usize, count: usize) -> anyhow::Result<()> {
    let hosts = (first..first + count).map(|number| manifests::host(&name(number), &labels(number))).collect();
    plane.admin.bulk_create(&BulkCreate { hosts, reason: None }, &WriteOptions::default()).await?;
    Ok(())
}

/// Returns the name of a host by its number.
pub(crate) fn name(number: usize) -> String {
    format!("host-{number:06}")
}

fn labels(number: usize) -> String {
    format!("site=site-{},ring=r{}", number % 40, number % 5)
}

/// Returns what every deployment refers to: the templates `shared` (one bundle for all hosts) and `own` (one for each), the
/// workload `service` and the target `all`.
pub(crate) fn ground() -> Vec<Value> {
    vec![
        manifests::template("shared", &[("settings.conf.j2", FILE)]),
        manifests::template("own", &[("settings.conf.j2", &format!("{FILE}{OWN}"))]),
        manifests::workload("service", "1.2.3"),
        manifests::target("all", ""),
    ]
}

/// Returns the text of a template of [`ground`].
pub(crate) fn text(template: &str) -> String {
    if template == "own" { format!("{FILE}{OWN}") } else { FILE.to_owned() }
}

/// Returns a deployment to `target` that reaches all hosts at once; its `serial` is one of its values.
pub(crate) fn deployment(name: &str, template: &str, target: &str, serial: usize) -> Value {
    let more = json!({ "values": values(serial), "strategy": manifests::free() });
    manifests::deployment(name, "service", template, target, &more)
}

/// Returns the values that the templates of [`ground`] read.
pub(crate) fn values(serial: usize) -> Value {
    json!({
        "serial": serial, "port": 8080, "level": "info",
        "upstreams": ["10.0.0.1:9000", "10.0.0.2:9000", "10.0.0.3:9000"],
        "limits": { "connections": 512, "memory": "64M", "files": 1024 },
    })
}

/// Returns the context in which such a template is rendered on a host.
pub(crate) fn context(number: usize, serial: usize) -> Value {
    json!({
        "host": {
            "name": name(number),
            "labels": { "site": format!("site-{}", number % 40), "ring": format!("r{}", number % 5) },
            "facts": {},
        },
        "workspace": { "name": "default", "config": {} },
        "workload": { "name": "service", "version": "1.2.3", "repository": "" },
        "deployment": { "name": "service" },
        "release": { "name": "service#1", "number": 1 },
        "values": values(serial),
    })
}

/// Waits until everything that was written is decided.
pub(crate) async fn settled(plane: &Plane) -> anyhow::Result<()> {
    plane.admin.plan(&ApplyRequest::default()).await?;
    Ok(())
}

/// Waits until `count` assignments in all have moved into the view since the control plane was started.
pub(crate) async fn assigned(plane: &Plane, count: usize) -> anyhow::Result<()> {
    let http = reqwest::Client::new();
    let begun = Instant::now();
    while plane.metric(&http, MOVED).await? < count as f64 {
        ensure!(begun.elapsed() < PATIENCE, "{count} assignments were not decided in {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Makes a one-time token for a declared host.
pub(crate) async fn join_token(plane: &Plane, host: &str) -> anyhow::Result<String> {
    let request = EnrolmentTokenRequest { host: host.parse::<Name>()?, ttl_seconds: None };
    Ok(plane.admin.enrolment_token(&request).await?.token)
}

/// Enrols a declared host, which then polls at `server`, and lets it poll until it has everything.
pub(crate) async fn enrol(plane: &Plane, server: &str, host: &str) -> anyhow::Result<Polling> {
    let token = join_token(plane, host).await?;
    let request =
        EnrolRequest { host: host.parse()?, token, attempt: Uuid::new_v4(), facts: std::collections::BTreeMap::new() };
    let credential = Client::new(&plane.url(), None)?.enrol(&request).await?.credential;
    let client = Client::new(server, Some(credential))?;
    let Polled::Changed(answer) = client.poll(host, None, None, 0).await? else {
        anyhow::bail!("{host} was told nothing at its first poll");
    };
    Ok(Polling { name: host.to_owned(), client, cursor: answer.cursor, have: answer.digest })
}

impl Polling {
    /// Polls and takes in the answer; returns whether something changed.
    pub(crate) async fn poll(&mut self, wait: u64) -> anyhow::Result<bool> {
        let polled = self.client.poll(&self.name, Some(self.cursor), Some(self.have), wait).await;
        match polled.with_context(|| format!("{} polls", self.name))? {
            Polled::Unchanged { cursor, .. } => {
                self.cursor = cursor;
                Ok(false)
            }
            Polled::Changed(answer) => {
                self.cursor = answer.cursor;
                self.have = answer.digest;
                Ok(true)
            }
        }
    }
}
