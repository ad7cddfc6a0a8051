//! What waits to be decided or done, and since when.

use titan_api::Revision;

use super::{BUSY_QUEUE, OWN_QUEUE, Result, Tx, UNDO_QUEUE, both};

/// Since when the oldest of each sort waits, or until when, if that is still to come; `None` if there is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// The oldest change that is not decided: the first one after the planner's bookmark. The clock says nothing about that,
    /// since it also moves for what the planner and plans write.
    pub change: Option<Revision>,
    /// When the first task is due.
    pub task: Option<Revision>,
    /// When the first plan or node is due.
    pub plan: Option<Revision>,
    /// Since when the oldest attempt waits that the control plane takes itself.
    pub attempt: Option<Revision>,
}

impl Tx {
    /// Returns what waits. Each part is the first entry of an index.
    pub async fn waiting(&mut self) -> Result<Waiting> {
        const SQL: &str = "SELECT (SELECT MIN(revision) FROM changes WHERE revision > \
             COALESCE((SELECT revision FROM bookmarks WHERE name = 'planner'), 0)), \
             (SELECT MIN(due_at) FROM tasks WHERE due_at IS NOT NULL), \
             (SELECT MIN(due_at) FROM workplans WHERE due_at IS NOT NULL), \
             (SELECT MIN(due_at) FROM workplan_nodes WHERE due_at IS NOT NULL), \
             (SELECT n.updated_at FROM workplan_nodes n JOIN workplans p ON p.id = n.plan_id AND p.live \
             WHERE n.queue IN ($1, $2, $3) ORDER BY n.updated_at LIMIT 1)";
        type Row = (Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<i64>);
        let (change, task, plan, node, attempt): Row = both!(self, conn => sqlx::query_as(SQL).bind(OWN_QUEUE).bind(BUSY_QUEUE).bind(UNDO_QUEUE)
            .fetch_one(&mut **conn).await?);
        let plan = [plan, node].into_iter().flatten().min();
        let [change, task, plan, attempt] = [change, task, plan, attempt].map(|at| at.map(Revision::from_micros));
        Ok(Waiting { change, task, plan, attempt })
    }
}
