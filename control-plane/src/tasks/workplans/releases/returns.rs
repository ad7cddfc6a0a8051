//! Returns: how a release is taken back from whom it reached.

use titan_api::strategies::releases::Back;
use uuid::Uuid;

use super::{Ended, Halt, present, watch_over, watches::Watch};
use crate::{
    fleet::rollouts::{Frozen, Gate, Opening, Progress, Rules, barriers, ranked},
    tasks::workplans::executors::Job,
};

/// Closes the gate, and waits until every host that had the release has the one before.
pub(super) async fn take_back(job: &Job, back: &Back) -> Result<Ended, Halt> {
    let (_, gate) = job.standing().await?;
    let deployment = job.deployment(&gate)?;
    let mut tx = job.state.store.read().await?;
    let release = tx.release(gate.deployment, gate.to).await?;
    // One that everybody had at once has no release before it on its gate.
    let from = if gate.is_settled() { tx.release_before(gate.deployment, gate.to).await? } else { gate.from };
    drop(tx);
    let close = |gate: &mut Gate| {
        let moved = gate.from != from;
        gate.from = from;
        gate.close() || moved
    };
    if !job.open(close, release.as_ref()).await? {
        return Err(Halt::Over("superseded", "the plan went on".to_owned()));
    }
    job.decided().await?;
    let (plan, _) = job.standing().await?;
    let closed = job.state.store.read().await?.gate_moved(plan.id).await?.unwrap_or_default();
    let had = |host: &Uuid| {
        let entry = job.state.view.find(*host).and_then(|slot| slot.set().of_deployment(gate.deployment).cloned());
        entry.is_some_and(|entry| barriers::had(&entry, gate.to, closed))
    };
    // With nothing to return to it is taken away; whoever has it no more is done.
    let members: Vec<Uuid> = match from {
        Some(_) => present(&job.state, &deployment).await?.into_iter().filter(had).collect(),
        None => Vec::new(),
    };
    let ranks = ranked(deployment.uid, members);
    let now = plan.clock(job.state.clock.now().micros());
    let all = Opening { stage: job.node.name.clone(), selector: None, up_to: None, reach: None };
    let frozen = Frozen { members: ranks, reach: None };
    let progress = Progress::new(Rules::back(&job.node.name, back), frozen, Some(&all), now);
    let watch = Watch::begin(&job.state, deployment.uid, &progress).await?;
    watch_over(job, progress, watch, (None, false)).await
}
