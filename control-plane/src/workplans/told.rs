//! What is told of a step once it is committed: a line in the log for each plan and attempt that went on, and counters.

use titan_api::workplans::Event;

use crate::{
    fleet::workplans::Step,
    store::{PlanRow, Tx},
};

/// Has told, once the transaction is committed, what a step made of its plan. What people and workers wrote is left out:
/// it may hold what is nobody's business, and stands in the events.
pub(super) fn tell(tx: &mut Tx, row: &PlanRow, step: &Step, actor: &str) {
    let states = step.events.iter().filter_map(|event| match event {
        Event::Plan { state, .. } => Some(*state),
        _ => None,
    });
    let states: Vec<_> = states.collect();
    let turns = step.turns.clone();
    if states.is_empty() && turns.is_empty() {
        return;
    }
    let (id, name, workspace, actor) = (row.plan.id, row.name.clone(), row.workspace.clone(), actor.to_owned());
    tx.after_commit(move |metrics| {
        for state in states {
            tracing::info!(
                workplan.id = %id, workplan.name = name, workspace.name = %workspace, state = %state, actor,
                "plan {name} is {state}"
            );
        }
        for turn in turns {
            let (node, number, executor) = (&turn.node, turn.number, turn.executor);
            let Some(outcome) = turn.outcome() else {
                tracing::debug!(
                    workplan.id = %id, workplan.name = name, node.name = %node, attempt = number, executor,
                    state = %turn.state, "attempt {number} of {node} in plan {name} is {}", turn.state
                );
                continue;
            };
            metrics.ended(executor, outcome, turn.ran);
            tracing::info!(
                workplan.id = %id, workplan.name = name, node.name = %node, attempt = number, executor,
                state = %turn.state, outcome, code = turn.code,
                elapsed_ms = turn.ran.map(|ran| ran.as_secs_f64() * 1000.0),
                "attempt {number} of {node} in plan {name} ended: {outcome}"
            );
        }
    });
}
