//! One worker process, as seen from the control plane.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use titan_api::{Code, Problem, digests::Digest, parse::escape, problems::Fault, templates::RENDERED};
use tokio::{
    process::{Child, ChildStdin, Command},
    time::timeout,
};

use super::{RendererConfig, answers::Answers, slots::Slots};
use crate::render::{
    frames::{Head, Kind},
    template::Template,
    worker::MEMORY,
};

/// How long the end of a worker is waited for.
const GRACE: Duration = Duration::from_millis(200);
/// Files that are named as the possible reason of a render that was stopped.
const NAMED: usize = 5;

/// Why a worker is of no more use.
#[derive(Debug)]
pub(super) enum Stop {
    /// It took too long over a render.
    Render,
    /// It took too long over a template.
    Prepare,
    /// It ended, or said something out of turn.
    Broken,
}

#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    pub(super) input: ChildStdin,
    pub(super) answers: Answers,
    pub(super) slots: Slots,
}

impl Worker {
    pub(super) async fn start(config: &RendererConfig) -> io::Result<Self> {
        let mut child = Command::new(&config.worker.program)
            .args(&config.worker.args)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = (input, output) else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let mut answers = Answers::new(output);
        let first = async {
            loop {
                match answers.head()? {
                    Some(head) => return Ok(head),
                    None => answers.more().await?,
                }
            }
        };
        let head: io::Result<Head> = timeout(config.start_timeout, first).await.map_err(|_| io::ErrorKind::TimedOut)?;
        let head = head?;
        if head.kind != Kind::Ready {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak like a render worker"));
        }
        answers.advance(head);
        Ok(Self { child, input, answers, slots: Slots::default() })
    }

    /// Returns the process's number while it runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Whether it knows a template already.
    pub(super) fn holds(&self, template: Digest) -> bool {
        self.slots.holds(template)
    }

    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends the worker.
    pub(super) async fn kill(&mut self) {
        // It is killed on drop as well; this waits until it is gone.
        let _ended_or_gone = timeout(GRACE, self.child.kill()).await;
    }

    /// Ends the worker and returns what is to be said of the job that it was at.
    pub(super) async fn end(mut self, stop: Stop, config: &RendererConfig, template: &Template) -> Problem {
        let status = match stop {
            Stop::Broken => timeout(GRACE, self.child.wait()).await.ok().and_then(Result::ok),
            Stop::Render | Stop::Prepare => None,
        };
        if status.is_none() {
            self.kill().await;
        }
        match (stop, status) {
            (Stop::Render, _) => stopped(template, &format!("after {} ms", config.render_timeout.as_millis())),
            (Stop::Prepare, _) => {
                stopped(template, &format!("after {} ms of compiling", config.prepare_timeout.as_millis()))
            }
            (Stop::Broken, status) if status.is_some_and(was_out_of_memory) => {
                stopped(template, &format!("at more than {} MiB of memory", MEMORY >> 20))
            }
            (Stop::Broken, status) => {
                let how = status.map_or_else(|| "an answer out of turn".to_owned(), |status| status.to_string());
                // Whatever it was, it is this template's: others are not held up by it.
                stopped(template, &format!("because its process ended ({how})"))
            }
        }
    }
}

/// Whether a worker ended as one that was refused memory does: Rust aborts it, and a stack that cannot grow is a fault.
fn was_out_of_memory(status: ExitStatus) -> bool {
    use rustix::process::Signal;
    let signals = [Signal::ABORT, Signal::SEGV, Signal::BUS, Signal::KILL].map(Signal::as_raw);
    status.signal().is_some_and(|signal| signals.contains(&signal))
}

/// Returns the problem of a render that was stopped, with the files that may be the reason: all that are rendered.
fn stopped(template: &Template, why: &str) -> Problem {
    let rendered: Vec<_> = template.spec().files.keys().filter(|path| path.ends_with(RENDERED)).collect();
    let named: Vec<_> = rendered.iter().take(NAMED).map(|path| path.as_str()).collect();
    let more = if rendered.len() > NAMED { ", ..." } else { "" };
    let place = match named.as_slice() {
        [] => "a file's name".to_owned(),
        named => format!("{}{more}", named.join(" or ")),
    };
    let faults = rendered
        .iter()
        .take(NAMED)
        .map(|path| Fault::new(format!("/spec/files/{}", escape(path)), format!("rendering was stopped {why}")));
    Problem::new(Code::RenderFailed, format!("rendering was stopped {why}, in {place}"))
        .with(faults)
        .hint("look for a loop without an end, or a text or list that doubles again and again")
}
