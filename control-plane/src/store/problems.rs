//! Why releases cannot be rendered for hosts.

use std::collections::{BTreeMap, BTreeSet};

use titan_api::{Problem, Revision};
use uuid::Uuid;

use super::{Result, Tx, both, json, over_rows, parsed, rows};

/// How many problems are written in one statement.
const WRITTEN: usize = 1024;

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
    /// Writes why releases cannot be rendered for hosts, or that they can, as it was at `revision`. Of what is said twice of
    /// one deployment and host the later counts.
    pub async fn set_render_problems(
        &mut self,
        problems: &[(Uuid, Uuid, Option<Problem>)],
        revision: Revision,
    ) -> Result<()> {
        let put = over_rows!(
            self,
            "INSERT INTO render_problems (deployment_uid, host_uid, revision, problem) \
             SELECT j.value ->> 0, j.value ->> 1, CAST($2 AS BIGINT), j.value ->> 2 FROM",
            "WHERE TRUE ON CONFLICT (deployment_uid, host_uid) \
             DO UPDATE SET revision = excluded.revision, problem = excluded.problem"
        );
        let remove = over_rows!(
            self,
            "DELETE FROM render_problems WHERE (deployment_uid, host_uid) IN (SELECT j.value ->> 0, j.value ->> 1 FROM",
            ")"
        );
        let newest: BTreeMap<_, _> =
            problems.iter().map(|(deployment, host, problem)| ((deployment, host), problem)).collect();
        let (mut there, mut gone) = (Vec::new(), Vec::new());
        for ((deployment, host), problem) in newest {
            match problem {
                Some(problem) => {
                    there.push((deployment, host, serde_json::to_string(problem).unwrap_or_default()));
                }
                None => gone.push((deployment, host)),
            }
        }
        for part in there.chunks(WRITTEN) {
            let part = rows(part);
            both!(self, conn => sqlx::query(put).bind(part).bind(revision.micros())
                .execute(&mut **conn).await.map(drop)?);
        }
        for part in gone.chunks(WRITTEN) {
            let part = rows(part);
            both!(self, conn => sqlx::query(remove).bind(part).execute(&mut **conn).await.map(drop)?);
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
