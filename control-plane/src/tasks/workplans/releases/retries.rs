//! Retries: hosts on which a release failed are told of it anew once a person wants a stage tried again. An agent remembers
//! what proved bad on its host, and does not try it again before that.

use std::collections::HashSet;

use titan_api::reports::Phase;

use super::Halt;
use crate::{
    fleet::{
        model::Deployment,
        rollouts::{Frozen, Gate},
    },
    store::Assignment,
    tasks::{follow, workplans::executors::Job},
};

/// Hosts that are told in one transaction: few enough not to keep other writers waiting.
const AT_ONCE: usize = 200;

/// Moves the assignments of those members of a stage whose last word was that the release failed. What they said before
/// no longer counts then, and another attempt of the stage tells nobody again who has not said so anew.
pub(super) async fn declare_anew(job: &Job, deployment: &Deployment, gate: &Gate, stage: &Frozen) -> Result<(), Halt> {
    let state = &job.state;
    let members: HashSet<_> = stage.members.iter().map(|member| member.host).collect();
    let mut failed = Vec::new();
    let mut tx = state.store.read().await?;
    tx.each_report_of_deployment(deployment.uid, |observed| {
        let report = &observed.report;
        let bad = matches!(report.phase, Phase::Failed | Phase::Degraded | Phase::RolledBack);
        if bad && members.contains(&observed.host) {
            failed.push((observed.host, report.revision));
        }
    })
    .await?;
    drop(tx);
    let release = format!("{}#{}", deployment.name, gate.to);
    for part in failed.chunks(AT_ONCE) {
        let mut tx = state.store.write("gate").await?;
        let now = state.clock.now();
        let revision = tx.tick(now).await?;
        if !job.lives(&mut tx).await? {
            return Ok(());
        }
        let mut anew = Vec::with_capacity(part.len());
        for (host, said) in part {
            let assignment = tx.assignment(deployment.uid, *host).await?;
            let stands = |assignment: &Assignment| {
                assignment.present() && assignment.revision <= *said && assignment.description.release == release
            };
            anew.extend(assignment.filter(stands).map(|assignment| Assignment { revision, ..assignment }));
        }
        if anew.is_empty() {
            continue;
        }
        tx.put_assignments(&anew, now).await?;
        tx.notify().await?;
        tx.commit().await?;
        state.committed();
    }
    Ok(follow::pass(state).await?)
}
