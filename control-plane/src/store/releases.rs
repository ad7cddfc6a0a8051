//! Releases: immutable resolutions of deployments.

use titan_api::{Digest, Revision};
use uuid::Uuid;

use super::{Result, Tx, both, digest, over_rows, parsed, rows};

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

type Row = (String, String, i64, i64, Vec<u8>, String);

impl TryFrom<Row> for Release {
    type Error = super::StoreError;

    fn try_from((id, deployment, number, revision, inputs_digest, inputs): Row) -> Result<Self> {
        Ok(Self {
            deployment: parsed("releases", "deployment_uid", &id, &deployment)?,
            number,
            revision: Revision::from_micros(revision),
            inputs_digest: digest("releases", "inputs_digest", &id, &inputs_digest)?,
            inputs,
            id: parsed("releases", "id", &id, &id)?,
        })
    }
}

impl Tx {
    /// Returns the newest release of a deployment.
    pub async fn newest_release(&mut self, deployment: Uuid) -> Result<Option<Release>> {
        Ok(self.newest_releases(&[deployment]).await?.pop())
    }

    /// Returns a release of a deployment by its number.
    pub async fn release(&mut self, deployment: Uuid, number: i64) -> Result<Option<Release>> {
        const SQL: &str = "SELECT id, deployment_uid, number, revision, inputs_digest, inputs FROM releases \
             WHERE deployment_uid = $1 AND number = $2";
        let row: Option<Row> = both!(self, conn => sqlx::query_as(SQL)
            .bind(deployment.to_string()).bind(number).fetch_optional(&mut **conn).await?);
        row.map(Release::try_from).transpose()
    }

    /// Returns the newest release of each of these deployments that has one.
    pub async fn newest_releases(&mut self, deployments: &[Uuid]) -> Result<Vec<Release>> {
        let sql = over_rows!(
            self,
            "SELECT r.id, r.deployment_uid, r.number, r.revision, r.inputs_digest, r.inputs FROM",
            "JOIN releases r ON r.deployment_uid = j.value ->> 0 \
             AND r.number = (SELECT MAX(number) FROM releases n WHERE n.deployment_uid = j.value ->> 0)"
        );
        let deployments = rows(deployments.iter().map(|uid| [uid]));
        let found: Vec<Row> = both!(self, conn => sqlx::query_as(sql).bind(deployments).fetch_all(&mut **conn).await?);
        found.into_iter().map(Release::try_from).collect()
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
