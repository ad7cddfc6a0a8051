//! Plans: how far they are, what happened in them, and telling them something.

pub(crate) mod follow;
mod history;
mod named;
pub(crate) mod picture;
mod shown;
mod status;
pub(crate) mod watch;
mod worker;

use clap::{Arg, Args, Subcommand};
use serde_json::{Value, json};
use titan_api::{
    Name,
    client::Client,
    spans::Span,
    values::Values,
    workplans::{NodeKind, NodeState, PlanState, PlanStatus, Signal, SignalRequest},
};
use uuid::Uuid;

use crate::{
    errors::CliError,
    output::{Exit, Tone, View},
    session::Session,
};

use follow::Follow;
pub(super) use history::History;
pub(crate) use named::id_of;
use named::plain;
pub(super) use status::Status;

/// How many plans are listed.
const LISTED: usize = 100;

/// What to do with plans.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  titan apply -f release.yaml
  titan workplan watch release
  titan workplan status web#2                             the rollout of a release
  titan workplan approve release gate --reason 'looked at the numbers'
  titan workplan abort release --reason 'wrong version'
  titan workplan work --queue builds -- ./build.sh")]
pub(crate) enum WorkPlan {
    List(List),
    Status(Status),
    Watch(Watch),
    History(History),
    Nodes(Nodes),
    /// Begin a plan that was only put together.
    Start(Whole),
    /// Let nothing new begin and stop the clocks; what is on its way goes on.
    Pause(Whole),
    /// Go on with a paused plan.
    Resume(Whole),
    /// Open a gate; nobody opens one of a plan that is his own.
    Approve(About),
    /// Keep a gate closed, or say no to a node that waits for a person.
    #[command(mut_arg("reason", needed))]
    Reject(About),
    /// Go on as if a node had passed.
    #[command(mut_arg("reason", needed))]
    Skip(About),
    /// Try a node again that waits for a person, or for its next attempt.
    Retry(About),
    Update(Update),
    /// Stop a plan.
    #[command(mut_arg("reason", needed))]
    Abort(Whole),
    /// Stop a plan and undo what was done.
    #[command(mut_arg("reason", needed))]
    Rollback(Whole),
    Work(worker::Work),
}

/// Returns the argument as one that has to be there: the control plane takes these signals with a reason only.
pub(super) fn needed(argument: Arg) -> Arg {
    argument.required(true)
}

/// List plans, the newest first.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Those of every workspace.
    #[arg(short = 'A', long)]
    all_workspaces: bool,
}

/// Show a plan as it goes on, until its end.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Name or id of the plan; `web#2` is the rollout of a release.
    #[arg(value_parser = plain)]
    pub(super) plan: String,
}

/// List the nodes of a plan.
#[derive(Debug, Args)]
pub(crate) struct Nodes {
    /// Name or id of the plan; `web#2` is the rollout of a release.
    #[arg(value_parser = plain)]
    pub(super) plan: String,
    /// Only stages, or only checks.
    #[arg(long, value_name = "KIND")]
    kind: Option<NodeKind>,
    /// Only those in this state.
    #[arg(long, value_name = "STATE")]
    state: Option<NodeState>,
}

/// A whole plan, and why.
#[derive(Debug, Args)]
pub(crate) struct Whole {
    /// Name or id of the plan; `web#2` is the rollout of a release.
    #[arg(value_parser = plain)]
    pub(super) plan: String,
    /// Why; kept in its history.
    #[arg(long)]
    pub(super) reason: Option<String>,
}

/// A node of a plan, and why.
#[derive(Debug, Args)]
pub(crate) struct About {
    /// Name or id of the plan; `web#2` is the rollout of a release.
    #[arg(value_parser = plain)]
    pub(super) plan: String,
    /// Name of the node.
    pub(super) node: Name,
    /// Why; kept in its history.
    #[arg(long)]
    pub(super) reason: Option<String>,
}

/// Change the values or the deadline of a plan while it runs.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Name or id of the plan; `web#2` is the rollout of a release.
    #[arg(value_parser = plain)]
    pub(super) plan: String,
    /// A value: `address.city=Berlin`; as JSON if it is some. May be given more than once.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
    /// The deadline, from the start of the plan.
    #[arg(long, value_name = "SPAN")]
    pub(super) deadline: Option<Span>,
    /// Why; kept in its history.
    #[arg(long)]
    pub(super) reason: Option<String>,
}

impl WorkPlan {
    /// Does what the command says.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        match self {
            Self::List(command) => command.run(session).await,
            Self::Status(command) => command.run(session).await,
            Self::Watch(command) => command.run(session).await,
            Self::History(command) => command.run(session).await,
            Self::Nodes(command) => command.run(session).await,
            Self::Start(whole) => whole.tell(session, Signal::Start).await,
            Self::Pause(whole) => whole.tell(session, Signal::Pause).await,
            Self::Resume(whole) => whole.tell(session, Signal::Resume).await,
            Self::Abort(whole) => whole.tell(session, Signal::Abort).await,
            Self::Rollback(whole) => whole.tell(session, Signal::Rollback).await,
            Self::Approve(about) => about.tell(session, Signal::Approve).await,
            Self::Reject(about) => about.tell(session, Signal::Reject).await,
            Self::Skip(about) => about.tell(session, Signal::Skip).await,
            Self::Retry(about) => about.tell(session, Signal::Retry).await,
            Self::Update(command) => command.run(session).await,
            Self::Work(command) => command.run(session).await,
        }
    }
}

impl List {
    async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let client = session.client()?;
        let workspace = if self.all_workspaces { None } else { Some(session.workspace()?) };
        let page = client.plans(workspace.as_deref(), LISTED).await?;
        session.output.show(&shown::plans(&page.items))?;
        Ok(Exit::Done)
    }
}

/// Returns how a command ends that waited for the end of a plan.
pub(super) const fn exit(status: &PlanStatus) -> Exit {
    match status.state {
        PlanState::Succeeded => Exit::Done,
        _ => Exit::Failed,
    }
}

impl Watch {
    async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let client = session.client()?;
        let id = id_of(&client, session, &self.plan).await?;
        let mut follow = Follow::begin(&client, id, None).await?;
        watch::watch(session.output, &mut follow).await?;
        Ok(exit(&follow.status))
    }
}

impl Nodes {
    async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let client = session.client()?;
        let id = id_of(&client, session, &self.plan).await?;
        let nodes = client.plan_nodes(id, self.kind, self.state).await?;
        session.output.show(&shown::nodes(&nodes))?;
        Ok(Exit::Done)
    }
}

/// Sends a signal and says so.
async fn send(
    session: &Session,
    client: &Client,
    (id, plan): (Uuid, &str),
    request: &SignalRequest,
) -> Result<Exit, CliError> {
    let answer = client.signal(id, request).await?;
    let about = request.node.as_ref().map_or_else(String::new, |node| format!(" {node}"));
    let line = format!("workplan/{plan} {}", Tone::Good.paint(&format!("told to {}{about}", request.signal)));
    session.output.show(&View::new(&answer).name(format!("workplan/{plan}")).text(line))?;
    Ok(Exit::Done)
}

impl Whole {
    async fn tell(self, session: &Session, signal: Signal) -> Result<Exit, CliError> {
        let client = session.client()?;
        let id = id_of(&client, session, &self.plan).await?;
        let request = SignalRequest { reason: self.reason, ..SignalRequest::new(signal, Uuid::now_v7().to_string()) };
        send(session, &client, (id, &self.plan), &request).await
    }
}

impl About {
    async fn tell(self, session: &Session, signal: Signal) -> Result<Exit, CliError> {
        let client = session.client()?;
        let id = id_of(&client, session, &self.plan).await?;
        // What is decided is decided about the node as it stands now.
        let generation = match signal {
            Signal::Approve | Signal::Reject => Some(client.plan_node(id, &self.node).await?.generation),
            _ => None,
        };
        let request = SignalRequest {
            reason: self.reason,
            node: Some(self.node),
            generation,
            ..SignalRequest::new(signal, Uuid::now_v7().to_string())
        };
        send(session, &client, (id, &self.plan), &request).await
    }
}

impl Update {
    async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let client = session.client()?;
        let id = id_of(&client, session, &self.plan).await?;
        let mut values = Value::Object(Values::new());
        for text in &self.set {
            put(&mut values, text)?;
        }
        let values = match values {
            Value::Object(values) if !values.is_empty() => Some(values),
            _ => None,
        };
        let request = SignalRequest {
            reason: self.reason,
            values,
            deadline: self.deadline,
            ..SignalRequest::new(Signal::Update, Uuid::now_v7().to_string())
        };
        send(session, &client, (id, &self.plan), &request).await
    }
}

/// Puts `a.b=value` into a map.
fn put(values: &mut Value, text: &str) -> Result<(), CliError> {
    let wrong = || CliError::usage(format!("{text:?} is not KEY=VALUE"), "write it as address.city=Berlin");
    let (path, value) = text.split_once('=').ok_or_else(wrong)?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    let mut at = values;
    for key in path.split('.') {
        if key.is_empty() {
            return Err(wrong());
        }
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[key];
    }
    *at = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_put_where_their_path_says() {
        let mut values = json!({});
        for text in ["address.city=Berlin", "address.zip=10115", "gift=true"] {
            put(&mut values, text).expect(text);
        }
        assert_eq!(values, json!({"address": {"city": "Berlin", "zip": 10115}, "gift": true}));
        for bad in ["x", "a..b=1", "=1"] {
            assert!(put(&mut json!({}), bad).is_err(), "{bad}");
        }
    }
}
