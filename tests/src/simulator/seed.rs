//! Filling a new database with hosts, in seconds: rows in batches, past the API.
//!
//! The hosts' history starts here: they have no entries in `changes`, and the clock and the planner's bookmark stand behind
//! them, as after a planner that has seen them all. Deployments come later, through the API; the planner makes the assignments.

use std::{str::FromStr as _, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, SqliteConnection, sqlite::SqliteConnectOptions};
use titan_api::{Digest, hosts::HostSpec};
use titan_control_plane::store::Store;
use uuid::Uuid;

use crate::simulator::{
    credentials::{self, Credentials},
    documents,
};

/// Hosts of one statement.
const BATCH: usize = 10_000;

const HOSTS: &str = "INSERT INTO resources (uid, kind, workspace, name, generation, revision, created_revision, labels, \
    annotations, spec) SELECT value ->> 0, 'Host', '', value ->> 1, 1, $2, $2, value ->> 2, '{}', $3 FROM json_each($1)";
const TOKENS: &str = "INSERT INTO tokens (id, kind, name, host_uid, hash, created_at) SELECT value ->> 0, 'host', \
    value ->> 1, value ->> 0, unhex(value ->> 3), $2 FROM json_each($1)";
const STATUS: &str = "INSERT INTO host_status (host_uid, enrolled_at, last_seen, facts, orphans, report_seq) \
    SELECT value ->> 0, $2, $2, value ->> 4, '[]', 0 FROM json_each($1)";
const ADMIN: &str = "INSERT INTO tokens (id, kind, name, hash, created_at) VALUES ($1, 'admin', 'simulator', $2, $3)";
const CLOCK: &str = "UPDATE clock SET revision = $1 WHERE id = 1";
const BOOKMARK: &str = "INSERT INTO bookmarks (name, revision) VALUES ('planner', $1)";

/// Fills the new SQLite database at `url` with `hosts` hosts that have enrolled, and a person who may do everything.
pub async fn fill(url: &str, hosts: usize, credentials: &Credentials) -> anyhow::Result<()> {
    ensure!(url.starts_with("sqlite:"), "{url} is not sqlite://FILE; other databases are not filled past the API");
    Store::open(url).await.context("the database cannot be made")?;
    let options = SqliteConnectOptions::from_str(url)?
        .synchronous(sqlx::sqlite::SqliteSynchronous::Off)
        .busy_timeout(Duration::from_secs(10))
        .pragma("cache_size", "-400000")
        .pragma("wal_autocheckpoint", "100000");
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let (there,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM resources").fetch_one(&mut connection).await?;
    ensure!(there == 0, "{url} has {there} documents; only a new database is filled");
    let revision = now();
    let spec = serde_json::to_string(&HostSpec::default())?;
    for first in (0..hosts).step_by(BATCH) {
        let rows = rows(first..(first + BATCH).min(hosts), credentials);
        let mut transaction = connection.begin().await?;
        sqlx::query(HOSTS).bind(&rows).bind(revision).bind(&spec).execute(&mut *transaction).await?;
        sqlx::query(TOKENS).bind(&rows).bind(revision).execute(&mut *transaction).await?;
        sqlx::query(STATUS).bind(&rows).bind(revision).execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
    let hash = Digest::of(credentials.admin().as_bytes());
    sqlx::query(ADMIN)
        .bind(Uuid::now_v7().to_string())
        .bind(hash.as_bytes().to_vec())
        .bind(revision)
        .execute(&mut connection)
        .await?;
    for sql in [CLOCK, BOOKMARK] {
        sqlx::query(sql).bind(revision).execute(&mut connection).await?;
    }
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?;
    connection.close().await?;
    Ok(())
}

/// Returns hosts as a JSON list of `[uid, name, labels, hash, facts]`.
fn rows(numbers: std::ops::Range<usize>, credentials: &Credentials) -> String {
    let rows = numbers.map(|number| {
        let hash = Digest::of(credentials.host(number).as_bytes());
        let arch = if number.is_multiple_of(3) { "aarch64" } else { "x86_64" };
        let facts = json!({ "os": "linux", "arch": arch, "agentVersion": env!("CARGO_PKG_VERSION") });
        let labels = json!(documents::labels(number));
        json!([Uuid::now_v7(), credentials::name(number), labels.to_string(), hash, facts.to_string()])
    });
    Value::Array(rows.collect()).to_string()
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
