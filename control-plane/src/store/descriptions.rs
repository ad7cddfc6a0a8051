//! Descriptions: how hosts are told of a deployment's release.

use std::{collections::HashMap, sync::Arc};

use titan_api::{
    Digest, Name, Revision,
    deployments::{Dependency, OnRemove},
    poll::RemovalReason,
};
use uuid::Uuid;

use super::{Result, Tx, both, bytes_of, corrupt, from_word, json, parsed, uuid, word};

/// How hosts are told of a deployment's release, or of its removal: what is the same on all of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Description {
    /// The deployment.
    pub deployment: Uuid,
    /// Its workspace.
    pub workspace: Name,
    /// Its name.
    pub name: Name,
    /// The release, such as `prod#7`.
    pub release: String,
    /// What goes first on the host.
    pub depends_on: Vec<Dependency>,
    /// What the host does with the files in the end.
    pub on_remove: OnRemove,
    /// Why it is to be removed, if it is.
    pub reason: Option<RemovalReason>,
}

impl Description {
    /// Returns the id: made of the content, so that the same is stored once.
    #[must_use]
    pub fn id(&self) -> i64 {
        let depends_on: Vec<_> = self.depends_on.iter().map(Dependency::to_string).collect();
        let reason = self.reason.map(RemovalReason::as_str).unwrap_or_default();
        let parts =
            [&self.workspace, self.name.as_str(), &self.release, &depends_on.join(","), &word(&self.on_remove), reason];
        // No part can hold a line break.
        let digest = Digest::of(format!("{}\n{}", self.deployment, parts.join("\n")).as_bytes());
        let first = digest.as_bytes().first_chunk::<8>().copied().unwrap_or_default();
        // What is above zero is made of a content; what was there before content made ids is below.
        i64::from_be_bytes(first) & i64::MAX
    }
}

/// The descriptions that were read so far, by id.
#[derive(Debug, Clone, Default)]
pub struct Descriptions(HashMap<i64, Arc<Description>>);

impl Descriptions {
    pub(super) fn get(&self, id: i64) -> Option<Arc<Description>> {
        self.0.get(&id).cloned()
    }

    /// Forgets those that nothing holds any more.
    pub fn shrink(&mut self) {
        self.0.retain(|_, description| Arc::strong_count(description) > 1);
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    deployment: Vec<u8>,
    workspace: String,
    name: String,
    release_name: String,
    depends_on: String,
    on_remove: String,
    reason: Option<String>,
}

impl TryFrom<Row> for Description {
    type Error = super::StoreError;

    fn try_from(row: Row) -> Result<Self> {
        const TABLE: &str = "descriptions";
        let id = row.id.to_string();
        Ok(Self {
            deployment: uuid(TABLE, "deployment", || id.clone(), &row.deployment)?,
            workspace: parsed(TABLE, "workspace", &id, &row.workspace)?,
            name: parsed(TABLE, "name", &id, &row.name)?,
            depends_on: json(TABLE, "depends_on", &id, &row.depends_on)?,
            on_remove: from_word(TABLE, "on_remove", &id, &row.on_remove)?,
            reason: row.reason.map(|text| from_word(TABLE, "reason", &id, &text)).transpose()?,
            release: row.release_name,
        })
    }
}

impl Tx {
    /// Reads every description.
    pub(super) async fn descriptions(&mut self, known: &mut Descriptions) -> Result<()> {
        const SQL: &str = "SELECT id, deployment, workspace, name, release_name, depends_on, on_remove, reason \
             FROM descriptions";
        let rows: Vec<Row> = both!(self, conn => sqlx::query_as(SQL).fetch_all(&mut **conn).await?);
        for row in rows {
            known.0.insert(row.id, Arc::new(Description::try_from(row)?));
        }
        Ok(())
    }

    /// Returns the description of an id, from those read before or from the database.
    pub(super) async fn description(&mut self, known: &mut Descriptions, id: i64) -> Result<Arc<Description>> {
        const SQL: &str = "SELECT id, deployment, workspace, name, release_name, depends_on, on_remove, reason \
             FROM descriptions WHERE id = $1";
        if let Some(found) = known.0.get(&id) {
            return Ok(Arc::clone(found));
        }
        let row: Option<Row> = both!(self, conn => sqlx::query_as(SQL).bind(id).fetch_optional(&mut **conn).await?);
        let row =
            row.ok_or_else(|| corrupt("assignments", "description", &id.to_string(), "there is no such description"))?;
        let description = Arc::new(Description::try_from(row)?);
        known.0.insert(id, Arc::clone(&description));
        Ok(description)
    }

    /// Keeps a description; one that is there already is marked as young, so that it is not swept away meanwhile.
    pub(super) async fn put_description(&mut self, id: i64, description: &Description, now: Revision) -> Result<()> {
        const SQL: &str = "INSERT INTO descriptions (id, deployment, workspace, name, release_name, depends_on, \
             on_remove, reason, used_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
             ON CONFLICT (id) DO UPDATE SET used_at = excluded.used_at";
        both!(self, conn => sqlx::query(SQL)
            .bind(id).bind(bytes_of(description.deployment)).bind(description.workspace.as_str())
            .bind(description.name.as_str()).bind(description.release.as_str())
            .bind(serde_json::to_string(&description.depends_on).unwrap_or_default())
            .bind(word(&description.on_remove)).bind(description.reason.map(RemovalReason::as_str))
            .bind(now.micros()).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }
}
