//! The feed, read: the assignments that moved, or all there are.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use sqlx::Row as _;
use titan_api::{Digest, Revision};
use uuid::Uuid;

use super::{
    Assignment, Connection, Result, StoreError, Tx, both, corrupt,
    descriptions::{Description, Descriptions},
};

/// Bytes of a host's id and of a bundle's digest; where there is no bundle, of zeros.
const BOTH: usize = 16 + 32;

/// Rows of SQLite that travel as one value: its driver hands every row over by itself, from one thread to another, which
/// costs several times what reading it does.
pub(super) const TOGETHER: i64 = 4096;

/// Assignments that are told alike and moved together, as one row: the ids of their hosts and their bundles, one behind
/// the other.
#[derive(Debug, sqlx::FromRow)]
struct Pack {
    description: i64,
    revision: i64,
    count: i64,
    both: Vec<u8>,
}

impl Pack {
    /// Gives `take` each assignment. A row whose bytes are not what they should be spoils all of them.
    fn unpack(&self, description: &Arc<Description>, take: &mut impl FnMut(Assignment)) -> Result<()> {
        let (rows, rest) = self.both.as_chunks::<BOTH>();
        if !rest.is_empty() || i64::try_from(rows.len()) != Ok(self.count) {
            let detail = format!("{} bytes of {} rows, not {BOTH} each", self.both.len(), self.count);
            return Err(corrupt("assignments", "host, bundle", &format!("of revision {}", self.revision), detail));
        }
        for row in rows {
            let (host, bundle) = row.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
            take(Assignment {
                deployment: description.deployment,
                host: Uuid::from_bytes(*host),
                revision: Revision::from_micros(self.revision),
                bundle: Digest::from_bytes(bundle).filter(|_| bundle != [0; 32]),
                description: Arc::clone(description),
            });
        }
        Ok(())
    }
}

/// Returns the assignment of a host and maybe its bundle, one behind the other.
fn moved(revision: i64, both: &[u8], description: Arc<Description>) -> Result<Assignment> {
    let parts = both.split_first_chunk::<16>().map(|(host, bundle)| (host, bundle, Digest::from_bytes(bundle)));
    match parts {
        Some((host, bundle, digest)) if bundle.is_empty() || digest.is_some() => Ok(Assignment {
            deployment: description.deployment,
            host: Uuid::from_bytes(*host),
            revision: Revision::from_micros(revision),
            bundle: digest,
            description,
        }),
        _ => {
            let detail = format!("{} bytes, not 16 or 48", both.len());
            Err(corrupt("assignments", "host, bundle", &hex::encode(both), detail))
        }
    }
}

impl Tx {
    /// Gives `take` every assignment that moved after `seen`, those that moved first before the others unless it is all there
    /// are. `known` has the descriptions that were read before, and gets those that are read now. Of all there are, a few
    /// thousand rows are in memory at a time.
    pub async fn assignments_after(
        &mut self,
        known: &mut Descriptions,
        seen: Revision,
        mut take: impl FnMut(Assignment),
    ) -> Result<()> {
        let all = seen == Revision::ZERO;
        if all {
            self.descriptions(known).await?;
        }
        match (&self.connection, all) {
            (Connection::Postgres(_), _) => self.one_by_one(known, seen, take).await,
            (Connection::Sqlite(_), false) => self.packed_after(known, seen, &mut take).await,
            (Connection::Sqlite(_), true) => self.packed(known, &mut take).await,
        }
    }

    /// Reads what moved after `seen`, row by row.
    async fn one_by_one(
        &mut self,
        known: &mut Descriptions,
        seen: Revision,
        mut take: impl FnMut(Assignment),
    ) -> Result<()> {
        // Three columns: each costs, and there may be millions of rows. The description knows the deployment. And without
        // an index where all are asked for: it would look each of them up.
        const ALL: &str = "SELECT description, revision, host || COALESCE(bundle, substr(host, 1, 0)) FROM assignments \
             WHERE revision + 0 > $1";
        const SINCE: &str = "SELECT description, revision, host || COALESCE(bundle, substr(host, 1, 0)) \
             FROM assignments WHERE revision > $1 ORDER BY revision";
        let sql = if seen == Revision::ZERO { ALL } else { SINCE };
        let mut unknown: Vec<(i64, i64, Vec<u8>)> = Vec::new();
        both!(self, conn => {
            let mut rows = sqlx::query(sql).bind(seen.micros()).fetch(&mut **conn);
            while let Some(row) = rows.try_next().await? {
                // Bytes that were put together count as text with one of the engines.
                let (id, revision, both): (i64, i64, &[u8]) =
                    (row.try_get(0)?, row.try_get(1)?, row.try_get_unchecked(2)?);
                match known.get(id) {
                    Some(description) => take(moved(revision, both, description)?),
                    None => unknown.push((id, revision, both.to_vec())),
                }
            }
        });
        for (id, revision, both) in unknown {
            let description = self.description(known, id).await?;
            take(moved(revision, &both, description)?);
        }
        Ok(())
    }

    /// Reads what moved after `seen`: a row for each revision and description.
    async fn packed_after(
        &mut self,
        known: &mut Descriptions,
        seen: Revision,
        take: &mut impl FnMut(Assignment),
    ) -> Result<()> {
        const SQL: &str = "SELECT description, revision, COUNT(*) AS count, \
             group_concat(host || COALESCE(bundle, zeroblob(32)), '') AS both \
             FROM assignments WHERE revision > $1 GROUP BY revision, description";
        let Connection::Sqlite(conn) = &mut self.connection else { return Ok(()) };
        let packs: Vec<Pack> = sqlx::query_as(SQL).bind(seen.micros()).fetch_all(&mut **conn).await?;
        for pack in packs {
            self.unpack(known, &pack, seen, take).await?;
        }
        Ok(())
    }

    /// Reads every assignment, in the order in which they lie in the file: a row for each revision and description of a page.
    async fn packed(&mut self, known: &mut Descriptions, take: &mut impl FnMut(Assignment)) -> Result<()> {
        const SQL: &str = "SELECT description, revision, COUNT(*) AS count, group_concat(both, '') AS both, \
             MAX(place) AS last FROM (SELECT description, revision, host || COALESCE(bundle, zeroblob(32)) AS both, \
             deployment || host AS place FROM assignments WHERE (deployment, host) > ($1, $2) \
             ORDER BY deployment, host LIMIT $3) GROUP BY revision, description";
        #[derive(sqlx::FromRow)]
        struct Part {
            #[sqlx(flatten)]
            pack: Pack,
            last: Vec<u8>,
        }
        let mut last: Vec<u8> = Vec::new();
        loop {
            let (deployment, host) = last.split_at_checked(16).unwrap_or_default();
            let Connection::Sqlite(conn) = &mut self.connection else { return Ok(()) };
            let query = sqlx::query_as(SQL).bind(deployment.to_vec()).bind(host.to_vec()).bind(TOGETHER);
            let parts: Vec<Part> = query.fetch_all(&mut **conn).await?;
            let Some(end) = parts.iter().map(|part| &part.last).max().filter(|end| **end > last) else { return Ok(()) };
            last.clone_from(end);
            for part in parts {
                self.unpack(known, &part.pack, Revision::ZERO, take).await?;
            }
        }
    }

    /// Takes rows apart; where one of them is not as it should be, returns the error that names it.
    async fn unpack(
        &mut self,
        known: &mut Descriptions,
        pack: &Pack,
        seen: Revision,
        take: &mut impl FnMut(Assignment),
    ) -> Result<()> {
        let description = self.description(known, pack.description).await?;
        let unpacked = pack.unpack(&description, take);
        if matches!(unpacked, Err(StoreError::Corrupt { .. })) {
            self.one_by_one(known, seen, drop).await?;
        }
        unpacked
    }

    /// Returns the revision of the assignment that moved last.
    pub async fn newest_move(&mut self) -> Result<Revision> {
        const SQL: &str = "SELECT MAX(revision) FROM assignments";
        let (newest,): (Option<i64>,) = both!(self, conn => sqlx::query_as(SQL).fetch_one(&mut **conn).await?);
        Ok(Revision::from_micros(newest.unwrap_or_default()))
    }
}
