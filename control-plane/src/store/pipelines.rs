//! What pipelines report: commits of a workload's source, and builds of it.

use titan_api::{
    Revision, limits,
    pipelines::{Build, BuildReport, PipelineLog, Source, SourceReport},
};
use uuid::Uuid;

use super::{Result, Tx, both, json};

type SourceRow = (String, String, String, i64);
type BuildRow = (String, String, String, i64, Option<i64>);

fn source((commit, report, actor, seen_at): SourceRow) -> Result<Source> {
    let report: SourceReport = json("sources", "report", &commit, &report)?;
    Ok(Source { report, actor, seen_at: Revision::from_micros(seen_at) })
}

fn build((id, report, actor, began_at, ended_at): BuildRow) -> Result<Build> {
    let report: BuildReport = json("builds", "report", &id, &report)?;
    let ended_at = ended_at.map(Revision::from_micros);
    Ok(Build { report, actor, began_at: Revision::from_micros(began_at), ended_at })
}

fn most() -> i64 {
    i64::try_from(limits::PIPELINE_KEPT).unwrap_or(i64::MAX)
}

/// Returns a report as it is kept, without the one character that PostgreSQL cannot hold.
fn kept(report: &impl serde::Serialize) -> String {
    // Texts alone: they can always be written, and JSON escapes what is no character.
    serde_json::to_string(report).unwrap_or_default()
}

impl Tx {
    /// Returns a commit of a workload's source.
    pub async fn source(&mut self, workload: Uuid, commit: &str) -> Result<Option<Source>> {
        const SQL: &str =
            "SELECT commit_id, report, actor, seen_at FROM sources WHERE workload_uid = $1 AND commit_id = $2";
        let row: Option<SourceRow> = both!(self, conn => sqlx::query_as(SQL)
            .bind(workload.to_string()).bind(commit).fetch_optional(&mut **conn).await?);
        row.map(source).transpose()
    }

    /// Returns a build of a workload.
    pub async fn build(&mut self, workload: Uuid, id: &str) -> Result<Option<Build>> {
        const SQL: &str =
            "SELECT build_id, report, actor, began_at, ended_at FROM builds WHERE workload_uid = $1 AND build_id = $2";
        let row: Option<BuildRow> = both!(self, conn => sqlx::query_as(SQL)
            .bind(workload.to_string()).bind(id).fetch_optional(&mut **conn).await?);
        row.map(build).transpose()
    }

    /// Returns the newest commits and builds of a workload.
    pub async fn pipeline_log(&mut self, workload: Uuid) -> Result<PipelineLog> {
        const SOURCES: &str = "SELECT commit_id, report, actor, seen_at FROM sources WHERE workload_uid = $1 \
             ORDER BY seen_at DESC, commit_id LIMIT $2";
        const BUILDS: &str = "SELECT build_id, report, actor, began_at, ended_at FROM builds WHERE workload_uid = $1 \
             ORDER BY began_at DESC, build_id LIMIT $2";
        // Those that the version names are kept beside the newest.
        let (workload, most) = (workload.to_string(), most().saturating_mul(2));
        let sources: Vec<SourceRow> = both!(self, conn => sqlx::query_as(SOURCES)
            .bind(workload.as_str()).bind(most).fetch_all(&mut **conn).await?);
        let builds: Vec<BuildRow> = both!(self, conn => sqlx::query_as(BUILDS)
            .bind(workload.as_str()).bind(most).fetch_all(&mut **conn).await?);
        Ok(PipelineLog {
            sources: sources.into_iter().map(source).collect::<Result<_>>()?,
            builds: builds.into_iter().map(build).collect::<Result<_>>()?,
        })
    }

    /// Writes a commit of a workload's source.
    pub async fn put_source(&mut self, workload: Uuid, source: &Source) -> Result<()> {
        const SQL: &str = "INSERT INTO sources (workload_uid, commit_id, report, actor, seen_at) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (workload_uid, commit_id) DO UPDATE SET \
             report = excluded.report, actor = excluded.actor";
        both!(self, conn => sqlx::query(SQL)
            .bind(workload.to_string()).bind(source.report.commit.as_str()).bind(kept(&source.report))
            .bind(source.actor.as_str()).bind(source.seen_at.micros()).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Writes a build of a workload. One that ended meanwhile stays as it is. Returns whether it was written.
    pub async fn put_build(&mut self, workload: Uuid, build: &Build) -> Result<bool> {
        const SQL: &str = "INSERT INTO builds (workload_uid, build_id, commit_id, state, version, report, actor, \
             began_at, ended_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
             ON CONFLICT (workload_uid, build_id) DO UPDATE SET state = excluded.state, version = excluded.version, \
             report = excluded.report, actor = excluded.actor, ended_at = excluded.ended_at \
             WHERE builds.state = 'running' OR builds.state = excluded.state RETURNING build_id";
        let report = &build.report;
        let written: Vec<(String,)> = both!(self, conn => sqlx::query_as(SQL)
            .bind(workload.to_string()).bind(report.id.as_str()).bind(report.commit.as_str())
            .bind(report.state.as_str()).bind(report.version.as_deref().map(super::clean).as_deref())
            .bind(kept(report)).bind(build.actor.as_str()).bind(build.began_at.micros())
            .bind(build.ended_at.map(Revision::micros)).fetch_all(&mut **conn).await?);
        Ok(!written.is_empty())
    }

    /// Forgets the oldest commits and builds of a workload, but those that `version` names.
    pub async fn trim_pipeline_log(&mut self, workload: Uuid, version: &str) -> Result<()> {
        const BUILDS: &str = "DELETE FROM builds WHERE workload_uid = $1 AND build_id NOT IN (SELECT b.build_id \
             FROM builds b WHERE b.workload_uid = $1 AND (b.version = $3 OR b.commit_id = $3) \
             ORDER BY b.began_at DESC, b.build_id LIMIT $2) AND build_id NOT IN (SELECT b.build_id FROM builds b WHERE b.workload_uid = $1 \
             ORDER BY b.began_at DESC, b.build_id LIMIT $2)";
        const SOURCES: &str = "DELETE FROM sources WHERE workload_uid = $1 AND commit_id <> $3 \
             AND commit_id NOT IN (SELECT b.commit_id FROM builds b WHERE b.workload_uid = $1 AND b.version = $3) \
             AND commit_id NOT IN (SELECT s.commit_id FROM sources s WHERE s.workload_uid = $1 \
             ORDER BY s.seen_at DESC, s.commit_id LIMIT $2)";
        let version = super::clean(version);
        for sql in [BUILDS, SOURCES] {
            both!(self, conn => sqlx::query(sql).bind(workload.to_string()).bind(most()).bind(version.as_ref())
                .execute(&mut **conn).await.map(drop)?);
        }
        Ok(())
    }

    /// Forgets what pipelines reported of a workload that is gone.
    pub async fn purge_pipeline_log(&mut self, workload: Uuid) -> Result<()> {
        for sql in ["DELETE FROM sources WHERE workload_uid = $1", "DELETE FROM builds WHERE workload_uid = $1"] {
            both!(self, conn => sqlx::query(sql).bind(workload.to_string()).execute(&mut **conn).await.map(drop)?);
        }
        Ok(())
    }
}
