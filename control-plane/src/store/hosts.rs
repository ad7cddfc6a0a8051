//! What was observed of hosts.

use titan_api::{Revision, hosts::Facts, reports::Orphan};
use uuid::Uuid;

use super::{Connection, Result, Tx, both, json, parsed};

/// What was observed of a host.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ObservedHost {
    /// The host.
    pub uid: Uuid,
    /// When its agent enrolled.
    pub enrolled_at: Option<Revision>,
    /// When its agent was last seen.
    pub last_seen: Option<Revision>,
    /// The facts.
    pub facts: Facts,
    /// What runs there though nobody declares it.
    pub orphans: Vec<Orphan>,
    /// The newest report's number.
    pub report_seq: i64,
    /// The newest cursor that the host has written down.
    pub acked_cursor: Option<Revision>,
}

#[derive(sqlx::FromRow)]
struct Row {
    host_uid: String,
    enrolled_at: Option<i64>,
    last_seen: Option<i64>,
    facts: String,
    orphans: String,
    report_seq: i64,
    acked_cursor: Option<i64>,
}

impl TryFrom<Row> for ObservedHost {
    type Error = super::StoreError;

    fn try_from(row: Row) -> Result<Self> {
        const TABLE: &str = "host_status";
        let id = row.host_uid.as_str();
        Ok(Self {
            uid: parsed(TABLE, "host_uid", id, id)?,
            enrolled_at: row.enrolled_at.map(Revision::from_micros),
            last_seen: row.last_seen.map(Revision::from_micros),
            facts: json(TABLE, "facts", id, &row.facts)?,
            orphans: json(TABLE, "orphans", id, &row.orphans)?,
            report_seq: row.report_seq,
            acked_cursor: row.acked_cursor.map(Revision::from_micros),
        })
    }
}

impl Tx {
    /// Returns what was observed of a host.
    pub async fn observed_host(&mut self, uid: Uuid) -> Result<Option<ObservedHost>> {
        const SQL: &str = "SELECT * FROM host_status WHERE host_uid = $1";
        let row: Option<Row> =
            both!(self, conn => sqlx::query_as(SQL).bind(uid.to_string()).fetch_optional(&mut **conn).await?);
        row.map(ObservedHost::try_from).transpose()
    }

    /// Returns what was observed of these hosts.
    pub async fn observed_hosts_of(&mut self, hosts: &[Uuid]) -> Result<Vec<ObservedHost>> {
        const SQLITE: &str = "SELECT * FROM host_status WHERE host_uid IN (SELECT value FROM json_each($1))";
        const POSTGRES: &str = "SELECT * FROM host_status WHERE host_uid = ANY($1)";
        let uids: Vec<_> = hosts.iter().map(Uuid::to_string).collect();
        crate::fault::reach(self.purpose);
        let rows: Vec<Row> = match &mut self.connection {
            Connection::Sqlite(conn) => {
                let uids = serde_json::to_string(&uids).unwrap_or_default();
                sqlx::query_as(SQLITE).bind(uids).fetch_all(&mut **conn).await?
            }
            Connection::Postgres(conn) => sqlx::query_as(POSTGRES).bind(uids).fetch_all(&mut **conn).await?,
        };
        rows.into_iter().map(ObservedHost::try_from).collect()
    }

    /// Returns what was observed of the hosts whose names are between `first` and `last`, both included.
    pub async fn observed_hosts_named(&mut self, first: &str, last: &str) -> Result<Vec<ObservedHost>> {
        const SQL: &str = "SELECT s.* FROM host_status s JOIN resources r ON r.uid = s.host_uid \
             WHERE r.kind = 'Host' AND r.name >= $1 AND r.name <= $2 AND r.deleted_revision IS NULL";
        let rows: Vec<Row> =
            both!(self, conn => sqlx::query_as(SQL).bind(first).bind(last).fetch_all(&mut **conn).await?);
        rows.into_iter().map(ObservedHost::try_from).collect()
    }

    /// Returns what was observed of every host.
    pub async fn observed_hosts(&mut self) -> Result<Vec<ObservedHost>> {
        const SQL: &str = "SELECT * FROM host_status";
        let rows: Vec<Row> = both!(self, conn => sqlx::query_as(SQL).fetch_all(&mut **conn).await?);
        rows.into_iter().map(ObservedHost::try_from).collect()
    }

    /// Writes what was observed of a host.
    pub async fn put_observed_host(&mut self, host: &ObservedHost) -> Result<()> {
        const SQL: &str = "INSERT INTO host_status (host_uid, enrolled_at, last_seen, facts, orphans, report_seq, \
             acked_cursor) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (host_uid) DO UPDATE SET \
             enrolled_at = excluded.enrolled_at, last_seen = excluded.last_seen, facts = excluded.facts, \
             orphans = excluded.orphans, report_seq = excluded.report_seq, acked_cursor = excluded.acked_cursor";
        let facts = serde_json::to_string(&host.facts).unwrap_or_default();
        let orphans = serde_json::to_string(&host.orphans).unwrap_or_default();
        both!(self, conn => sqlx::query(SQL)
            .bind(host.uid.to_string()).bind(host.enrolled_at.map(Revision::micros))
            .bind(host.last_seen.map(Revision::micros)).bind(facts).bind(orphans).bind(host.report_seq)
            .bind(host.acked_cursor.map(Revision::micros)).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Writes when hosts were last seen; hosts that are gone are passed over.
    pub async fn set_last_seen(&mut self, seen: &[(Uuid, Revision)]) -> Result<()> {
        const SQL: &str = "UPDATE host_status SET last_seen = $2 WHERE host_uid = $1 AND \
             (last_seen IS NULL OR last_seen < $2)";
        for (host, at) in seen {
            both!(self, conn => sqlx::query(SQL).bind(host.to_string()).bind(at.micros())
                .execute(&mut **conn).await.map(drop)?);
        }
        Ok(())
    }

    /// Removes what was observed of a host that is gone.
    pub async fn purge_observed_host(&mut self, uid: Uuid) -> Result<()> {
        const STATUS: &str = "DELETE FROM host_status WHERE host_uid = $1";
        const REPORTS: &str = "DELETE FROM reports WHERE host_uid = $1";
        const QUEUE: &str = "DELETE FROM fact_queue WHERE host_uid = $1";
        for sql in [STATUS, REPORTS, QUEUE] {
            both!(self, conn => sqlx::query(sql).bind(uid.to_string()).execute(&mut **conn).await.map(drop)?);
        }
        Ok(())
    }

    /// Asks the planner to look at a host again because its facts changed.
    pub async fn queue_facts(&mut self, uid: Uuid, now: Revision) -> Result<()> {
        const SQL: &str = "INSERT INTO fact_queue (host_uid, queued_at) VALUES ($1, $2) \
             ON CONFLICT (host_uid) DO UPDATE SET queued_at = fact_queue.queued_at + 1";
        both!(self, conn => sqlx::query(SQL).bind(uid.to_string()).bind(now.micros())
            .execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Returns the hosts whose facts changed, with the mark under which each was queued.
    pub async fn queued_facts(&mut self) -> Result<Vec<(Uuid, i64)>> {
        const SQL: &str = "SELECT host_uid, queued_at FROM fact_queue";
        let rows: Vec<(String, i64)> = both!(self, conn => sqlx::query_as(SQL).fetch_all(&mut **conn).await?);
        rows.into_iter().map(|(uid, mark)| Ok((parsed("fact_queue", "host_uid", &uid, &uid)?, mark))).collect()
    }

    /// Takes a host off the queue unless it was queued again since.
    pub async fn unqueue_facts(&mut self, uid: Uuid, mark: i64) -> Result<()> {
        const SQL: &str = "DELETE FROM fact_queue WHERE host_uid = $1 AND queued_at = $2";
        both!(self, conn => sqlx::query(SQL).bind(uid.to_string()).bind(mark).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }
}
