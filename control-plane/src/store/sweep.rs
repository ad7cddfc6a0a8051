//! Clearing away what nothing refers to any more.
//!
//! What is to go is looked for in transactions that only read, however long that takes, and removed in small ones that
//! write, each of which looks again at what it removes.

use std::collections::HashSet;

use titan_api::{Digest, Kind, Revision};
use uuid::Uuid;

use super::{Result, Tx, both, digest, over_rows, parsed, rows};

impl Tx {
    /// Returns deleted deployments and hosts for which no assignment is left, at most `limit` of them.
    pub async fn settled_deletions(&mut self, limit: i64) -> Result<Vec<(Kind, Uuid)>> {
        const SQL: &str = "SELECT kind, uid FROM resources WHERE deleted_revision IS NOT NULL \
             AND deleted_revision <= (SELECT revision FROM bookmarks WHERE name = 'planner') \
             AND NOT EXISTS (SELECT 1 FROM assignments WHERE deployment_uid = resources.uid) \
             AND NOT EXISTS (SELECT 1 FROM assignments WHERE host_uid = resources.uid) LIMIT $1";
        let found: Vec<(String, String)> =
            both!(self, conn => sqlx::query_as(SQL).bind(limit).fetch_all(&mut **conn).await?);
        found.into_iter().map(named).collect()
    }

    /// Returns those of these deployments and hosts that are deleted and for which no assignment is left.
    pub async fn settled_among(&mut self, uids: &[Uuid]) -> Result<Vec<(Kind, Uuid)>> {
        let sql = over_rows!(
            self,
            "SELECT kind, uid FROM resources WHERE uid IN (SELECT j.value ->> 0 FROM",
            ") AND deleted_revision IS NOT NULL \
             AND deleted_revision <= (SELECT revision FROM bookmarks WHERE name = 'planner') \
             AND NOT EXISTS (SELECT 1 FROM assignments WHERE deployment_uid = resources.uid) \
             AND NOT EXISTS (SELECT 1 FROM assignments WHERE host_uid = resources.uid)"
        );
        let uids = rows(uids.iter().map(|uid| [uid]));
        let found: Vec<(String, String)> =
            both!(self, conn => sqlx::query_as(sql).bind(uids).fetch_all(&mut **conn).await?);
        found.into_iter().map(named).collect()
    }

    /// Removes deployments and hosts with everything that is known of them.
    pub async fn purge_settled(&mut self, settled: &[(Kind, Uuid)]) -> Result<()> {
        let hosts: Vec<_> = settled.iter().filter(|(kind, _)| *kind == Kind::Host).map(|(_, uid)| *uid).collect();
        if !hosts.is_empty() {
            self.purge_observed_hosts(&hosts).await?;
            let tokens = over_rows!(self, "DELETE FROM tokens WHERE host_uid IN (SELECT j.value ->> 0 FROM", ")");
            let hosts = rows(hosts.iter().map(|uid| [uid]));
            both!(self, conn => sqlx::query(tokens).bind(hosts).execute(&mut **conn).await.map(drop)?);
        }
        let statements = [
            over_rows!(self, "DELETE FROM render_problems WHERE deployment_uid IN (SELECT j.value ->> 0 FROM", ")"),
            over_rows!(self, "DELETE FROM render_problems WHERE host_uid IN (SELECT j.value ->> 0 FROM", ")"),
            over_rows!(self, "DELETE FROM resources WHERE uid IN (SELECT j.value ->> 0 FROM", ")"),
        ];
        let uids = rows(settled.iter().map(|(_, uid)| [uid]));
        for sql in statements {
            both!(self, conn => sqlx::query(sql).bind(uids.as_str()).execute(&mut **conn).await.map(drop)?);
        }
        Ok(())
    }

    /// Returns the hosts that are deleted and not gone yet.
    pub async fn hosts_leaving(&mut self) -> Result<Vec<Uuid>> {
        const SQL: &str = "SELECT uid FROM resources WHERE deleted_revision IS NOT NULL AND kind = 'Host'";
        let found: Vec<(String,)> = both!(self, conn => sqlx::query_as(SQL).fetch_all(&mut **conn).await?);
        found.into_iter().map(|(uid,)| parsed("resources", "uid", &uid, &uid)).collect()
    }

    /// Returns those of these hosts that are still there, deleted ones that are not gone yet among them.
    pub async fn hosts_among(&mut self, hosts: &[Uuid]) -> Result<HashSet<Uuid>> {
        let sql = over_rows!(self, "SELECT uid FROM resources WHERE uid IN (SELECT j.value ->> 0 FROM", ")");
        let hosts = rows(hosts.iter().map(|uid| [uid]));
        let found: Vec<(String,)> = both!(self, conn => sqlx::query_as(sql).bind(hosts).fetch_all(&mut **conn).await?);
        found.into_iter().map(|(uid,)| parsed("resources", "uid", &uid, &uid)).collect()
    }

    /// Returns the tombstones of these hosts.
    pub async fn tombstones_of(&mut self, hosts: &[Uuid]) -> Result<HashSet<Uuid>> {
        let sql = over_rows!(
            self,
            "SELECT id FROM assignments WHERE host_uid IN (SELECT j.value ->> 0 FROM",
            ") AND present = $2"
        );
        let hosts = rows(hosts.iter().map(|uid| [uid]));
        let found: Vec<(String,)> =
            both!(self, conn => sqlx::query_as(sql).bind(hosts).bind(false).fetch_all(&mut **conn).await?);
        found.into_iter().map(|(id,)| parsed("assignments", "id", &id, &id)).collect()
    }

    /// Returns the bundles that were last rendered before `before`.
    pub async fn bundles_before(&mut self, before: Revision) -> Result<HashSet<Digest>> {
        const SQL: &str = "SELECT digest FROM bundles WHERE created_at < $1";
        let found: Vec<(Vec<u8>,)> =
            both!(self, conn => sqlx::query_as(SQL).bind(before.micros()).fetch_all(&mut **conn).await?);
        found.into_iter().map(|(bytes,)| digest("bundles", "digest", "?", &bytes)).collect()
    }

    /// Returns the bundles that assignments name. It reads every assignment.
    pub async fn bundles_assigned(&mut self) -> Result<HashSet<Digest>> {
        const SQL: &str = "SELECT DISTINCT bundle FROM assignments WHERE bundle IS NOT NULL";
        let found: Vec<(Vec<u8>,)> = both!(self, conn => sqlx::query_as(SQL).fetch_all(&mut **conn).await?);
        found.into_iter().map(|(bytes,)| digest("assignments", "bundle", "?", &bytes)).collect()
    }

    /// Removes these bundles but those that were rendered again at `before` or later, and returns how many.
    pub async fn remove_bundles(&mut self, bundles: &[Digest], before: Revision) -> Result<u64> {
        const SQLITE: &str = "DELETE FROM bundles WHERE digest IN (SELECT unhex(j.value ->> 0) FROM json_each($1) AS j) \
             AND created_at < $2";
        const POSTGRES: &str = "DELETE FROM bundles WHERE digest IN (SELECT decode(j.value ->> 0, 'hex') \
             FROM json_array_elements(CAST($1 AS JSON)) AS j(value)) AND created_at < $2";
        let sql = match self.connection {
            super::Connection::Sqlite(_) => SQLITE,
            super::Connection::Postgres(_) => POSTGRES,
        };
        let bundles = rows(bundles.iter().map(|bundle| [bundle]));
        Ok(both!(self, conn => sqlx::query(sql).bind(bundles).bind(before.micros())
            .execute(&mut **conn).await?.rows_affected()))
    }

    /// Returns the ids of one-time tokens that ended before `before`, at most `limit` of them.
    pub async fn tokens_ended(&mut self, before: Revision, limit: i64) -> Result<Vec<String>> {
        const SQL: &str = "SELECT id FROM tokens WHERE kind = 'join' AND expires_at < $1 LIMIT $2";
        let found: Vec<(String,)> =
            both!(self, conn => sqlx::query_as(SQL).bind(before.micros()).bind(limit).fetch_all(&mut **conn).await?);
        Ok(found.into_iter().map(|(id,)| id).collect())
    }

    /// Returns actor and key of the answers that were kept before `before`, at most `limit` of them.
    pub async fn answers_before(&mut self, before: Revision, limit: i64) -> Result<Vec<(String, String)>> {
        const SQL: &str = "SELECT actor, idempotency_key FROM idempotency_keys WHERE created_at < $1 LIMIT $2";
        Ok(both!(self, conn => sqlx::query_as(SQL).bind(before.micros()).bind(limit).fetch_all(&mut **conn).await?))
    }

    /// Removes these one-time tokens.
    pub async fn remove_tokens(&mut self, ids: &[String]) -> Result<()> {
        let sql = over_rows!(self, "DELETE FROM tokens WHERE id IN (SELECT j.value ->> 0 FROM", ")");
        let ids = rows(ids.iter().map(|id| [id]));
        both!(self, conn => sqlx::query(sql).bind(ids).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Removes these kept answers.
    pub async fn remove_answers(&mut self, keys: &[(String, String)]) -> Result<()> {
        let sql = over_rows!(
            self,
            "DELETE FROM idempotency_keys WHERE (actor, idempotency_key) IN (SELECT j.value ->> 0, j.value ->> 1 FROM",
            ")"
        );
        let keys = rows(keys);
        both!(self, conn => sqlx::query(sql).bind(keys).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }
}

fn named((kind, uid): (String, String)) -> Result<(Kind, Uuid)> {
    Ok((parsed("resources", "kind", &uid, &kind)?, parsed("resources", "uid", &uid, &uid)?))
}
