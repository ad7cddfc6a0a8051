//! Tasks: units of asynchronous work.
//!
//! Who does one holds it for a while: the row says who, until when, and by which token. A holder that was not heard of in
//! time is replaced, and what it writes afterwards is refused.

use std::collections::BTreeMap;

use serde_json::Value;
use titan_api::{
    Revision, limits,
    tasks::{Task, TaskFilter, TaskState},
};
use uuid::Uuid;

use super::{Connection, Result, StoreError, Tx, both, clean, corrupt, from_word, json, over_rows, parsed, rows};

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
    workspace: Option<String>,
    parent: Option<String>,
    attempts: i64,
    error: Option<String>,
    due_at: Option<i64>,
    holder: Option<String>,
    token: i64,
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
            workspace: row.workspace.map(|name| parsed(TABLE, "workspace", id, &name)).transpose()?,
            parent: row.parent.map(|parent| parsed(TABLE, "parent", id, &parent)).transpose()?,
            attempts: u32::try_from(row.attempts).map_err(|error| corrupt(TABLE, "attempts", id, error))?,
            due_at: row.due_at.map(Revision::from_micros),
            children: BTreeMap::new(),
            error: row.error,
            holder: row.holder,
            kind: row.kind,
            subject: row.subject,
        })
    }
}

/// A task that was taken; every write for it names its token.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// The task.
    pub task: Task,
    /// Another one each time that it is taken.
    pub token: i64,
}

/// What became of a task that was taken.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// It was done.
    Completed(Value),
    /// It will not be done.
    Failed(String),
    /// It was not done, and is to be tried again at this time.
    Again(Revision, String),
    /// What it waits for has not come about; it is looked at again at this time, and no attempt is counted.
    Waits(Revision, Value),
}

impl Tx {
    /// Adds a task.
    pub async fn add_task(&mut self, task: &Task) -> Result<()> {
        const SQL: &str = "INSERT INTO tasks (id, kind, state, subject, payload, result, created_at, updated_at, workspace, \
             parent, attempts, error, due_at, holder) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
        both!(self, conn => sqlx::query(SQL)
            .bind(task.id.to_string()).bind(task.kind.as_str()).bind(task.state.as_str()).bind(task.subject.as_str())
            .bind(task.payload.to_string()).bind(task.result.as_ref().map(Value::to_string))
            .bind(task.created_at.micros()).bind(task.updated_at.micros())
            .bind(task.workspace.as_ref().map(|name| name.as_str()))
            .bind(task.parent.map(|parent| parent.to_string())).bind(i64::from(task.attempts))
            .bind(task.error.as_deref()).bind(task.due_at.map(Revision::micros)).bind(task.holder.as_deref())
            .execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Returns a task, with how many parts of it are in which state.
    pub async fn task(&mut self, id: Uuid) -> Result<Option<Task>> {
        const SQL: &str = "SELECT * FROM tasks WHERE id = $1";
        let row: Option<Row> =
            both!(self, conn => sqlx::query_as(SQL).bind(id.to_string()).fetch_optional(&mut **conn).await?);
        let Some(row) = row else { return Ok(None) };
        let mut tasks = [Task::try_from(row)?];
        self.count_children(&mut tasks).await?;
        let [task] = tasks;
        Ok(Some(task))
    }

    /// Returns tasks, the newest first, made before `before`.
    pub async fn tasks(
        &mut self,
        filter: &TaskFilter,
        before: Option<(Revision, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Task>> {
        const SQL: &str = "SELECT * FROM tasks WHERE ($1 = '' OR state = $1) AND ($2 = '' OR kind = $2) \
             AND ($3 = '' OR workspace = $3) AND ($4 = '' OR parent = $4) AND ($5 = '' OR subject = $5) \
             AND (created_at < $6 OR (created_at = $6 AND id < $7)) ORDER BY created_at DESC, id DESC LIMIT $8";
        let (at, id) = before.map_or((i64::MAX, String::new()), |(at, id)| (at.micros(), id.to_string()));
        let (kind, subject) =
            (filter.kind.as_deref().unwrap_or_default(), filter.subject.as_deref().unwrap_or_default());
        let parent = filter.parent.map(|parent| parent.to_string()).unwrap_or_default();
        let found: Vec<Row> = both!(self, conn => sqlx::query_as(SQL)
            .bind(filter.state.map_or("", TaskState::as_str)).bind(clean(kind).as_ref())
            .bind(filter.workspace.as_deref().unwrap_or_default()).bind(parent).bind(clean(subject).as_ref())
            .bind(at).bind(id).bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(&mut **conn).await?);
        let mut tasks = found.into_iter().map(Task::try_from).collect::<Result<Vec<_>>>()?;
        self.count_children(&mut tasks).await?;
        Ok(tasks)
    }

    async fn count_children(&mut self, tasks: &mut [Task]) -> Result<()> {
        let sql = over_rows!(
            self,
            "SELECT t.parent, t.state, COUNT(*) FROM",
            "JOIN tasks t ON t.parent = j.value ->> 0 GROUP BY t.parent, t.state"
        );
        let ids = rows(tasks.iter().map(|task| [task.id]));
        let counts: Vec<(String, String, i64)> =
            both!(self, conn => sqlx::query_as(sql).bind(ids).fetch_all(&mut **conn).await?);
        for (parent, state, count) in counts {
            let parent: Uuid = parsed("tasks", "parent", &parent, &parent)?;
            for task in tasks.iter_mut().filter(|task| task.id == parent) {
                task.children.insert(state.clone(), u64::try_from(count).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Ends the tasks of a kind and subject that have not ended, and those that they were the last parts of.
    pub async fn end_tasks(
        &mut self,
        kind: &str,
        subject: &str,
        state: TaskState,
        result: &Value,
        now: Revision,
    ) -> Result<()> {
        const SQL: &str = "UPDATE tasks SET state = $3, result = $4, updated_at = $5, due_at = NULL, holder = NULL \
             WHERE kind = $1 AND subject = $2 AND state IN ('pending', 'running') RETURNING parent";
        let parents: Vec<(Option<String>,)> = both!(self, conn => sqlx::query_as(SQL).bind(kind).bind(subject)
            .bind(state.as_str()).bind(result.to_string()).bind(now.micros()).fetch_all(&mut **conn).await?);
        for (parent,) in parents {
            if let Some(parent) = parent {
                self.end_with_children(&parent, now).await?;
            }
        }
        Ok(())
    }

    /// Brings a task of which only its parts do anything to where they are: it ends with the last of them.
    async fn end_with_children(&mut self, parent: &str, now: Revision) -> Result<()> {
        // Held first: of two last parts that end at once the second sees the first.
        const HOLD: &str =
            "UPDATE tasks SET updated_at = $2 WHERE id = $1 AND state IN ('pending', 'running') AND kind = $3";
        const SQL: &str = "UPDATE tasks SET updated_at = $2, state = CASE \
             WHEN EXISTS (SELECT 1 FROM tasks c WHERE c.parent = $1 AND c.state IN ('pending', 'running')) THEN 'running' \
             WHEN EXISTS (SELECT 1 FROM tasks c WHERE c.parent = $1 AND c.state = 'failed') THEN 'failed' \
             WHEN EXISTS (SELECT 1 FROM tasks c WHERE c.parent = $1 AND c.state = 'completed') THEN 'completed' \
             ELSE 'cancelled' END WHERE id = $1 AND state IN ('pending', 'running') AND kind = $3";
        for sql in [HOLD, SQL] {
            both!(self, conn => sqlx::query(sql).bind(parent).bind(now.micros()).bind(titan_api::tasks::ENROL_ALL)
                .execute(&mut **conn).await.map(drop)?);
        }
        Ok(())
    }

    /// Brings the task of a plan to where the plan is.
    pub async fn move_task(&mut self, id: Uuid, state: TaskState, result: Option<&Value>, now: Revision) -> Result<()> {
        const SQL: &str = "UPDATE tasks SET state = $2, result = $3, updated_at = $4 \
             WHERE id = $1 AND state IN ('pending', 'running') AND state <> $2";
        both!(self, conn => sqlx::query(SQL).bind(id.to_string()).bind(state.as_str())
            .bind(result.map(Value::to_string)).bind(now.micros()).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Takes the task that is due first for `holder` until `until`: one that is pending, or whose holder was not heard of in
    /// time.
    pub async fn take_task(&mut self, holder: &str, now: Revision, until: Revision) -> Result<Option<Held>> {
        macro_rules! sql {
            ($lock:literal) => {
                concat!(
                    "UPDATE tasks SET state = 'running', holder = $1, token = token + 1, attempts = attempts + 1, \
                     due_at = $3, updated_at = $2 WHERE id = (SELECT id FROM tasks WHERE due_at <= $2 \
                     AND state IN ('pending', 'running') ORDER BY due_at, id LIMIT 1",
                    $lock,
                    ") RETURNING *"
                )
            };
        }
        let sql = match self.connection {
            Connection::Sqlite(_) => sql!(""),
            Connection::Postgres(_) => sql!(" FOR UPDATE SKIP LOCKED"),
        };
        let row: Option<Row> = both!(self, conn => sqlx::query_as(sql).bind(holder).bind(now.micros())
            .bind(until.micros()).fetch_optional(&mut **conn).await?);
        row.map(|row| Ok(Held { token: row.token, task: row.try_into()? })).transpose()
    }

    /// Keeps a task until `until`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Fenced`] if another holds it, or it has ended.
    pub async fn keep_task(&mut self, held: &Held, until: Revision) -> Result<()> {
        const SQL: &str = "UPDATE tasks SET due_at = $3 WHERE id = $1 AND token = $2 AND state = 'running'";
        let kept = both!(self, conn => sqlx::query(SQL).bind(held.task.id.to_string()).bind(held.token)
            .bind(until.micros()).execute(&mut **conn).await?.rows_affected());
        if kept == 1 { Ok(()) } else { Err(StoreError::Fenced("task")) }
    }

    /// Gives back a task that was taken.
    ///
    /// # Errors
    ///
    /// [`StoreError::Fenced`] if another holds it, or it has ended.
    pub async fn end_task(&mut self, held: &Held, ended: &Ended, now: Revision) -> Result<()> {
        const SQL: &str = "UPDATE tasks SET state = $3, result = COALESCE($4, result), error = $5, due_at = $6, \
             attempts = attempts - $7, holder = NULL, updated_at = $8 WHERE id = $1 AND token = $2 AND state = 'running'";
        let (state, result, error, due, uncounted) = match ended {
            Ended::Completed(result) => (TaskState::Completed, Some(result), None, None, 0),
            Ended::Failed(error) => (TaskState::Failed, None, Some(error), None, 0),
            Ended::Again(due, error) => (TaskState::Pending, None, Some(error), Some(due), 0),
            Ended::Waits(due, result) => (TaskState::Pending, Some(result), None, Some(due), 1_i64),
        };
        let error = error.map(|error| clean(error).chars().take(limits::SIGNAL_TEXT_BYTES).collect::<String>());
        let written = both!(self, conn => sqlx::query(SQL).bind(held.task.id.to_string()).bind(held.token)
            .bind(state.as_str()).bind(result.map(Value::to_string)).bind(error)
            .bind(due.map(|due| due.micros())).bind(uncounted).bind(now.micros())
            .execute(&mut **conn).await?.rows_affected());
        if written == 1 { Ok(()) } else { Err(StoreError::Fenced("task")) }
    }

    /// Returns when the next task is due.
    pub async fn next_task_due(&mut self) -> Result<Option<Revision>> {
        const SQL: &str = "SELECT MIN(due_at) FROM tasks WHERE due_at IS NOT NULL";
        let (due,): (Option<i64>,) = both!(self, conn => sqlx::query_as(SQL).fetch_one(&mut **conn).await?);
        Ok(due.map(Revision::from_micros))
    }

    /// Returns how many hosts have yet to let go of a deployment, or deployments a host of.
    pub async fn assignments_left(&mut self, uid: Uuid) -> Result<u64> {
        const SQL: &str = "SELECT (SELECT COUNT(*) FROM assignments WHERE deployment = $1) \
             + (SELECT COUNT(*) FROM assignments WHERE host = $1)";
        let (count,): (i64,) =
            both!(self, conn => sqlx::query_as(SQL).bind(super::bytes_of(uid)).fetch_one(&mut **conn).await?);
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// Forgets tasks that ended before `before`, at most `limit` of them. Returns how many went.
    pub async fn forget_tasks(&mut self, before: Revision, limit: i64) -> Result<u64> {
        const SQL: &str = "DELETE FROM tasks WHERE id IN (SELECT t.id FROM tasks t WHERE t.updated_at < $1 \
             AND t.state IN ('completed', 'failed', 'cancelled') ORDER BY t.created_at LIMIT $2)";
        Ok(both!(self, conn => sqlx::query(SQL).bind(before.micros()).bind(limit)
            .execute(&mut **conn).await?.rows_affected()))
    }
}
