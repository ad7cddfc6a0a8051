//! One worker process, as seen from the control plane.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use titan_api::{Code, Problem, digests::Digest, parse::escape, problems::Fault, templates::RENDERED};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::{
    Job, Outcome, RenderedBundle, RendererConfig,
    patience::{Late, Patience},
    slots::Slots,
};
use crate::render::{
    failure::Failure,
    frames::{self, HEAD, Head, Kind},
    template::Template,
    worker::MEMORY,
};

/// Bytes after which a batch is sent even if it has fewer jobs.
const BATCH_BYTES: usize = 1 << 20;
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
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    slots: Slots,
}

/// What the worker is to answer next.
#[derive(Debug, Clone, Copy)]
enum Expected {
    Prepared(usize),
    Bundle(usize),
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
        let output = BufReader::with_capacity(1 << 16, output);
        let mut worker = Self { child, input, output, slots: Slots::default() };
        let ready = timeout(config.start_timeout, worker.read()).await;
        match ready {
            Ok(Ok((head, _))) if head.kind == Kind::Ready => Ok(worker),
            Ok(Ok(_)) => Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak like a render worker")),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Whether it knows a template already.
    pub(super) fn holds(&self, template: Digest) -> bool {
        self.slots.holds(template)
    }

    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Does jobs of `range` in order and returns where it stopped: at the end of the range or of a full batch. An error
    /// holds the job that stopped the worker.
    pub(super) async fn work(
        &mut self,
        config: &RendererConfig,
        jobs: &[Job],
        range: std::ops::Range<usize>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<usize, (usize, Stop)> {
        let mut out = Vec::new();
        let mut expected = Vec::new();
        let mut done = range.start;
        for index in range {
            if let Err(problem) = jobs[index].check() {
                outcomes.push((index, Err(problem)));
                done = index + 1;
                continue;
            }
            match self.request(&jobs[index], index, &mut out, &mut expected) {
                Ok(()) => done = index + 1,
                Err(_) if expected.is_empty() => return Err((index, Stop::Broken)),
                Err(_) => break,
            }
            if out.len() >= BATCH_BYTES {
                break;
            }
        }
        let patience = Patience::new(self.child.id());
        let Self { input, output, .. } = self;
        let mut writing = std::pin::pin!(input.write_all(&out));
        let mut reading = std::pin::pin!(read_all(output, config, &patience, jobs, &expected, outcomes));
        let mut written = false;
        loop {
            tokio::select! {
                read = &mut reading => return read.map(|()| done),
                // If it cannot be written the worker has ended, which reading will find.
                _ = &mut writing, if !written => written = true,
            }
        }
    }

    /// Adds the frames of one job to `out`.
    fn request(&mut self, job: &Job, index: usize, out: &mut Vec<u8>, expected: &mut Vec<Expected>) -> io::Result<()> {
        let context = serde_json::to_vec(&job.template.reads().of_context(&job.context))?;
        if context.len() > frames::BODY {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (slot, known) = self.slots.take(job.template.digest());
        if !known {
            frames::push(out, Kind::Template, slot, &serde_json::to_vec(job.template.spec().as_ref())?)?;
            expected.push(Expected::Prepared(index));
        }
        frames::push(out, Kind::Render, slot, &context)?;
        expected.push(Expected::Bundle(index));
        Ok(())
    }

    async fn read(&mut self) -> io::Result<(Head, Vec<u8>)> {
        read_frame(&mut self.output).await
    }

    /// Ends the worker and returns what is to be said of the job that it was at.
    pub(super) async fn end(mut self, stop: Stop, config: &RendererConfig, template: &Template) -> Problem {
        let grace = Duration::from_millis(200);
        let status = match stop {
            Stop::Broken => timeout(grace, self.child.wait()).await.ok().and_then(Result::ok),
            Stop::Render | Stop::Prepare => None,
        };
        if status.is_none() {
            // It is killed on drop as well; this waits until it is gone.
            let _ended_or_gone = timeout(grace, self.child.kill()).await;
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

async fn read_frame(output: &mut BufReader<ChildStdout>) -> io::Result<(Head, Vec<u8>)> {
    let mut head = [0; HEAD];
    output.read_exact(&mut head).await?;
    let head = Head::read(head)?;
    let mut body = vec![0; head.length];
    output.read_exact(&mut body).await?;
    Ok((head, body))
}

/// Reads the answers to `expected`, in order.
async fn read_all(
    output: &mut BufReader<ChildStdout>,
    config: &RendererConfig,
    patience: &Patience,
    jobs: &[Job],
    expected: &[Expected],
    outcomes: &mut Vec<Outcome>,
) -> Result<(), (usize, Stop)> {
    for expected in expected {
        let (index, limit) = match expected {
            Expected::Prepared(index) => (*index, config.prepare_timeout),
            Expected::Bundle(index) => (*index, config.render_timeout),
        };
        let (head, body) = match (patience.wait(limit, read_frame(output)).await, expected) {
            (Ok(Ok(frame)), _) => frame,
            (Ok(Err(_)), _) => return Err((index, Stop::Broken)),
            (Err(Late), Expected::Prepared(_)) => return Err((index, Stop::Prepare)),
            (Err(Late), Expected::Bundle(_)) => return Err((index, Stop::Render)),
        };
        let result = match (expected, head.kind) {
            (Expected::Prepared(_), Kind::Prepared) => continue,
            (Expected::Bundle(_), Kind::Bundle) => {
                Ok(RenderedBundle { digest: Digest::of(&body), body: Bytes::from(body) })
            }
            (Expected::Bundle(_), Kind::Failed) => match serde_json::from_slice::<Failure>(&body) {
                Ok(failure) => Err(failure.render_failed(&jobs[index].context)),
                Err(_) => return Err((index, Stop::Broken)),
            },
            _ => return Err((index, Stop::Broken)),
        };
        outcomes.push((index, result));
    }
    Ok(())
}
