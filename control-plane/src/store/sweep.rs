//! Clearing away what nothing refers to any more.

use titan_api::{Kind, Revision};
use uuid::Uuid;

use super::{Result, Tx, both, parsed};

impl Tx {
    /// Returns deleted deployments and hosts for which no assignment is left.
    pub async fn settled_deletions(&mut self) -> Result<Vec<(Kind, Uuid)>> {
        const SQL: &str = "SELECT kind, uid FROM resources WHERE deleted_revision IS NOT NULL \
             AND deleted_revision <= (SELECT revision FROM bookmarks WHERE name = 'planner')";
        let rows: Vec<(String, String)> = both!(self, conn => sqlx::query_as(SQL).fetch_all(&mut **conn).await?);
        let mut settled = Vec::new();
        for (kind, uid) in rows {
            let (kind, uid) = (parsed("resources", "kind", &uid, &kind)?, parsed("resources", "uid", &uid, &uid)?);
            if self.is_settled(kind, uid).await? {
                settled.push((kind, uid));
            }
        }
        Ok(settled)
    }

    /// Removes bundles older than `before` that no assignment names, and returns how many.
    pub async fn sweep_bundles(&mut self, before: Revision) -> Result<u64> {
        const SQL: &str = "DELETE FROM bundles WHERE created_at < $1 \
             AND NOT EXISTS (SELECT 1 FROM assignments WHERE assignments.bundle = bundles.digest)";
        Ok(both!(self, conn => sqlx::query(SQL).bind(before.micros()).execute(&mut **conn).await?.rows_affected()))
    }

    /// Removes answers kept under idempotency keys before `before`, and one-time tokens that ended before it.
    pub async fn sweep_expired(&mut self, before: Revision) -> Result<()> {
        const KEYS: &str = "DELETE FROM idempotency_keys WHERE created_at < $1";
        const TOKENS: &str = "DELETE FROM tokens WHERE kind = 'join' AND expires_at < $1";
        for sql in [KEYS, TOKENS] {
            both!(self, conn => sqlx::query(sql).bind(before.micros()).execute(&mut **conn).await.map(drop)?);
        }
        Ok(())
    }
}
