//! Assignments: the hosts' feed.

use std::collections::BTreeSet;

use titan_api::{Digest, Name, Problem, Revision, deployments::OnRemove, poll::RemovalReason};
use uuid::Uuid;

use super::{Result, Tx, both, digest, from_word, json, parsed, word};

/// A deployment on a host, present or to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The same for the same deployment and host, for ever.
    pub id: Uuid,
    /// The deployment.
    pub deployment: Uuid,
    /// The host.
    pub host: Uuid,
    /// The deployment's workspace.
    pub workspace: Name,
    /// The deployment's name.
    pub name: Name,
    /// The release, such as `prod#7`.
    pub release: String,
    /// When it last moved.
    pub revision: Revision,
    /// Whether the host is to have it; if not, this is a tombstone.
    pub present: bool,
    /// Over all that the rendering depends on.
    pub outcome: Option<Digest>,
    /// What was rendered; always there if present.
    pub bundle: Option<Digest>,
    /// What goes first on the host.
    pub depends_on: Vec<Name>,
    /// What the host does with the files in the end.
    pub on_remove: OnRemove,
    /// Why it is to be removed.
    pub reason: Option<RemovalReason>,
}

/// Why a release cannot be rendered for a host.
#[derive(Debug, Clone, PartialEq)]
pub struct RenderProblem {
    /// The deployment.
    pub deployment: Uuid,
    /// The host.
    pub host: Uuid,
    /// What is wrong.
    pub problem: Problem,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    deployment_uid: String,
    host_uid: String,
    workspace: String,
    deployment: String,
    release_name: String,
    revision: i64,
    present: bool,
    outcome: Option<Vec<u8>>,
    bundle: Option<Vec<u8>>,
    depends_on: String,
    on_remove: String,
    reason: Option<String>,
}

impl TryFrom<Row> for Assignment {
    type Error = super::StoreError;

    fn try_from(row: Row) -> Result<Self> {
        const TABLE: &str = "assignments";
        let id = row.id.as_str();
        Ok(Self {
            id: parsed(TABLE, "id", id, id)?,
            deployment: parsed(TABLE, "deployment_uid", id, &row.deployment_uid)?,
            host: parsed(TABLE, "host_uid", id, &row.host_uid)?,
            workspace: parsed(TABLE, "workspace", id, &row.workspace)?,
            name: parsed(TABLE, "deployment", id, &row.deployment)?,
            revision: Revision::from_micros(row.revision),
            present: row.present,
            outcome: row.outcome.map(|bytes| digest(TABLE, "outcome", id, &bytes)).transpose()?,
            bundle: row.bundle.map(|bytes| digest(TABLE, "bundle", id, &bytes)).transpose()?,
            depends_on: json(TABLE, "depends_on", id, &row.depends_on)?,
            on_remove: from_word(TABLE, "on_remove", id, &row.on_remove)?,
            reason: row.reason.map(|text| from_word(TABLE, "reason", id, &text)).transpose()?,
            release: row.release_name,
        })
    }
}

impl Tx {
    /// Returns the assignments that moved after `seen`, oldest first.
    pub async fn assignments_after(&mut self, seen: Revision) -> Result<Vec<Assignment>> {
        const SQL: &str = "SELECT * FROM assignments WHERE revision > $1 ORDER BY revision";
        let rows: Vec<Row> = both!(self, conn => sqlx::query_as(SQL).bind(seen.micros()).fetch_all(&mut **conn).await?);
        rows.into_iter().map(Assignment::try_from).collect()
    }

    /// Returns the assignments of a deployment.
    pub async fn assignments_of_deployment(&mut self, deployment: Uuid) -> Result<Vec<Assignment>> {
        const SQL: &str = "SELECT * FROM assignments WHERE deployment_uid = $1";
        let rows: Vec<Row> =
            both!(self, conn => sqlx::query_as(SQL).bind(deployment.to_string()).fetch_all(&mut **conn).await?);
        rows.into_iter().map(Assignment::try_from).collect()
    }

    /// Returns the assignments of a host.
    pub async fn assignments_of_host(&mut self, host: Uuid) -> Result<Vec<Assignment>> {
        const SQL: &str = "SELECT * FROM assignments WHERE host_uid = $1";
        let rows: Vec<Row> =
            both!(self, conn => sqlx::query_as(SQL).bind(host.to_string()).fetch_all(&mut **conn).await?);
        rows.into_iter().map(Assignment::try_from).collect()
    }

    /// Returns one assignment.
    pub async fn assignment(&mut self, id: Uuid) -> Result<Option<Assignment>> {
        const SQL: &str = "SELECT * FROM assignments WHERE id = $1";
        let row: Option<Row> =
            both!(self, conn => sqlx::query_as(SQL).bind(id.to_string()).fetch_optional(&mut **conn).await?);
        row.map(Assignment::try_from).transpose()
    }

    /// Writes an assignment as it stands.
    pub async fn put_assignment(&mut self, assignment: &Assignment) -> Result<()> {
        const SQL: &str = "INSERT INTO assignments (id, deployment_uid, host_uid, workspace, deployment, release_name, \
             revision, present, outcome, bundle, depends_on, on_remove, reason) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
             ON CONFLICT (id) DO UPDATE SET release_name = excluded.release_name, revision = excluded.revision, \
             present = excluded.present, outcome = excluded.outcome, bundle = excluded.bundle, \
             depends_on = excluded.depends_on, on_remove = excluded.on_remove, reason = excluded.reason";
        let bytes = |digest: Option<Digest>| digest.map(|digest| digest.as_bytes().to_vec());
        both!(self, conn => sqlx::query(SQL)
            .bind(assignment.id.to_string()).bind(assignment.deployment.to_string()).bind(assignment.host.to_string())
            .bind(assignment.workspace.as_str()).bind(assignment.name.as_str()).bind(assignment.release.as_str())
            .bind(assignment.revision.micros()).bind(assignment.present)
            .bind(bytes(assignment.outcome)).bind(bytes(assignment.bundle))
            .bind(serde_json::to_string(&assignment.depends_on).unwrap_or_default())
            .bind(word(&assignment.on_remove)).bind(assignment.reason.map(RemovalReason::as_str))
            .execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Writes that another rendering came to the same bundle: the assignment does not move.
    pub async fn set_outcome(&mut self, id: Uuid, outcome: Digest) -> Result<()> {
        const SQL: &str = "UPDATE assignments SET outcome = $2 WHERE id = $1";
        both!(self, conn => sqlx::query(SQL).bind(id.to_string()).bind(outcome.as_bytes().to_vec())
            .execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Removes a tombstone that its host has confirmed, if it is still the one of `revision` or older.
    pub async fn purge_tombstone(&mut self, id: Uuid, host: Uuid, revision: Revision) -> Result<bool> {
        const SQL: &str = "DELETE FROM assignments WHERE id = $1 AND host_uid = $2 AND revision <= $3 AND present = $4";
        let gone = both!(self, conn => sqlx::query(SQL)
            .bind(id.to_string()).bind(host.to_string()).bind(revision.micros()).bind(false)
            .execute(&mut **conn).await?.rows_affected());
        Ok(gone > 0)
    }

    /// Returns the ids of the tombstones that no host has confirmed yet.
    pub async fn tombstones(&mut self) -> Result<BTreeSet<Uuid>> {
        const SQL: &str = "SELECT id FROM assignments WHERE present = $1";
        let rows: Vec<(String,)> = both!(self, conn => sqlx::query_as(SQL).bind(false).fetch_all(&mut **conn).await?);
        rows.into_iter().map(|(id,)| parsed("assignments", "id", &id, &id)).collect()
    }

    /// Removes every assignment of a host that is gone for good.
    pub async fn purge_assignments_of_host(&mut self, host: Uuid) -> Result<()> {
        const SQL: &str = "DELETE FROM assignments WHERE host_uid = $1";
        both!(self, conn => sqlx::query(SQL).bind(host.to_string()).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Writes why a release cannot be rendered for a host, or that it can.
    pub async fn set_render_problem(
        &mut self,
        deployment: Uuid,
        host: Uuid,
        problem: Option<(&Problem, Revision)>,
    ) -> Result<()> {
        const PUT: &str = "INSERT INTO render_problems (deployment_uid, host_uid, revision, problem) \
             VALUES ($1, $2, $3, $4) ON CONFLICT (deployment_uid, host_uid) \
             DO UPDATE SET revision = excluded.revision, problem = excluded.problem";
        const REMOVE: &str = "DELETE FROM render_problems WHERE deployment_uid = $1 AND host_uid = $2";
        let (deployment, host) = (deployment.to_string(), host.to_string());
        match problem {
            Some((problem, revision)) => {
                let text = serde_json::to_string(problem).unwrap_or_default();
                both!(self, conn => sqlx::query(PUT).bind(deployment).bind(host).bind(revision.micros()).bind(text)
                    .execute(&mut **conn).await.map(drop)?);
            }
            None => {
                both!(self, conn => sqlx::query(REMOVE).bind(deployment).bind(host)
                    .execute(&mut **conn).await.map(drop)?);
            }
        }
        Ok(())
    }

    /// Returns the render problems of a deployment.
    pub async fn render_problems(&mut self, deployment: Uuid) -> Result<Vec<RenderProblem>> {
        const SQL: &str = "SELECT host_uid, problem FROM render_problems WHERE deployment_uid = $1";
        let rows: Vec<(String, String)> =
            both!(self, conn => sqlx::query_as(SQL).bind(deployment.to_string()).fetch_all(&mut **conn).await?);
        rows.into_iter()
            .map(|(host, problem)| {
                Ok(RenderProblem {
                    deployment,
                    host: parsed("render_problems", "host_uid", &host, &host)?,
                    problem: json("render_problems", "problem", &host, &problem)?,
                })
            })
            .collect()
    }

    /// Returns the deployments that cannot be rendered for a host.
    pub async fn deployments_with_render_problem(&mut self, host: Uuid) -> Result<Vec<Uuid>> {
        const SQL: &str = "SELECT deployment_uid FROM render_problems WHERE host_uid = $1";
        let rows: Vec<(String,)> =
            both!(self, conn => sqlx::query_as(SQL).bind(host.to_string()).fetch_all(&mut **conn).await?);
        rows.into_iter().map(|(uid,)| parsed("render_problems", "deployment_uid", &uid, &uid)).collect()
    }

    /// Removes assignments of `revision` to hosts that are gone for good.
    pub async fn purge_hostless_assignments(&mut self, revision: Revision) -> Result<()> {
        const SQL: &str = "DELETE FROM assignments WHERE revision = $1 \
             AND NOT EXISTS (SELECT 1 FROM resources WHERE resources.uid = assignments.host_uid)";
        both!(self, conn => sqlx::query(SQL).bind(revision.micros()).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Removes the render problems of a deployment or host that is gone.
    pub async fn purge_render_problems(&mut self, uid: Uuid) -> Result<()> {
        const SQL: &str = "DELETE FROM render_problems WHERE deployment_uid = $1 OR host_uid = $1";
        both!(self, conn => sqlx::query(SQL).bind(uid.to_string()).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }
}
