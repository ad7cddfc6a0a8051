//! Tasks: units of asynchronous work.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use serde_json::json;
use titan_api::{
    Kind, Name,
    client::Client,
    limits,
    tasks::{ENROL, ENROL_ALL, REMOVE, ROLLOUT, Task as Record, TaskFilter, TaskState, WORKPLAN},
};
use uuid::Uuid;

use super::workplans;
use crate::{
    away::{self, Away},
    errors::CliError,
    output::{
        Exit, Output, Tone, View, ages,
        progress::Progress,
        tables::{Cell, Table},
    },
    session::Session,
};

/// Show a task; list them with `titan get tasks`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan task 0198f2c4-7d3e-7a11-9c55-0d6c1f1e2a3b
  titan task 0198f2c4-7d3e-7a11-9c55-0d6c1f1e2a3b --wait --timeout 10m    ends with 1 unless it was done")]
pub(crate) struct Task {
    /// Id of the task; that of a rollout or plan is the plan's, whose name will do too: `web#2`.
    #[arg(value_name = "ID", value_parser = plain)]
    id: String,
    /// Wait until it has ended; ends with 1 unless it was done.
    #[arg(long)]
    wait: bool,
    /// How long to wait at most.
    #[arg(long, value_name = "TIME", default_value = "5m", requires = "wait", value_parser = ages::parse_duration)]
    timeout: Duration,
}

/// Returns what a task is called as it is, or as `-o name` prints it.
fn plain(text: &str) -> Result<String, Infallible> {
    Ok(["task/", "workplan/"].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text).to_owned())
}

impl Task {
    /// Returns what shows the task that is called so.
    pub(crate) fn named(name: &str) -> Self {
        let Ok(id) = plain(name);
        Self { id, wait: false, timeout: Duration::ZERO }
    }

    /// Shows the task and its parts.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let client = session.client()?;
        let id = workplans::id_of(&client, session, &self.id).await?;
        let exit = if self.wait { ended(&client, session.output, &[id], self.timeout).await? } else { Exit::Done };
        let task = client.task(id, 0).await?;
        let rows = table(std::slice::from_ref(&task), false);
        let mut view = View::new(&task).name(format!("task/{}", task.id)).table(rows);
        if let Some(reason) = reason(&task) {
            view = view.text(format!("{} {reason}", Tone::Bad.paint("reason:")));
        }
        if let Some(result) = &task.result {
            view = view.text(format!("result: {result}"));
        }
        if !task.children.is_empty() {
            let parts: Vec<String> = task.children.iter().map(|(state, count)| format!("{count} {state}")).collect();
            let command = Tone::Faint.paint(&format!("titan get tasks --parent {}", task.id));
            view = view.text(format!("parts: {} ({command})", parts.join(", ")));
        }
        session.output.show(&view)?;
        Ok(exit)
    }
}

/// Why it is not done: what went wrong the last time, or what the plan says whose task it is.
fn reason(task: &Record) -> Option<&str> {
    let told = || task.result.as_ref()?.get("reason")?.as_str();
    let wrong = matches!(task.state, TaskState::Failed | TaskState::Cancelled);
    let reason = task.error.as_deref().filter(|_| task.state != TaskState::Completed);
    reason.or_else(|| told().filter(|_| wrong)).filter(|reason| !reason.is_empty())
}

/// Waits until tasks have ended. Ends with [`Exit::Failed`] unless all of them were done in time.
pub(crate) async fn ended(
    client: &Client,
    output: Output,
    tasks: &[Uuid],
    timeout: Duration,
) -> Result<Exit, CliError> {
    let (mut progress, begin) = (Progress::new(output), Instant::now());
    let (mut exit, mut away) = (Exit::Done, Away::default());
    for id in tasks {
        loop {
            let left = timeout.saturating_sub(begin.elapsed());
            let task = match client.task(*id, left.as_secs().min(limits::WAIT_SECONDS)).await {
                Ok(task) => {
                    away.back();
                    task
                }
                Err(error) if !left.is_zero() && away.endures(&error) => {
                    progress.say(away::SAID);
                    Away::pass().await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if task.state.is_final() {
                if task.state != TaskState::Completed {
                    exit = Exit::Failed;
                }
                break;
            }
            if left.is_zero() {
                output.note(&format!("{} of {} is still {}", task.kind, task.subject, task.state.as_str()));
                return Ok(Exit::Failed);
            }
            progress.say(&format!("{} of {}: {}", task.kind, task.subject, task.state.as_str()));
            // Less than a second is left: the control plane is not asked to hold the answer any more.
            tokio::time::sleep(left.min(Duration::from_millis(100))).await;
        }
    }
    Ok(exit)
}

/// Which tasks to list.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Tasks")]
pub(crate) struct Filter {
    /// Tasks in this state.
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Tasks of this kind.
    #[arg(long = "task-kind", value_name = "KIND", value_parser = [ENROL, ENROL_ALL, REMOVE, ROLLOUT, WORKPLAN])]
    task_kind: Option<String>,
    /// Parts of this task or plan; that of a rollout may be named: `web#2`.
    #[arg(long, value_name = "ID", value_parser = plain)]
    parent: Option<String>,
    /// Tasks about this deployment.
    #[arg(long, value_name = "NAME", conflicts_with = "host")]
    deployment: Option<Name>,
    /// Tasks about this host.
    #[arg(long, value_name = "NAME")]
    host: Option<Name>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    /// Not begun.
    Pending,
    /// Being done.
    Running,
    /// Done.
    Completed,
    /// Could not be done.
    Failed,
    /// No longer wanted.
    Cancelled,
}

impl Filter {
    /// Whether any tasks are left out.
    pub(crate) const fn is_given(&self) -> bool {
        self.state.is_some()
            || self.task_kind.is_some()
            || self.parent.is_some()
            || self.deployment.is_some()
            || self.host.is_some()
    }

    /// Returns what the control plane is asked for; `given`: the workspace that was named, `own`: that of names without.
    fn wanted(&self, given: Option<&Name>, own: &Name, parent: Option<Uuid>) -> TaskFilter {
        let deployment = self.deployment.as_ref().map(|name| format!("{} {own}/{name}", Kind::Deployment));
        let host = self.host.as_ref().map(|name| format!("{} {name}", Kind::Host));
        let state = self.state.map(|state| match state {
            State::Pending => TaskState::Pending,
            State::Running => TaskState::Running,
            State::Completed => TaskState::Completed,
            State::Failed => TaskState::Failed,
            State::Cancelled => TaskState::Cancelled,
        });
        TaskFilter {
            state,
            kind: self.task_kind.clone(),
            workspace: given.cloned(),
            parent,
            subject: deployment.or(host),
            ..TaskFilter::default()
        }
    }
}

/// Returns the newest tasks: of all workspaces unless one is named.
pub(crate) async fn list(client: &Client, session: &Session, filter: &Filter) -> Result<View, CliError> {
    let parent = match &filter.parent {
        Some(parent) => Some(workplans::id_of(client, session, parent).await?),
        None => None,
    };
    let wanted = filter.wanted(session.given_workspace(), &session.workspace()?, parent);
    let page = client.tasks(&wanted).await?;
    let tasks = page.items;
    if page.next.is_some() {
        session.output.note(&Tone::Faint.paint(&format!("there are more than these {}", tasks.len())));
    }
    let view = View::new(&json!({ "items": tasks })).table(table(&tasks, true));
    Ok(tasks.iter().fold(view, |view, task| view.name(format!("task/{}", task.id))))
}

/// Returns a row for each task; `reasons`: with why it is not done, where there is any.
fn table(tasks: &[Record], reasons: bool) -> Table {
    let now = ages::now();
    let headings =
        ["ID", "KIND", "SUBJECT", "STATE", "PARTS", "TRIES", "+PARENT", "+HOLDER", "UPDATED", "AGE", "REASON"];
    // The last column is there only where there is a reason: it takes the room of the others.
    let reasons = reasons && tasks.iter().any(|task| reason(task).is_some());
    let mut table = Table::new(if reasons { &headings } else { headings.split_last().map_or(&[], |(_, rest)| rest) });
    for task in tasks {
        let tone = match task.state {
            TaskState::Completed => Tone::Good,
            TaskState::Failed => Tone::Bad,
            TaskState::Pending | TaskState::Running => Tone::Care,
            TaskState::Cancelled => Tone::Faint,
        };
        let ended = [TaskState::Completed, TaskState::Failed, TaskState::Cancelled];
        let done: u64 = ended.iter().filter_map(|state| task.children.get(state.as_str())).sum();
        let parts = (!task.children.is_empty()).then(|| format!("{done}/{}", task.children.values().sum::<u64>()));
        let mut row: Vec<Cell> = vec![
            task.id.to_string().into(),
            task.kind.as_str().into(),
            task.subject.as_str().into(),
            Cell::toned(task.state.as_str(), tone),
            Cell::maybe(parts),
            Cell::maybe((task.attempts > 0).then(|| task.attempts.to_string())),
            Cell::maybe(task.parent.map(|parent| parent.to_string())),
            Cell::maybe(task.holder.as_deref()),
            ages::age(task.updated_at, now).into(),
            ages::age(task.created_at, now).into(),
        ];
        if reasons {
            row.push(Cell::maybe(reason(task)));
        }
        table.row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::output::Format;

    #[test]
    fn parts_and_tries_are_shown_where_there_are_any() {
        let now = ages::now();
        let whole = Record {
            children: [("completed".to_owned(), 97), ("failed".to_owned(), 1), ("pending".to_owned(), 2)].into(),
            state: TaskState::Running,
            ..Record::new(Uuid::nil(), "enrolAll", "100 hosts".to_owned(), json!({}), now)
        };
        let part = Record { attempts: 3, ..Record::new(Uuid::nil(), "remove", "Host a".to_owned(), json!({}), now) };
        let text = table(&[whole, part], true);
        let text = View::new(&json!({})).table(text).render(Format::Table, None);
        let text = anstream::adapter::strip_str(&text).to_string();
        let row = |word: &str| {
            let line = text.lines().find(|line| line.contains(word)).unwrap_or_default();
            line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(row("enrolAll"), "enrolAll 100 hosts running 98/100 - 0s 0s", "{text}");
        assert_eq!(row("remove"), "remove Host a pending - 3 0s 0s", "{text}");
    }

    #[test]
    fn why_a_task_failed_is_said_where_it_is_listed() {
        let now = ages::now();
        let of = |state: TaskState, error: Option<&str>, result: Option<Value>| Record {
            state,
            error: error.map(str::to_owned),
            result,
            ..Record::new(Uuid::nil(), "rollout", "Deployment default/web".to_owned(), json!({}), now)
        };
        let because = json!({ "plan": "failed", "reason": "stage canary: 1 of 1 hosts failed" });
        let failed = of(TaskState::Failed, None, Some(because.clone()));
        let again = of(TaskState::Pending, Some("the database is away"), None);
        let done = of(TaskState::Completed, Some("the database was away"), Some(because));
        let shown = |tasks: &[Record], width: Option<u16>| {
            let text = View::new(&json!({})).table(table(tasks, true)).render(Format::Table, width);
            anstream::adapter::strip_str(&text).to_string()
        };
        let text = shown(&[failed.clone(), again, done.clone()], None);
        let ends: Vec<_> = text.lines().map(|line| line.rsplit("  ").next().unwrap_or_default()).collect();
        assert_eq!(ends, ["REASON", "stage canary: 1 of 1 hosts failed", "the database is away", "-"], "{text}");
        assert!(shown(&[failed], Some(100)).lines().all(|line| line.chars().count() <= 100));
        assert!(!shown(&[done], None).contains("REASON"));
    }

    #[test]
    fn names_are_looked_for_in_their_workspace() {
        let name = |text: &str| Name::new(text).expect("a name");
        let filter = Filter { deployment: Some(name("web")), ..Filter::default() };
        let wanted = filter.wanted(None, &name("iot"), None);
        assert_eq!((wanted.subject.as_deref(), wanted.workspace), (Some("Deployment iot/web"), None));
        let filter = Filter { host: Some(name("pi")), ..Filter::default() };
        let wanted = filter.wanted(Some(&name("iot")), &name("iot"), None);
        assert_eq!((wanted.subject.as_deref(), wanted.workspace), (Some("Host pi"), Some(name("iot"))));
        assert!(filter.is_given() && !Filter::default().is_given());
    }
}
