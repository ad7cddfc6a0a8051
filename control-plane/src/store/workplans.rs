//! Plans: their rows, and what a step reads of them. What it writes is in [`steps`], what people read in [`reading`].

mod reading;
mod steps;

use titan_api::{
    Name, Revision,
    workplans::{Condition, NodeSpec, SignalRequest},
};
use uuid::Uuid;

use super::{Connection, Result, Tx, both, clean, corrupt, json, over_rows, parsed, readable, rows};
use crate::fleet::workplans::{Link, Listing, Node, Plan};

/// A plan's row.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanRow {
    /// What the engine knows of it.
    pub plan: Plan,
    /// Its workspace.
    pub workspace: Name,
    /// Its name.
    pub name: String,
    /// Counts its steps.
    pub version: i64,
    /// The number of its last event.
    pub events: i64,
    /// The plan and stage that it was made for.
    pub parent: Option<Parent>,
    /// When it was made.
    pub created_at: Revision,
}

/// The plan and stage that a plan was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// The plan.
    pub plan: Uuid,
    /// The stage.
    pub node: Name,
    /// Its attempt.
    pub number: u32,
}

/// An attempt that somebody may take, or has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// The plan.
    pub plan: Uuid,
    /// The node.
    pub node: Name,
    /// The attempt.
    pub number: u32,
}

/// A signal that was taken.
#[derive(Debug, Clone, PartialEq)]
pub struct TakenSignal {
    /// What was told.
    pub request: SignalRequest,
    /// Who told it.
    pub actor: String,
    /// The plan's version after it.
    pub version: i64,
    /// When.
    pub accepted_at: Revision,
}

/// The queue of attempts that the control plane takes itself and that mostly wait: stages of releases and their way back,
/// health, measurements. No name of a queue has a colon.
pub const OWN_QUEUE: &str = "titan:own";
/// The queue of those that keep it busy: requests, and rendering a release for every host.
pub const BUSY_QUEUE: &str = "titan:busy";
/// The queue of requests that undo something.
pub const UNDO_QUEUE: &str = "titan:undo";

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    workspace: String,
    name: String,
    version: i64,
    plan: String,
    events: i64,
    parent: Option<String>,
    parent_node: Option<String>,
    parent_attempt: Option<i64>,
    created_at: i64,
}

const COLUMNS: &str = "id, workspace, name, version, plan, events, parent, parent_node, parent_attempt, created_at";

impl TryFrom<Row> for PlanRow {
    type Error = super::StoreError;

    fn try_from(row: Row) -> Result<Self> {
        const TABLE: &str = "workplans";
        let id = row.id.as_str();
        let parent = match (&row.parent, &row.parent_node, row.parent_attempt) {
            (Some(plan), Some(node), Some(number)) => Some(Parent {
                plan: parsed(TABLE, "parent", id, plan)?,
                node: parsed(TABLE, "parent_node", id, node)?,
                number: u32::try_from(number).map_err(|error| corrupt(TABLE, "parent_attempt", id, error))?,
            }),
            _ => None,
        };
        Ok(Self {
            plan: json(TABLE, "plan", id, &row.plan)?,
            workspace: parsed(TABLE, "workspace", id, &row.workspace)?,
            version: row.version,
            events: row.events,
            parent,
            created_at: Revision::from_micros(row.created_at),
            name: row.name,
        })
    }
}

/// A node as it is kept: what the engine knows, and what the node says without its edges.
type NodeRow = (String, String, String);

fn node(plan: Uuid, (name, node, says): &NodeRow) -> Result<Node> {
    let id = || format!("{plan}/{name}");
    let mut found: Node = json("workplan_nodes", "node", &id(), node)?;
    found.spec = json("workplan_nodes", "says", &id(), says)?;
    Ok(found)
}

impl Tx {
    /// Returns a plan, and keeps others from moving it on until the transaction ends.
    pub async fn plan_for_step(&mut self, id: Uuid) -> Result<Option<PlanRow>> {
        self.plan_row(id, matches!(self.connection, Connection::Postgres(_))).await
    }

    /// Returns a plan.
    pub async fn plan(&mut self, id: Uuid) -> Result<Option<PlanRow>> {
        self.plan_row(id, false).await
    }

    async fn plan_row(&mut self, id: Uuid, lock: bool) -> Result<Option<PlanRow>> {
        const SQL: &str = "SELECT id, workspace, name, version, plan, events, parent, parent_node, parent_attempt, \
             created_at FROM workplans WHERE id = $1";
        const LOCKED: &str = "SELECT id, workspace, name, version, plan, events, parent, parent_node, parent_attempt, \
             created_at FROM workplans WHERE id = $1 FOR UPDATE";
        let sql = if lock { LOCKED } else { SQL };
        let row: Option<Row> =
            both!(self, conn => sqlx::query_as(sql).bind(id.to_string()).fetch_optional(&mut **conn).await?);
        row.map(PlanRow::try_from).transpose()
    }

    /// Returns those of these nodes that are there.
    pub(crate) async fn plan_nodes(&mut self, plan: Uuid, names: &[Name]) -> Result<Vec<Node>> {
        let sql = over_rows!(
            self,
            "SELECT n.name, n.node, n.says FROM workplan_nodes n WHERE n.plan_id = $2 AND n.name IN \
             (SELECT j.value ->> 0 FROM",
            ")"
        );
        let names = rows(names.iter().map(|name| [name.as_str()]));
        let found: Vec<NodeRow> = both!(self, conn => sqlx::query_as(sql)
            .bind(names).bind(plan.to_string()).fetch_all(&mut **conn).await?);
        found.iter().map(|row| node(plan, row)).collect()
    }

    /// Returns who waits for a node.
    pub(crate) async fn plan_links(&mut self, plan: Uuid, target: &Name) -> Result<Vec<Link>> {
        const SQL: &str = "SELECT source, condition, group_number FROM workplan_edges \
             WHERE plan_id = $1 AND target = $2 ORDER BY source, group_number";
        let found: Vec<(String, String, i64)> = both!(self, conn => sqlx::query_as(SQL)
            .bind(plan.to_string()).bind(target.as_str()).fetch_all(&mut **conn).await?);
        let id = format!("{plan}/{target}");
        let each = found.into_iter().map(|(source, condition, group)| {
            let condition = Condition::from_word(&condition)
                .ok_or_else(|| corrupt("workplan_edges", "condition", &id, format_args!("{condition:?}")))?;
            let group = u32::try_from(group).map_err(|error| corrupt("workplan_edges", "group_number", &id, error))?;
            let source = parsed("workplan_edges", "source", &id, &source)?;
            Ok(Link { source, target: target.clone(), condition, group })
        });
        each.collect()
    }

    /// Returns the nodes of a sort.
    pub(crate) async fn plan_listed(&mut self, plan: Uuid, listing: Listing) -> Result<Vec<Node>> {
        const OPEN: &str = "SELECT name, node, says FROM workplan_nodes WHERE plan_id = $1 AND state IN \
             ('planning', 'planned', 'waiting', 'attempting', 'awaitingGroup')";
        const READY: &str =
            "SELECT name, node, says FROM workplan_nodes WHERE plan_id = $1 AND state = 'planned' AND ready";
        let sql = if listing == Listing::Open { OPEN } else { READY };
        let found: Vec<NodeRow> =
            both!(self, conn => sqlx::query_as(sql).bind(plan.to_string()).fetch_all(&mut **conn).await?);
        found.iter().map(|row| node(plan, row)).collect()
    }

    /// Returns every node with what it says in full.
    pub(crate) async fn plan_whole(&mut self, plan: Uuid) -> Result<Vec<(Node, NodeSpec)>> {
        const SQL: &str = "SELECT name, node, spec FROM workplan_nodes WHERE plan_id = $1 ORDER BY name";
        let found: Vec<NodeRow> =
            both!(self, conn => sqlx::query_as(SQL).bind(plan.to_string()).fetch_all(&mut **conn).await?);
        let each = found.iter().map(|row| {
            let mut found = node(plan, row)?;
            let spec = std::mem::take(&mut found.spec);
            found.spec = NodeSpec { after: None, ..spec.clone() };
            Ok((found, spec))
        });
        each.collect()
    }

    /// Returns the plans and nodes whose time has come at `now`; a plan without a node stands for its own deadline. Those
    /// that cannot be read back are left out.
    pub async fn due_nodes(&mut self, now: Revision, limit: usize) -> Result<Vec<(Uuid, Option<Name>)>> {
        const PLANS: &str = "SELECT id, NULL FROM workplans WHERE due_at <= $1 ORDER BY due_at LIMIT $2";
        const NODES: &str = "SELECT plan_id, name FROM workplan_nodes WHERE due_at <= $1 ORDER BY due_at LIMIT $2";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut due = Vec::new();
        for sql in [PLANS, NODES] {
            let found: Vec<(String, Option<String>)> = both!(self, conn => sqlx::query_as(sql)
                .bind(now.micros()).bind(limit).fetch_all(&mut **conn).await?);
            let each = found.into_iter().map(|(plan, node)| {
                let node = node.map(|node| parsed("workplan_nodes", "name", &plan, &node)).transpose()?;
                Ok((parsed("workplan_nodes", "plan_id", &plan, &plan)?, node))
            });
            due.extend(each.filter_map(readable));
        }
        Ok(due)
    }

    /// Returns when the next plan or node is due, of those that were not at `seen`.
    pub async fn next_due(&mut self, seen: Revision) -> Result<Option<Revision>> {
        const SQL: &str = "SELECT MIN(due_at) FROM (SELECT MIN(due_at) AS due_at FROM workplans WHERE due_at > $1 \
             UNION ALL SELECT MIN(due_at) FROM workplan_nodes WHERE due_at > $1) AS due";
        let (due,): (Option<i64>,) =
            both!(self, conn => sqlx::query_as(SQL).bind(seen.micros()).fetch_one(&mut **conn).await?);
        Ok(due.map(Revision::from_micros))
    }

    /// Returns attempts that wait in these queues, the longest-waiting first; none of plans that stand still. Those that
    /// cannot be read back are left out.
    pub async fn queued_attempts(&mut self, queues: &[&str], limit: usize) -> Result<Vec<Queued>> {
        let sql = over_rows!(
            self,
            "SELECT n.plan_id, n.name, n.node FROM",
            "JOIN workplan_nodes n ON n.queue = j.value ->> 0 JOIN workplans p ON p.id = n.plan_id AND p.live \
             ORDER BY n.updated_at LIMIT $2"
        );
        let queues = rows(queues.iter().map(|queue| [queue]));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let found: Vec<NodeRow> = both!(self, conn => sqlx::query_as(sql)
            .bind(queues).bind(limit).fetch_all(&mut **conn).await?);
        let each = found.into_iter().map(|(plan, name, node)| {
            let found: Node = json("workplan_nodes", "node", &plan, &node)?;
            let number = found.attempt.map_or(0, |attempt| attempt.number);
            Ok(Queued {
                node: parsed("workplan_nodes", "name", &plan, &name)?,
                number,
                plan: parsed("workplan_nodes", "plan_id", &plan, &plan)?,
            })
        });
        Ok(each.filter_map(readable).collect())
    }

    /// Returns the running attempts of a process. Those that cannot be read back are left out.
    pub async fn running_attempts(&mut self, uid: &str) -> Result<Vec<Queued>> {
        const SQL: &str = "SELECT plan_id, node, number, process_uid FROM workplan_attempts WHERE state = 'running' \
             AND process_uid = $1";
        Ok(self.attempts_that_run(SQL, uid).await?.into_iter().map(|(queued, _)| queued).collect())
    }

    /// Returns the running attempts of processes whose uid begins with `prefix`, with the uid. Those that cannot be read
    /// back are left out.
    pub async fn running_attempts_like(&mut self, prefix: &str) -> Result<Vec<(Queued, String)>> {
        // In no order that a language has: there a range from one text to another is not what begins alike.
        const SQL: &str = "SELECT plan_id, node, number, process_uid FROM workplan_attempts WHERE state = 'running' \
             AND SUBSTR(process_uid, 1, LENGTH(CAST($1 AS TEXT))) = $1";
        self.attempts_that_run(SQL, prefix).await
    }

    async fn attempts_that_run(&mut self, sql: &'static str, whose: &str) -> Result<Vec<(Queued, String)>> {
        const TABLE: &str = "workplan_attempts";
        let found: Vec<(String, String, i64, String)> =
            both!(self, conn => sqlx::query_as(sql).bind(whose).fetch_all(&mut **conn).await?);
        let each = found.into_iter().map(|(plan, node, number, uid)| {
            let number = u32::try_from(number).map_err(|error| corrupt(TABLE, "number", &plan, error))?;
            let node = parsed(TABLE, "node", &plan, &node)?;
            Ok((Queued { plan: parsed(TABLE, "plan_id", &plan, &plan)?, node, number }, uid))
        });
        Ok(each.filter_map(readable).collect())
    }

    /// Returns the signal that was taken under a request id.
    pub async fn taken_signal(&mut self, plan: Uuid, request_id: &str) -> Result<Option<TakenSignal>> {
        const SQL: &str = "SELECT request, actor, version, accepted_at FROM workplan_signals \
             WHERE plan_id = $1 AND request_id = $2";
        let row: Option<(String, String, i64, i64)> = both!(self, conn => sqlx::query_as(SQL)
            .bind(plan.to_string()).bind(clean(request_id).as_ref()).fetch_optional(&mut **conn).await?);
        let read = |(request, actor, version, at): (String, String, i64, i64)| {
            let request = json("workplan_signals", "request", request_id, &request)?;
            Ok(TakenSignal { request, actor, version, accepted_at: Revision::from_micros(at) })
        };
        row.map(read).transpose()
    }
}
