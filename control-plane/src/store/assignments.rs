//! Assignments: the hosts' feed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use titan_api::{Digest, Revision, poll::RemovalReason};
use uuid::Uuid;

use super::{
    Connection, Result, Tx, both, bytes_of,
    descriptions::{Description, Descriptions},
    digest, parsed, uuid,
};

/// A deployment on a host, present or to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The deployment; for an orphan that a person removed, whose deployment nobody knows, the id of the assignment.
    pub deployment: Uuid,
    /// The host.
    pub host: Uuid,
    /// What the host is told of it.
    pub description: Arc<Description>,
    /// When it last moved.
    pub revision: Revision,
    /// What was rendered; a tombstone has none.
    pub bundle: Option<Digest>,
}

impl Assignment {
    /// Returns the id: the same for the same deployment and host, for ever.
    #[must_use]
    pub fn id(&self) -> Uuid {
        told_id(&self.description, self.deployment, self.host)
    }

    /// Whether the host is to have it; if not, this is a tombstone.
    #[must_use]
    pub const fn present(&self) -> bool {
        self.bundle.is_some()
    }
}

/// Returns the id of the assignment of a deployment to a host: a UUID of version 8 made of both ids.
#[must_use]
pub fn assignment_id(deployment: Uuid, host: Uuid) -> Uuid {
    let mut both = [0; 32];
    both[..16].copy_from_slice(deployment.as_bytes());
    both[16..].copy_from_slice(host.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Digest::of(&both).as_bytes()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Returns the id under which a host is told of an assignment.
#[must_use]
pub fn told_id(description: &Description, deployment: Uuid, host: Uuid) -> Uuid {
    match description.reason {
        Some(RemovalReason::Pruned) => deployment,
        _ => assignment_id(deployment, host),
    }
}

type Row = (Vec<u8>, Vec<u8>, i64, i64, Option<Vec<u8>>);

/// Returns what a row says; `description` is the one that it names.
fn assignment(row: &Row, description: Arc<Description>) -> Result<Assignment> {
    const TABLE: &str = "assignments";
    let (deployment, host, _, revision, bundle) = row;
    let id = || format!("({}, {})", hex::encode(deployment), hex::encode(host));
    Ok(Assignment {
        deployment: uuid(TABLE, "deployment", id, deployment)?,
        host: uuid(TABLE, "host", id, host)?,
        revision: Revision::from_micros(*revision),
        bundle: bundle.as_ref().map(|bytes| digest(TABLE, "bundle", &id(), bytes)).transpose()?,
        description,
    })
}

/// Rows that are written by one statement: deployment, description and revision are the same, and all are present or all
/// are tombstones.
#[derive(Debug, Default)]
struct Batch {
    hosts: Vec<Uuid>,
    bundles: Vec<Digest>,
}

impl Tx {
    /// Returns the assignments of a deployment.
    pub async fn assignments_of_deployment(&mut self, deployment: Uuid) -> Result<Vec<Assignment>> {
        const SQL: &str =
            "SELECT deployment, host, description, revision, bundle FROM assignments WHERE deployment = $1";
        let rows: Vec<Row> =
            both!(self, conn => sqlx::query_as(SQL).bind(bytes_of(deployment)).fetch_all(&mut **conn).await?);
        self.described(rows).await
    }

    /// Returns the assignments of a host: one lookup for each deployment that any host has.
    pub async fn assignments_of_host(&mut self, host: Uuid) -> Result<Vec<Assignment>> {
        const SQL: &str = "SELECT deployment, host, description, revision, bundle FROM assignments \
             WHERE host = $1 AND deployment IN (SELECT deployment FROM descriptions)";
        let rows: Vec<Row> =
            both!(self, conn => sqlx::query_as(SQL).bind(bytes_of(host)).fetch_all(&mut **conn).await?);
        self.described(rows).await
    }

    /// Returns one assignment.
    pub async fn assignment(&mut self, deployment: Uuid, host: Uuid) -> Result<Option<Assignment>> {
        const SQL: &str = "SELECT deployment, host, description, revision, bundle FROM assignments \
             WHERE deployment = $1 AND host = $2";
        let row: Option<Row> = both!(self, conn => sqlx::query_as(SQL)
            .bind(bytes_of(deployment)).bind(bytes_of(host)).fetch_optional(&mut **conn).await?);
        Ok(self.described(row.into_iter().collect()).await?.pop())
    }

    async fn described(&mut self, rows: Vec<Row>) -> Result<Vec<Assignment>> {
        let mut known = Descriptions::default();
        let mut assignments = Vec::with_capacity(rows.len());
        for row in rows {
            let description = self.description(&mut known, row.2).await?;
            assignments.push(assignment(&row, description)?);
        }
        Ok(assignments)
    }

    /// Writes assignments as they stand, by one statement for those that are told alike. `now` marks what they refer to as
    /// young, so that it is not swept away meanwhile.
    pub async fn put_assignments<'a>(
        &mut self,
        assignments: impl IntoIterator<Item = &'a Assignment>,
        now: Revision,
    ) -> Result<()> {
        let mut batches: BTreeMap<(Uuid, i64, bool, Revision), Batch> = BTreeMap::new();
        let mut ids: HashMap<usize, i64> = HashMap::new();
        let mut described: BTreeMap<i64, &Description> = BTreeMap::new();
        for assignment in assignments {
            let id =
                *ids.entry(Arc::as_ptr(&assignment.description).addr()).or_insert_with(|| assignment.description.id());
            described.insert(id, &assignment.description);
            let key = (assignment.deployment, id, assignment.present(), assignment.revision);
            let batch = batches.entry(key).or_default();
            batch.hosts.push(assignment.host);
            batch.bundles.extend(assignment.bundle);
        }
        for (id, description) in described {
            self.put_description(id, description, now).await?;
        }
        for ((deployment, description, _, revision), batch) in batches {
            self.put_batch(deployment, description, revision, &batch).await?;
        }
        Ok(())
    }

    async fn put_batch(&mut self, deployment: Uuid, description: i64, revision: Revision, batch: &Batch) -> Result<()> {
        // The columns that differ come as one value each, cut into rows by the engine.
        const SQLITE: &str = "INSERT INTO assignments (deployment, host, description, revision, bundle) \
             WITH RECURSIVE row(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM row WHERE n + 1 < $6) \
             SELECT $1, substr($2, n * 16 + 1, 16), $3, $4, substr($5, n * 32 + 1, 32) FROM row WHERE true \
             ON CONFLICT (deployment, host) DO UPDATE SET description = excluded.description, \
             revision = excluded.revision, bundle = excluded.bundle";
        const POSTGRES: &str = "INSERT INTO assignments (deployment, host, description, revision, bundle) \
             SELECT $1, host, $3, $4, bundle FROM unnest(CAST($2 AS BYTEA[]), CAST($5 AS BYTEA[])) AS row(host, bundle) \
             ON CONFLICT (deployment, host) DO UPDATE SET description = excluded.description, \
             revision = excluded.revision, bundle = excluded.bundle";
        crate::fault::reach(self.purpose);
        let present = !batch.bundles.is_empty();
        match &mut self.connection {
            Connection::Sqlite(conn) => {
                let hosts: Vec<u8> = batch.hosts.iter().flat_map(|host| *host.as_bytes()).collect();
                let bundles: Vec<u8> = batch.bundles.iter().flat_map(|bundle| *bundle.as_bytes()).collect();
                let count = i64::try_from(batch.hosts.len()).unwrap_or(i64::MAX);
                sqlx::query(SQLITE)
                    .bind(bytes_of(deployment))
                    .bind(hosts)
                    .bind(description)
                    .bind(revision.micros())
                    .bind(present.then_some(bundles))
                    .bind(count)
                    .execute(&mut **conn)
                    .await?;
            }
            Connection::Postgres(conn) => {
                let hosts: Vec<_> = batch.hosts.iter().map(|host| bytes_of(*host)).collect();
                let bundles: Vec<_> = match present {
                    true => batch.bundles.iter().map(|bundle| Some(bundle.as_bytes().to_vec())).collect(),
                    false => vec![None; hosts.len()],
                };
                sqlx::query(POSTGRES)
                    .bind(bytes_of(deployment))
                    .bind(hosts)
                    .bind(description)
                    .bind(revision.micros())
                    .bind(bundles)
                    .execute(&mut **conn)
                    .await?;
            }
        }
        Ok(())
    }

    /// Removes every assignment of a host that is gone for good.
    pub async fn purge_assignments_of_host(&mut self, host: Uuid) -> Result<()> {
        const SQL: &str =
            "DELETE FROM assignments WHERE host = $1 AND deployment IN (SELECT deployment FROM descriptions)";
        both!(self, conn => sqlx::query(SQL).bind(bytes_of(host)).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Returns the hosts that were deleted after `seen`: a decision that did not know is not written for them.
    pub async fn hosts_deleted_after(&mut self, seen: Revision) -> Result<BTreeSet<Uuid>> {
        const SQL: &str = "SELECT uid FROM changes WHERE revision > $1 AND kind = 'Host' AND operation = 'delete'";
        let rows: Vec<(String,)> =
            both!(self, conn => sqlx::query_as(SQL).bind(seen.micros()).fetch_all(&mut **conn).await?);
        rows.into_iter().map(|(uid,)| parsed("changes", "uid", &uid, &uid)).collect()
    }
}
