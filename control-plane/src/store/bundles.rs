//! Bundles: rendered content by digest.

use titan_api::{Digest, Revision};

use super::{Result, Tx, both};

impl Tx {
    /// Keeps a bundle's bytes; one that is there already is marked as young, so that it is not swept away meanwhile.
    pub async fn put_bundle(&mut self, digest: &Digest, body: &[u8], now: Revision) -> Result<()> {
        const SQL: &str = "INSERT INTO bundles (digest, body, created_at) VALUES ($1, $2, $3) \
             ON CONFLICT (digest) DO UPDATE SET created_at = excluded.created_at";
        both!(self, conn => sqlx::query(SQL).bind(digest.as_bytes().to_vec()).bind(body.to_vec()).bind(now.micros())
            .execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Returns a bundle's bytes.
    pub async fn bundle(&mut self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        const SQL: &str = "SELECT body FROM bundles WHERE digest = $1";
        let row: Option<(Vec<u8>,)> = both!(self, conn => sqlx::query_as(SQL).bind(digest.as_bytes().to_vec()).fetch_optional(&mut **conn).await?);
        Ok(row.map(|(body,)| body))
    }
}
