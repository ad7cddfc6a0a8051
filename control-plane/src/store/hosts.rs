//! What was observed of hosts.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use futures_util::TryStreamExt as _;
use titan_api::{Revision, hosts::Facts, reports::Orphan};
use uuid::Uuid;

use super::{Connection, Result, Tx, both, feed::TOGETHER, json, over_rows, parsed, per_engine, readable, rows};

/// Hosts that are asked for in one statement.
const ASKED: usize = 10_000;

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

/// How far a host has counted its reports without saying anything new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// The host.
    pub host: Uuid,
    /// The number that is written down.
    pub written: i64,
    /// The newest number.
    pub seq: i64,
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

    /// Returns what was observed of these hosts. One that cannot be read back is left out: it is nobody else's fault.
    pub async fn observed_hosts_of(&mut self, hosts: &[Uuid]) -> Result<Vec<ObservedHost>> {
        let sql = over_rows!(self, "SELECT * FROM host_status WHERE host_uid IN (SELECT j.value ->> 0 FROM", ")");
        let hosts = rows(hosts.iter().map(|uid| [uid]));
        let rows: Vec<Row> = both!(self, conn => sqlx::query_as(sql).bind(hosts).fetch_all(&mut **conn).await?);
        Ok(rows.into_iter().map(ObservedHost::try_from).filter_map(readable).collect())
    }

    /// Returns when these hosts were seen last, as far as it is written down.
    pub async fn seen_of(&mut self, hosts: &[Uuid]) -> Result<HashMap<Uuid, Revision>> {
        let sql = over_rows!(
            self,
            "SELECT host_uid, last_seen FROM host_status WHERE last_seen IS NOT NULL AND host_uid IN \
             (SELECT j.value ->> 0 FROM",
            ")"
        );
        let mut seen = HashMap::with_capacity(hosts.len());
        for hosts in hosts.chunks(ASKED) {
            let hosts = rows(hosts.iter().map(|uid| [uid]));
            let found: Vec<(String, i64)> =
                both!(self, conn => sqlx::query_as(sql).bind(hosts).fetch_all(&mut **conn).await?);
            for (host, at) in found {
                seen.insert(parsed("host_status", "host_uid", &host, &host)?, Revision::from_micros(at));
            }
        }
        Ok(seen)
    }

    /// Gives `take` when each host was seen last, as far as it is written down. A fleet's worth of rows is never in memory at
    /// once.
    pub async fn each_seen(&mut self, mut take: impl FnMut(Uuid, Revision)) -> Result<()> {
        const SQL: &str = "SELECT host_uid, last_seen FROM host_status WHERE last_seen IS NOT NULL";
        // A row each would cost several times as much: see the feed.
        const PAGE: &str = "SELECT MAX(number), json_group_array(json_array(host_uid, last_seen)) FROM \
             (SELECT rowid AS number, host_uid, last_seen FROM host_status WHERE rowid > $1 ORDER BY rowid LIMIT $2)";
        let mut take = |host: &str, at| -> Result<()> {
            take(parsed("host_status", "host_uid", host, host)?, Revision::from_micros(at));
            Ok(())
        };
        match &mut self.connection {
            Connection::Postgres(conn) => {
                let mut rows = sqlx::query_as::<_, (String, i64)>(SQL).fetch(&mut **conn);
                while let Some((host, at)) = rows.try_next().await? {
                    take(&host, at)?;
                }
            }
            Connection::Sqlite(conn) => {
                let mut after = 0;
                loop {
                    let query = sqlx::query_as(PAGE).bind(after).bind(TOGETHER);
                    let (last, seen): (Option<i64>, String) = query.fetch_one(&mut **conn).await?;
                    let Some(last) = last else { break };
                    after = last;
                    let place = || format!("up to row {last}");
                    let seen: Vec<(Cow<'_, str>, Option<i64>)> = json("host_status", "last_seen", &place(), &seen)?;
                    for (host, at) in seen.iter().filter_map(|(host, at)| Some((host, (*at)?))) {
                        take(host, at)?;
                    }
                }
            }
        }
        Ok(())
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

    /// Returns when any host was seen last, as far as it is written down.
    pub async fn newest_seen(&mut self) -> Result<Option<Revision>> {
        const SQL: &str = "SELECT MAX(last_seen) FROM host_status";
        let (newest,): (Option<i64>,) = both!(self, conn => sqlx::query_as(SQL).fetch_one(&mut **conn).await?);
        Ok(newest.map(Revision::from_micros))
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

    /// Returns what was observed of these hosts, and keeps others from changing it until the transaction ends. A row that
    /// cannot be read back is that host's error alone.
    pub async fn lock_observed_hosts(&mut self, hosts: &[Uuid]) -> Result<Vec<(Uuid, Result<ObservedHost>)>> {
        macro_rules! sql {
            ($rows:literal, $bytes:literal, $hex:literal, $lock:literal) => {
                concat!(
                    "SELECT a.* FROM host_status a WHERE a.host_uid IN (SELECT j.value ->> 0 FROM ",
                    $rows,
                    ") ORDER BY a.host_uid",
                    $lock
                )
            };
        }
        let sql = per_engine!(self, sql);
        let hosts = rows(hosts.iter().map(|uid| [uid]));
        let found: Vec<Row> = both!(self, conn => sqlx::query_as(sql).bind(hosts).fetch_all(&mut **conn).await?);
        let named = |row: Row| {
            let uid = parsed("host_status", "host_uid", &row.host_uid, &row.host_uid)?;
            Ok((uid, ObservedHost::try_from(row)))
        };
        found.into_iter().map(named).collect()
    }

    /// Writes what was observed of hosts, each of them once. A host that is gone is passed over.
    pub async fn put_observed_hosts(&mut self, hosts: &[ObservedHost]) -> Result<()> {
        let sql = over_rows!(
            self,
            "INSERT INTO host_status (host_uid, enrolled_at, last_seen, facts, orphans, report_seq, acked_cursor) \
             SELECT j.value ->> 0, CAST(j.value ->> 1 AS BIGINT), CAST(j.value ->> 2 AS BIGINT), j.value ->> 3, \
             j.value ->> 4, CAST(j.value ->> 5 AS BIGINT), CAST(j.value ->> 6 AS BIGINT) FROM",
            "WHERE EXISTS (SELECT 1 FROM resources r WHERE r.uid = j.value ->> 0) ON CONFLICT (host_uid) DO UPDATE SET \
             enrolled_at = excluded.enrolled_at, last_seen = excluded.last_seen, facts = excluded.facts, \
             orphans = excluded.orphans, report_seq = excluded.report_seq, acked_cursor = excluded.acked_cursor"
        );
        let rows = rows(hosts.iter().map(|host| {
            let facts = serde_json::to_string(&host.facts).unwrap_or_default();
            let orphans = serde_json::to_string(&host.orphans).unwrap_or_default();
            let (enrolled, seen) = (host.enrolled_at.map(Revision::micros), host.last_seen.map(Revision::micros));
            (host.uid, enrolled, seen, facts, orphans, host.report_seq, host.acked_cursor.map(Revision::micros))
        }));
        both!(self, conn => sqlx::query(sql).bind(rows).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Writes when hosts were last seen, in one statement; hosts that are gone are passed over.
    pub async fn set_last_seen(&mut self, seen: &[(Uuid, Revision)]) -> Result<()> {
        let sql = over_rows!(
            self,
            "UPDATE host_status SET last_seen = CAST(j.value ->> 1 AS BIGINT) FROM",
            "WHERE host_uid = j.value ->> 0 AND (last_seen IS NULL OR last_seen < CAST(j.value ->> 1 AS BIGINT))"
        );
        let seen = rows(seen.iter().map(|(host, at)| (host, at.micros())));
        both!(self, conn => sqlx::query(sql).bind(seen).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Writes how far hosts have counted their reports, for those that said nothing new since the one that is written
    /// down. Returns the hosts for which another one is.
    pub async fn set_counted(&mut self, counted: &[Counted]) -> Result<Vec<Uuid>> {
        let sql = over_rows!(
            self,
            "UPDATE host_status SET report_seq = CAST(j.value ->> 2 AS BIGINT), \
             acked_cursor = COALESCE(CAST(j.value ->> 3 AS BIGINT), acked_cursor) FROM",
            "WHERE host_uid = j.value ->> 0 AND report_seq = CAST(j.value ->> 1 AS BIGINT) RETURNING host_uid"
        );
        let rows =
            rows(counted.iter().map(|one| (one.host, one.written, one.seq, one.acked_cursor.map(Revision::micros))));
        let set: Vec<(String,)> = both!(self, conn => sqlx::query_as(sql).bind(rows).fetch_all(&mut **conn).await?);
        let set: HashSet<_> = set.into_iter().filter_map(|(uid,)| uid.parse::<Uuid>().ok()).collect();
        Ok(counted.iter().map(|one| one.host).filter(|host| !set.contains(host)).collect())
    }

    /// Removes what was observed of a host that is gone.
    pub async fn purge_observed_host(&mut self, uid: Uuid) -> Result<()> {
        self.purge_observed_hosts(&[uid]).await
    }

    /// Removes what was observed of hosts that are gone.
    pub async fn purge_observed_hosts(&mut self, hosts: &[Uuid]) -> Result<()> {
        let statements = [
            over_rows!(self, "DELETE FROM host_status WHERE host_uid IN (SELECT j.value ->> 0 FROM", ")"),
            over_rows!(self, "DELETE FROM reports WHERE host_uid IN (SELECT j.value ->> 0 FROM", ")"),
            over_rows!(self, "DELETE FROM fact_queue WHERE host_uid IN (SELECT j.value ->> 0 FROM", ")"),
        ];
        let hosts = rows(hosts.iter().map(|uid| [uid]));
        for sql in statements {
            both!(self, conn => sqlx::query(sql).bind(hosts.as_str()).execute(&mut **conn).await.map(drop)?);
        }
        Ok(())
    }

    /// Asks the planner to look at a host again because its facts changed.
    pub async fn queue_facts(&mut self, uid: Uuid, now: Revision) -> Result<()> {
        self.queue_all_facts(&[uid], now).await
    }

    /// Asks the planner to look at hosts again, each named once, because their facts changed.
    pub async fn queue_all_facts(&mut self, hosts: &[Uuid], now: Revision) -> Result<()> {
        let sql = over_rows!(
            self,
            "INSERT INTO fact_queue (host_uid, queued_at) SELECT j.value ->> 0, CAST($2 AS BIGINT) FROM",
            "WHERE TRUE ON CONFLICT (host_uid) DO UPDATE SET queued_at = fact_queue.queued_at + 1"
        );
        let hosts = rows(hosts.iter().map(|uid| [uid]));
        both!(self, conn => sqlx::query(sql).bind(hosts).bind(now.micros()).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Returns hosts whose facts changed, `most` at most, those that were queued first, with the mark under which each was queued.
    pub async fn queued_facts(&mut self, most: u32) -> Result<Vec<(Uuid, i64)>> {
        const SQL: &str = "SELECT host_uid, queued_at FROM fact_queue ORDER BY queued_at, host_uid LIMIT $1";
        let most = i64::from(most);
        let rows: Vec<(String, i64)> =
            both!(self, conn => sqlx::query_as(SQL).bind(most).fetch_all(&mut **conn).await?);
        rows.into_iter().map(|(uid, mark)| Ok((parsed("fact_queue", "host_uid", &uid, &uid)?, mark))).collect()
    }

    /// Takes hosts off the queue but those that were queued again since.
    pub async fn unqueue_facts(&mut self, queued: &[(Uuid, i64)]) -> Result<()> {
        let sql = over_rows!(
            self,
            "DELETE FROM fact_queue WHERE (host_uid, queued_at) IN \
             (SELECT j.value ->> 0, CAST(j.value ->> 1 AS BIGINT) FROM",
            ")"
        );
        let queued = rows(queued);
        both!(self, conn => sqlx::query(sql).bind(queued).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }
}
