//! A hot standby of PostgreSQL, from which lists and histories are read as long as it has caught up.
//!
//! Whether it has is asked in the snapshot that is then read, in one statement: its clock must be at the newest revision
//! that this process knows of, and every transaction up to this process's newest one must have ended there. The first
//! covers what others changed, the second what this process wrote without moving the clock, such as a step of a plan.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use sqlx::{PgPool, Postgres, Transaction};
use titan_api::Revision;
use tokio::time::{Instant, timeout};

use super::{Connection, Engine, Result, SNAPSHOT, Store, StoreError, Tx, open};
use crate::metrics::{
    commits::CommitMetrics,
    reads::{Fallback, ReadMetrics, Server},
};

/// How long a standby may take to begin a read.
const BEGINNING: Duration = Duration::from_secs(1);
/// How long a read from it may take before the primary is asked instead.
const READING: Duration = Duration::from_secs(10);
/// How long a standby that failed is left alone; then one read tries it again.
const PAUSE: Duration = Duration::from_secs(10);
/// Commits that nobody looks for in a list: what agents observe comes all the time, and the standby would always be behind.
const OBSERVED: [&str; 2] = ["report", "heartbeats"];

/// Which database a server has: the cluster's identifier, which a standby shares, and the database's number in it.
type Identity = (i64, i64);

/// Whether a server recovers, which database it has, up to which transaction all have ended, and the clock.
type Progress = (bool, i64, i64, i64, i64);

/// A standby and what it must have replayed before it is read.
#[derive(Debug)]
pub(super) struct Standby {
    pool: PgPool,
    identity: Identity,
    /// The newest revision that was seen.
    revision: AtomicI64,
    /// The newest transaction that was committed here, or begun before.
    transaction: AtomicI64,
    away: Mutex<Option<Away>>,
}

/// A standby that is left alone.
#[derive(Debug, Clone, Copy)]
struct Away {
    until: Instant,
    reason: Fallback,
}

impl Store {
    /// Reads lists and histories from the hot standby at `url` from now on. It need not be there yet.
    pub async fn with_standby(self, url: &str) -> Result<Self> {
        // What began before counts as its own: it may be from before a restart.
        const SQL: &str = "SELECT (SELECT system_identifier FROM pg_control_system()), CAST(oid AS BIGINT), \
             txid_snapshot_xmax(txid_current_snapshot()) - 1 FROM pg_database WHERE datname = current_database()";
        let (Engine::Postgres(primary), Some(options)) = (&self.engine, open::postgres_options(url)) else {
            return Err(StoreError::Standby);
        };
        let (cluster, database, begun): (i64, i64, i64) = sqlx::query_as(SQL).fetch_one(primary).await?;
        let standby = Standby {
            identity: (cluster, database),
            pool: open::postgres_pool().acquire_timeout(BEGINNING).connect_lazy_with(options),
            revision: AtomicI64::new(0),
            transaction: AtomicI64::new(begun),
            away: Mutex::default(),
        };
        Ok(Self { standby: Some(Arc::new(standby)), ..self })
    }

    /// Reads one snapshot with `read`, for people: from the standby if there is one that has caught up with everything
    /// that this process has committed or seen of the feed, else from the primary, where `read` may begin anew. So one
    /// reads one's own writes, and documents never go back in time; what agents report may be as old as the standby.
    ///
    /// Never for what is decided on or told to hosts. An error is the primary's.
    pub async fn read_aside<T, F: Future<Output = Result<T>>>(&self, read: impl Fn(Tx) -> F) -> Result<T> {
        let Some(standby) = &self.standby else {
            self.reads.read(Server::Primary);
            return read(self.read().await?).await;
        };
        match standby.read(&self.metrics, &read).await {
            Ok(found) => {
                self.reads.read(Server::Standby);
                return Ok(found);
            }
            Err(reason) => self.reads.fell_back(reason),
        }
        self.reads.read(Server::Primary);
        let mut tx = self.read().await?;
        // What is shown now is not taken back by a standby that is not there yet.
        standby.saw(tx.clock().await?);
        read(tx).await
    }

    /// Says up to which revision the feed was seen: a standby that is behind it is not read.
    pub fn saw(&self, revision: Revision) {
        if let Some(standby) = &self.standby {
            standby.saw(revision);
        }
    }

    /// Returns what is counted of [`Store::read_aside`].
    pub(crate) const fn reads(&self) -> &ReadMetrics {
        &self.reads
    }

    /// Returns the standby if it has to know of a transaction for `purpose`.
    pub(super) fn standby_for(&self, purpose: &str) -> Option<Arc<Standby>> {
        self.standby.clone().filter(|_| !OBSERVED.contains(&purpose))
    }
}

impl Standby {
    /// Reads from the standby, or says why not.
    async fn read<T, F: Future<Output = Result<T>>>(
        &self,
        metrics: &CommitMetrics,
        read: impl Fn(Tx) -> F,
    ) -> std::result::Result<T, Fallback> {
        self.may_be_tried()?;
        let (tx, progress) = match timeout(BEGINNING, self.begin()).await {
            Ok(Ok(begun)) => begun,
            Ok(Err(error)) => return Err(self.went(Fallback::Unreachable, Some(&error))),
            Err(_) => return Err(self.went(Fallback::Unreachable, None)),
        };
        let (recovers, cluster, database, ended, clock) = progress;
        if !recovers || (cluster, database) != self.identity {
            return Err(self.went(Fallback::Foreign, None));
        }
        self.returned();
        let replayed = clock >= self.revision.load(Ordering::SeqCst) && ended > self.transaction.load(Ordering::SeqCst);
        if !replayed {
            return Err(Fallback::Behind);
        }
        let tx = Tx::new(Connection::Postgres(tx), metrics, false, "aside");
        match timeout(READING, read(tx)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) if is_lost(&error) => Err(self.went(Fallback::Unreachable, Some(&error))),
            Ok(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "the standby ended a read");
                Err(Fallback::Ended)
            }
            Err(_) => Err(self.went(Fallback::Unreachable, None)),
        }
    }

    /// Begins a snapshot and returns how far it is.
    async fn begin(&self) -> Result<(Transaction<'static, Postgres>, Progress)> {
        const SQL: &str = "SELECT pg_is_in_recovery(), (SELECT system_identifier FROM pg_control_system()), \
             (SELECT CAST(oid AS BIGINT) FROM pg_database WHERE datname = current_database()), \
             txid_snapshot_xmin(txid_current_snapshot()), revision FROM clock WHERE id = 1";
        let mut tx = self.pool.begin_with(SNAPSHOT).await?;
        let progress = sqlx::query_as(SQL).fetch_one(&mut *tx).await?;
        Ok((tx, progress))
    }

    /// Whether the standby may be asked. After a failure one read at a time tries it again; the others do not wait for it.
    fn may_be_tried(&self) -> std::result::Result<(), Fallback> {
        let now = Instant::now();
        match &mut *self.away() {
            Some(away) if now < away.until => Err(away.reason),
            Some(away) => {
                away.until = now + PAUSE;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn went(&self, reason: Fallback, error: Option<&StoreError>) -> Fallback {
        if self.away().replace(Away { until: Instant::now() + PAUSE, reason }).is_none() {
            let error = error.map(|error| error as &dyn std::error::Error);
            tracing::warn!(
                error,
                "the standby {}; lists and histories are read from the primary",
                match reason {
                    Fallback::Foreign => "is no hot standby of this database",
                    _ => "cannot be read",
                }
            );
        }
        reason
    }

    fn returned(&self) {
        if self.away().take().is_some() {
            tracing::info!("the standby is back; lists and histories are read from it");
        }
    }

    fn away(&self) -> MutexGuard<'_, Option<Away>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saw(&self, revision: Revision) {
        self.revision.fetch_max(revision.micros(), Ordering::SeqCst);
    }

    /// Says that a transaction has ended here: a standby that has not come so far is not read.
    pub(super) fn wrote(&self, transaction: Option<i64>) {
        self.transaction.fetch_max(transaction.unwrap_or(0), Ordering::SeqCst);
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

impl Tx {
    /// Returns the number of the transaction if a standby has to know of it and anything was written.
    pub(super) async fn number(&mut self) -> Result<Option<i64>> {
        match &mut self.connection {
            Connection::Postgres(conn) if self.standby.is_some() => {
                Ok(sqlx::query_scalar("SELECT txid_current_if_assigned()").fetch_one(&mut **conn).await?)
            }
            _ => Ok(None),
        }
    }
}

/// Whether the connection is gone, not only what was asked on it.
const fn is_lost(error: &StoreError) -> bool {
    matches!(error, StoreError::Database(sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_)))
}
