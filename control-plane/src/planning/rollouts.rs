//! Which release each host is to have while one is handed out.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use roaring::RoaringBitmap;
use serde_json::json;
use titan_api::{
    Kind, Name, Problem, Revision,
    problems::Code,
    strategies::Strategy,
    tasks::ROLLOUT,
    workplans::{PlanState, WorkPlanSpec},
    workspaces,
};
use uuid::Uuid;

use super::{Groups, Planned, Planning, Standing};
use crate::{
    fleet::{
        agenda::Item,
        model::{Deployment, Model},
        moves, placements,
        releases::{self, Resolution, Restored},
        rollouts::{Gate, barriers::Barrier, compile},
        workplans::{Input, Plan},
    },
    store::{Description, Release, StoreError, Tx},
    workplans::{self, Context, StepError},
};

/// Releases that are kept though they are not the newest.
const KEPT: usize = 256;

/// How a new release is handed out.
#[derive(Debug)]
pub struct Rollout {
    /// What stands before it.
    pub barrier: Arc<Barrier>,
    /// The plan.
    pub spec: WorkPlanSpec,
    /// The plan's workspace.
    pub workspace: Name,
    /// The deployment's name.
    pub deployment: Name,
    /// The plan's name, that of the release.
    pub name: String,
    /// Who changed what it is made of: nobody approves his own.
    pub author: String,
    /// Why it does not begin by itself; `None`: it does.
    pub held: Option<String>,
}

impl Rollout {
    /// Puts the gate in its place and makes the plan; that of the release before comes to its end.
    pub(super) async fn write(&self, tx: &mut Tx, revision: Revision, wall: Revision) -> Result<(), StepError> {
        let gate = self.barrier.gate();
        let context = Context { actor: &self.author, wall };
        if let Some(before) = tx.gate(gate.deployment).await?
            && let Some(row) = tx.plan_for_step(before.plan).await?
        {
            if row.plan.state == PlanState::Succeeded && gate.from != Some(before.to) && !gate.is_settled() {
                // It came to its end since this was decided: the release before is another one.
                return Err(StoreError::Overtaken(before.plan).into());
            }
            if row.plan.state == PlanState::RollingBack {
                if !gate.taken_back.contains(&before.to) {
                    // It is taken back since this was decided: nobody is to keep it.
                    return Err(StoreError::Overtaken(before.plan).into());
                }
                // Its way back finds its gate no more.
                if let Some(release) = tx.release(before.deployment, before.to).await? {
                    workplans::veto(tx, &row, &release, wall).await?;
                }
            }
            if !row.plan.state.is_final() {
                let reason = format!("{} takes its place", self.name);
                workplans::step(tx, before.plan, vec![Input::Halt { reason, superseded: true }], context).await?;
            }
        }
        tx.put_gate(gate, revision).await?;
        tx.add_plan(&Plan::new(gate.plan), (&self.workspace, &self.name), None, wall).await?;
        let subject = (&self.workspace, "Deployment", self.deployment.as_str());
        let payload = json!({ "release": self.name, "deployment": gate.deployment, "number": gate.to });
        tx.add_task(&workplans::task((gate.plan, ROLLOUT), subject, payload, context)).await?;
        let made = || Input::Make { spec: Box::new(self.spec.clone()), author: self.author.clone() };
        let begun = self.held.clone().map_or(Input::Start, Input::Hold);
        match workplans::step(tx, gate.plan, vec![made(), begun], context).await {
            // One that cannot begin holds up nobody else. Of what is refused nothing was written.
            Err(StepError::Refused(problem)) if self.held.is_none() => {
                let held = Input::Hold(format!("it cannot begin: {}", problem.detail));
                workplans::step(tx, gate.plan, vec![made(), held], context).await.map(drop)
            }
            stepped => stepped.map(drop),
        }
    }
}

/// Whom a gate means something else for since it moved.
#[derive(Debug, Clone, PartialEq)]
pub enum Moved {
    /// Nobody: it is as it was.
    Nobody,
    /// These hosts, as numbers of the model's table.
    Some(RoaringBitmap),
    /// Whoever has the deployment or is to have it.
    All,
}

/// A release that some hosts are to have.
pub(super) struct Choice<'a> {
    pub(super) told: Arc<Description>,
    pub(super) groups: Groups<'a>,
}

impl<'a> Choice<'a> {
    pub(super) fn new(
        model: &Model,
        deployment: &'a Deployment,
        resolution: &'a Resolution,
        release: &Release,
        hosts: usize,
    ) -> Self {
        let told = Arc::new(moves::description(deployment, release));
        Self { told, groups: Groups::new(model, deployment, resolution, release, hosts) }
    }
}

impl Standing {
    /// Takes in a gate. Returns for whom it is another one than before.
    pub fn put_gate(&mut self, gate: Gate, model: &Model) -> Moved {
        let deployment = gate.deployment;
        let before = self.barriers.get(&deployment).cloned();
        if before.as_ref().is_some_and(|before| *before.gate() == gate) {
            return Moved::Nobody;
        }
        match Barrier::new(gate) {
            Ok(barrier) => {
                let barrier = Arc::new(barrier);
                self.barriers.insert(deployment, Arc::clone(&barrier));
                before.map_or(Moved::All, |before| self.moved(model, &before, &barrier))
            }
            Err(fault) => {
                tracing::error!("the gate of deployment {deployment} cannot be read: {}", fault.detail);
                Moved::All
            }
        }
    }

    /// Returns the hosts that may be to have another release since a gate moved: deciding costs more than asking the gate.
    fn moved(&self, model: &Model, before: &Barrier, now: &Barrier) -> Moved {
        let told = model.deployment(now.gate().deployment);
        // Where replicas go, and whom it cannot be told of, is decided as a whole.
        let Some(deployment) = told.filter(|of| of.spec.replicas.is_none() && model.target(of).is_some()) else {
            return Moved::All;
        };
        // Whether there is room is asked when it is decided.
        let concerned = self.holders.of(deployment.uid) | placements::conceivable(model, deployment);
        let moved = model.hosts().among(&concerned).filter(|host| now.moves(before, *host));
        Moved::Some(moved.map(|host| host.number().0).collect())
    }

    /// Returns up to when gates were read with everything else.
    #[must_use]
    pub const fn gates_read(&self) -> Revision {
        self.gates
    }

    /// Returns deployments of which not all hosts have the same release.
    pub fn unsettled(&self) -> impl Iterator<Item = Uuid> {
        self.barriers.iter().filter(|(_, barrier)| !barrier.gate().is_settled()).map(|(deployment, _)| *deployment)
    }
}

impl Planning<'_> {
    /// Returns what stands before a release, if anything does. Nothing does in a preview before one that does not exist:
    /// it tells what would become of it in the end.
    pub(super) fn barrier(&self, release: &Release, planned: &Planned) -> Option<Arc<Barrier>> {
        let of = |barrier: &&Arc<Barrier>| barrier.gate().deployment == release.deployment;
        let begun = planned.rollouts.iter().map(|rollout| &rollout.barrier).find(of);
        let barrier = begun.or_else(|| self.standing.barriers.get(&release.deployment))?;
        (barrier.gate().to == release.number).then(|| Arc::clone(barrier))
    }

    /// Decides how a new release is handed out; `before` is the number of the one before it.
    pub(super) async fn hand_out(
        &self,
        deployment: &Deployment,
        release: &Release,
        before: Option<i64>,
    ) -> Result<Rollout, Problem> {
        let mut tx = self.store.read().await?;
        let mut returning = None;
        let from = match self.standing.barriers.get(&deployment.uid).map(|barrier| barrier.gate()) {
            Some(gate) => match tx.plan(gate.plan).await?.map(|row| row.plan.state) {
                // Proven, though nobody wrote that on the gate yet.
                Some(PlanState::Succeeded) => Some(gate.to),
                Some(PlanState::RollingBack) => {
                    returning = Some(gate.to);
                    // One that everybody had at once has no release before it on its gate.
                    if gate.is_settled() { tx.release_before(gate.deployment, gate.to).await? } else { gate.from }
                }
                _ => gate.from,
            },
            None => before,
        };
        let mut taken_back = tx.taken_back(deployment.uid, from, release.number).await?;
        taken_back.extend(returning.filter(|number| !taken_back.contains(number)));
        let veto = tx.veto_of(deployment.uid, &release.inputs_digest).await?;
        let told = |veto| format!("waits for a person: the release was taken back before, {}", workplans::why(&veto));
        let held = veto.map(told);
        let author = author(&mut tx, self.model, deployment).await?;
        drop(tx);
        let present = placements::place_set(self.footing(), deployment, &self.standing.holders.of(deployment.uid));
        let present = present.unwrap_or_default();
        let values = |key: &str| -> Vec<String> {
            let hosts = self.model.hosts().among(&present);
            let values: BTreeSet<_> =
                hosts.filter_map(|host| host.lookup(key).map(|value| value.into_owned())).collect();
            values.into_iter().collect()
        };
        let spec = compile(deployment.spec.strategy.as_deref(), present.len(), values);
        // Where nothing could hold it up it is everybody's at once.
        let free = match &deployment.spec.strategy {
            Some(strategy) => strategy.is_free(),
            None => Strategy::usual(present.len()).is_free(),
        };
        let free = held.is_none() && free;
        let gate = Gate {
            deployment: deployment.uid,
            plan: Uuid::now_v7(),
            to: release.number,
            from: if free { Some(release.number) } else { from },
            taken_back,
            openings: Vec::new(),
        };
        let barrier = Barrier::new(gate).map_err(|fault| Problem::new(Code::Internal, fault.detail))?;
        Ok(Rollout {
            barrier: Arc::new(barrier),
            spec,
            workspace: deployment.workspace.clone(),
            deployment: deployment.name.clone(),
            name: moves::release_name(&deployment.name, release),
            author,
            held,
        })
    }

    /// Returns the releases beside the newest that hosts of an item are to have, by number; `Err` says why one cannot be
    /// made again.
    pub(super) async fn restored_for(
        &mut self,
        deployment: &Arc<Deployment>,
        newest: &Release,
        item: &Item,
        planned: &Planned,
    ) -> Result<BTreeMap<i64, Result<Arc<Restored>, Problem>>, Problem> {
        let mut restored = BTreeMap::new();
        let Some(barrier) = self.barrier(newest, planned).filter(|barrier| !barrier.gate().is_settled()) else {
            return Ok(restored);
        };
        let hosts = item.hosts.iter().filter_map(|uid| self.model.host(*uid));
        let numbers =
            hosts.filter_map(|host| barrier.release(host, self.existing(deployment.uid, host.uid()).as_ref()));
        let numbers: BTreeSet<i64> = numbers.filter(|number| *number != newest.number).collect();
        for number in numbers {
            restored.insert(number, self.restored(deployment, number).await?);
        }
        Ok(restored)
    }

    /// Returns a release that is not the newest; the inner error says why it cannot be made again.
    async fn restored(
        &mut self,
        deployment: &Arc<Deployment>,
        number: i64,
    ) -> Result<Result<Arc<Restored>, Problem>, Problem> {
        let key = (deployment.uid, number, deployment.revision);
        if let Some(known) = self.standing.restored.get(&key) {
            return Ok(Ok(Arc::clone(known)));
        }
        let mut tx = self.store.read().await?;
        let lost = |what: &str| Problem::new(Code::Internal, format!("{}#{number} {what}", deployment.name));
        let Some(release) = tx.release(deployment.uid, number).await? else {
            return Ok(Err(lost("is not in the database any more")));
        };
        let inputs: serde_json::Value = serde_json::from_str(&release.inputs).unwrap_or_default();
        let (name, uid) = (inputs["template"]["name"].as_str(), inputs["template"]["uid"].as_str());
        let mut found = None;
        for workspace in [deployment.workspace.as_str(), workspaces::DEFAULT] {
            let of = tx.documents_at(Kind::Template, workspace, name.unwrap_or_default(), release.revision).await?;
            found = found
                .or_else(|| of.into_iter().find(|of| of.metadata.uid.map(|uid| uid.to_string()).as_deref() == uid));
        }
        drop(tx);
        let Some(template) = found else { return Ok(Err(lost("was made of a template that is not in the history"))) };
        let restored = match releases::restore(release, &template, deployment) {
            Ok(restored) => Arc::new(restored),
            Err(problem) => return Ok(Err(problem)),
        };
        if self.standing.restored.len() >= KEPT {
            self.standing.restored.clear();
        }
        self.standing.restored.insert(key, Arc::clone(&restored));
        Ok(Ok(restored))
    }
}

/// Returns who made the newest change that a deployment's release is made of.
async fn author(tx: &mut Tx, model: &Model, deployment: &Deployment) -> Result<String, Problem> {
    let own = deployment.workspace.as_str();
    let mut places = vec![
        (Kind::Deployment, own, deployment.name.as_str()),
        (Kind::Workload, own, deployment.spec.workload.as_str()),
        (Kind::Workspace, "", own),
    ];
    if let Some(template) = model.template_name(deployment) {
        places.push((Kind::Template, own, template.as_str()));
        places.push((Kind::Template, workspaces::DEFAULT, template.as_str()));
    }
    let mut newest: Option<titan_api::changes::Change> = None;
    for (kind, workspace, name) in places {
        let last = tx.history(kind, workspace, name, 1).await?.pop();
        if last.as_ref().map(|change| change.revision) > newest.as_ref().map(|change| change.revision) {
            newest = last;
        }
    }
    Ok(newest.map_or_else(|| "system".to_owned(), |change| change.actor))
}
