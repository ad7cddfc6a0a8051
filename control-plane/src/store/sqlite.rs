//! Connections to a SQLite file, which whoever is done with one gives back at once.
//!
//! The pool of sqlx takes a connection back in a task of its own. In a process that is busy such a task waits for its turn
//! behind thousands of others, and whoever is to write next waits with it, as there is but one connection that writes.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, PoisonError},
    time::Duration,
};

use sqlx::{Connection as _, Database, Error, SqlSafeStr as _, Sqlite, SqliteConnection, sqlite::SqliteConnectOptions};
use sqlx_core::transaction::TransactionManager as _;
use tokio::{
    sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How long a transaction waits for a connection before it fails.
const PATIENCE: Duration = Duration::from_secs(30);

type Manager = <Sqlite as Database>::TransactionManager;

/// A connection, once it was needed.
type Place = Option<SqliteConnection>;

/// So many connections that are opened when they are needed, and kept.
#[derive(Debug, Clone)]
pub(super) struct Connections(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    options: SqliteConnectOptions,
    places: Vec<Arc<Mutex<Place>>>,
    /// One for each place that nobody has.
    permits: Arc<Semaphore>,
    /// Whoever chooses a place does so alone.
    choosing: std::sync::Mutex<()>,
}

/// A transaction. Dropped without [`commit`](Self::commit) it is rolled back, before whoever has the connection next is heard.
#[derive(Debug)]
pub(super) struct Transaction {
    connection: OwnedMappedMutexGuard<Place, SqliteConnection>,
    begun: bool,
    /// The last: whoever waits for it finds a place.
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    /// Keeps at most `most` connections with these options.
    pub(super) fn new(options: SqliteConnectOptions, most: usize) -> Self {
        let places = std::iter::repeat_with(Arc::default).take(most).collect();
        let permits = Arc::new(Semaphore::new(most));
        Self(Arc::new(Kept { options, places, permits, choosing: std::sync::Mutex::default() }))
    }

    /// Begins a transaction. Fails with [`Error::PoolTimedOut`] where no connection is given back in time, and with
    /// [`Error::PoolClosed`] after [`close`](Self::close).
    pub(super) async fn begin(&self, statement: &'static str) -> Result<Transaction, Error> {
        let permit = timeout(PATIENCE, Arc::clone(&self.0.permits).acquire_owned()).await;
        let permit = permit.map_err(|_| Error::PoolTimedOut)?.map_err(|_| Error::PoolClosed)?;
        let mut place = self.place().ok_or(Error::PoolClosed)?;
        if self.0.permits.is_closed() {
            return Err(Error::PoolClosed);
        }
        let mut kept = true;
        loop {
            let connection = match &mut *place {
                Some(connection) => connection,
                none => {
                    kept = false;
                    none.insert(SqliteConnection::connect_with(&self.0.options).await?)
                }
            };
            // Whoever gives up meanwhile leaves nothing begun: the connection's own thread sees to that.
            match Manager::begin(connection, Some(statement.into_sql_str())).await {
                Ok(()) => break,
                Err(error @ Error::Database(_)) => return Err(error),
                // A full disk may have left one behind that is of no use any more.
                Err(_) if kept => *place = None,
                Err(error) => {
                    *place = None;
                    return Err(error);
                }
            }
        }
        let connection = OwnedMutexGuard::try_map(place, Option::as_mut).map_err(|_| Error::PoolClosed)?;
        Ok(Transaction { connection, begun: true, _permit: permit })
    }

    /// Returns a place that nobody has, and if possible not one whose connection is still about what was given up. Whoever has
    /// a permit finds one.
    fn place(&self) -> Option<OwnedMutexGuard<Place>> {
        let _alone = self.0.choosing.lock().unwrap_or_else(PoisonError::into_inner);
        let free: Vec<_> = self.0.places.iter().filter_map(|place| Arc::clone(place).try_lock_owned().ok()).collect();
        let ready = |place: &OwnedMutexGuard<Place>| place.as_ref().is_none_or(|connection| depth(connection) == 0);
        let at = free.iter().position(ready).unwrap_or_default();
        free.into_iter().nth(at)
    }

    /// Gives no more connections away.
    pub(super) fn refuse(&self) {
        self.0.permits.close();
    }

    /// Waits until nobody has a connection, and closes them all. No more are given away.
    pub(super) async fn close(self) {
        self.refuse();
        for place in &self.0.places {
            let Some(connection) = place.lock().await.take() else { continue };
            if let Err(error) = connection.close().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "a connection could not be closed");
            }
        }
    }
}

/// Returns how many transactions are begun on a connection and not ended yet.
fn depth(connection: &SqliteConnection) -> usize {
    Manager::get_transaction_depth(connection)
}

impl Transaction {
    /// Makes what was written durable.
    pub(super) async fn commit(mut self) -> Result<(), Error> {
        Manager::commit(&mut self.connection).await?;
        self.begun = false;
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.begun {
            Manager::start_rollback(&mut self.connection);
        }
    }
}

impl Deref for Transaction {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Executor as _;

    use super::*;

    const BEGIN: &str = "BEGIN IMMEDIATE";

    async fn connections(directory: &tempfile::TempDir, most: usize) -> Connections {
        let file = directory.path().join("titan.db");
        let connections = Connections::new(SqliteConnectOptions::new().filename(file).create_if_missing(true), most);
        let mut tx = connections.begin(BEGIN).await.expect("a connection");
        tx.execute("CREATE TABLE numbers (number INTEGER)").await.expect("a table");
        tx.commit().await.expect("committed");
        connections
    }

    async fn count(tx: &mut Transaction) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM numbers").fetch_one(&mut **tx).await.expect("a count")
    }

    async fn put(tx: &mut Transaction) {
        tx.execute("INSERT INTO numbers VALUES (1)").await.expect("a row");
    }

    #[tokio::test]
    async fn what_is_not_committed_is_rolled_back_before_the_next_one_begins() {
        let directory = tempfile::tempdir().expect("a directory");
        let connections = connections(&directory, 1).await;
        let mut given_up = connections.begin(BEGIN).await.expect("begun");
        put(&mut given_up).await;
        drop(given_up);
        let mut kept = connections.begin(BEGIN).await.expect("begun");
        assert_eq!(count(&mut kept).await, 0);
        put(&mut kept).await;
        kept.commit().await.expect("committed");
        assert_eq!(count(&mut connections.begin(BEGIN).await.expect("begun")).await, 1);
    }

    /// No task is run between the two: the connection is there as soon as it is let go.
    #[tokio::test]
    async fn connection_is_free_as_soon_as_it_is_let_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let connections = connections(&directory, 1).await;
        let held = connections.begin(BEGIN).await.expect("begun");
        assert!(connections.place().is_none() && connections.0.permits.available_permits() == 0);
        drop(held);
        assert!(connections.place().is_some() && connections.0.permits.available_permits() == 1);
    }

    #[tokio::test]
    async fn whoever_gives_up_while_it_begins_leaves_nothing_begun() {
        let directory = tempfile::tempdir().expect("a directory");
        let connections = connections(&directory, 1).await;
        for polls in 1..4 {
            let mut begin = Box::pin(connections.begin(BEGIN));
            let given_up = std::future::poll_fn(|context| {
                std::task::Poll::Ready((0..polls).any(|_| begin.as_mut().poll(context).is_ready()))
            });
            let _begun = given_up.await;
            drop(begin);
            let mut tx = connections.begin(BEGIN).await.expect("begun");
            put(&mut tx).await;
            tx.commit().await.expect("committed");
        }
        assert_eq!(count(&mut connections.begin(BEGIN).await.expect("begun")).await, 3);
    }

    #[tokio::test]
    async fn statement_that_fails_gives_its_connection_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let connections = connections(&directory, 1).await;
        let failed = connections.begin("BEGIN SOMEHOW").await.map(drop);
        assert!(matches!(failed, Err(Error::Database(_))), "{failed:?}");
        assert!(connections.begin(BEGIN).await.is_ok());
    }

    /// SQLite rolls back by itself where a disk is full, or where a statement says so, and the connection counts on.
    #[tokio::test]
    async fn connection_that_lost_count_is_opened_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let connections = connections(&directory, 1).await;
        let mut broken = connections.begin(BEGIN).await.expect("begun");
        broken.execute("CREATE UNIQUE INDEX one ON numbers (number)").await.expect("an index");
        put(&mut broken).await;
        assert!(broken.execute("INSERT OR ROLLBACK INTO numbers VALUES (1)").await.is_err());
        drop(broken);
        let mut next = connections.begin(BEGIN).await.expect("begun");
        put(&mut next).await;
        next.commit().await.expect("committed");
        assert_eq!(count(&mut connections.begin(BEGIN).await.expect("begun")).await, 1);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_statement_that_was_given_up_while_another_connection_is_free() {
        const LONG: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000000) \
                            SELECT count(*) FROM n";
        let directory = tempfile::tempdir().expect("a directory");
        let connections = connections(&directory, 2).await;
        let mut busy = connections.begin("BEGIN").await.expect("begun");
        let given_up = timeout(Duration::from_millis(50), busy.execute(LONG)).await;
        assert!(given_up.is_err(), "it takes seconds");
        drop(busy);
        let first = connections.0.places[0].try_lock().expect("free");
        assert_eq!(first.as_ref().map(depth), Some(1), "still at work");
        drop(first);
        let mut reader = connections.begin("BEGIN").await.expect("begun");
        assert_eq!(count(&mut reader).await, 0);
        let first = connections.0.places[0].try_lock().expect("the other one was taken");
        assert_eq!(first.as_ref().map(depth), Some(1), "the other one did not wait for it");
    }

    #[tokio::test]
    async fn closing_waits_for_whoever_has_one_and_gives_no_more_away() {
        let directory = tempfile::tempdir().expect("a directory");
        let connections = connections(&directory, 2).await;
        let mut held = connections.begin(BEGIN).await.expect("begun");
        put(&mut held).await;
        let (closed, ()) = tokio::join!(connections.clone().close(), async { held.commit().await.expect("committed") });
        let () = closed;
        let refused = connections.begin(BEGIN).await.map(drop);
        assert!(matches!(refused, Err(Error::PoolClosed)), "{refused:?}");
        let mut wal = directory.path().join("titan.db").into_os_string();
        wal.push("-wal");
        assert!(!std::path::Path::new(&wal).exists());
    }
}
