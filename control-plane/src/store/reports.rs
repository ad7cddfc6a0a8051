//! What was observed of deployments on hosts.

use futures_util::TryStreamExt as _;
use titan_api::{
    Digest, Revision,
    drift::Drift,
    reports::{DeploymentReport, Phase},
};
use uuid::Uuid;

use super::{
    Result, Tx, both, bytes_of, clean, corrupt, digest, from_word, json, over_rows, parsed, per_engine, rows, uuid,
};

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
    drift: Option<String>,
    drift_details: Option<String>,
    reported_at: i64,
}

/// Reports without what may be long, as far as the condition.
macro_rules! brief {
    () => {
        "SELECT host_uid, deployment, assignment_id, release_name, revision, digest, phase, message, healthy_since, \
         commit_id, push, drift, CAST(NULL AS TEXT) AS drift_details, reported_at FROM reports WHERE "
    };
}

/// The parts of a [`Drift`] that may be long: its difference, and what was found.
type Details = (String, Option<String>);

/// Returns what has drifted from its two columns.
fn drift(id: &str, brief: Option<&str>, details: Option<&str>) -> Result<Vec<Drift>> {
    const TABLE: &str = "reports";
    let mut drift: Vec<Drift> = brief.map_or(Ok(Vec::new()), |text| json(TABLE, "drift", id, text))?;
    let Some(text) = details else { return Ok(drift) };
    let details: Vec<Details> = json(TABLE, "drift_details", id, text)?;
    if details.len() != drift.len() {
        let detail = format!("{} entries for {} things", details.len(), drift.len());
        return Err(corrupt(TABLE, "drift_details", id, detail));
    }
    for (drift, (diff, found)) in drift.iter_mut().zip(details) {
        (drift.diff, drift.found) = (diff, found);
    }
    Ok(drift)
}

/// Returns the two columns of what has drifted.
fn columns(drift: &[Drift]) -> (Option<String>, Option<String>) {
    if drift.is_empty() {
        return (None, None);
    }
    let brief: Vec<_> = drift.iter().map(Drift::brief).collect();
    let details: Vec<_> = drift.iter().map(|drift| (&drift.diff, &drift.found)).collect();
    // Texts alone: they can always be written.
    (serde_json::to_string(&brief).ok(), serde_json::to_string(&details).ok())
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
                drift: drift(id, row.drift.as_deref(), row.drift_details.as_deref())?,
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

impl Tx {
    /// Writes what hosts said of deployments that are assigned to them; the rest is passed over. No host and assignment
    /// may come twice.
    pub async fn put_reports(&mut self, observed: &[ObservedDeployment]) -> Result<()> {
        macro_rules! sql {
            ($rows:literal, $bytes:literal, $hex:literal, $lock:literal) => {
                concat!(
                    "INSERT INTO reports (host_uid, assignment_id, deployment, release_name, revision, digest, phase, \
                     message, healthy_since, commit_id, push, reported_at, drift, drift_details) SELECT j.value ->> 0, j.value ->> 1, ",
                    $bytes,
                    "j.value ->> 2",
                    $hex,
                    ", j.value ->> 4, CAST(j.value ->> 5 AS BIGINT), ",
                    $bytes,
                    "j.value ->> 6",
                    $hex,
                    ", j.value ->> 7, j.value ->> 8, CAST(j.value ->> 9 AS BIGINT), j.value ->> 10, j.value ->> 11, \
                     CAST(j.value ->> 12 AS BIGINT), j.value ->> 13, j.value ->> 14 FROM ",
                    $rows,
                    " WHERE EXISTS (SELECT 1 FROM assignments a WHERE a.deployment = ",
                    $bytes,
                    "j.value ->> 2",
                    $hex,
                    " AND a.host = ",
                    $bytes,
                    "j.value ->> 3",
                    $hex,
                    ") ON CONFLICT (host_uid, assignment_id) DO UPDATE SET deployment = excluded.deployment, \
                     release_name = excluded.release_name, revision = excluded.revision, digest = excluded.digest, \
                     phase = excluded.phase, message = excluded.message, healthy_since = excluded.healthy_since, \
                     commit_id = excluded.commit_id, push = excluded.push, reported_at = excluded.reported_at, \
                     drift = excluded.drift, drift_details = excluded.drift_details"
                )
            };
        }
        let sql = per_engine!(self, sql);
        let rows = rows(observed.iter().map(|observed| {
            let report = &observed.report;
            let (deployment, host) = (observed.deployment.simple().to_string(), observed.host.simple().to_string());
            let about = (clean(&report.release), report.revision.micros(), report.digest);
            let said = (report.phase.as_str(), clean(&report.message), report.healthy_since.map(Revision::micros));
            let git = (report.commit.as_deref().map(clean), report.push.as_deref().map(clean));
            let ids = (observed.host, report.id, deployment, host);
            let at = observed.reported_at.micros();
            let drift = columns(&report.drift);
            (
                ids.0, ids.1, ids.2, ids.3, about.0, about.1, about.2, said.0, said.1, said.2, git.0, git.1, at,
                drift.0, drift.1,
            )
        }));
        both!(self, conn => sqlx::query(sql).bind(rows).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Removes the tombstones that hosts have confirmed, unless they moved since, with what was reported of them. Returns
    /// the removals that were true.
    pub async fn confirm_removals(&mut self, removals: &[Removal]) -> Result<Vec<Removal>> {
        macro_rules! find {
            ($rows:literal, $bytes:literal, $hex:literal, $lock:literal) => {
                concat!(
                    "SELECT CAST(j.value ->> 0 AS BIGINT) FROM ",
                    $rows,
                    " JOIN assignments a ON a.deployment = ",
                    $bytes,
                    "j.value ->> 1",
                    $hex,
                    " AND a.host = ",
                    $bytes,
                    "j.value ->> 2",
                    $hex,
                    " WHERE a.bundle IS NULL AND a.revision <= CAST(j.value ->> 3 AS BIGINT) \
                     ORDER BY a.deployment, a.host",
                    $lock
                )
            };
        }
        macro_rules! remove {
            ($rows:literal, $bytes:literal, $hex:literal, $lock:literal) => {
                concat!(
                    "DELETE FROM assignments WHERE (deployment, host) IN (SELECT ",
                    $bytes,
                    "j.value ->> 0",
                    $hex,
                    ", ",
                    $bytes,
                    "j.value ->> 1",
                    $hex,
                    " FROM ",
                    $rows,
                    ")"
                )
            };
        }
        if removals.is_empty() {
            return Ok(Vec::new());
        }
        let simple = |removal: &Removal| (removal.deployment.simple().to_string(), removal.host.simple().to_string());
        let said = rows(removals.iter().enumerate().map(|(index, removal)| {
            let (deployment, host) = simple(removal);
            (index, deployment, host, removal.revision.micros())
        }));
        let sql = per_engine!(self, find);
        let found: Vec<(i64,)> = both!(self, conn => sqlx::query_as(sql).bind(said).fetch_all(&mut **conn).await?);
        let found = found.into_iter().filter_map(|(index,)| removals.get(usize::try_from(index).ok()?));
        let confirmed: Vec<Removal> = found.copied().collect();
        if !confirmed.is_empty() {
            let sql = per_engine!(self, remove);
            let gone = rows(confirmed.iter().map(simple));
            both!(self, conn => sqlx::query(sql).bind(gone).execute(&mut **conn).await.map(drop)?);
            let sql = over_rows!(
                self,
                "DELETE FROM reports WHERE (host_uid, assignment_id) IN (SELECT j.value ->> 0, j.value ->> 1 FROM",
                ")"
            );
            let gone = rows(confirmed.iter().map(|removal| (removal.host, removal.assignment)));
            both!(self, conn => sqlx::query(sql).bind(gone).execute(&mut **conn).await.map(drop)?);
        }
        Ok(confirmed)
    }

    /// Returns what the hosts of a deployment said, without the differences of what has drifted: they may be long, and the
    /// hosts many.
    pub async fn reports_of_deployment(&mut self, deployment: Uuid) -> Result<Vec<ObservedDeployment>> {
        const SQL: &str = concat!(brief!(), "deployment = $1");
        let rows: Vec<Row> =
            both!(self, conn => sqlx::query_as(SQL).bind(bytes_of(deployment)).fetch_all(&mut **conn).await?);
        rows.into_iter().map(ObservedDeployment::try_from).collect()
    }

    /// Gives `take` what each host of a deployment said, without what may be long. It is streamed: there may be a million.
    pub async fn each_report_of_deployment(
        &mut self,
        deployment: Uuid,
        mut take: impl FnMut(&ObservedDeployment),
    ) -> Result<()> {
        const SQL: &str = concat!(brief!(), "deployment = $1");
        both!(self, conn => {
            let mut rows = sqlx::query_as::<_, Row>(SQL).bind(bytes_of(deployment)).fetch(&mut **conn);
            while let Some(row) = rows.try_next().await? {
                take(&ObservedDeployment::try_from(row)?);
            }
        });
        Ok(())
    }

    /// Returns what was said of a deployment at or after `since`, by the control plane's clock, without what may be long.
    pub async fn reports_of_deployment_since(
        &mut self,
        deployment: Uuid,
        since: Revision,
    ) -> Result<Vec<ObservedDeployment>> {
        const SQL: &str = concat!(brief!(), "deployment = $1 AND reported_at >= $2");
        let rows: Vec<Row> = both!(self, conn => sqlx::query_as(SQL)
            .bind(bytes_of(deployment)).bind(since.micros()).fetch_all(&mut **conn).await?);
        rows.into_iter().map(ObservedDeployment::try_from).collect()
    }

    /// Returns what these hosts said of a deployment, without what may be long.
    pub async fn reports_of_deployment_on(
        &mut self,
        deployment: Uuid,
        hosts: &[Uuid],
    ) -> Result<Vec<ObservedDeployment>> {
        macro_rules! sql {
            ($rows:literal, $bytes:literal, $hex:literal, $lock:literal) => {
                // By the hosts: an index on the deployment would lead to all of its reports.
                concat!(brief!(), "NOT (deployment <> $2) AND host_uid IN (SELECT j.value ->> 0 FROM ", $rows, ")")
            };
        }
        let sql = per_engine!(self, sql);
        let hosts = rows(hosts.iter().map(|host| [host]));
        let rows: Vec<Row> = both!(self, conn => sqlx::query_as(sql)
            .bind(hosts).bind(bytes_of(deployment)).fetch_all(&mut **conn).await?);
        rows.into_iter().map(ObservedDeployment::try_from).collect()
    }

    /// Returns what a host said of its deployments of which something has drifted, without the differences.
    pub async fn drifted_on_host(&mut self, host: Uuid) -> Result<Vec<ObservedDeployment>> {
        const SQL: &str = concat!(brief!(), "host_uid = $1 AND drift IS NOT NULL");
        let rows: Vec<Row> =
            both!(self, conn => sqlx::query_as(SQL).bind(host.to_string()).fetch_all(&mut **conn).await?);
        rows.into_iter().map(ObservedDeployment::try_from).collect()
    }

    /// Returns what a host said of its deployments of which something has drifted, with the differences.
    pub async fn drift_of_host(&mut self, host: Uuid) -> Result<Vec<ObservedDeployment>> {
        const SQL: &str = "SELECT * FROM reports WHERE host_uid = $1 AND drift IS NOT NULL";
        let rows: Vec<Row> =
            both!(self, conn => sqlx::query_as(SQL).bind(host.to_string()).fetch_all(&mut **conn).await?);
        rows.into_iter().map(ObservedDeployment::try_from).collect()
    }
}
