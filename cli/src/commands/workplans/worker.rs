//! A worker: takes attempts from queues and runs a command for each.

use std::{process::Stdio, time::Duration};

use clap::Args;
use serde_json::{Value, json};
use titan_api::{
    Name,
    client::{Client, ClientError},
    limits,
    workplans::attempts::{ClaimRequest, Claimed, Completion, Heartbeat, Verdict},
};
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use crate::{
    errors::CliError,
    output::{Exit, Tone},
    session::Session,
};

/// How long to wait after the control plane could not be asked.
const AGAIN: Duration = Duration::from_secs(2);
/// Bytes of a command's output that are kept.
const OUTPUT: usize = 4096;

/// Do the work of plans: take attempts from queues and run a command for each.
///
/// The command reads what it is to do from standard input, as JSON. It passes with 0; 1 says that the answer is no; with
/// anything else the job was not done, and is tried again as the plan's policy says.
#[derive(Debug, Args)]
pub(crate) struct Work {
    /// Queue to take from. May be given more than once.
    #[arg(long = "queue", value_name = "QUEUE", required = true)]
    queues: Vec<Name>,
    /// End once nothing was left to do, instead of waiting for more.
    #[arg(long)]
    once: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Work {
    /// Works until there is nothing to do, or for ever.
    pub(super) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let client = session.client()?;
        let process_uid = format!("worker-{}", Uuid::now_v7());
        loop {
            let wait = if self.once { 0 } else { limits::WAIT_SECONDS / 2 };
            let request = ClaimRequest { queues: self.queues.clone(), process_uid: process_uid.clone(), wait };
            let claimed = match client.claim(&request).await {
                Ok(answer) => answer.attempt,
                Err(error @ ClientError::Unreachable { .. }) if !self.once => {
                    session.output.note(&Tone::Care.paint(&format!("{error}; trying again")));
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let Some(claimed) = claimed else {
                if self.once {
                    return Ok(Exit::Done);
                }
                continue;
            };
            let (plan, node, number) = (&claimed.plan_name, &claimed.node, claimed.number);
            let completion = self.one(&client, &claimed, &process_uid).await;
            let word = completion.code.clone().unwrap_or_else(|| match completion.verdict {
                Some(Verdict::Failed) => "no".to_owned(),
                _ => "passed".to_owned(),
            });
            session.output.line(&format!("{plan} {node} attempt {number}: {word}"))?;
            if let Err(error) = client.complete((claimed.plan, node, number), &completion).await {
                // It may have been stopped, or taken too long; the plan knows.
                session.output.note(&Tone::Care.paint(&format!("{plan} {node}: {error}")));
            }
        }
    }

    /// Runs the command for an attempt, and says in between that it is being done.
    async fn one(&self, client: &Client, claimed: &Claimed, process_uid: &str) -> Completion {
        let completion = |verdict, code: Option<&str>, message: Option<String>, details| Completion {
            process_uid: process_uid.to_owned(),
            verdict,
            code: code.map(str::to_owned),
            message,
            details,
            results: Vec::new(),
        };
        let broken = |error: std::io::Error| {
            completion(None, Some("command"), Some(format!("{}: {error}", self.command[0])), None)
        };
        let mut command = tokio::process::Command::new(&self.command[0]);
        command.args(&self.command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = match command.kill_on_drop(true).spawn() {
            Ok(child) => child,
            Err(error) => return broken(error),
        };
        if let Some(mut input) = child.stdin.take() {
            // A command that reads nothing closes it; that is its right.
            let _read_or_not = input.write_all(json!(claimed).to_string().as_bytes()).await;
        }
        let beat = claimed.heartbeat.map_or(Duration::from_secs(15), |span| span.0.mul_f64(0.9));
        let finished = child.wait_with_output();
        tokio::pin!(finished);
        let output = loop {
            tokio::select! {
                output = &mut finished => break output,
                () = tokio::time::sleep(beat) => {
                    let heartbeat = Heartbeat { process_uid: process_uid.to_owned(), progress: None };
                    let answer = client.heartbeat((claimed.plan, &claimed.node, claimed.number), &heartbeat).await;
                    if matches!(answer, Ok(answer) if answer.cancel) {
                        return completion(None, Some("cancelled"), Some("stopped as it was told".to_owned()), None);
                    }
                }
            }
        };
        let output = match output {
            Ok(output) => output,
            Err(error) => return broken(error),
        };
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let short: String = text.chars().take(OUTPUT).collect();
        let details: Value = serde_json::from_str(&short).unwrap_or(Value::String(short));
        let details = (!text.is_empty()).then_some(details);
        match output.status.code() {
            Some(0) => completion(Some(Verdict::Passed), None, None, details),
            Some(1) => completion(Some(Verdict::Failed), None, Some("the command says no".to_owned()), details),
            code => {
                let message = code.map_or_else(
                    || "the command was killed".to_owned(),
                    |code| format!("the command ended with {code}"),
                );
                completion(None, Some("exit"), Some(message), details)
            }
        }
    }
}
