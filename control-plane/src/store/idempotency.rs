//! Answers of writes that carried an idempotency key.

use titan_api::{Digest, Revision};

use super::{Result, Tx, both, digest};

impl Tx {
    /// Returns the digest of the request that used the key, and its answer.
    pub async fn keyed_answer(&mut self, actor: &str, key: &str) -> Result<Option<(Digest, String)>> {
        const SQL: &str =
            "SELECT request_digest, answer FROM idempotency_keys WHERE actor = $1 AND idempotency_key = $2";
        let row: Option<(Vec<u8>, String)> =
            both!(self, conn => sqlx::query_as(SQL).bind(actor).bind(key).fetch_optional(&mut **conn).await?);
        row.map(|(request, answer)| Ok((digest("idempotency_keys", "request_digest", key, &request)?, answer)))
            .transpose()
    }

    /// Keeps the answer of a request under its key.
    pub async fn keep_answer(
        &mut self,
        actor: &str,
        key: &str,
        request: &Digest,
        answer: &str,
        now: Revision,
    ) -> Result<()> {
        const SQL: &str = "INSERT INTO idempotency_keys (actor, idempotency_key, request_digest, answer, created_at) \
             VALUES ($1, $2, $3, $4, $5)";
        both!(self, conn => sqlx::query(SQL).bind(actor).bind(key).bind(request.as_bytes().to_vec()).bind(answer)
            .bind(now.micros()).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }
}
