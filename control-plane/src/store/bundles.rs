//! Bundles: rendered content by digest.

use titan_api::{Digest, Revision};

use super::{Connection, Result, Tx, both, rows};

/// Bytes of bundles that go into one statement.
const STATEMENT_BYTES: usize = 4 * 1024 * 1024;

impl Tx {
    /// Keeps a bundle's bytes; one that is there already is marked as young, so that it is not swept away meanwhile.
    pub async fn put_bundle(&mut self, digest: &Digest, body: &[u8], now: Revision) -> Result<()> {
        const SQL: &str = "INSERT INTO bundles (digest, body, created_at) VALUES ($1, $2, $3) \
             ON CONFLICT (digest) DO UPDATE SET created_at = excluded.created_at";
        both!(self, conn => sqlx::query(SQL).bind(digest.as_bytes().to_vec()).bind(body.to_vec()).bind(now.micros())
            .execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Keeps many bundles, each named once, as [`Tx::put_bundle`] does one.
    pub async fn put_bundles(&mut self, bundles: &[(Digest, impl AsRef<[u8]>)], now: Revision) -> Result<()> {
        const SQLITE: &str = "INSERT INTO bundles (digest, body, created_at) \
             SELECT unhex(j.value ->> 0), unhex(j.value ->> 1), $2 FROM json_each($1) AS j WHERE TRUE \
             ON CONFLICT (digest) DO UPDATE SET created_at = excluded.created_at";
        const POSTGRES: &str = "INSERT INTO bundles (digest, body, created_at) \
             SELECT j.digest, j.body, $3 FROM unnest($1::bytea[], $2::bytea[]) AS j(digest, body) \
             ON CONFLICT (digest) DO UPDATE SET created_at = excluded.created_at";
        crate::fault::reach(self.purpose);
        let mut left = bundles;
        while !left.is_empty() {
            let (mut bytes, mut count) = (0, 0);
            while let Some((_, body)) = left.get(count)
                && (count == 0 || bytes + body.as_ref().len() <= STATEMENT_BYTES)
            {
                bytes += body.as_ref().len();
                count += 1;
            }
            let (some, rest) = left.split_at(count);
            left = rest;
            match &mut self.connection {
                Connection::Sqlite(conn) => {
                    let some = rows(some.iter().map(|(digest, body)| (digest, hex::encode(body))));
                    sqlx::query(SQLITE).bind(some).bind(now.micros()).execute(&mut **conn).await?;
                }
                Connection::Postgres(conn) => {
                    let digests: Vec<_> = some.iter().map(|(digest, _)| &digest.as_bytes()[..]).collect();
                    let bodies: Vec<_> = some.iter().map(|(_, body)| body.as_ref()).collect();
                    sqlx::query(POSTGRES).bind(digests).bind(bodies).bind(now.micros()).execute(&mut **conn).await?;
                }
            }
        }
        Ok(())
    }

    /// Returns a bundle's bytes.
    pub async fn bundle(&mut self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        const SQL: &str = "SELECT body FROM bundles WHERE digest = $1";
        let row: Option<(Vec<u8>,)> = both!(self, conn => sqlx::query_as(SQL).bind(digest.as_bytes().to_vec()).fetch_optional(&mut **conn).await?);
        Ok(row.map(|(body,)| body))
    }
}
