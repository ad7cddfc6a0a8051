//! What was observed of deployments on hosts.

use titan_api::{
    Digest, Revision,
    reports::{DeploymentReport, Phase},
};
use uuid::Uuid;

use super::{Connection, Result, Tx, both, clean, digest, from_word, over_rows, parsed, rows};

/// The newest report of a deployment on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedDeployment {
    /// The host.
    pub host: Uuid,
    /// The deployment.
    pub deployment: Uuid,
    /// What the agent said.
    pub report: DeploymentReport,
    /// When, by the control plane's clock.
    pub reported_at: Revision,
}

#[derive(sqlx::FromRow)]
struct Row {
    host_uid: String,
    deployment_uid: String,
    assignment_id: String,
    release_name: String,
    revision: i64,
    digest: Option<Vec<u8>>,
    phase: String,
    message: String,
    healthy_since: Option<i64>,
    commit_id: Option<String>,
    push: Option<String>,
    reported_at: i64,
}

impl TryFrom<Row> for ObservedDeployment {
    type Error = super::StoreError;

    fn try_from(row: Row) -> Result<Self> {
        const TABLE: &str = "reports";
        let id = row.assignment_id.as_str();
        let digest: Option<Digest> = row.digest.map(|bytes| digest(TABLE, "digest", id, &bytes)).transpose()?;
        let phase: Phase = from_word(TABLE, "phase", id, &row.phase)?;
        Ok(Self {
            host: parsed(TABLE, "host_uid", id, &row.host_uid)?,
            deployment: parsed(TABLE, "deployment_uid", id, &row.deployment_uid)?,
            report: DeploymentReport {
                id: parsed(TABLE, "assignment_id", id, id)?,
                release: row.release_name,
                revision: Revision::from_micros(row.revision),
                digest,
                phase,
                message: row.message,
                healthy_since: row.healthy_since.map(Revision::from_micros),
                commit: row.commit_id,
                push: row.push,
            },
            reported_at: Revision::from_micros(row.reported_at),
        })
    }
}

/// A removal that a host says it has done: a tombstone, up to a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Removal {
    /// The host.
    pub host: Uuid,
    /// The deployment.
    pub deployment: Uuid,
    /// The assignment.
    pub assignment: Uuid,
    /// The tombstone's revision, as the host was told it.
    pub revision: Revision,
}

/// How a digest goes into a statement of many rows, and the statement.
macro_rules! put_reports {
    ($rows:literal, $digest:literal) => {
        concat!(
            "INSERT INTO reports (host_uid, assignment_id, release_name, revision, digest, phase, message, \
             healthy_since, commit_id, push, reported_at) SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2, \
             CAST(j.value ->> 3 AS BIGINT), ",
            $digest,
            ", j.value ->> 5, j.value ->> 6, CAST(j.value ->> 7 AS BIGINT), j.value ->> 8, j.value ->> 9, \
             CAST(j.value ->> 10 AS BIGINT) FROM ",
            $rows,
            " WHERE EXISTS (SELECT 1 FROM assignments a WHERE a.id = j.value ->> 1 AND a.host_uid = j.value ->> 0) \
             ON CONFLICT (host_uid, assignment_id) DO UPDATE SET release_name = excluded.release_name, \
             revision = excluded.revision, digest = excluded.digest, phase = excluded.phase, \
             message = excluded.message, healthy_since = excluded.healthy_since, commit_id = excluded.commit_id, \
             push = excluded.push, reported_at = excluded.reported_at"
        )
    };
}

impl Tx {
    /// Writes what hosts said of deployments that are assigned to them; the rest is passed over. No host and deployment
    /// may come twice.
    pub async fn put_reports(&mut self, observed: &[ObservedDeployment]) -> Result<()> {
        const SQLITE: &str = put_reports!("json_each($1) AS j", "unhex(j.value ->> 4)");
        const POSTGRES: &str =
            put_reports!("json_array_elements(CAST($1 AS JSON)) AS j(value)", "decode(j.value ->> 4, 'hex')");
        let sql = match self.connection {
            Connection::Sqlite(_) => SQLITE,
            Connection::Postgres(_) => POSTGRES,
        };
        let rows = rows(observed.iter().map(|observed| {
            let report = &observed.report;
            let ids = (observed.host, report.id, clean(&report.release), report.revision.micros());
            let said = (report.digest, report.phase.as_str(), clean(&report.message));
            let times = (report.healthy_since.map(Revision::micros), observed.reported_at.micros());
            let git = (report.commit.as_deref().map(clean), report.push.as_deref().map(clean));
            (ids.0, ids.1, ids.2, ids.3, said.0, said.1, said.2, times.0, git.0, git.1, times.1)
        }));
        both!(self, conn => sqlx::query(sql).bind(rows).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Removes the tombstones that hosts have confirmed, unless they moved since, with what was reported of them. Returns
    /// the removals that were true, with the revisions of their tombstones.
    pub async fn confirm_removals(&mut self, removals: &[Removal]) -> Result<Vec<Removal>> {
        if removals.is_empty() {
            return Ok(Vec::new());
        }
        let find = over_rows!(
            self,
            "SELECT a.host_uid, a.deployment_uid, a.id, a.revision FROM",
            "JOIN assignments a ON a.id = j.value ->> 1 AND a.host_uid = j.value ->> 0 \
             WHERE a.present = $2 AND a.revision <= CAST(j.value ->> 2 AS BIGINT) ORDER BY a.id",
            lock "FOR UPDATE OF a"
        );
        let said = rows(removals.iter().map(|removal| (removal.host, removal.assignment, removal.revision.micros())));
        let found: Vec<(String, String, String, i64)> =
            both!(self, conn => sqlx::query_as(find).bind(said).bind(false).fetch_all(&mut **conn).await?);
        let mut confirmed = Vec::with_capacity(found.len());
        for (host, deployment, id, revision) in found {
            confirmed.push(Removal {
                host: parsed("assignments", "host_uid", &id, &host)?,
                deployment: parsed("assignments", "deployment_uid", &id, &deployment)?,
                assignment: parsed("assignments", "id", &id, &id)?,
                revision: Revision::from_micros(revision),
            });
        }
        confirmed.dedup();
        if !confirmed.is_empty() {
            let gone = rows(confirmed.iter().map(|removal| (removal.host, removal.assignment)));
            let tombstones = over_rows!(self, "DELETE FROM assignments WHERE id IN (SELECT j.value ->> 1 FROM", ")");
            let reports = over_rows!(
                self,
                "DELETE FROM reports WHERE (host_uid, assignment_id) IN (SELECT j.value ->> 0, j.value ->> 1 FROM",
                ")"
            );
            for sql in [tombstones, reports] {
                both!(self, conn => sqlx::query(sql).bind(gone.as_str()).execute(&mut **conn).await.map(drop)?);
            }
        }
        Ok(confirmed)
    }

    /// Returns what the hosts of a deployment said.
    pub async fn reports_of_deployment(&mut self, deployment: Uuid) -> Result<Vec<ObservedDeployment>> {
        const SQL: &str = "SELECT r.*, a.deployment_uid FROM reports r JOIN assignments a ON a.id = r.assignment_id \
             WHERE a.deployment_uid = $1";
        let rows: Vec<Row> =
            both!(self, conn => sqlx::query_as(SQL).bind(deployment.to_string()).fetch_all(&mut **conn).await?);
        rows.into_iter().map(ObservedDeployment::try_from).collect()
    }
}
