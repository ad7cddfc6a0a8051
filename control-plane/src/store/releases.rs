//! Releases: immutable resolutions of deployments.

use titan_api::{Digest, Revision};
use uuid::Uuid;

use super::{Result, Tx, both, digest, parsed};

/// An immutable resolution of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The id.
    pub id: Uuid,
    /// The deployment.
    pub deployment: Uuid,
    /// Counts the deployment's releases, from 1.
    pub number: i64,
    /// The newest change that it takes into account.
    pub revision: Revision,
    /// Over the inputs.
    pub inputs_digest: Digest,
    /// What was resolved, as JSON.
    pub inputs: String,
}

impl Tx {
    /// Returns the newest release of a deployment.
    pub async fn newest_release(&mut self, deployment: Uuid) -> Result<Option<Release>> {
        const SQL: &str = "SELECT id, number, revision, inputs_digest, inputs FROM releases \
             WHERE deployment_uid = $1 ORDER BY number DESC LIMIT 1";
        let row: Option<(String, i64, i64, Vec<u8>, String)> =
            both!(self, conn => sqlx::query_as(SQL).bind(deployment.to_string()).fetch_optional(&mut **conn).await?);
        row.map(|(id, number, revision, inputs_digest, inputs)| {
            Ok(Release {
                deployment,
                number,
                revision: Revision::from_micros(revision),
                inputs_digest: digest("releases", "inputs_digest", &id, &inputs_digest)?,
                inputs,
                id: parsed("releases", "id", &id, &id)?,
            })
        })
        .transpose()
    }

    /// Adds a release.
    pub async fn add_release(&mut self, release: &Release) -> Result<()> {
        const SQL: &str = "INSERT INTO releases (id, deployment_uid, number, revision, inputs_digest, inputs) \
             VALUES ($1, $2, $3, $4, $5, $6)";
        both!(self, conn => sqlx::query(SQL)
            .bind(release.id.to_string()).bind(release.deployment.to_string()).bind(release.number)
            .bind(release.revision.micros()).bind(release.inputs_digest.as_bytes().to_vec())
            .bind(release.inputs.as_str()).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }
}
