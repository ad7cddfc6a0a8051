//! Clearing away what nothing refers to any more.
//!
//! What is to go is looked for in transactions that only read, however long that takes, and removed in small ones that
//! write, each of which looks again at what it removes.

use std::collections::HashSet;

use futures_util::TryStreamExt as _;
use titan_api::{Digest, Kind, Revision};
use uuid::Uuid;

use super::{Result, Tx, both, digest, over_rows, parsed, per_engine, rows, uuid};

/// What holds of a deleted deployment or host once nothing is left of it. A host's tombstones have an index; that it has
/// nothing else is looked up for each deployment that there is.
macro_rules! settled {
    ($bytes:literal, $hex:literal) => {
        concat!(
            "deleted_revision IS NOT NULL \
             AND deleted_revision <= (SELECT revision FROM bookmarks WHERE name = 'planner') \
             AND CASE WHEN kind = 'Host' \
             THEN NOT EXISTS (SELECT 1 FROM assignments a WHERE a.bundle IS NULL AND a.host = ",
            $bytes,
            "replace(uid, '-', '')",
            $hex,
            ") AND NOT EXISTS (SELECT 1 FROM descriptions d JOIN assignments a ON a.deployment = d.deployment \
             AND a.host = ",
            $bytes,
            "replace(uid, '-', '')",
            $hex,
            ") ELSE NOT EXISTS (SELECT 1 FROM assignments a WHERE a.deployment = ",
            $bytes,
            "replace(uid, '-', '')",
            $hex,
            ") END"
        )
    };
}

/// What the sweep may remove, as of one snapshot.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unused {
    /// Bundles that no assignment names.
    pub bundles: Vec<Digest>,
    /// Descriptions that no assignment has.
    pub descriptions: Vec<i64>,
}

impl Tx {
    /// Returns deleted deployments and hosts of which no assignment is left, at most `limit` of them.
    pub async fn settled_deletions(&mut self, limit: i64) -> Result<Vec<(Kind, Uuid)>> {
        macro_rules! sql {
            ($rows:literal, $bytes:literal, $hex:literal, $lock:literal) => {
                concat!("SELECT kind, uid FROM resources WHERE ", settled!($bytes, $hex), " LIMIT $1")
            };
        }
        let sql = per_engine!(self, sql);
        let found: Vec<(String, String)> =
            both!(self, conn => sqlx::query_as(sql).bind(limit).fetch_all(&mut **conn).await?);
        found.into_iter().map(named).collect()
    }

    /// Returns those of these deployments and hosts that are deleted and of which no assignment is left.
    pub async fn settled_among(&mut self, uids: &[Uuid]) -> Result<Vec<(Kind, Uuid)>> {
        macro_rules! sql {
            ($rows:literal, $bytes:literal, $hex:literal, $lock:literal) => {
                concat!(
                    "SELECT kind, uid FROM resources WHERE uid IN (SELECT j.value ->> 0 FROM ",
                    $rows,
                    ") AND ",
                    settled!($bytes, $hex)
                )
            };
        }
        let sql = per_engine!(self, sql);
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
        let deployments = settled.iter().filter(|(kind, _)| *kind == Kind::Deployment).map(|(_, uid)| *uid);
        self.purge_gates(&deployments.collect::<Vec<_>>()).await?;
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

    /// Returns deployment and host of the tombstones of these hosts.
    pub async fn tombstones_of(&mut self, hosts: &[Uuid]) -> Result<HashSet<(Uuid, Uuid)>> {
        macro_rules! sql {
            ($rows:literal, $bytes:literal, $hex:literal, $lock:literal) => {
                concat!(
                    "SELECT a.deployment, a.host FROM assignments a WHERE a.bundle IS NULL AND a.host IN (SELECT ",
                    $bytes,
                    "j.value ->> 0",
                    $hex,
                    " FROM ",
                    $rows,
                    ")"
                )
            };
        }
        let sql = per_engine!(self, sql);
        let hosts = rows(hosts.iter().map(|uid| [uid.simple().to_string()]));
        let found: Vec<(Vec<u8>, Vec<u8>)> =
            both!(self, conn => sqlx::query_as(sql).bind(hosts).fetch_all(&mut **conn).await?);
        let id = || "of a tombstone".to_owned();
        let read = |(deployment, host): (Vec<u8>, Vec<u8>)| {
            Ok((uuid("assignments", "deployment", id, &deployment)?, uuid("assignments", "host", id, &host)?))
        };
        found.into_iter().map(read).collect()
    }

    /// Returns the bundles and descriptions that no assignment has, and that were last counted on before `before`. If there
    /// are any so old, it reads every assignment.
    pub async fn unused(&mut self, before: Revision) -> Result<Unused> {
        const BUNDLES: &str = "SELECT digest FROM bundles WHERE created_at < $1";
        const DESCRIPTIONS: &str = "SELECT id FROM descriptions WHERE used_at < $1";
        const USED: &str = "SELECT DISTINCT description, bundle FROM assignments";
        let before = before.micros();
        let bundles: Vec<(Vec<u8>,)> =
            both!(self, conn => sqlx::query_as(BUNDLES).bind(before).fetch_all(&mut **conn).await?);
        let descriptions: Vec<(i64,)> =
            both!(self, conn => sqlx::query_as(DESCRIPTIONS).bind(before).fetch_all(&mut **conn).await?);
        let mut bundles: HashSet<_> = bundles.into_iter().map(|(digest,)| digest).collect();
        let mut descriptions: HashSet<_> = descriptions.into_iter().map(|(id,)| id).collect();
        if bundles.is_empty() && descriptions.is_empty() {
            return Ok(Unused::default());
        }
        both!(self, conn => {
            let mut used = sqlx::query_as::<_, (i64, Option<Vec<u8>>)>(USED).fetch(&mut **conn);
            while let Some((description, bundle)) = used.try_next().await? {
                descriptions.remove(&description);
                bundle.map(|bundle| bundles.remove(&bundle));
            }
        });
        let bundles = bundles.into_iter().map(|bytes| digest("bundles", "digest", &hex::encode(&bytes), &bytes));
        Ok(Unused { bundles: bundles.collect::<Result<_>>()?, descriptions: descriptions.into_iter().collect() })
    }

    /// Removes these bundles, and what is known to have come to them, but those that were counted on again at `before` or
    /// later. Returns how many went.
    pub async fn remove_bundles(&mut self, bundles: &[Digest], before: Revision) -> Result<usize> {
        macro_rules! sql {
            ($rows:literal, $bytes:literal, $hex:literal, $lock:literal) => {
                concat!(
                    "DELETE FROM bundles WHERE digest IN (SELECT ",
                    $bytes,
                    "j.value ->> 0",
                    $hex,
                    " FROM ",
                    $rows,
                    ") AND created_at < $2 RETURNING digest"
                )
            };
        }
        macro_rules! renderings {
            ($rows:literal, $bytes:literal, $hex:literal, $lock:literal) => {
                concat!(
                    "DELETE FROM renderings WHERE bundle IN (SELECT ",
                    $bytes,
                    "j.value ->> 0",
                    $hex,
                    " FROM ",
                    $rows,
                    ")"
                )
            };
        }
        let sql = per_engine!(self, sql);
        let bundles = rows(bundles.iter().map(|bundle| [bundle]));
        let gone: Vec<(Vec<u8>,)> = both!(self, conn => sqlx::query_as(sql).bind(bundles).bind(before.micros())
            .fetch_all(&mut **conn).await?);
        let sql = per_engine!(self, renderings);
        let bundles = rows(gone.iter().map(|(digest,)| [hex::encode(digest)]));
        both!(self, conn => sqlx::query(sql).bind(bundles).execute(&mut **conn).await.map(drop)?);
        Ok(gone.len())
    }

    /// Removes these descriptions but those that were counted on again at `before` or later.
    pub async fn remove_descriptions(&mut self, ids: &[i64], before: Revision) -> Result<()> {
        let sql = over_rows!(
            self,
            "DELETE FROM descriptions WHERE id IN (SELECT CAST(j.value ->> 0 AS BIGINT) FROM",
            ") AND used_at < $2"
        );
        let ids = rows(ids.iter().map(|id| [id]));
        both!(self, conn => sqlx::query(sql).bind(ids).bind(before.micros()).execute(&mut **conn).await.map(drop)?);
        Ok(())
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
