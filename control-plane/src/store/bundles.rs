//! Bundles: rendered content by digest.

use std::collections::BTreeMap;

use bytes::Bytes;
use titan_api::{Digest, Revision};

use super::{Connection, Result, Tx, both};

impl Tx {
    /// Keeps a bundle's bytes; one that is there already is marked as young, so that it is not swept away meanwhile.
    pub async fn put_bundle(&mut self, digest: &Digest, body: &[u8], now: Revision) -> Result<()> {
        const SQL: &str = "INSERT INTO bundles (digest, body, created_at) VALUES ($1, $2, $3) \
             ON CONFLICT (digest) DO UPDATE SET created_at = excluded.created_at";
        both!(self, conn => sqlx::query(SQL).bind(digest.as_bytes().to_vec()).bind(body.to_vec()).bind(now.micros())
            .execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Keeps the bytes of many bundles, like [`Tx::put_bundle`].
    pub async fn put_bundles(&mut self, bundles: &BTreeMap<Digest, Bytes>, now: Revision) -> Result<()> {
        // All digests and all bodies come as one value each, with the place of each body.
        const SQLITE: &str = "INSERT INTO bundles (digest, body, created_at) \
             SELECT substr($1, place.key * 32 + 1, 32), \
             substr($2, json_extract(place.value, '$[0]') + 1, json_extract(place.value, '$[1]')), $4 \
             FROM json_each($3) AS place WHERE true \
             ON CONFLICT (digest) DO UPDATE SET created_at = excluded.created_at";
        const POSTGRES: &str = "INSERT INTO bundles (digest, body, created_at) \
             SELECT digest, body, $3 FROM unnest(CAST($1 AS BYTEA[]), CAST($2 AS BYTEA[])) AS row(digest, body) \
             ON CONFLICT (digest) DO UPDATE SET created_at = excluded.created_at";
        /// Bytes of bodies in one statement, about.
        const AT_ONCE: usize = 8 * 1024 * 1024;
        let mut rest = bundles.iter().peekable();
        while rest.peek().is_some() {
            let (mut digests, mut bodies, mut places) = (Vec::new(), Vec::new(), Vec::new());
            let mut start = 0;
            while start < AT_ONCE
                && let Some((digest, body)) = rest.next()
            {
                digests.push(digest.as_bytes().to_vec());
                bodies.push(body);
                places.push((start, body.len()));
                start += body.len();
            }
            crate::fault::reach(self.purpose);
            match &mut self.connection {
                Connection::Sqlite(conn) => {
                    let places = serde_json::to_string(&places).unwrap_or_default();
                    let bodies: Vec<u8> = bodies.iter().flat_map(|body| body.iter().copied()).collect();
                    let query = sqlx::query(SQLITE).bind(digests.concat()).bind(bodies).bind(places);
                    query.bind(now.micros()).execute(&mut **conn).await?;
                }
                Connection::Postgres(conn) => {
                    let bodies: Vec<_> = bodies.iter().map(|body| body.to_vec()).collect();
                    let query = sqlx::query(POSTGRES).bind(digests).bind(bodies).bind(now.micros());
                    query.execute(&mut **conn).await?;
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
