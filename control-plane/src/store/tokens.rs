//! Credentials, kept as hashes.

use std::collections::HashMap;

use titan_api::{Digest, Name, Revision};
use uuid::Uuid;

use super::{Connection, Result, Tx, apart, both, digest, from_word, joined, parsed, word};

/// Whose credential it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TokenKind {
    /// A person's or pipeline's.
    Admin,
    /// A host's.
    Host,
    /// A one-time one with which a host joins.
    Join,
}

/// A credential without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// The id.
    pub id: Uuid,
    /// Whose it is.
    pub kind: TokenKind,
    /// The person's, pipeline's or host's name.
    pub name: Name,
    /// The host, for the kinds that have one.
    pub host: Option<Uuid>,
    /// When it was made.
    pub created_at: Revision,
    /// When it ends.
    pub expires_at: Option<Revision>,
    /// The attempt that used a one-time token.
    pub used_by: Option<String>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    kind: String,
    name: String,
    host_uid: Option<String>,
    created_at: i64,
    expires_at: Option<i64>,
    used_by: Option<String>,
}

#[derive(sqlx::FromRow)]
struct Hashed {
    hash: Vec<u8>,
    #[sqlx(flatten)]
    row: Row,
}

impl TryFrom<Row> for TokenRow {
    type Error = super::StoreError;

    fn try_from(row: Row) -> Result<Self> {
        const TABLE: &str = "tokens";
        let id = row.id.as_str();
        Ok(Self {
            id: parsed(TABLE, "id", id, id)?,
            kind: from_word(TABLE, "kind", id, &row.kind)?,
            name: parsed(TABLE, "name", id, &row.name)?,
            host: row.host_uid.map(|uid| parsed(TABLE, "host_uid", id, &uid)).transpose()?,
            created_at: Revision::from_micros(row.created_at),
            expires_at: row.expires_at.map(Revision::from_micros),
            used_by: row.used_by,
        })
    }
}

impl Tx {
    /// Adds a credential by the hash of its secret.
    pub async fn add_token(&mut self, token: &TokenRow, hash: &Digest) -> Result<()> {
        const SQL: &str = "INSERT INTO tokens (id, kind, name, host_uid, hash, created_at, expires_at, used_by) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        both!(self, conn => sqlx::query(SQL)
            .bind(token.id.to_string()).bind(word(&token.kind)).bind(token.name.as_str())
            .bind(token.host.map(|uid| uid.to_string())).bind(hash.as_bytes().to_vec())
            .bind(token.created_at.micros()).bind(token.expires_at.map(Revision::micros))
            .bind(token.used_by.as_deref()).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Returns the credentials whose secrets have these hashes, of those that are known. One that cannot be read is an error
    /// of its own.
    pub async fn tokens_by_hash(&mut self, hashes: &[Digest]) -> Result<HashMap<Digest, Result<TokenRow>>> {
        const SQLITE: &str = "WITH RECURSIVE row(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM row WHERE n + 1 < $2) \
             SELECT t.* FROM row JOIN tokens t ON t.hash = substr($1, n * 32 + 1, 32)";
        const POSTGRES: &str = "SELECT * FROM tokens WHERE hash = ANY($1)";
        crate::fault::reach(self.purpose);
        let rows: Vec<Hashed> = match &mut self.connection {
            Connection::Sqlite(conn) => {
                let count = i64::try_from(hashes.len()).unwrap_or(i64::MAX);
                sqlx::query_as(SQLITE).bind(joined(hashes)).bind(count).fetch_all(&mut **conn).await?
            }
            Connection::Postgres(conn) => sqlx::query_as(POSTGRES).bind(apart(hashes)).fetch_all(&mut **conn).await?,
        };
        let found = rows
            .into_iter()
            .map(|Hashed { hash, row }| Ok((digest("tokens", "hash", &row.id, &hash)?, TokenRow::try_from(row))));
        found.collect()
    }

    /// Returns the credential whose secret has this hash.
    pub async fn token_by_hash(&mut self, hash: &Digest) -> Result<Option<TokenRow>> {
        self.tokens_by_hash(std::slice::from_ref(hash)).await?.remove(hash).transpose()
    }

    /// Returns the credentials of people and pipelines, oldest first.
    pub async fn admin_tokens(&mut self) -> Result<Vec<TokenRow>> {
        const SQL: &str = "SELECT id, kind, name, host_uid, created_at, expires_at, used_by FROM tokens \
             WHERE kind = 'admin' ORDER BY created_at, id";
        let rows: Vec<Row> = both!(self, conn => sqlx::query_as(SQL).fetch_all(&mut **conn).await?);
        rows.into_iter().map(TokenRow::try_from).collect()
    }

    /// Writes which attempt used a one-time token.
    pub async fn use_join_token(&mut self, id: Uuid, attempt: &str) -> Result<()> {
        const SQL: &str = "UPDATE tokens SET used_by = $2 WHERE id = $1";
        both!(self, conn => sqlx::query(SQL).bind(id.to_string()).bind(attempt)
            .execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Removes a credential of a person or pipeline.
    pub async fn remove_admin_token(&mut self, id: Uuid) -> Result<bool> {
        const SQL: &str = "DELETE FROM tokens WHERE id = $1 AND kind = 'admin'";
        let gone =
            both!(self, conn => sqlx::query(SQL).bind(id.to_string()).execute(&mut **conn).await?.rows_affected());
        Ok(gone > 0)
    }

    /// Removes the credentials of a host, of one kind or of every kind.
    pub async fn remove_host_tokens(&mut self, host: Uuid, kind: Option<TokenKind>) -> Result<()> {
        const SQL: &str = "DELETE FROM tokens WHERE host_uid = $1 AND ($2 = '' OR kind = $2)";
        let kind = kind.map(|kind| word(&kind)).unwrap_or_default();
        both!(self, conn => sqlx::query(SQL).bind(host.to_string()).bind(kind).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }
}
