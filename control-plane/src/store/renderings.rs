//! Renderings: which bundle an outcome came to.

use std::collections::{BTreeMap, HashMap};

use titan_api::{Digest, Revision};

use super::{Connection, Result, Tx, apart, digest, joined};

/// Outcomes that one statement asks for.
const ASKED: usize = 10_000;

impl Tx {
    /// Returns the bundles that these outcomes came to, of those that are known.
    pub async fn renderings(&mut self, outcomes: &[Digest]) -> Result<HashMap<Digest, Digest>> {
        const SQLITE: &str = "WITH RECURSIVE row(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM row WHERE n + 1 < $2) \
             SELECT r.outcome, r.bundle FROM row JOIN renderings r ON r.outcome = substr($1, n * 32 + 1, 32)";
        const POSTGRES: &str = "SELECT outcome, bundle FROM renderings WHERE outcome = ANY($1)";
        let mut known = HashMap::new();
        for asked in outcomes.chunks(ASKED) {
            crate::fault::reach(self.purpose);
            let rows: Vec<(Vec<u8>, Vec<u8>)> = match &mut self.connection {
                Connection::Sqlite(conn) => {
                    let count = i64::try_from(asked.len()).unwrap_or(i64::MAX);
                    sqlx::query_as(SQLITE).bind(joined(asked)).bind(count).fetch_all(&mut **conn).await?
                }
                Connection::Postgres(conn) => {
                    sqlx::query_as(POSTGRES).bind(apart(asked)).fetch_all(&mut **conn).await?
                }
            };
            for (outcome, bundle) in rows {
                let id = hex::encode(&outcome);
                let outcome = digest("renderings", "outcome", &id, &outcome)?;
                known.insert(outcome, digest("renderings", "bundle", &id, &bundle)?);
            }
        }
        Ok(known)
    }

    /// Keeps which bundles outcomes came to.
    pub async fn put_renderings(&mut self, renderings: &BTreeMap<Digest, Digest>) -> Result<()> {
        const SQLITE: &str = "INSERT INTO renderings (outcome, bundle) \
             WITH RECURSIVE row(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM row WHERE n + 1 < $3) \
             SELECT substr($1, n * 32 + 1, 32), substr($2, n * 32 + 1, 32) FROM row WHERE true \
             ON CONFLICT (outcome) DO NOTHING";
        const POSTGRES: &str = "INSERT INTO renderings (outcome, bundle) \
             SELECT outcome, bundle FROM unnest(CAST($1 AS BYTEA[]), CAST($2 AS BYTEA[])) AS row(outcome, bundle) \
             ON CONFLICT (outcome) DO NOTHING";
        if renderings.is_empty() {
            return Ok(());
        }
        crate::fault::reach(self.purpose);
        match &mut self.connection {
            Connection::Sqlite(conn) => {
                let count = i64::try_from(renderings.len()).unwrap_or(i64::MAX);
                sqlx::query(SQLITE)
                    .bind(joined(renderings.keys()))
                    .bind(joined(renderings.values()))
                    .bind(count)
                    .execute(&mut **conn)
                    .await?;
            }
            Connection::Postgres(conn) => {
                sqlx::query(POSTGRES)
                    .bind(apart(renderings.keys()))
                    .bind(apart(renderings.values()))
                    .execute(&mut **conn)
                    .await?;
            }
        }
        Ok(())
    }

    /// Marks bundles as young, so that they are not swept away before somebody refers to them; returns how many of them
    /// there are.
    pub async fn touch_bundles(&mut self, digests: &[Digest], now: Revision) -> Result<u64> {
        const SQLITE: &str = "UPDATE bundles SET created_at = $3 WHERE digest IN (\
             WITH RECURSIVE row(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM row WHERE n + 1 < $2) \
             SELECT substr($1, n * 32 + 1, 32) FROM row)";
        const POSTGRES: &str = "UPDATE bundles SET created_at = $2 WHERE digest = ANY($1)";
        if digests.is_empty() {
            return Ok(0);
        }
        crate::fault::reach(self.purpose);
        Ok(match &mut self.connection {
            Connection::Sqlite(conn) => {
                let count = i64::try_from(digests.len()).unwrap_or(i64::MAX);
                sqlx::query(SQLITE)
                    .bind(joined(digests))
                    .bind(count)
                    .bind(now.micros())
                    .execute(&mut **conn)
                    .await?
                    .rows_affected()
            }
            Connection::Postgres(conn) => sqlx::query(POSTGRES)
                .bind(apart(digests))
                .bind(now.micros())
                .execute(&mut **conn)
                .await?
                .rows_affected(),
        })
    }
}
