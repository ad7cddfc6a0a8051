//! What was observed of deployments on hosts.

use titan_api::{
    Digest, Revision,
    reports::{DeploymentReport, Phase},
};
use uuid::Uuid;

use super::{Result, Tx, both, bytes_of, clean, digest, from_word, parsed, uuid};

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
    deployment: Option<Vec<u8>>,
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
            deployment: uuid(TABLE, "deployment", || id.to_owned(), &row.deployment.unwrap_or_default())?,
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

impl Tx {
    /// Writes what a host said of one deployment.
    pub async fn put_report(&mut self, observed: &ObservedDeployment) -> Result<()> {
        const SQL: &str = "INSERT INTO reports (host_uid, assignment_id, release_name, revision, digest, phase, message, \
             healthy_since, commit_id, push, reported_at, deployment) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
             ON CONFLICT (host_uid, assignment_id) DO UPDATE SET release_name = excluded.release_name, \
             revision = excluded.revision, digest = excluded.digest, phase = excluded.phase, \
             message = excluded.message, healthy_since = excluded.healthy_since, commit_id = excluded.commit_id, \
             push = excluded.push, reported_at = excluded.reported_at, deployment = excluded.deployment";
        let report = &observed.report;
        both!(self, conn => sqlx::query(SQL)
            .bind(observed.host.to_string()).bind(report.id.to_string()).bind(clean(&report.release).as_ref())
            .bind(report.revision.micros()).bind(report.digest.map(|digest| digest.as_bytes().to_vec()))
            .bind(report.phase.as_str()).bind(clean(&report.message).as_ref())
            .bind(report.healthy_since.map(Revision::micros)).bind(report.commit.as_deref().map(clean).as_deref())
            .bind(report.push.as_deref().map(clean).as_deref()).bind(observed.reported_at.micros())
            .bind(bytes_of(observed.deployment))
            .execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Forgets what was reported of an assignment that is gone.
    pub async fn purge_report(&mut self, host: Uuid, assignment: Uuid) -> Result<()> {
        const SQL: &str = "DELETE FROM reports WHERE host_uid = $1 AND assignment_id = $2";
        both!(self, conn => sqlx::query(SQL).bind(host.to_string()).bind(assignment.to_string())
            .execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Returns what the hosts of a deployment said.
    pub async fn reports_of_deployment(&mut self, deployment: Uuid) -> Result<Vec<ObservedDeployment>> {
        const SQL: &str = "SELECT * FROM reports WHERE deployment = $1";
        let rows: Vec<Row> =
            both!(self, conn => sqlx::query_as(SQL).bind(bytes_of(deployment)).fetch_all(&mut **conn).await?);
        rows.into_iter().map(ObservedDeployment::try_from).collect()
    }
}
