//! Why releases cannot be rendered for hosts.

use std::collections::BTreeSet;

use titan_api::{Problem, Revision};
use uuid::Uuid;

use super::{Result, Tx, both, json, parsed};

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

impl Tx {
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

    /// Returns the hosts that a deployment cannot be rendered for.
    pub async fn hosts_with_render_problem(&mut self, deployment: Uuid) -> Result<BTreeSet<Uuid>> {
        const SQL: &str = "SELECT host_uid FROM render_problems WHERE deployment_uid = $1";
        let rows: Vec<(String,)> =
            both!(self, conn => sqlx::query_as(SQL).bind(deployment.to_string()).fetch_all(&mut **conn).await?);
        rows.into_iter().map(|(host,)| parsed("render_problems", "host_uid", &host, &host)).collect()
    }

    /// Returns every pair of host and deployment that cannot be rendered.
    pub async fn pairs_with_render_problem(&mut self) -> Result<BTreeSet<(Uuid, Uuid)>> {
        const SQL: &str = "SELECT host_uid, deployment_uid FROM render_problems";
        let rows: Vec<(String, String)> = both!(self, conn => sqlx::query_as(SQL).fetch_all(&mut **conn).await?);
        rows.into_iter()
            .map(|(host, deployment)| {
                Ok((
                    parsed("render_problems", "host_uid", &host, &host)?,
                    parsed("render_problems", "deployment_uid", &deployment, &deployment)?,
                ))
            })
            .collect()
    }

    /// Removes the render problems of a deployment or host that is gone.
    pub async fn purge_render_problems(&mut self, uid: Uuid) -> Result<()> {
        const SQL: &str = "DELETE FROM render_problems WHERE deployment_uid = $1 OR host_uid = $1";
        both!(self, conn => sqlx::query(SQL).bind(uid.to_string()).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }
}
