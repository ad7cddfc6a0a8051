//! The fleet's clock.

use titan_api::Revision;

use super::{Connection, Result, Tx, both};

impl Tx {
    /// Moves the clock and returns the new revision (law 1). It comes first in every transaction that changes desired
    /// state; the row's lock is held to the commit, so nobody commits below a revision that was served.
    ///
    /// `wall` is the process's clock. On PostgreSQL the database's own stands in for it, so that replicas need not agree.
    pub async fn tick(&mut self, wall: Revision) -> Result<Revision> {
        self.tick_past(wall, Revision::ZERO).await
    }

    /// Moves the clock like [`Tx::tick`], and past `least` at that.
    pub async fn tick_past(&mut self, wall: Revision, least: Revision) -> Result<Revision> {
        const SQLITE: &str = "UPDATE clock SET revision = MAX($1, $2, revision + 1) WHERE id = 1 RETURNING revision";
        const POSTGRES: &str = "UPDATE clock SET revision = GREATEST(CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT), \
             $2, revision + 1) WHERE id = 1 AND $1 >= 0 RETURNING revision";
        let sql = match self.connection {
            Connection::Sqlite(_) => SQLITE,
            Connection::Postgres(_) => POSTGRES,
        };
        let (wall, least) = (wall.micros(), least.micros());
        let (revision,): (i64,) =
            both!(self, conn => sqlx::query_as(sql).bind(wall).bind(least).fetch_one(&mut **conn).await?);
        Ok(Revision::from_micros(revision))
    }

    /// Tells other replicas, once this commits, that the feed has moved. A hint: they also look by themselves.
    pub async fn notify(&mut self) -> Result<()> {
        if let Connection::Postgres(conn) = &mut self.connection {
            sqlx::query("SELECT pg_notify('titan_feed', '')").execute(&mut **conn).await?;
        }
        Ok(())
    }

    /// Returns the revision of the newest commit.
    pub async fn clock(&mut self) -> Result<Revision> {
        const SQL: &str = "SELECT revision FROM clock WHERE id = 1";
        let (revision,): (i64,) = both!(self, conn => sqlx::query_as(SQL).fetch_one(&mut **conn).await?);
        Ok(Revision::from_micros(revision))
    }

    /// Returns how far the processor `name` has come in the feed.
    pub async fn bookmark(&mut self, name: &str) -> Result<Revision> {
        const SQL: &str = "SELECT revision FROM bookmarks WHERE name = $1";
        let row: Option<(i64,)> =
            both!(self, conn => sqlx::query_as(SQL).bind(name).fetch_optional(&mut **conn).await?);
        Ok(row.map_or(Revision::ZERO, |(revision,)| Revision::from_micros(revision)))
    }

    /// Writes down how far the processor `name` has come.
    pub async fn set_bookmark(&mut self, name: &str, revision: Revision) -> Result<()> {
        const SQL: &str = "INSERT INTO bookmarks (name, revision) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET revision = excluded.revision";
        both!(self, conn => sqlx::query(SQL).bind(name).bind(revision.micros()).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Returns up to which revision everything is decided: the clock's, unless a change waits for the planner.
    pub async fn planned(&mut self) -> Result<Revision> {
        const SQL: &str = "SELECT MIN(revision) FROM changes WHERE revision > \
             COALESCE((SELECT revision FROM bookmarks WHERE name = 'planner'), 0)";
        let clock = self.clock().await?;
        let (pending,): (Option<i64>,) = both!(self, conn => sqlx::query_as(SQL).fetch_one(&mut **conn).await?);
        Ok(pending.map_or(clock, |pending| Revision::from_micros(pending - 1)))
    }
}
