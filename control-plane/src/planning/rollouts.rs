//! Which release each host is to have while one is handed out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::json;
use titan_api::{
    Kind, Name, Problem, Revision, problems::Code, strategies::Strategy, tasks::ROLLOUT, workplans::WorkPlanSpec,
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
    store::{Description, Release, Tx},
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
    /// Whether it begins by itself.
    pub starts: bool,
}

impl Rollout {
    /// Puts the gate in its place and makes the plan; that of the release before comes to its end.
    pub(super) async fn write(&self, tx: &mut Tx, revision: Revision, wall: Revision) -> Result<(), StepError> {
        let gate = self.barrier.gate();
        let context = Context { actor: &self.author, wall };
        if let Some(before) = tx.gate(gate.deployment).await?
            && let Some(row) = tx.plan(before.plan).await?
            && !row.plan.state.is_final()
        {
            let reason = format!("{} takes its place", self.name);
            workplans::step(tx, before.plan, vec![Input::Halt { reason, superseded: true }], context).await?;
        }
        tx.put_gate(gate, revision).await?;
        tx.add_plan(&Plan::new(gate.plan), (&self.workspace, &self.name), None, wall).await?;
        let subject = (&self.workspace, "Deployment", self.deployment.as_str());
        let payload = json!({ "release": self.name, "deployment": gate.deployment, "number": gate.to });
        tx.add_task(&workplans::task((gate.plan, ROLLOUT), subject, payload, context)).await?;
        let made = Input::Make { spec: Box::new(self.spec.clone()), author: self.author.clone() };
        let start = self.starts.then_some(Input::Start);
        workplans::step(tx, gate.plan, [Some(made), start].into_iter().flatten().collect(), context).await.map(drop)
    }
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
    /// Takes in a gate. Returns whether it is another one than before.
    pub fn put_gate(&mut self, gate: Gate) -> bool {
        let deployment = gate.deployment;
        if self.barriers.get(&deployment).is_some_and(|known| *known.gate() == gate) {
            return false;
        }
        match Barrier::new(gate) {
            Ok(barrier) => drop(self.barriers.insert(deployment, Arc::new(barrier))),
            Err(fault) => tracing::error!("the gate of deployment {deployment} cannot be read: {}", fault.detail),
        }
        true
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
        let from = match self.standing.barriers.get(&deployment.uid) {
            Some(barrier) => barrier.gate().from,
            None => before,
        };
        let mut tx = self.store.read().await?;
        let starts = tx.veto_of(deployment.uid, &release.inputs_digest).await?.is_none();
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
        let free = starts && free;
        let gate = Gate {
            deployment: deployment.uid,
            plan: Uuid::now_v7(),
            to: release.number,
            from: if free { Some(release.number) } else { from },
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
            starts,
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
