//! Plans in the database: a step is read, decided and written in one transaction, and so is what follows from it for the
//! plan above and the plans inside.

pub mod expressions;
mod told;

use std::collections::VecDeque;

use serde_json::{Value, json};
use titan_api::{
    Code, Name, Problem, Revision,
    tasks::{Task, TaskState, WORKPLAN},
    workplans::{PlanState, Signal, SignalAnswer, SignalRequest, WorkPlanSpec},
};
use uuid::Uuid;

use crate::{
    fleet::workplans::{AGAIN, Input, Need, Order, Plan, Step, Stop, Told, Working},
    patches,
    state::AppState,
    store::{Parent, PlanRow, Release, StoreError, TakenSignal, Tx, Veto},
    writing,
};

/// How often a transaction that lost a race is done again.
const RACES: usize = 8;

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The database failed.
    #[error("a plan could not be read or written")]
    Store(#[from] StoreError),
    /// It is not to be.
    #[error("{0}")]
    Refused(Box<Problem>),
}

impl From<Problem> for StepError {
    fn from(problem: Problem) -> Self {
        Self::Refused(Box::new(problem))
    }
}

impl From<StepError> for Problem {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Store(error) => error.into(),
            StepError::Refused(problem) => *problem,
        }
    }
}

/// Who makes steps happen, and when.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Who.
    pub actor: &'a str,
    /// The wall clock.
    pub wall: Revision,
}

/// What came of a step for the plan that it was about.
#[derive(Debug)]
pub struct Stepped {
    /// Its row before, with the plan after.
    pub row: PlanRow,
    /// Whether an answer came too late.
    pub late: bool,
    /// Whether anything happened.
    pub moved: bool,
}

/// Makes something happen to a plan, and whatever follows from it. The caller commits.
pub async fn step(tx: &mut Tx, plan: Uuid, inputs: Vec<Input>, context: Context<'_>) -> Result<Stepped, StepError> {
    let mut queue = VecDeque::from([(plan, inputs)]);
    let mut first = None;
    while let Some((id, inputs)) = queue.pop_front() {
        let Some(row) = tx.plan_for_step(id).await? else { return Err(Problem::not_found("plan", id).into()) };
        let step = decide(tx, &row, inputs, context).await?;
        let changed = !step.events.is_empty();
        if changed || !step.nodes.is_empty() {
            tx.put_step(&row, &step, context.actor, context.wall).await?;
            told::tell(tx, &row, &step, context.actor);
            let state = task_state(step.plan.state);
            if state != task_state(row.plan.state) {
                let result = state.is_final().then(|| json!({ "plan": step.plan.state, "reason": step.plan.reason }));
                tx.move_task(id, state, result.as_ref(), context.wall).await?;
            }
        }
        for order in step.orders {
            match order {
                Order::Child { id: child, node, number, spec } => {
                    let parent = Parent { plan: id, node: node.clone(), number };
                    let name = format!("{}/{node}", row.name);
                    let mut spec = *spec;
                    // What is handed down is weaker than what the inner plan says itself.
                    let own = std::mem::replace(&mut spec.values, step.plan.head.values.clone());
                    patches::merge_maps(&mut spec.values, &own);
                    tx.add_plan(&Plan::new(child), (&row.workspace, &name), Some(&parent), context.wall).await?;
                    let task =
                        task((child, WORKPLAN), (&row.workspace, "WorkPlan", &name), json!({ "node": node }), context);
                    tx.add_task(&Task { parent: Some(id), ..task }).await?;
                    let made = Input::Make { spec: Box::new(spec), author: step.plan.author.clone() };
                    queue.push_back((child, vec![made, Input::Start]));
                }
                Order::StopChild(child) => {
                    let reason = format!("{} was stopped", row.name);
                    queue.push_back((child, vec![Input::Halt { reason, superseded: false }]));
                }
            }
        }
        if let Some(parent) = row.parent.as_ref().filter(|_| step.plan.state.is_final() && changed) {
            let (state, reason) = (step.plan.state, step.plan.reason.clone());
            let ended = Input::Child { node: parent.node.clone(), number: parent.number, state, reason };
            queue.push_back((parent.plan, vec![ended]));
        }
        if first.is_none() {
            let version = row.version + i64::from(changed);
            first = Some(Stepped { row: PlanRow { plan: step.plan, version, ..row }, late: step.late, moved: changed });
        }
    }
    first.ok_or_else(|| Problem::not_found("plan", plan).into())
}

/// Returns the task of a plan that is made; both have one id.
pub(crate) fn task(
    (id, kind): (Uuid, &str),
    (workspace, noun, name): (&Name, &str, &str),
    payload: Value,
    context: Context<'_>,
) -> Task {
    let subject = format!("{noun} {workspace}/{name}");
    Task { workspace: Some(workspace.clone()), ..Task::new(id, kind, subject, payload, context.wall) }
}

/// Returns how far the task of a plan is.
const fn task_state(state: PlanState) -> TaskState {
    match state {
        PlanState::Planning => TaskState::Pending,
        PlanState::Running | PlanState::Paused | PlanState::Aborting | PlanState::RollingBack => TaskState::Running,
        PlanState::Succeeded => TaskState::Completed,
        PlanState::Failed | PlanState::RolledBack => TaskState::Failed,
        PlanState::Aborted | PlanState::Superseded => TaskState::Cancelled,
    }
}

/// Decides a step, reading what it asks for.
async fn decide(tx: &mut Tx, row: &PlanRow, inputs: Vec<Input>, context: Context<'_>) -> Result<Step, StepError> {
    let id = row.plan.id;
    let mut dice = [0; 8];
    // Without chance, jitter is less of one.
    let _by_chance = getrandom::fill(&mut dice);
    let mut working = Working::new(row.plan.clone(), context.wall.micros(), u64::from_ne_bytes(dice));
    if row.events == 0 {
        working.give_whole(Vec::new());
    }
    inputs.into_iter().for_each(|input| working.submit(input));
    loop {
        let need = match working.advance() {
            Ok(()) => return Ok(working.finish()),
            Err(Stop::Refused(problem)) => return Err(StepError::Refused(problem)),
            Err(Stop::Missing(need)) => need,
        };
        match need {
            Need::Nodes(names) => {
                let found = tx.plan_nodes(id, &names).await?;
                working.give_nodes(&names, found);
            }
            Need::Dependants(target) => {
                let links = tx.plan_links(id, &target).await?;
                working.give_links(target, links);
            }
            Need::Listed(listing) => {
                let found = tx.plan_listed(id, listing).await?;
                working.give_listed(listing, found);
            }
            Need::Whole => working.give_whole(tx.plan_whole(id).await?),
        }
    }
}

/// Makes a plan, or brings one in line with its document. The caller commits.
pub async fn declare(
    tx: &mut Tx,
    (id, workspace, name): (Uuid, &Name, &Name),
    spec: &WorkPlanSpec,
    before: WorkPlanSpec,
    context: Context<'_>,
) -> Result<(), StepError> {
    let spec_box = Box::new(spec.clone());
    let (mut inputs, planning) = match tx.plan(id).await? {
        Some(row) => {
            let before = Box::new(before);
            (vec![Input::Declare { spec: spec_box, before }], row.plan.state == PlanState::Planning)
        }
        None => {
            tx.add_plan(&Plan::new(id), (workspace, name), None, context.wall).await?;
            tx.add_task(&task((id, WORKPLAN), (workspace, "WorkPlan", name), json!({}), context)).await?;
            (vec![Input::Make { spec: spec_box, author: context.actor.to_owned() }], true)
        }
    };
    if planning && spec.start {
        inputs.push(Input::Start);
    }
    step(tx, id, inputs, context).await.map(drop)
}

/// Makes something happen to a plan in a transaction of its own, again if it lost a race.
pub async fn once(state: &AppState, plan: Uuid, input: &Input, actor: &str) -> Result<Stepped, Problem> {
    let mut races = 0;
    loop {
        let done = async {
            let mut tx = state.store.write("workplan").await?;
            let context = Context { actor, wall: state.clock.now() };
            let stepped = step(&mut tx, plan, vec![input.clone()], context).await?;
            tx.notify().await?;
            tx.commit().await?;
            Ok::<_, StepError>(stepped)
        };
        match done.await {
            Ok(stepped) => {
                state.committed();
                return Ok(stepped);
            }
            Err(StepError::Store(error)) if error.lost_race() && races < RACES => races += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Tells a plan something, once however often it is sent.
pub async fn tell(
    state: &AppState,
    plan: Uuid,
    request: &SignalRequest,
    (actor, if_match): (&str, Option<i64>),
) -> Result<SignalAnswer, Problem> {
    let mut races = 0;
    loop {
        match told(state, plan, request, (actor, if_match)).await {
            Ok(answer) => {
                state.committed();
                return Ok(answer);
            }
            Err(StepError::Store(error)) if error.lost_race() && races < RACES => races += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

async fn told(
    state: &AppState,
    plan: Uuid,
    request: &SignalRequest,
    (actor, if_match): (&str, Option<i64>),
) -> Result<SignalAnswer, StepError> {
    let signal = request.signal;
    let mut tx = state.store.write("workplan").await?;
    let Some(row) = tx.plan_for_step(plan).await? else { return Err(Problem::not_found("plan", plan).into()) };
    if let Some(taken) = tx.taken_signal(plan, &request.request_id).await? {
        if taken.request != *request || taken.actor != actor {
            let detail = format!("the request id {:?} was used for another signal", request.request_id);
            return Err(Problem::new(Code::KeyReused, detail).into());
        }
        return Ok(SignalAnswer { signal, accepted_at: taken.accepted_at, version: taken.version, repeated: true });
    }
    if let Some(wanted) = if_match.filter(|wanted| *wanted != row.version) {
        return Err(stale(wanted, row.version).into());
    }
    if let Some(patch) = &request.values {
        let mut head = row.plan.head.clone();
        patches::merge_maps(&mut head.values, patch);
        writing::plans::fits(&head)?;
    }
    if signal == Signal::Start && row.plan.state == PlanState::Planning {
        lift_veto(&mut tx, &row, request).await?;
    }
    let context = Context { actor, wall: state.clock.now() };
    let input = Input::Told(Told { request: request.clone(), actor: actor.to_owned() });
    let stepped = step(&mut tx, plan, vec![input], context).await.map_err(|error| instead(error, &row, signal))?;
    let version = stepped.row.version;
    let accepted_at = context.wall;
    let taken = TakenSignal { request: request.clone(), actor: actor.to_owned(), version, accepted_at };
    tx.take_signal(plan, &taken).await?;
    tx.notify().await?;
    tx.commit().await?;
    Ok(SignalAnswer { signal, accepted_at, version, repeated: false })
}

/// Notes that what a release is made of is not handed out by itself any more, since the plan that handed it out takes it
/// back. The caller commits.
pub(crate) async fn veto(tx: &mut Tx, row: &PlanRow, release: &Release, at: Revision) -> Result<(), StoreError> {
    let reason = row.plan.reason.as_deref().unwrap_or("it was rolled back");
    tx.veto(release.deployment, &release.inputs_digest, release.number, (reason, &row.plan.author), at).await
}

/// Lifts the veto of the release that a plan hands out: whoever starts it says why. A release that was never taken back
/// starts without.
async fn lift_veto(tx: &mut Tx, row: &PlanRow, request: &SignalRequest) -> Result<(), StepError> {
    let Some((deployment, inputs, veto)) = tx.veto_of_plan(row.plan.id).await? else { return Ok(()) };
    if request.reason.as_deref().unwrap_or_default().trim().is_empty() {
        let detail =
            format!("the release was taken back before, {}; to hand it out all the same takes a reason", why(&veto));
        let problem = Problem::new(Code::Invalid, detail).at("/reason", "it is kept in the history of the rollout");
        let name = deployment_of(row).unwrap_or(&row.name);
        return Err(problem.hint(format!("titan rollout retry {name} --reason '...'")).into());
    }
    Ok(tx.lift_veto(deployment, &inputs).await?)
}

/// Says with a refusal what to do instead, if it is because the plan is over.
fn instead(error: StepError, row: &PlanRow, signal: Signal) -> StepError {
    let StepError::Refused(problem) = error else { return error };
    if !row.plan.state.is_final() || row.parent.is_some() || problem.hint.is_some() {
        return StepError::Refused(problem);
    }
    let hint = match (deployment_of(row), signal) {
        (Some(_), Signal::Rollback) => "apply the version before: it is handed out as another release",
        (Some(_), _) => "apply what hosts are to have instead: it is handed out as another release",
        (None, _) => AGAIN,
    };
    problem.hint(hint).into()
}

/// Returns the deployment whose release a plan hands out, if it is a rollout: these are called after their release.
fn deployment_of(row: &PlanRow) -> Option<&str> {
    row.name.split_once('#').map(|(deployment, _)| deployment)
}

/// Returns why and when a release was taken back.
pub(crate) fn why(veto: &Veto) -> String {
    format!("as #{} at {}: {}", veto.number, veto.at, veto.reason)
}

/// Returns the problem of a plan that moved on since it was read.
pub(crate) fn stale(wanted: i64, found: i64) -> Problem {
    Problem::new(Code::Stale, format!("the plan is not at version {wanted} any more, it is at {found}"))
        .hint("read it again and repeat the change")
}
