//! What a step of a plan writes, in a few statements however much it did.

use serde_json::{Value, json};
use titan_api::{
    Name, Revision,
    strategies::ReleaseStep,
    workplans::{AttemptState, Event, Executor},
};
use uuid::Uuid;

use super::{BUSY_QUEUE, OWN_QUEUE, Parent, PlanRow, TakenSignal, UNDO_QUEUE};
use crate::{
    fleet::workplans::{Node, Plan, Step, tally},
    store::{Result, StoreError, Tx, both, clean, over_rows},
};

fn text<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn lines(values: Vec<Value>) -> String {
    Value::Array(values).to_string()
}

/// Returns the queue in which the attempt of a node waits.
fn queue(node: &Node) -> Option<&str> {
    node.live().filter(|attempt| attempt.state == AttemptState::Scheduled)?;
    match node.spec.run.as_ref()? {
        Executor::External(external) => Some(external.queue.as_str()),
        Executor::Http(_) if node.spec.compensation => Some(UNDO_QUEUE),
        Executor::Http(_) | Executor::Release(ReleaseStep::Preflight(_)) => Some(BUSY_QUEUE),
        _ => Some(OWN_QUEUE),
    }
}

/// Returns what changes of a node's row with each step. The plan is in it: a database that knew it beforehand would rather
/// look through all nodes of the plan than look these up.
fn columns(plan: &Plan, node: &Node, wall: i64) -> Value {
    let timer = node.timer();
    let due = timer.and_then(|timer| plan.wall(timer));
    json!([node.name, node.state, node.outcome, node.is_ready(), text(node), timer, due, queue(node), wall, plan.id])
}

impl Tx {
    /// Makes the row of a plan that nothing has happened to.
    pub(crate) async fn add_plan(
        &mut self,
        plan: &Plan,
        (workspace, name): (&Name, &str),
        parent: Option<&Parent>,
        wall: Revision,
    ) -> Result<()> {
        const SQL: &str = "INSERT INTO workplans (id, workspace, name, state, version, plan, events, parent, parent_node, \
             parent_attempt, live, due_at, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, 0, $5, 0, $6, $7, $8, $9, NULL, $10, $10)";
        both!(self, conn => sqlx::query(SQL)
            .bind(plan.id.to_string()).bind(workspace.as_str()).bind(name).bind(plan.state.as_str()).bind(text(plan))
            .bind(parent.map(|parent| parent.plan.to_string())).bind(parent.map(|parent| parent.node.to_string()))
            .bind(parent.map(|parent| i64::from(parent.number))).bind(plan.goes_on()).bind(wall.micros())
            .execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Writes what a step did, with its events. Fails if the plan moved on since `row` was read.
    pub(crate) async fn put_step(&mut self, row: &PlanRow, step: &Step, actor: &str, wall: Revision) -> Result<()> {
        const SQL: &str = "UPDATE workplans SET state = $3, version = version + 1, plan = $4, events = $5, live = $6, \
             due_at = $7, updated_at = $8 WHERE id = $1 AND version = $2";
        if step.events.is_empty() {
            // A heartbeat: nothing happened, and nobody who read the plan before is behind.
            return self.put_plan_nodes(step, wall).await;
        }
        let plan = &step.plan;
        let events = row.events + i64::try_from(step.events.len()).unwrap_or(i64::MAX);
        let due = plan.deadline().and_then(|deadline| plan.wall(deadline));
        let moved = both!(self, conn => sqlx::query(SQL)
            .bind(plan.id.to_string()).bind(row.version).bind(plan.state.as_str()).bind(text(plan)).bind(events)
            .bind(plan.goes_on()).bind(due).bind(wall.micros())
            .execute(&mut **conn).await?.rows_affected());
        if moved != 1 {
            return Err(StoreError::Overtaken(plan.id));
        }
        self.add_plan_events(row, step, actor, wall).await?;
        self.put_plan_nodes(step, wall).await?;
        self.put_plan_edges(step).await?;
        self.put_plan_attempts(plan.id, &step.events, wall).await?;
        self.add_plan_results(row, step, wall).await?;
        if step.shifted {
            self.shift_plan(plan).await?;
        }
        Ok(())
    }

    async fn add_plan_events(&mut self, row: &PlanRow, step: &Step, actor: &str, wall: Revision) -> Result<()> {
        if step.events.is_empty() {
            return Ok(());
        }
        let sql = over_rows!(
            self,
            "INSERT INTO workplan_events (plan_id, number, at, actor, event) \
             SELECT $2, CAST(j.value ->> 0 AS BIGINT), $3, $4, j.value ->> 1 FROM",
            ""
        );
        let numbered = (row.events + 1..).zip(&step.events);
        let events = lines(numbered.map(|(number, event)| json!([number, text(event)])).collect());
        both!(self, conn => sqlx::query(sql).bind(events).bind(step.plan.id.to_string()).bind(wall.micros()).bind(actor)
            .execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    async fn put_plan_nodes(&mut self, step: &Step, wall: Revision) -> Result<()> {
        let id = step.plan.id.to_string();
        let gone: Vec<Value> = step.removed.iter().chain(step.written.keys()).map(|name| json!([name])).collect();
        if !gone.is_empty() {
            let delete = over_rows!(
                self,
                "DELETE FROM workplan_nodes WHERE plan_id = $2 AND name IN (SELECT j.value ->> 0 FROM",
                ")"
            );
            let gone = lines(gone);
            both!(self, conn => sqlx::query(delete).bind(gone).bind(id.as_str()).execute(&mut **conn).await.map(drop)?);
        }
        let (written, changed): (Vec<_>, Vec<_>) =
            step.nodes.iter().partition(|node| step.written.contains_key(&node.name));
        if !written.is_empty() {
            let sql = over_rows!(
                self,
                "INSERT INTO workplan_nodes (plan_id, name, state, outcome, ready, node, timer, due_at, queue, updated_at, \
                 kind, says, spec) SELECT $2, j.value ->> 0, j.value ->> 1, j.value ->> 2, \
                 CAST(j.value ->> 3 AS BOOLEAN), j.value ->> 4, CAST(j.value ->> 5 AS BIGINT), \
                 CAST(j.value ->> 6 AS BIGINT), j.value ->> 7, CAST(j.value ->> 8 AS BIGINT), j.value ->> 10, \
                 j.value ->> 11, j.value ->> 12 FROM",
                ""
            );
            let each = written.iter().map(|node| {
                let mut row = columns(&step.plan, node, wall.micros());
                if let Value::Array(row) = &mut row {
                    let spec = step.written.get(&node.name).map(text).unwrap_or_default();
                    row.extend([json!(node.spec.kind), json!(text(&node.spec)), json!(spec)]);
                }
                row
            });
            let nodes = lines(each.collect());
            both!(self, conn => sqlx::query(sql).bind(nodes).bind(id.as_str()).execute(&mut **conn).await.map(drop)?);
        }
        if !changed.is_empty() {
            let sql = over_rows!(
                self,
                "UPDATE workplan_nodes SET state = j.value ->> 1, outcome = j.value ->> 2, \
                 ready = CAST(j.value ->> 3 AS BOOLEAN), node = j.value ->> 4, timer = CAST(j.value ->> 5 AS BIGINT), \
                 due_at = CAST(j.value ->> 6 AS BIGINT), queue = j.value ->> 7, \
                 updated_at = CAST(j.value ->> 8 AS BIGINT) FROM",
                "WHERE plan_id = j.value ->> 9 AND name = j.value ->> 0"
            );
            let nodes = lines(changed.iter().map(|node| columns(&step.plan, node, wall.micros())).collect());
            both!(self, conn => sqlx::query(sql).bind(nodes).execute(&mut **conn).await.map(drop)?);
        }
        Ok(())
    }

    async fn put_plan_edges(&mut self, step: &Step) -> Result<()> {
        let id = step.plan.id.to_string();
        let sources: Vec<Value> = step.removed.iter().chain(step.written.keys()).map(|name| json!([name])).collect();
        if !sources.is_empty() {
            let sql = over_rows!(
                self,
                "DELETE FROM workplan_edges WHERE plan_id = $2 AND source IN (SELECT j.value ->> 0 FROM",
                ")"
            );
            let sources = lines(sources);
            both!(self, conn => sqlx::query(sql).bind(sources).bind(id.as_str()).execute(&mut **conn).await.map(drop)?);
        }
        let links = step.written.iter().flat_map(|(name, spec)| tally::links(name, spec));
        let links: Vec<Value> =
            links.map(|link| json!([link.target, link.source, link.group, link.condition.as_str()])).collect();
        if !links.is_empty() {
            let sql = over_rows!(
                self,
                "INSERT INTO workplan_edges (plan_id, target, source, group_number, condition) \
                 SELECT DISTINCT $2, j.value ->> 0, j.value ->> 1, CAST(j.value ->> 2 AS BIGINT), j.value ->> 3 FROM",
                ""
            );
            let links = lines(links);
            both!(self, conn => sqlx::query(sql).bind(links).bind(id.as_str()).execute(&mut **conn).await.map(drop)?);
        }
        let resolved = step.events.iter().filter_map(|event| match event {
            Event::Edge { node, target, condition, group, met } => {
                Some(json!([target, node, group, condition.as_str(), met, step.plan.id]))
            }
            _ => None,
        });
        let resolved: Vec<Value> = resolved.collect();
        if !resolved.is_empty() {
            let sql = over_rows!(
                self,
                "UPDATE workplan_edges SET met = CAST(j.value ->> 4 AS BOOLEAN) FROM",
                "WHERE plan_id = j.value ->> 5 AND target = j.value ->> 0 AND source = j.value ->> 1 \
                 AND group_number = CAST(j.value ->> 2 AS BIGINT) AND condition = j.value ->> 3"
            );
            let resolved = lines(resolved);
            both!(self, conn => sqlx::query(sql).bind(resolved).execute(&mut **conn).await.map(drop)?);
        }
        Ok(())
    }

    async fn put_plan_attempts(&mut self, plan: Uuid, events: &[Event], wall: Revision) -> Result<()> {
        // Attempts of a node end before the next one begins: in the order of the events, so that never two are live.
        const SQL: &str = "INSERT INTO workplan_attempts (plan_id, node, number, state, process_uid, code, failure_message, \
             details, progress, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, '[]', $9, $9) \
             ON CONFLICT (plan_id, node, number) DO UPDATE SET state = excluded.state, \
             process_uid = COALESCE(excluded.process_uid, workplan_attempts.process_uid), code = excluded.code, \
             failure_message = excluded.failure_message, details = excluded.details, updated_at = excluded.updated_at";
        let mut last: Vec<&Event> = Vec::new();
        for event in events {
            let Event::Attempt { node, number, process_uid, .. } = event else { continue };
            // What is passed through within one step is one write, unless it says who took it.
            if let Some(Event::Attempt { node: before, number: other, process_uid: none, .. }) = last.last()
                && (before, other) == (node, number)
                && (none.is_none() || process_uid.is_some())
            {
                last.pop();
            }
            last.push(event);
        }
        for event in last {
            let Event::Attempt { node, number, state, process_uid, code, message, details, .. } = event else {
                continue;
            };
            both!(self, conn => sqlx::query(SQL)
                .bind(plan.to_string()).bind(node.as_str()).bind(i64::from(*number)).bind(state.as_str())
                .bind(process_uid.as_deref()).bind(code.as_deref()).bind(message.as_deref().map(|text| clean(text).into_owned()))
                .bind(details.as_ref().map(Value::to_string)).bind(wall.micros())
                .execute(&mut **conn).await.map(drop)?);
        }
        Ok(())
    }

    async fn add_plan_results(&mut self, row: &PlanRow, step: &Step, wall: Revision) -> Result<()> {
        const SQL: &str = "INSERT INTO workplan_results (plan_id, node, number, owner, data, failure_message, created_at, \
             finalized_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $7)";
        for (number, event) in (row.events + 1..).zip(&step.events) {
            let Event::Result { node, owner, failure_message, data, late: false } = event else { continue };
            both!(self, conn => sqlx::query(SQL)
                .bind(step.plan.id.to_string()).bind(node.as_str()).bind(number).bind(owner.as_str())
                .bind((!data.is_null()).then(|| data.to_string())).bind(failure_message.as_deref().map(|text| clean(text).into_owned())).bind(wall.micros())
                .execute(&mut **conn).await.map(drop)?);
        }
        Ok(())
    }

    /// Brings the times of all nodes in line with a clock that began or ceased to stand still.
    async fn shift_plan(&mut self, plan: &Plan) -> Result<()> {
        const SQL: &str = "UPDATE workplan_nodes SET due_at = CASE WHEN $2 THEN timer + $3 ELSE NULL END \
             WHERE plan_id = $1 AND timer IS NOT NULL";
        let runs = plan.wall(0).is_some();
        both!(self, conn => sqlx::query(SQL).bind(plan.id.to_string()).bind(runs).bind(plan.frozen)
            .execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Adds what a worker says to its attempt; the oldest go when there are more than `most`.
    pub(crate) async fn add_progress(
        &mut self,
        plan: Uuid,
        (node, number): (&Name, u32),
        progress: &Value,
        most: usize,
    ) -> Result<()> {
        const READ: &str = "SELECT progress FROM workplan_attempts WHERE plan_id = $1 AND node = $2 AND number = $3";
        const WRITE: &str =
            "UPDATE workplan_attempts SET progress = $4 WHERE plan_id = $1 AND node = $2 AND number = $3";
        let (id, number) = (plan.to_string(), i64::from(number));
        let row: Option<(String,)> = both!(self, conn => sqlx::query_as(READ)
            .bind(id.as_str()).bind(node.as_str()).bind(number).fetch_optional(&mut **conn).await?);
        let Some((before,)) = row else { return Ok(()) };
        let mut all: Vec<Value> = serde_json::from_str(&before).unwrap_or_default();
        all.push(progress.clone());
        all.drain(..all.len().saturating_sub(most));
        both!(self, conn => sqlx::query(WRITE)
            .bind(id.as_str()).bind(node.as_str()).bind(number).bind(text(&all)).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Writes down that a signal was taken.
    pub(crate) async fn take_signal(&mut self, plan: Uuid, taken: &TakenSignal) -> Result<()> {
        const SQL: &str = "INSERT INTO workplan_signals (plan_id, request_id, signal, request, actor, version, accepted_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let request = &taken.request;
        both!(self, conn => sqlx::query(SQL)
            .bind(plan.to_string()).bind(request.request_id.as_str()).bind(request.signal.as_str()).bind(text(request))
            .bind(taken.actor.as_str()).bind(taken.version).bind(taken.accepted_at.micros())
            .execute(&mut **conn).await.map(drop)?);
        Ok(())
    }
}
