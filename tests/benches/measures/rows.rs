//! The least that a write of assignments costs: the texts made by the bare engine, and the rows in one SQLite transaction.

use std::{str::FromStr as _, sync::Arc, time::Instant};

use minijinja::{Environment, UndefinedBehavior, value::Serde};
use serde_json::{Value, json};
use sqlx::{
    Connection as _, Executor as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tempfile::TempDir;
use uuid::Uuid;

use crate::hosts;

const TABLES: &str = "CREATE TABLE assignments (id TEXT PRIMARY KEY, host TEXT NOT NULL, name TEXT NOT NULL,
    revision INTEGER NOT NULL, bundle TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE bundles (digest TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;";
const ADD_ASSIGNMENTS: &str = "INSERT INTO assignments SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, \
    value ->> 4 FROM json_each($1)";
const ADD_BUNDLES: &str = "INSERT OR IGNORE INTO bundles SELECT value ->> 0, value ->> 1 FROM json_each($1)";

/// A SQLite file on the disk, as durable as the control plane's.
#[derive(Debug)]
pub(crate) struct Rows {
    connection: SqliteConnection,
    _folder: TempDir,
}

impl Rows {
    /// Makes the file.
    pub(crate) async fn open() -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("titan-bench-rows-")?;
        let url = format!("sqlite://{}", folder.path().join("rows.db").display());
        let options = SqliteConnectOptions::from_str(&url)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let mut connection = SqliteConnection::connect_with(&options).await?;
        connection.execute(TABLES).await?;
        Ok(Self { connection, _folder: folder })
    }

    /// Writes one row in a transaction of its own. Returns the milliseconds that it took, the commit included.
    pub(crate) async fn one(&mut self, round: usize) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        let row = json!([[Uuid::now_v7(), "host", "service", round, "bundle"]]);
        sqlx::query(ADD_ASSIGNMENTS).bind(row.to_string()).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    }

    /// Renders and writes one assignment for each context, with a text for each or one for all. Returns the milliseconds
    /// that it took, the commit included.
    pub(crate) async fn write(&mut self, contexts: &[Arc<Value>], round: usize, each: bool) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.add_template_owned("settings.conf", hosts::text(if each { "own" } else { "shared" }))?;
        let template = environment.get_template("settings.conf")?;
        let mut bundles = Vec::new();
        let mut assignments = Vec::with_capacity(contexts.len());
        for (number, context) in contexts.iter().enumerate() {
            if each || number == 0 {
                let text = template.render(Serde(context.as_ref()))?;
                bundles.push(json!([format!("{round}-{each}-{number}"), text]));
            }
            let bundle = format!("{round}-{each}-{}", bundles.len() - 1);
            assignments.push(json!([Uuid::now_v7(), context["host"]["name"], "service", round, bundle]));
        }
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        for (sql, rows) in [(ADD_BUNDLES, bundles), (ADD_ASSIGNMENTS, assignments)] {
            sqlx::query(sql).bind(Value::Array(rows).to_string()).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    }
}
