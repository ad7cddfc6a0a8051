//! Rollouts: how far a deployment's newest release is handed out, and telling that something.

use clap::{Args, Subcommand};
use titan_api::{
    Code, Name, Problem,
    spans::Span,
    workplans::{NodeKind, NodeState, NodeView, PlanState, PlanStatus},
};

use super::workplans::{About, History, Status, Update, Whole, WorkPlan, exit, follow::Follow, needed, picture, watch};
use crate::{away, errors::CliError, output::Exit, session::Session};

/// What to do with a rollout.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  titan rollout watch web
  titan rollout history web --release 2
  titan rollout approve web --reason 'the canary looks good'
  titan rollout pause web
  titan rollout rollback web --reason 'customers complain'
  titan rollout retry web --reason 'it was the network'")]
pub(crate) enum Rollout {
    /// Show how far it is.
    Status(Waited),
    Watch(Watched),
    /// Show everything that happened in it.
    History(Story),
    /// Give no more hosts the release and stop the clocks; hosts that have it keep it.
    Pause(Of),
    /// Go on.
    Resume(Of),
    /// Open a gate; nobody opens one for a change of his own.
    Approve(Gate),
    /// Keep a gate closed.
    #[command(mut_arg("reason", needed))]
    Reject(Gate),
    /// Go on as if a stage or a check had passed.
    #[command(mut_arg("reason", needed))]
    Skip(Gate),
    /// Try again what waits for a person: a stage, a check, or a release that was taken back before.
    Retry(Gate),
    /// Change the deadline of a rollout whose strategy has one.
    Update(Deadline),
    /// Stop it; hosts that have the release keep it.
    #[command(mut_arg("reason", needed))]
    Abort(Of),
    /// Stop it and return every host to the release before.
    #[command(mut_arg("reason", needed))]
    Rollback(Of),
}

/// A deployment.
#[derive(Debug, Args)]
pub(crate) struct Of {
    /// Name of the deployment.
    deployment: Name,
    /// Why; kept in the history.
    #[arg(long)]
    reason: Option<String>,
}

/// Show a rollout as it goes on, until its end: its stages and their hosts, what waits for whom, and why it stopped.
///
/// On a terminal it is a picture that is painted again as something happens; elsewhere a line for each change, with `-o
/// json` one document a line: the plan, the nodes that changed, and what happened. A newer release that takes its place is
/// followed in turn. Ends with 0 if the release succeeded and with 1 if it did not.
#[derive(Debug, Args)]
pub(crate) struct Watched {
    /// Name of the deployment.
    deployment: Name,
}

/// A deployment, and whether to wait.
#[derive(Debug, Args)]
pub(crate) struct Waited {
    /// Name of the deployment.
    deployment: Name,
    /// The rollout of the release of this number; the newest unless given.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(1..))]
    release: Option<i64>,
    /// Wait for the end; ends with 1 unless the release succeeded.
    #[arg(long)]
    wait: bool,
}

/// A deployment, and what of its history.
#[derive(Debug, Args)]
pub(crate) struct Story {
    /// Name of the deployment.
    deployment: Name,
    /// The rollout of the release of this number; the newest unless given.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(1..))]
    release: Option<i64>,
    /// Only what happened to this stage or check.
    #[arg(long, value_name = "NODE")]
    node: Option<Name>,
    /// Only steps of the rollout, without the bookkeeping between them.
    #[arg(long)]
    brief: bool,
}

/// A stage or check of a rollout.
#[derive(Debug, Args)]
pub(crate) struct Gate {
    /// Name of the deployment.
    deployment: Name,
    /// Name of the stage or check; may be left out if only one waits.
    node: Option<Name>,
    /// Why; kept in the history.
    #[arg(long)]
    reason: Option<String>,
}

/// A deployment and its rollout's deadline.
#[derive(Debug, Args)]
pub(crate) struct Deadline {
    /// Name of the deployment.
    deployment: Name,
    /// The deadline, from the start of the rollout.
    #[arg(long, value_name = "SPAN")]
    deadline: Span,
    /// Why; kept in the history.
    #[arg(long)]
    reason: Option<String>,
}

async fn found(session: &Session, deployment: &Name) -> Result<PlanStatus, CliError> {
    Ok(session.client()?.rollout(&session.workspace()?, deployment).await?)
}

/// Returns the rollout of the release of a number, or the newest.
async fn of_release(session: &Session, deployment: &Name, release: Option<i64>) -> Result<PlanStatus, CliError> {
    match release {
        Some(number) => Ok(session.client()?.rollout_of(&session.workspace()?, deployment, number).await?),
        None => found(session, deployment).await,
    }
}

async fn whole(session: &Session, of: Of) -> Result<Whole, CliError> {
    Ok(Whole { plan: found(session, &of.deployment).await?.id.to_string(), reason: of.reason })
}

impl Watched {
    async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let (client, workspace) = (session.client()?, session.workspace()?);
        let mut id = found(session, &self.deployment).await?.id;
        loop {
            let begin = async || {
                let whose = Some((workspace.clone(), self.deployment.clone()));
                Follow::begin(&client, id, whose).await
            };
            let mut follow = away::outlast(|text| session.output.note(text), begin).await?;
            watch::watch(session.output, &mut follow).await?;
            // The one that takes its place is what people want to see then.
            let next = match follow.status.state {
                PlanState::Superseded => {
                    let newest = async || client.rollout(&workspace, &self.deployment).await;
                    away::outlast(|text| session.output.note(text), newest).await?.id
                }
                _ => id,
            };
            if next == id {
                return Ok(exit(&follow.status));
            }
            id = next;
        }
    }
}

/// Whether a person may say something to a node.
fn waits(node: &NodeView) -> bool {
    node.held || (node.kind == NodeKind::Check && node.state == NodeState::Waiting)
}

/// Says of a rollout that is over what to do instead of telling it something.
fn over(deployment: &Name, status: &PlanStatus) -> CliError {
    let detail = format!(
        "the rollout of {deployment} is over, {} {}: nothing in it waits for a person",
        status.name,
        picture::spoken(status.state)
    );
    let hint = match status.state {
        PlanState::Succeeded => "apply what hosts are to have instead: it is handed out as another release".to_owned(),
        _ => format!(
            "apply what is to go out instead: it is handed out as another release; to hand {} out again, apply another \
             version, such as the one before, and then this one: if it was taken back, it then waits for titan rollout retry \
             {deployment} --reason '...'",
            status.name
        ),
    };
    refused(detail, &hint)
}

/// Returns what the control plane says when it is told something at the wrong time.
fn refused(detail: String, hint: &str) -> CliError {
    let problem = Problem::new(Code::InvalidTransition, detail).hint(hint);
    CliError::Refused { problem: Box::new(problem), titles: Vec::new() }
}

fn about(gate: Gate, status: &PlanStatus) -> Result<About, CliError> {
    let waiting: Vec<&NodeView> = status.current.iter().filter(|node| waits(node)).collect();
    let node = match (gate.node, waiting.as_slice()) {
        (Some(node), _) => node,
        (None, [node]) => node.name.clone(),
        (None, []) if status.state.is_final() => return Err(over(&gate.deployment, status)),
        (None, []) => {
            let detail = format!("nothing in the rollout of {} waits for a person", gate.deployment);
            return Err(refused(detail, "look at it with titan rollout status"));
        }
        (None, several) => {
            let names: Vec<&str> = several.iter().map(|node| &*node.name).collect();
            return Err(CliError::usage(format!("several wait: {}", names.join(", ")), "name one of them"));
        }
    };
    Ok(About { plan: status.id.to_string(), node, reason: gate.reason })
}

impl Rollout {
    /// Does what the command says.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let plan = match self {
            Self::Status(Waited { deployment, release, wait }) => {
                let plan = of_release(session, &deployment, release).await?.id.to_string();
                // What is told to a deployment is told to its newest rollout.
                let whose = if release.is_none() { Some((session.workspace()?, deployment)) } else { None };
                WorkPlan::Status(Status { plan, wait, deployment: whose })
            }
            Self::Watch(watched) => return watched.run(session).await,
            Self::History(Story { deployment, release, node, brief }) => {
                let plan = of_release(session, &deployment, release).await?.id.to_string();
                WorkPlan::History(History { plan, node, brief })
            }
            Self::Pause(of) => WorkPlan::Pause(whole(session, of).await?),
            Self::Resume(of) => WorkPlan::Resume(whole(session, of).await?),
            Self::Abort(of) => WorkPlan::Abort(whole(session, of).await?),
            Self::Rollback(of) => WorkPlan::Rollback(whole(session, of).await?),
            Self::Approve(gate) => {
                let status = found(session, &gate.deployment).await?;
                WorkPlan::Approve(about(gate, &status)?)
            }
            Self::Reject(gate) => {
                let status = found(session, &gate.deployment).await?;
                WorkPlan::Reject(about(gate, &status)?)
            }
            Self::Skip(gate) => {
                let status = found(session, &gate.deployment).await?;
                WorkPlan::Skip(about(gate, &status)?)
            }
            Self::Retry(gate) => {
                let status = found(session, &gate.deployment).await?;
                // One that was taken back before was never begun.
                if status.state == PlanState::Planning && gate.node.is_none() {
                    WorkPlan::Start(Whole { plan: status.id.to_string(), reason: gate.reason })
                } else {
                    WorkPlan::Retry(about(gate, &status)?)
                }
            }
            Self::Update(Deadline { deployment, deadline, reason }) => WorkPlan::Update(Update {
                plan: found(session, &deployment).await?.id.to_string(),
                set: Vec::new(),
                deadline: Some(deadline),
                reason,
            }),
        };
        plan.run(session).await
    }
}
