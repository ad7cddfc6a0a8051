//! Leases: who leads (law 12).

use titan_api::Revision;

use super::{Result, StoreError, Tx, both};

/// A lease that was won; every write under it names its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// What is led.
    pub name: &'static str,
    /// Another one each time that the lease changes hands.
    pub token: i64,
}

impl Tx {
    /// Takes or renews the lease `name` for `holder` until `expires_at`; `None` if another holds it at `now`.
    pub async fn take_lease(
        &mut self,
        name: &'static str,
        holder: &str,
        now: Revision,
        expires_at: Revision,
    ) -> Result<Option<Lease>> {
        const SQL: &str = "INSERT INTO leases (name, holder, token, expires_at) VALUES ($1, $2, 1, $4) \
             ON CONFLICT (name) DO UPDATE SET token = CASE WHEN leases.holder = excluded.holder THEN leases.token \
             ELSE leases.token + 1 END, holder = excluded.holder, expires_at = excluded.expires_at \
             WHERE leases.holder = excluded.holder OR leases.expires_at < $3 RETURNING token";
        let row: Option<(i64,)> = both!(self, conn => sqlx::query_as(SQL)
            .bind(name).bind(holder).bind(now.micros()).bind(expires_at.micros()).fetch_optional(&mut **conn).await?);
        Ok(row.map(|(token,)| Lease { name, token }))
    }

    /// Fails unless `lease` is still held; keeps others from taking it until the transaction ends.
    pub async fn check_lease(&mut self, lease: Lease) -> Result<()> {
        const SQL: &str = "UPDATE leases SET token = token WHERE name = $1 AND token = $2";
        let held = both!(self, conn => sqlx::query(SQL).bind(lease.name).bind(lease.token)
            .execute(&mut **conn).await?.rows_affected());
        if held == 1 { Ok(()) } else { Err(StoreError::Fenced(lease.name)) }
    }

    /// Ends every lease: for the one process of a SQLite file, which alone can hold any.
    pub async fn end_leases(&mut self) -> Result<()> {
        const SQL: &str = "UPDATE leases SET expires_at = 0";
        both!(self, conn => sqlx::query(SQL).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Gives a lease back.
    pub async fn release_lease(&mut self, lease: Lease) -> Result<()> {
        const SQL: &str = "UPDATE leases SET expires_at = 0 WHERE name = $1 AND token = $2";
        both!(self, conn => sqlx::query(SQL).bind(lease.name).bind(lease.token)
            .execute(&mut **conn).await.map(drop)?);
        Ok(())
    }
}
