//! Opening a database.

use std::{fs::File, path::Path, str::FromStr, sync::Arc, time::Duration};

use sqlx::{
    Executor as _,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{Engine, ReadMetrics, Result, Store, StoreError, sqlite::Connections};
use crate::metrics::commits::CommitMetrics;

/// Connections that read SQLite, and connections to PostgreSQL.
const CONNECTIONS: u32 = 10;
/// Rows of SQLite that are read before anybody takes them: who has more to wait for than one value is woken for so many at a
/// time, and not for every fifty in a process that is busy.
const ROWS_AHEAD: usize = 512;
/// A replica that is put to sleep in the middle of a transaction holds what it locked: the server ends that for it, so that
/// another one can go on. Statements follow each other within milliseconds.
const ASLEEP: &str = "SET idle_in_transaction_session_timeout = '15s'";

impl Store {
    /// Opens the database at `url` (`sqlite://FILE` or `postgres://...`), making it if there is none, and brings its
    /// schema up to date.
    pub async fn open(url: &str) -> Result<Self> {
        Self::open_as(url, true).await
    }

    /// Opens the database beside the process that serves it, for one short transaction.
    pub async fn open_beside(url: &str) -> Result<Self> {
        Self::open_as(url, false).await
    }

    async fn open_as(url: &str, alone: bool) -> Result<Self> {
        let engine = if url.starts_with("sqlite:") {
            open_sqlite(url, alone).await?
        } else if is_postgres(url) {
            open_postgres(url).await?
        } else {
            return Err(StoreError::Address(url.to_owned()));
        };
        Ok(Self { engine, metrics: CommitMetrics::default(), standby: None, reads: ReadMetrics::default() })
    }
}

async fn open_sqlite(url: &str, alone: bool) -> Result<Engine> {
    let address = |_| StoreError::Address(url.to_owned());
    let options = SqliteConnectOptions::from_str(url)
        .map_err(address)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10))
        .row_buffer_size(ROWS_AHEAD);
    let path = options.get_filename().to_owned();
    // One in memory would be another one for each connection, and gone with the process.
    let in_memory = url.contains(":memory:") || url.contains("mode=memory");
    if path.as_os_str().is_empty() || in_memory {
        return Err(StoreError::Address(url.to_owned()));
    }
    let lock = if alone { Some(lock(&path)?) } else { None };
    // Plans touch many pages: they are kept, and brought into the file less often than by default.
    let writing = options.clone().pragma("cache_size", "-65536").pragma("wal_autocheckpoint", "4000");
    let first = SqlitePoolOptions::new().max_connections(1).connect_with(writing.clone()).await?;
    forward(sqlx::migrate!("migrations/sqlite")).run(&first).await?;
    first.close().await;
    let write = Connections::new(writing, 1);
    let read = Connections::new(options.read_only(true).create_if_missing(false), CONNECTIONS as usize);
    Ok(Engine::Sqlite { read, write, lock: lock.map(Arc::new) })
}

/// Returns migrations that leave a schema alone that is newer than they are: migrations only add, and whoever goes back to
/// the version before, or starts one of its replicas again in the middle of an upgrade, finds all that it knows.
fn forward(mut migrations: Migrator) -> Migrator {
    migrations.set_ignore_missing(true);
    migrations
}

/// Takes the lock beside the database's file; the system gives it back when the process ends, however it ends.
fn lock(database: &Path) -> Result<File> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    let path = std::path::PathBuf::from(path);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| StoreError::LockFile { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Locked(database.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(StoreError::LockFile { path, source }),
    }
}

async fn open_postgres(url: &str) -> Result<Engine> {
    let options = postgres_options(url).ok_or_else(|| StoreError::Address("postgres://...".to_owned()))?;
    let pool = postgres_pool().acquire_timeout(Duration::from_secs(10)).connect_with(options).await?;
    forward(sqlx::migrate!("migrations/postgres")).run(&pool).await?;
    Ok(Engine::Postgres(pool))
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres:") || url.starts_with("postgresql:")
}

/// Returns how to connect to the address of a PostgreSQL database, `None` if it is none.
pub(crate) fn postgres_options(url: &str) -> Option<PgConnectOptions> {
    PgConnectOptions::from_str(url).ok().filter(|_| is_postgres(url))
}

pub(super) fn postgres_pool() -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .after_connect(|connection, _| Box::pin(async move { connection.execute(ASLEEP).await.map(drop) }))
}
