//! The append-only history.

use titan_api::{
    Document, Kind, Revision,
    changes::{Change, Operation},
};

use super::{Result, Tx, both, clean, from_word, json, parsed, readable, word};
use crate::fleet::graphs::Touch;

/// A change with who made it and why, before it has a revision.
#[derive(Debug, Clone)]
pub struct Written<'a> {
    /// What happened.
    pub operation: Operation,
    /// The document before.
    pub before: Option<&'a Document>,
    /// The document after.
    pub after: Option<&'a Document>,
    /// Who.
    pub actor: &'a str,
    /// Why.
    pub reason: Option<&'a str>,
    /// In which request.
    pub request_id: &'a str,
}

/// Which changes to read.
#[derive(Debug, Clone, Default)]
pub struct ChangeFilter<'a> {
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only of this workspace.
    pub workspace: Option<&'a str>,
    /// Only of this name.
    pub name: Option<&'a str>,
}

#[derive(sqlx::FromRow)]
struct Row {
    revision: i64,
    ordinal: i64,
    operation: String,
    kind: String,
    workspace: String,
    name: String,
    uid: String,
    before_document: Option<String>,
    after_document: Option<String>,
    actor: String,
    reason: Option<String>,
    request_id: String,
}

impl TryFrom<Row> for Change {
    type Error = super::StoreError;

    fn try_from(row: Row) -> Result<Self> {
        const TABLE: &str = "changes";
        let id = format!("{}/{}", row.revision, row.ordinal);
        let document = |column, text: Option<String>| -> Result<Option<Document>> {
            text.map(|text| json(TABLE, column, &id, &text)).transpose()
        };
        Ok(Self {
            revision: Revision::from_micros(row.revision),
            ordinal: u32::try_from(row.ordinal).unwrap_or(u32::MAX),
            operation: from_word(TABLE, "operation", &id, &row.operation)?,
            kind: parsed(TABLE, "kind", &id, &row.kind)?,
            workspace: if row.workspace.is_empty() {
                None
            } else {
                Some(parsed(TABLE, "workspace", &id, &row.workspace)?)
            },
            name: parsed(TABLE, "name", &id, &row.name)?,
            uid: parsed(TABLE, "uid", &id, &row.uid)?,
            before: document("before_document", row.before_document)?,
            after: document("after_document", row.after_document)?,
            actor: row.actor,
            reason: row.reason,
            request_id: row.request_id,
        })
    }
}

impl Tx {
    /// Adds a change to the history at `revision` and `ordinal`. `document` says which document it is about.
    pub async fn add_change(
        &mut self,
        revision: Revision,
        ordinal: usize,
        document: &Document,
        written: &Written<'_>,
    ) -> Result<()> {
        const SQL: &str = "INSERT INTO changes (revision, ordinal, operation, kind, workspace, name, uid, \
             before_document, after_document, actor, reason, request_id) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
        let text = |document: Option<&Document>| document.and_then(|document| serde_json::to_string(document).ok());
        let metadata = &document.metadata;
        both!(self, conn => sqlx::query(SQL)
            .bind(revision.micros()).bind(i64::try_from(ordinal).unwrap_or(i64::MAX))
            .bind(word(&written.operation)).bind(document.kind.as_str())
            .bind(metadata.workspace.as_deref().unwrap_or_default()).bind(metadata.name.as_str())
            .bind(metadata.uid.unwrap_or_default().to_string()).bind(text(written.before)).bind(text(written.after))
            .bind(written.actor).bind(written.reason.map(clean).as_deref()).bind(written.request_id)
            .execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Returns changes at or after `since`, oldest first, at most `limit` but never part of a revision. One that cannot be
    /// read is logged and left out.
    pub async fn changes(&mut self, since: Revision, filter: &ChangeFilter<'_>, limit: usize) -> Result<Vec<Change>> {
        Ok(self.changes_page(since, filter, limit).await?.0)
    }

    /// Returns what [`Tx::changes`] does, with the revision at which the page ends, readable or not; `None` if there is
    /// nothing.
    pub async fn changes_page(
        &mut self,
        since: Revision,
        filter: &ChangeFilter<'_>,
        limit: usize,
    ) -> Result<(Vec<Change>, Option<Revision>)> {
        // The last revision of the page is found first, so that no commit is cut in two.
        const SQL: &str = "SELECT * FROM changes WHERE revision >= $1 AND revision <= COALESCE((SELECT revision \
             FROM changes WHERE revision >= $1 AND ($2 = '' OR kind = $2) AND ($3 = '' OR workspace = $3) \
             AND ($4 = '' OR name = $4) ORDER BY revision, ordinal LIMIT 1 OFFSET $5), $6) AND ($2 = '' OR kind = $2) \
             AND ($3 = '' OR workspace = $3) AND ($4 = '' OR name = $4) ORDER BY revision, ordinal";
        let offset = i64::try_from(limit.saturating_sub(1)).unwrap_or(i64::MAX);
        let rows: Vec<Row> = both!(self, conn => sqlx::query_as(SQL)
            .bind(since.micros()).bind(filter.kind.map_or("", Kind::as_str))
            .bind(filter.workspace.unwrap_or_default()).bind(filter.name.unwrap_or_default())
            .bind(offset).bind(i64::MAX).fetch_all(&mut **conn).await?);
        let end = rows.last().map(|row| Revision::from_micros(row.revision));
        Ok((rows.into_iter().map(Change::try_from).filter_map(readable).collect(), end))
    }

    /// Returns the changes of one document, newest first.
    pub async fn history(&mut self, kind: Kind, workspace: &str, name: &str, limit: usize) -> Result<Vec<Change>> {
        self.history_before((kind, workspace, name), (Revision::from_micros(i64::MAX), 0), limit).await
    }

    /// Returns the changes of one document before a revision and ordinal, newest first.
    pub async fn history_before(
        &mut self,
        (kind, workspace, name): (Kind, &str, &str),
        (revision, ordinal): (Revision, u32),
        limit: usize,
    ) -> Result<Vec<Change>> {
        const SQL: &str = "SELECT * FROM changes WHERE kind = $1 AND workspace = $2 AND name = $3 \
             AND revision <= $4 AND (revision < $4 OR ordinal < $5) ORDER BY revision DESC, ordinal DESC LIMIT $6";
        let rows: Vec<Row> = both!(self, conn => sqlx::query_as(SQL)
            .bind(kind.as_str()).bind(workspace).bind(name).bind(revision.micros()).bind(i64::from(ordinal))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(&mut **conn).await?);
        rows.into_iter().map(Change::try_from).collect()
    }

    /// Returns who last changed one document at or before `at`, and why.
    pub async fn last_touch(&mut self, kind: Kind, workspace: &str, name: &str, at: Revision) -> Result<Option<Touch>> {
        const SQL: &str = "SELECT operation, actor, reason, revision FROM changes WHERE kind = $1 AND workspace = $2 \
             AND name = $3 AND revision <= $4 ORDER BY revision DESC, ordinal DESC LIMIT 1";
        let row: Option<(String, String, Option<String>, i64)> = both!(self, conn => sqlx::query_as(SQL)
            .bind(kind.as_str()).bind(workspace).bind(name).bind(at.micros()).fetch_optional(&mut **conn).await?);
        let Some((operation, actor, reason, revision)) = row else { return Ok(None) };
        let operation = from_word("changes", "operation", &revision.to_string(), &operation)?;
        let revision = Revision::from_micros(revision);
        Ok(Some(Touch { kind, name: name.to_owned(), operation, actor, reason, revision }))
    }

    /// Returns the documents of a kind as they were right after `at`: of one `name`, or all that there were after
    /// `after` in order of workspace and name.
    pub async fn documents_at(
        &mut self,
        kind: Kind,
        workspace: &str,
        name: &str,
        at: Revision,
    ) -> Result<Vec<Document>> {
        const SQL: &str = "SELECT c.* FROM changes c WHERE c.kind = $1 AND ($2 = '' OR c.workspace = $2) \
             AND ($3 = '' OR c.name = $3) AND c.revision <= $4 AND c.after_document IS NOT NULL AND NOT EXISTS \
             (SELECT 1 FROM changes d WHERE d.kind = c.kind AND d.workspace = c.workspace AND d.name = c.name \
             AND d.operation <> 'clockMoved' AND d.revision <= $4 \
             AND (d.revision > c.revision OR (d.revision = c.revision AND d.ordinal > c.ordinal))) \
             ORDER BY c.workspace, c.name";
        let rows: Vec<Row> = both!(self, conn => sqlx::query_as(SQL)
            .bind(kind.as_str()).bind(workspace).bind(name).bind(at.micros()).fetch_all(&mut **conn).await?);
        rows.into_iter().filter_map(|row| Change::try_from(row).map(|change| change.after).transpose()).collect()
    }

    /// Adds to the history that the clock was moved past a cursor that this database never gave out.
    pub async fn add_clock_change(&mut self, revision: Revision, cursor: Revision) -> Result<()> {
        const SQL: &str = "INSERT INTO changes (revision, ordinal, operation, kind, workspace, name, uid, actor, reason, \
             request_id) VALUES ($1, 0, $2, 'Workspace', '', 'default', $3, 'system', $4, '')";
        let reason = format!("a host holds the cursor {cursor}: this database was restored or replaced");
        both!(self, conn => sqlx::query(SQL)
            .bind(revision.micros()).bind(word(&Operation::ClockMoved)).bind(uuid::Uuid::nil().to_string())
            .bind(reason).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }
}
