//! The store: every table, on SQLite or PostgreSQL, through one set of statements.
//!
//! A request opens one [`Tx`] and commits it once; one that is dropped leaves nothing behind. Each noun has a file of
//! statements beside this one. Nothing here knows HTTP or decides what should be.

mod assignments;
mod bundles;
mod changes;
mod clock;
mod descriptions;
mod documents;
mod feed;
mod gates;
mod hosts;
mod idempotency;
mod leases;
mod open;
mod pipelines;
mod problems;
mod releases;
mod renderings;
mod reports;
mod sqlite;
mod standby;
mod sweep;
mod tasks;
mod tokens;
mod waiting;
mod workplans;

use std::{path::PathBuf, sync::Arc};

use sqlx::{PgPool, Postgres};

pub use assignments::{Assignment, assignment_id, told_id};
pub use changes::{ChangeFilter, Written};
pub use descriptions::{Description, Descriptions};
pub use documents::{Listing, Stored};
pub use gates::Veto;
pub use hosts::{Counted, ObservedHost};
pub use leases::Lease;
pub(crate) use open::postgres_options;
pub use problems::RenderProblem;
pub use releases::Release;
pub use reports::{ObservedDeployment, Removal};
pub use tasks::{Ended, Held};
pub use tokens::{TokenKind, TokenRow};
pub use waiting::Waiting;
pub use workplans::{BUSY_QUEUE, OWN_QUEUE, Parent, PlanRow, Queued, TakenSignal, UNDO_QUEUE};

use crate::metrics::{
    commits::{CommitMetrics, Watch},
    reads::ReadMetrics,
};
use standby::Standby;

/// Begins what reads one snapshot on PostgreSQL.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// An open database.
#[derive(Debug, Clone)]
pub struct Store {
    engine: Engine,
    metrics: CommitMetrics,
    standby: Option<Arc<Standby>>,
    reads: ReadMetrics,
}

#[derive(Debug, Clone)]
enum Engine {
    Sqlite {
        read: sqlite::Connections,
        write: sqlite::Connections,
        /// Held as long as the database is open: a second process is refused.
        lock: Option<Arc<std::fs::File>>,
    },
    Postgres(PgPool),
}

/// One transaction. Dropped without [`Tx::commit`] it is rolled back.
#[derive(Debug)]
pub struct Tx {
    connection: Connection,
    /// What the transaction is for; names its fault points.
    purpose: &'static str,
    watch: Watch,
    after: AfterCommit,
    /// The standby that has to know of the commit.
    standby: Option<Arc<Standby>>,
}

/// What is done once a transaction is committed, and never otherwise.
#[derive(Default)]
struct AfterCommit(Vec<Act>);

type Act = Box<dyn FnOnce(&CommitMetrics) + Send>;

impl std::fmt::Debug for AfterCommit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AfterCommit({})", self.0.len())
    }
}

#[derive(Debug)]
enum Connection {
    Sqlite(sqlite::Transaction),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

/// Runs one statement on whichever engine is open. A test may end the process before any of them.
macro_rules! both {
    ($tx:expr, $conn:ident => $body:expr) => {{
        crate::fault::reach($tx.purpose);
        match &mut $tx.connection {
            crate::store::Connection::Sqlite($conn) => $body,
            crate::store::Connection::Postgres($conn) => $body,
        }
    }};
}
pub(crate) use both;

/// Returns a statement over rows that come as the first parameter, made by [`rows`]: many rows, one statement. A row is
/// `j.value`, and its columns `j.value ->> 0` and so on.
macro_rules! over_rows {
    ($tx:expr, $before:literal, $after:literal) => {
        match $tx.connection {
            crate::store::Connection::Sqlite(_) => concat!($before, " json_each($1) AS j ", $after),
            crate::store::Connection::Postgres(_) => {
                concat!($before, " json_array_elements(CAST($1 AS JSON)) AS j(value) ", $after)
            }
        }
    };
}
pub(crate) use over_rows;

/// Returns a statement that the macro `$sql` makes of what differs: how rows as of [`over_rows`] are read, what stands
/// before and after hexadecimal digits that are bytes, and what locks the rows of `a`, which SQLite, with one writer, need
/// not do.
macro_rules! per_engine {
    ($tx:expr, $sql:ident) => {
        match $tx.connection {
            crate::store::Connection::Sqlite(_) => $sql!("json_each($1) AS j", "unhex(", ")", ""),
            crate::store::Connection::Postgres(_) => {
                $sql!("json_array_elements(CAST($1 AS JSON)) AS j(value)", "decode(", ", 'hex')", " FOR UPDATE OF a")
            }
        }
    };
}
pub(crate) use per_engine;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database's address is malformed.
    #[error("{0:?} is not a database's address; write sqlite://FILE or postgres://...")]
    Address(String),
    /// There can be no standby.
    #[error("only a PostgreSQL database has a standby, and its address is postgres://...")]
    Standby,
    /// Another process has the SQLite file open.
    #[error("{} is in use by another process; SQLite serves one control plane, use PostgreSQL for more", .0.display())]
    Locked(PathBuf),
    /// The lock file cannot be opened.
    #[error("{} cannot be opened", path.display())]
    LockFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The schema cannot be brought up to date.
    #[error("the database's schema cannot be brought up to date")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The database refused or is gone.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// A row cannot be read back.
    #[error("column {column} of {table} {id} cannot be read: {detail}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row.
        id: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A plan moved on between being read and being written.
    #[error("plan {0} moved on meanwhile")]
    Overtaken(uuid::Uuid),
    /// The lease is held by another (law 12).
    #[error("the lease {0:?} is held by another")]
    Fenced(&'static str),
}

impl StoreError {
    /// Whether the transaction lost a race with another one, as PostgreSQL lets one of two that wait for each other: it is
    /// to be done again.
    #[must_use]
    pub fn lost_race(&self) -> bool {
        let database = matches!(self, Self::Database(sqlx::Error::Database(error))
            if matches!(error.code().as_deref(), Some("40001" | "40P01")));
        database || matches!(self, Self::Overtaken(_))
    }

    /// Whether it is about the rows that were read or written, so that others may fare better, and not about the database
    /// as a whole or the lease.
    #[must_use]
    pub const fn is_of_a_row(&self) -> bool {
        match self {
            Self::Corrupt { .. } | Self::Overtaken(_) => true,
            Self::Database(error) => matches!(
                error,
                sqlx::Error::Database(_)
                    | sqlx::Error::ColumnDecode { .. }
                    | sqlx::Error::Decode(_)
                    | sqlx::Error::Encode(_)
            ),
            _ => false,
        }
    }
}

/// The result of a store's function.
pub type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// Begins a transaction that writes. On SQLite there is one at a time.
    pub async fn write(&self, purpose: &'static str) -> Result<Tx> {
        let connection = match &self.engine {
            Engine::Sqlite { write, .. } => Connection::Sqlite(write.begin("BEGIN IMMEDIATE").await?),
            Engine::Postgres(pool) => Connection::Postgres(pool.begin().await?),
        };
        Ok(Tx { standby: self.standby_for(purpose), ..Tx::new(connection, &self.metrics, true, purpose) })
    }

    /// Begins a transaction that reads one snapshot.
    pub async fn read(&self) -> Result<Tx> {
        let connection = match &self.engine {
            Engine::Sqlite { read, .. } => Connection::Sqlite(read.begin("BEGIN").await?),
            Engine::Postgres(pool) => Connection::Postgres(pool.begin_with(SNAPSHOT).await?),
        };
        Ok(Tx::new(connection, &self.metrics, false, "read"))
    }

    /// Closes every connection; a SQLite file can then be opened by another process.
    pub async fn close(self) {
        match self.engine {
            Engine::Sqlite { read, write, lock } => {
                write.refuse();
                // The last one tidies up, which one that only reads could not.
                read.close().await;
                write.close().await;
                // Whoever still holds the store finds it closed, and need not let go of it first.
                if let Some(Err(error)) = lock.map(|lock| lock.unlock()) {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the database stays locked until the end");
                }
            }
            Engine::Postgres(pool) => pool.close().await,
        }
        if let Some(standby) = self.standby {
            standby.close().await;
        }
    }

    /// Returns what is counted of transactions.
    pub(crate) const fn metrics(&self) -> &CommitMetrics {
        &self.metrics
    }

    /// Returns the PostgreSQL pool, for listening to other replicas' commits.
    #[must_use]
    pub const fn postgres(&self) -> Option<&PgPool> {
        match &self.engine {
            Engine::Sqlite { .. } => None,
            Engine::Postgres(pool) => Some(pool),
        }
    }
}

impl Tx {
    fn new(connection: Connection, metrics: &CommitMetrics, writes: bool, purpose: &'static str) -> Self {
        let watch = metrics.begin(writes, purpose);
        Self { connection, purpose, watch, after: AfterCommit::default(), standby: None }
    }

    /// Has something done once the transaction is committed: said in the log, or counted. If it is not, nothing is done.
    pub(crate) fn after_commit(&mut self, act: impl FnOnce(&CommitMetrics) + Send + 'static) {
        self.after.0.push(Box::new(act));
    }

    /// Makes everything durable that was written.
    pub async fn commit(mut self) -> Result<()> {
        let number = self.number().await?;
        let Self { connection, purpose, watch, after, standby } = self;
        crate::fault::reach_commit(purpose);
        let committed = match connection {
            Connection::Sqlite(tx) => tx.commit().await,
            Connection::Postgres(tx) => tx.commit().await,
        };
        // Also where it is not known whether it was.
        if let Some(standby) = &standby {
            standby.wrote(number);
        }
        committed?;
        crate::fault::reach_commit(purpose);
        after.0.into_iter().for_each(|act| act(watch.metrics()));
        Ok(())
    }
}

/// Returns `text` as JSON of a column.
fn json<T: serde::de::DeserializeOwned>(table: &'static str, column: &'static str, id: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| corrupt(table, column, id, error))
}

/// Returns `text` parsed as the type of a column.
fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    table: &'static str,
    column: &'static str,
    id: &str,
    text: &str,
) -> Result<T> {
    text.parse().map_err(|error| corrupt(table, column, id, error))
}

fn corrupt(table: &'static str, column: &'static str, id: &str, detail: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { table, column, id: id.to_owned(), detail: detail.to_string() }
}

/// Returns `bytes` as a digest of a column.
fn digest(table: &'static str, column: &'static str, id: &str, bytes: &[u8]) -> Result<titan_api::Digest> {
    titan_api::Digest::from_bytes(bytes)
        .ok_or_else(|| corrupt(table, column, id, format_args!("{} bytes, not 32", bytes.len())))
}

/// Returns digests as one value that SQLite cuts into rows.
fn joined<'a>(digests: impl IntoIterator<Item = &'a titan_api::Digest>) -> Vec<u8> {
    digests.into_iter().flat_map(|digest| *digest.as_bytes()).collect()
}

/// Returns digests as the array that PostgreSQL takes.
fn apart<'a>(digests: impl IntoIterator<Item = &'a titan_api::Digest>) -> Vec<Vec<u8>> {
    digests.into_iter().map(|digest| digest.as_bytes().to_vec()).collect()
}

/// Returns `bytes` as the id of a column; `row` names the row if they are none.
fn uuid(table: &'static str, column: &'static str, row: impl Fn() -> String, bytes: &[u8]) -> Result<uuid::Uuid> {
    uuid::Uuid::from_slice(bytes).map_err(|error| corrupt(table, column, &row(), error))
}

/// Returns an id as the bytes of a column.
fn bytes_of(id: uuid::Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// Returns a value as the text that serde gives it, for columns that hold one word.
fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

/// Returns the value of a column that holds one word.
fn from_word<T: serde::de::DeserializeOwned>(
    table: &'static str,
    column: &'static str,
    id: &str,
    text: &str,
) -> Result<T> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|error| corrupt(table, column, id, error))
}

/// Returns rows as the one parameter that [`over_rows`] takes apart again.
fn rows<T: serde::Serialize>(rows: impl IntoIterator<Item = T>) -> String {
    // Texts and numbers alone: they can always be written.
    serde_json::to_string(&rows.into_iter().collect::<Vec<_>>()).unwrap_or_default()
}

/// Leaves out a row that cannot be read back, and says so in the log.
fn readable<T>(row: Result<T>) -> Option<T> {
    row.inspect_err(|error| tracing::error!(error = error as &dyn std::error::Error, "a row is left out")).ok()
}

/// Returns `text` without the one character that PostgreSQL cannot hold.
fn clean(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}
