//! Documents as they are declared now.

use futures_util::TryStreamExt as _;
use sqlx::Row as _;
use titan_api::{
    Document, Kind, Name, Revision, Spec,
    documents::{API_VERSION, Declared, Metadata},
    labels::{Annotations, Labels},
};
use uuid::Uuid;

use super::{Result, Tx, both, corrupt, json, parsed, readable};

/// A document with what the store knows of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The id.
    pub uid: Uuid,
    /// The kind.
    pub kind: Kind,
    /// The workspace, if the kind lives in one.
    pub workspace: Option<Name>,
    /// The name.
    pub name: Name,
    /// Counts the changes, from 1.
    pub generation: i64,
    /// When it last changed.
    pub revision: Revision,
    /// When it was made.
    pub created: Revision,
    /// When it was deleted; only deployments and hosts wait like that.
    pub deleted: Option<Revision>,
    /// The labels.
    pub labels: Labels,
    /// The annotations.
    pub annotations: Annotations,
    /// What is declared.
    pub spec: Spec,
}

impl Stored {
    /// Returns the document as it travels, without status.
    #[must_use]
    pub fn document(&self) -> Document {
        Document {
            api_version: API_VERSION.to_owned(),
            kind: self.kind,
            metadata: Metadata {
                name: self.name.clone(),
                workspace: self.workspace.clone(),
                labels: self.labels.clone(),
                annotations: self.annotations.clone(),
                uid: Some(self.uid),
                generation: Some(self.generation.unsigned_abs()),
                revision: Some(self.revision),
                created_at: Some(self.created),
            },
            spec: self.spec.to_value(),
            status: None,
        }
    }

    /// Whether the document says the same as `declared`.
    #[must_use]
    pub fn says(&self, declared: &Declared) -> bool {
        self.spec == declared.spec
            && self.labels == declared.metadata.labels
            && self.annotations == declared.metadata.annotations
    }
}

/// Which documents to list, in order of workspace and name.
#[derive(Debug, Clone)]
pub struct Listing<'a> {
    /// The kind.
    pub kind: Kind,
    /// Only of this workspace.
    pub workspace: Option<&'a str>,
    /// Only after this workspace and name.
    pub after: (&'a str, &'a str),
    /// How many at most.
    pub limit: usize,
}

#[derive(sqlx::FromRow)]
struct Row {
    uid: String,
    kind: String,
    workspace: String,
    name: String,
    generation: i64,
    revision: i64,
    created_revision: i64,
    deleted_revision: Option<i64>,
    labels: String,
    annotations: String,
    spec: String,
}

impl TryFrom<Row> for Stored {
    type Error = super::StoreError;

    fn try_from(row: Row) -> Result<Self> {
        const TABLE: &str = "resources";
        let id = row.uid.as_str();
        let kind: Kind = parsed(TABLE, "kind", id, &row.kind)?;
        let spec = json(TABLE, "spec", id, &row.spec)?;
        let spec = Spec::parse(kind, spec).map_err(|faults| {
            corrupt(TABLE, "spec", id, faults.first().map_or_else(String::new, |fault| fault.detail.clone()))
        })?;
        let workspace =
            if row.workspace.is_empty() { None } else { Some(parsed(TABLE, "workspace", id, &row.workspace)?) };
        Ok(Self {
            uid: parsed(TABLE, "uid", id, id)?,
            kind,
            workspace,
            name: parsed(TABLE, "name", id, &row.name)?,
            generation: row.generation,
            revision: Revision::from_micros(row.revision),
            created: Revision::from_micros(row.created_revision),
            deleted: row.deleted_revision.map(Revision::from_micros),
            labels: json(TABLE, "labels", id, &row.labels)?,
            annotations: json(TABLE, "annotations", id, &row.annotations)?,
            spec,
        })
    }
}

impl Tx {
    /// Returns a document; `workspace` is empty for kinds that live in none.
    pub async fn document(&mut self, kind: Kind, workspace: &str, name: &str) -> Result<Option<Stored>> {
        const SQL: &str = "SELECT * FROM resources WHERE kind = $1 AND workspace = $2 AND name = $3 \
             AND deleted_revision IS NULL";
        let row: Option<Row> = both!(self, conn => sqlx::query_as(SQL)
            .bind(kind.as_str()).bind(workspace).bind(name).fetch_optional(&mut **conn).await?);
        row.map(Stored::try_from).transpose()
    }

    /// Returns the newest document of a name that was deleted and still waits for its tombstones.
    pub async fn deleted_document(&mut self, kind: Kind, workspace: &str, name: &str) -> Result<Option<Stored>> {
        const SQL: &str = "SELECT * FROM resources WHERE kind = $1 AND workspace = $2 AND name = $3 \
             AND deleted_revision IS NOT NULL ORDER BY deleted_revision DESC LIMIT 1";
        let row: Option<Row> = both!(self, conn => sqlx::query_as(SQL)
            .bind(kind.as_str()).bind(workspace).bind(name).fetch_optional(&mut **conn).await?);
        row.map(Stored::try_from).transpose()
    }

    /// Returns a document by its id, deleted or not.
    pub async fn document_by_uid(&mut self, uid: Uuid) -> Result<Option<Stored>> {
        const SQL: &str = "SELECT * FROM resources WHERE uid = $1";
        let row: Option<Row> =
            both!(self, conn => sqlx::query_as(SQL).bind(uid.to_string()).fetch_optional(&mut **conn).await?);
        row.map(Stored::try_from).transpose()
    }

    /// Returns a page of documents.
    pub async fn documents(&mut self, listing: &Listing<'_>) -> Result<Vec<Stored>> {
        const SQL: &str = "SELECT * FROM resources WHERE kind = $1 AND deleted_revision IS NULL \
             AND ($2 = '' OR workspace = $2) AND (workspace > $3 OR (workspace = $3 AND name > $4)) \
             ORDER BY workspace, name LIMIT $5";
        let limit = i64::try_from(listing.limit).unwrap_or(i64::MAX);
        let rows: Vec<Row> = both!(self, conn => sqlx::query_as(SQL)
            .bind(listing.kind.as_str()).bind(listing.workspace.unwrap_or_default())
            .bind(listing.after.0).bind(listing.after.1).bind(limit).fetch_all(&mut **conn).await?);
        rows.into_iter().map(Stored::try_from).collect()
    }

    /// Returns every live document. One that cannot be read is logged and left out: it holds up nobody else.
    pub async fn all_documents(&mut self) -> Result<Vec<Stored>> {
        const SQL: &str = "SELECT * FROM resources WHERE deleted_revision IS NULL";
        let rows: Vec<Row> = both!(self, conn => sqlx::query_as(SQL).fetch_all(&mut **conn).await?);
        Ok(rows.into_iter().map(Stored::try_from).filter_map(readable).collect())
    }

    /// Returns every live document that is not a host. One that cannot be read is logged and left out.
    pub async fn documents_beside_hosts(&mut self) -> Result<Vec<Stored>> {
        const SQL: &str = "SELECT * FROM resources WHERE deleted_revision IS NULL AND kind <> 'Host'";
        let rows: Vec<Row> = both!(self, conn => sqlx::query_as(SQL).fetch_all(&mut **conn).await?);
        Ok(rows.into_iter().map(Stored::try_from).filter_map(readable).collect())
    }

    /// Gives `take` every live host: its id, name, labels, spec and facts as they are stored. They are streamed: there may
    /// be a million.
    pub async fn hosts(&mut self, mut take: impl FnMut(Uuid, &str, &str, &str, &str)) -> Result<()> {
        // Without an index on the kind: it would look each of them up.
        const SQL: &str = "SELECT r.uid, r.name, r.labels, r.spec, s.facts FROM resources r \
             LEFT JOIN host_status s ON s.host_uid = r.uid \
             WHERE r.kind || '' = 'Host' AND COALESCE(r.deleted_revision, 0) = 0";
        both!(self, conn => {
            let mut rows = sqlx::query(SQL).fetch(&mut **conn);
            while let Some(row) = rows.try_next().await? {
                let uid: &str = row.try_get(0)?;
                if let Some(uid) = readable(parsed("resources", "uid", uid, uid)) {
                    let facts: Option<&str> = row.try_get(4)?;
                    take(uid, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, facts.unwrap_or_default());
                }
            }
        });
        Ok(())
    }

    /// Returns every live document of a kind in a workspace (`""`: in any).
    pub async fn documents_of(&mut self, kind: Kind, workspace: &str) -> Result<Vec<Stored>> {
        let workspace = (!workspace.is_empty()).then_some(workspace);
        self.documents(&Listing { kind, workspace, after: ("", ""), limit: usize::MAX }).await
    }

    /// Writes a document's present state.
    pub async fn put_document(&mut self, stored: &Stored) -> Result<()> {
        const SQL: &str = "INSERT INTO resources (uid, kind, workspace, name, generation, revision, created_revision, \
             deleted_revision, labels, annotations, spec) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
             ON CONFLICT (uid) DO UPDATE SET generation = excluded.generation, revision = excluded.revision, \
             deleted_revision = excluded.deleted_revision, labels = excluded.labels, \
             annotations = excluded.annotations, spec = excluded.spec";
        let labels = serde_json::to_string(&stored.labels).unwrap_or_default();
        let annotations = serde_json::to_string(&stored.annotations).unwrap_or_default();
        both!(self, conn => sqlx::query(SQL)
            .bind(stored.uid.to_string()).bind(stored.kind.as_str())
            .bind(stored.workspace.as_deref().unwrap_or_default()).bind(stored.name.as_str())
            .bind(stored.generation).bind(stored.revision.micros()).bind(stored.created.micros())
            .bind(stored.deleted.map(Revision::micros)).bind(labels).bind(annotations)
            .bind(stored.spec.to_value().to_string()).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Removes a document's row; its history stays.
    pub async fn purge_document(&mut self, uid: Uuid) -> Result<()> {
        const SQL: &str = "DELETE FROM resources WHERE uid = $1";
        both!(self, conn => sqlx::query(SQL).bind(uid.to_string()).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }
}
