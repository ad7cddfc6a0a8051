//! Tasks: units of asynchronous work.

use serde_json::Value;
use titan_api::{
    Revision,
    tasks::{Task, TaskState},
};
use uuid::Uuid;

use super::{Result, Tx, both, from_word, json, parsed};

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    kind: String,
    state: String,
    subject: String,
    payload: String,
    result: Option<String>,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for Task {
    type Error = super::StoreError;

    fn try_from(row: Row) -> Result<Self> {
        const TABLE: &str = "tasks";
        let id = row.id.as_str();
        Ok(Self {
            id: parsed(TABLE, "id", id, id)?,
            state: from_word(TABLE, "state", id, &row.state)?,
            payload: json(TABLE, "payload", id, &row.payload)?,
            result: row.result.map(|text| json(TABLE, "result", id, &text)).transpose()?,
            created_at: Revision::from_micros(row.created_at),
            updated_at: Revision::from_micros(row.updated_at),
            kind: row.kind,
            subject: row.subject,
        })
    }
}

impl Tx {
    /// Adds a task.
    pub async fn add_task(&mut self, task: &Task) -> Result<()> {
        const SQL: &str = "INSERT INTO tasks (id, kind, state, subject, payload, result, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        both!(self, conn => sqlx::query(SQL)
            .bind(task.id.to_string()).bind(task.kind.as_str()).bind(task.state.as_str()).bind(task.subject.as_str())
            .bind(task.payload.to_string()).bind(task.result.as_ref().map(Value::to_string))
            .bind(task.created_at.micros()).bind(task.updated_at.micros())
            .execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Returns a task.
    pub async fn task(&mut self, id: Uuid) -> Result<Option<Task>> {
        const SQL: &str = "SELECT * FROM tasks WHERE id = $1";
        let row: Option<Row> =
            both!(self, conn => sqlx::query_as(SQL).bind(id.to_string()).fetch_optional(&mut **conn).await?);
        row.map(Task::try_from).transpose()
    }

    /// Returns the newest tasks.
    pub async fn tasks(&mut self, limit: usize) -> Result<Vec<Task>> {
        const SQL: &str = "SELECT * FROM tasks ORDER BY created_at DESC, id DESC LIMIT $1";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<Row> = both!(self, conn => sqlx::query_as(SQL).bind(limit).fetch_all(&mut **conn).await?);
        rows.into_iter().map(Task::try_from).collect()
    }

    /// Ends the tasks of a kind and subject that have not ended.
    pub async fn end_tasks(
        &mut self,
        kind: &str,
        subject: &str,
        state: TaskState,
        result: &Value,
        now: Revision,
    ) -> Result<()> {
        const SQL: &str = "UPDATE tasks SET state = $3, result = $4, updated_at = $5 \
             WHERE kind = $1 AND subject = $2 AND state IN ('pending', 'running')";
        both!(self, conn => sqlx::query(SQL).bind(kind).bind(subject).bind(state.as_str()).bind(result.to_string())
            .bind(now.micros()).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }
}
