//! Tasks: units of asynchronous work.

use clap::Args;
use serde_json::json;
use titan_api::{
    client::Client,
    limits,
    tasks::{Task as Record, TaskState},
};
use uuid::Uuid;

use crate::{
    errors::CliError,
    output::{
        Exit, Tone, View, ages,
        tables::{Cell, Table},
    },
    session::Session,
};

/// Show a task; list them with `titan get tasks`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  titan task 0198f2c4-7d3e-7a11-9c55-0d6c1f1e2a3b --wait")]
pub(crate) struct Task {
    /// Id of the task.
    id: Uuid,
    /// Wait until it has ended; ends with 1 if it failed.
    #[arg(long)]
    wait: bool,
}

impl Task {
    /// Shows the task.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let client = session.client()?;
        let task = loop {
            let task = client.task(self.id, if self.wait { limits::WAIT_SECONDS } else { 0 }).await?;
            if task.state.is_final() || !self.wait {
                break task;
            }
        };
        let mut view = View::new(&task).name(format!("task/{}", task.id)).table(table(std::slice::from_ref(&task)));
        if let Some(result) = &task.result {
            view = view.text(format!("result: {result}"));
        }
        session.output.show(&view)?;
        Ok(if self.wait && task.state == TaskState::Failed { Exit::Failed } else { Exit::Done })
    }
}

/// Returns the newest tasks.
pub(crate) async fn list(client: &Client) -> Result<View, CliError> {
    let tasks = client.tasks().await?.items;
    let view = View::new(&json!({ "items": tasks })).table(table(&tasks));
    Ok(tasks.iter().fold(view, |view, task| view.name(format!("task/{}", task.id))))
}

fn table(tasks: &[Record]) -> Table {
    let now = ages::now();
    let mut table = Table::new(&["ID", "KIND", "SUBJECT", "STATE", "UPDATED", "AGE"]);
    for task in tasks {
        let tone = match task.state {
            TaskState::Completed => Tone::Good,
            TaskState::Failed => Tone::Bad,
            TaskState::Pending | TaskState::Running => Tone::Care,
            TaskState::Cancelled => Tone::Faint,
        };
        table.row([
            task.id.to_string().into(),
            task.kind.as_str().into(),
            task.subject.as_str().into(),
            Cell::toned(task.state.as_str(), tone),
            ages::age(task.updated_at, now).into(),
            ages::age(task.created_at, now).into(),
        ]);
    }
    table
}
