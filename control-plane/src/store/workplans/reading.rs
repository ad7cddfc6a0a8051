//! What people read of plans.

use std::collections::BTreeMap;

use serde_json::Value;
use titan_api::{
    Name, Revision,
    workplans::{
        EventView, NodeKind, NodeSpec, NodeState, NodeView, RecentError, attempts::AttemptView, nodes::CheckResult,
    },
};
use uuid::Uuid;

use super::{COLUMNS, PlanRow, Row};
use crate::{
    fleet::workplans::Node,
    store::{Result, Tx, both, corrupt, from_word, json, over_rows, parsed, rows},
};

/// How many nodes are in a state, and with which outcome if that is the final one.
type Count = (String, Option<String>, i64);

#[derive(sqlx::FromRow)]
struct AttemptRow {
    node: String,
    number: i64,
    state: String,
    process_uid: Option<String>,
    code: Option<String>,
    failure_message: Option<String>,
    details: Option<String>,
    progress: String,
    created_at: i64,
    updated_at: i64,
}

impl AttemptRow {
    fn view(self, plan: Uuid) -> Result<(Name, AttemptView)> {
        const TABLE: &str = "workplan_attempts";
        let id = format!("{plan}/{}/{}", self.node, self.number);
        let view = AttemptView {
            number: u32::try_from(self.number).map_err(|error| corrupt(TABLE, "number", &id, error))?,
            state: from_word(TABLE, "state", &id, &self.state)?,
            process_uid: self.process_uid,
            code: self.code,
            failure_message: self.failure_message,
            details: self.details.map(|text| json(TABLE, "details", &id, &text)).transpose()?,
            progress: json(TABLE, "progress", &id, &self.progress)?,
            created_at: Revision::from_micros(self.created_at),
            updated_at: Revision::from_micros(self.updated_at),
        };
        Ok((parsed(TABLE, "node", &id, &self.node)?, view))
    }
}

type ViewRow = (String, String, String, Option<i64>, i64);

fn view(plan: Uuid, (name, node, spec, due_at, updated_at): ViewRow) -> Result<NodeView> {
    let id = format!("{plan}/{name}");
    let node: Node = json("workplan_nodes", "node", &id, &node)?;
    let spec: NodeSpec = json("workplan_nodes", "spec", &id, &spec)?;
    Ok(NodeView {
        kind: spec.kind,
        state: node.state,
        outcome: node.outcome,
        message: node.message,
        generation: node.generation,
        held: node.held,
        executor: spec.run.as_ref().map(|run| run.name().to_owned()),
        child: node.child,
        attempts: Vec::new(),
        results: Vec::new(),
        due_at: due_at.map(Revision::from_micros),
        updated_at: Revision::from_micros(updated_at),
        name: node.name,
        spec,
    })
}

impl Tx {
    /// Returns plans, the newest first, made before `before`; those of a workspace or all.
    pub async fn plans(
        &mut self,
        workspace: &str,
        before: Option<(Revision, Uuid)>,
        limit: usize,
    ) -> Result<Vec<PlanRow>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM workplans WHERE ($1 = '' OR workspace = $1) \
             AND (created_at < $2 OR (created_at = $2 AND id < $3)) ORDER BY created_at DESC, id DESC LIMIT $4"
        );
        let (at, id) = before.map_or((i64::MAX, String::new()), |(at, id)| (at.micros(), id.to_string()));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let found: Vec<Row> = both!(self, conn => sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(workspace).bind(at).bind(id).bind(limit).fetch_all(&mut **conn).await?);
        found.into_iter().map(PlanRow::try_from).collect()
    }

    /// Returns the newest plan of this name in a workspace.
    pub async fn plan_named(&mut self, workspace: &str, name: &str) -> Result<Option<PlanRow>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM workplans WHERE workspace = $1 AND name = $2 ORDER BY created_at DESC, id DESC LIMIT 1"
        );
        let found: Option<Row> = both!(self, conn => sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(workspace).bind(name).fetch_optional(&mut **conn).await?);
        found.map(PlanRow::try_from).transpose()
    }

    /// Returns how many nodes of a plan are in which state; those that are final by outcome.
    pub async fn plan_counts(&mut self, plan: Uuid) -> Result<BTreeMap<String, u64>> {
        const SQL: &str =
            "SELECT state, outcome, COUNT(*) FROM workplan_nodes WHERE plan_id = $1 GROUP BY state, outcome";
        let found: Vec<Count> =
            both!(self, conn => sqlx::query_as(SQL).bind(plan.to_string()).fetch_all(&mut **conn).await?);
        let each = found
            .into_iter()
            .map(|(state, outcome, count)| (outcome.unwrap_or(state), u64::try_from(count).unwrap_or_default()));
        Ok(each.collect())
    }

    /// Returns nodes of a plan by name: of a kind, in a state, after a name.
    pub async fn plan_node_views(
        &mut self,
        plan: Uuid,
        (kind, state, after): (Option<NodeKind>, Option<NodeState>, &str),
        limit: usize,
    ) -> Result<Vec<NodeView>> {
        const SQL: &str = "SELECT name, node, spec, due_at, updated_at FROM workplan_nodes WHERE plan_id = $1 \
             AND ($2 = '' OR kind = $2) AND ($3 = '' OR state = $3) AND name > $4 ORDER BY name LIMIT $5";
        let (kind, state) = (kind.map_or("", NodeKind::as_str), state.map_or("", NodeState::as_str));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let found: Vec<ViewRow> = both!(self, conn => sqlx::query_as(SQL)
            .bind(plan.to_string()).bind(kind).bind(state).bind(after).bind(limit).fetch_all(&mut **conn).await?);
        let mut views = found.into_iter().map(|row| view(plan, row)).collect::<Result<Vec<_>>>()?;
        self.attach(plan, &mut views, false).await?;
        Ok(views)
    }

    /// Returns the nodes of a plan that have begun and not ended.
    pub async fn plan_current(&mut self, plan: Uuid, limit: usize) -> Result<Vec<NodeView>> {
        const SQL: &str = "SELECT name, node, spec, due_at, updated_at FROM workplan_nodes WHERE plan_id = $1 \
             AND state IN ('waiting', 'attempting', 'awaitingGroup') ORDER BY updated_at, name LIMIT $2";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let found: Vec<ViewRow> = both!(self, conn => sqlx::query_as(SQL)
            .bind(plan.to_string()).bind(limit).fetch_all(&mut **conn).await?);
        let mut views = found.into_iter().map(|row| view(plan, row)).collect::<Result<Vec<_>>>()?;
        self.attach(plan, &mut views, false).await?;
        Ok(views)
    }

    /// Returns a node of a plan with all its attempts and results.
    pub async fn plan_node_view(&mut self, plan: Uuid, name: &Name) -> Result<Option<NodeView>> {
        const SQL: &str =
            "SELECT name, node, spec, due_at, updated_at FROM workplan_nodes WHERE plan_id = $1 AND name = $2";
        let found: Option<ViewRow> = both!(self, conn => sqlx::query_as(SQL)
            .bind(plan.to_string()).bind(name.as_str()).fetch_optional(&mut **conn).await?);
        let Some(row) = found else { return Ok(None) };
        let mut views = vec![view(plan, row)?];
        self.attach(plan, &mut views, true).await?;
        Ok(views.pop())
    }

    /// Gives nodes their attempts, all or the last, and their results.
    async fn attach(&mut self, plan: Uuid, views: &mut [NodeView], all: bool) -> Result<()> {
        let sql = over_rows!(
            self,
            "SELECT a.node, a.number, a.state, a.process_uid, a.code, a.failure_message, a.details, a.progress, \
             a.created_at, a.updated_at FROM",
            "JOIN workplan_attempts a ON a.plan_id = $2 AND a.node = j.value ->> 0 \
             ORDER BY a.node, a.number"
        );
        let results = over_rows!(
            self,
            "SELECT r.node, r.owner, r.data, r.failure_message, r.created_at, r.finalized_at FROM",
            "JOIN workplan_results r ON r.plan_id = $2 AND r.node = j.value ->> 0 ORDER BY r.node, r.number"
        );
        let names = rows(views.iter().map(|view| [view.name.as_str()]));
        let id = plan.to_string();
        let found: Vec<AttemptRow> = both!(self, conn => sqlx::query_as(sql)
            .bind(names.as_str()).bind(id.as_str()).fetch_all(&mut **conn).await?);
        type ResultRow = (String, String, Option<String>, Option<String>, i64, Option<i64>);
        let answered: Vec<ResultRow> = both!(self, conn => sqlx::query_as(results)
            .bind(names.as_str()).bind(id.as_str()).fetch_all(&mut **conn).await?);
        let mut by_name: BTreeMap<Name, &mut NodeView> =
            views.iter_mut().map(|view| (view.name.clone(), view)).collect();
        for row in found {
            let (name, attempt) = row.view(plan)?;
            let Some(view) = by_name.get_mut(&name) else { continue };
            if !all {
                view.attempts.clear();
            }
            view.attempts.push(attempt);
        }
        for (name, owner, data, failure_message, created, finalized) in answered {
            let Some(view) = by_name.get_mut(name.as_str()) else { continue };
            view.results.push(CheckResult {
                data: data.map_or(Ok(Value::Null), |text| json("workplan_results", "data", &name, &text))?,
                owner,
                created_at: Revision::from_micros(created),
                finalized_at: finalized.map(Revision::from_micros),
                failure_message,
            });
        }
        Ok(())
    }

    /// Returns the last attempts of a plan that went wrong, the newest first.
    pub async fn plan_errors(&mut self, plan: Uuid, limit: usize) -> Result<Vec<RecentError>> {
        const SQL: &str = "SELECT node, number, code, failure_message, updated_at FROM workplan_attempts \
             WHERE plan_id = $1 AND code IS NOT NULL ORDER BY updated_at DESC, node, number DESC LIMIT $2";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let found: Vec<(String, i64, String, Option<String>, i64)> = both!(self, conn => sqlx::query_as(SQL)
            .bind(plan.to_string()).bind(limit).fetch_all(&mut **conn).await?);
        let each = found.into_iter().map(|(node, number, code, message, at)| {
            Ok(RecentError {
                node: parsed("workplan_attempts", "node", &plan.to_string(), &node)?,
                number: u32::try_from(number).unwrap_or_default(),
                code,
                message: message.unwrap_or_default(),
                at: Revision::from_micros(at),
            })
        });
        each.collect()
    }

    /// Returns events of a plan after the one of this number, oldest first.
    pub async fn plan_events(&mut self, plan: Uuid, after: i64, limit: usize) -> Result<Vec<EventView>> {
        const SQL: &str = "SELECT number, at, actor, event FROM workplan_events WHERE plan_id = $1 AND number > $2 \
             ORDER BY number LIMIT $3";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let found: Vec<(i64, i64, String, String)> = both!(self, conn => sqlx::query_as(SQL)
            .bind(plan.to_string()).bind(after).bind(limit).fetch_all(&mut **conn).await?);
        let each = found.into_iter().map(|(number, at, actor, event)| {
            let event = json("workplan_events", "event", &format!("{plan}/{number}"), &event)?;
            Ok(EventView { number, at: Revision::from_micros(at), actor, event })
        });
        each.collect()
    }
}
