//! Databases for tests: each behaviour of the store is shown on both engines.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};
use tempfile::TempDir;

use crate::postgres;

/// A database that is gone with this value.
#[derive(Debug)]
pub struct Database {
    /// The engine's name, for messages.
    pub engine: &'static str,
    /// The address.
    pub url: String,
    _folder: Option<TempDir>,
}

impl Database {
    /// Returns the PostgreSQL database at an address, wherever it is from.
    #[must_use]
    pub fn at(url: &str) -> Self {
        Self { engine: "postgres", url: url.to_owned(), _folder: None }
    }

    /// Runs a statement past the store, as somebody with a database shell could.
    pub async fn execute(&self, sql: &str) -> sqlx::Result<()> {
        let sql = AssertSqlSafe(sql.to_owned());
        if self.is_sqlite() {
            SqliteConnection::connect(&self.url).await?.execute(sql).await.map(drop)
        } else {
            PgConnection::connect(&self.url).await?.execute(sql).await.map(drop)
        }
    }

    /// Returns the rows of a query with one column of text, past the store.
    pub async fn texts(&self, sql: &str) -> sqlx::Result<Vec<String>> {
        let query = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
        if self.is_sqlite() {
            query.fetch_all(&mut SqliteConnection::connect(&self.url).await?).await
        } else {
            sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
                .fetch_all(&mut PgConnection::connect(&self.url).await?)
                .await
        }
    }

    /// Whether it is SQLite.
    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        self.url.starts_with("sqlite:")
    }
}

/// Returns a new SQLite database.
///
/// # Panics
///
/// If no temporary folder can be made.
#[must_use]
pub fn sqlite() -> Database {
    // In memory where the system offers it: what is tested is not the disk.
    let shared = std::path::Path::new("/dev/shm");
    let folder =
        if shared.is_dir() { TempDir::with_prefix_in("titan-", shared) } else { TempDir::with_prefix("titan-") };
    let folder = folder.expect("a temporary folder");
    let url = format!("sqlite://{}", folder.path().join("titan.db").display());
    Database { engine: "sqlite", url, _folder: Some(folder) }
}

/// Returns a new PostgreSQL database, if there is a server to be had.
#[must_use]
pub fn postgres() -> Option<Database> {
    postgres::database().map(|url| Database::at(&url))
}

/// Returns a new PostgreSQL database in which texts stand in the order of a dictionary, if there is a server to be had.
#[must_use]
pub fn linguistic() -> Option<Database> {
    postgres::linguistic().map(|url| Database { engine: "postgres in the order of a dictionary", url, _folder: None })
}

/// Returns a new database of each engine that is to be had; SQLite always is.
#[must_use]
pub fn each() -> Vec<Database> {
    std::iter::once(sqlite()).chain(postgres()).collect()
}
