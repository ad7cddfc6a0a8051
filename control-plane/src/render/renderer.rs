//! The pool of render workers.
//!
//! Jobs are sent to a worker in batches and answered one by one. A worker that runs out of memory or time takes down the
//! job it was at, which fails with a sentence that says so, and is replaced; the jobs behind it go on.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde_json::Value;
use titan_api::{Code, Problem, digests::Digest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use super::{
    Template,
    failure::Failure,
    frames::{self, HEAD, Head, Kind, SLOTS},
    worker::{COMMAND, MEMORY},
};

/// Jobs that a worker is given at a time.
const BATCH: usize = 32;
/// Bytes after which a batch is sent even if it has fewer jobs.
const BATCH_BYTES: usize = 1 << 20;

/// How a worker is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerCommand {
    /// The program, one that runs [`super::worker_main`] for these arguments.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

impl WorkerCommand {
    /// Returns the command that starts this very program as a worker.
    ///
    /// On Linux it stays the same program even if the file was replaced since.
    pub fn own() -> io::Result<Self> {
        let running = PathBuf::from("/proc/self/exe");
        let program = if running.exists() { running } else { std::env::current_exe()? };
        Ok(Self { program, args: vec![COMMAND.into()] })
    }
}

/// Settings of a [`Renderer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RendererConfig {
    /// How a worker is started.
    pub worker: WorkerCommand,
    /// Workers at once, at least one.
    pub workers: usize,
    /// How long one render may take.
    pub render_timeout: Duration,
    /// How long a worker may take to compile a template.
    pub prepare_timeout: Duration,
    /// How long a worker may take to start.
    pub start_timeout: Duration,
}

impl RendererConfig {
    /// Returns the usual settings: one worker for each core, up to four; 800 ms for a render.
    #[must_use]
    pub fn new(worker: WorkerCommand) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            worker,
            workers: cores.min(4),
            render_timeout: Duration::from_millis(800),
            prepare_timeout: Duration::from_secs(5),
            start_timeout: Duration::from_secs(10),
        }
    }
}

/// One thing to render.
#[derive(Debug, Clone)]
pub struct Job {
    /// The template.
    pub template: Arc<Template>,
    /// The whole context; only what the template can see of it is sent to the worker.
    pub context: Arc<Value>,
}

/// What a release renders to on one host, ready to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedBundle {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// A [`titan_api::poll::Bundle`] as JSON.
    pub body: Bytes,
}

/// Renders jobs in worker processes. Clones share the workers.
#[derive(Debug, Clone)]
pub struct Renderer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: RendererConfig,
    permits: Semaphore,
    idle: Mutex<Vec<Worker>>,
}

impl Renderer {
    /// Returns a renderer that has not started any worker yet.
    #[must_use]
    pub fn new(mut config: RendererConfig) -> Self {
        config.workers = config.workers.max(1);
        let permits = Semaphore::new(config.workers);
        Self { shared: Arc::new(Shared { config, permits, idle: Mutex::default() }) }
    }

    /// Returns the result of every job, in order.
    ///
    /// A problem has the code `render_failed` if it is the template's or the values' fault, and `internal` if a worker
    /// could not be used.
    pub async fn render(&self, jobs: Vec<Job>) -> Vec<Result<RenderedBundle, Problem>> {
        let lanes = jobs.len().div_ceil(BATCH).min(self.shared.config.workers);
        let mut results: Vec<_> = jobs.iter().map(|_| Err(lost())).collect();
        let jobs: Arc<[Job]> = jobs.into();
        let next = Arc::new(AtomicUsize::new(0));
        let mut running = JoinSet::new();
        for _ in 0..lanes {
            running.spawn(Arc::clone(&self.shared).lane(Arc::clone(&jobs), Arc::clone(&next)));
        }
        while let Some(lane) = running.join_next().await {
            for (index, result) in lane.unwrap_or_default() {
                results[index] = result;
            }
        }
        results
    }
}

type Outcome = (usize, Result<RenderedBundle, Problem>);

impl Shared {
    /// Takes batch after batch until none is left.
    async fn lane(self: Arc<Self>, jobs: Arc<[Job]>, next: Arc<AtomicUsize>) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let Ok(_permit) = self.permits.acquire().await else { return outcomes };
        let mut worker = None;
        loop {
            let start = next.fetch_add(BATCH, Ordering::Relaxed);
            if start >= jobs.len() {
                break;
            }
            let mut at = start;
            let end = (start + BATCH).min(jobs.len());
            while at < end {
                let mut with = match worker.take() {
                    Some(worker) => worker,
                    None => match self.worker(&jobs[at]).await {
                        Ok(worker) => worker,
                        Err(problem) => {
                            outcomes.extend((at..end).map(|index| (index, Err(problem.clone()))));
                            break;
                        }
                    },
                };
                match with.work(&self.config, &jobs, at..end, &mut outcomes).await {
                    Ok(done) => {
                        at = done;
                        worker = Some(with);
                    }
                    Err((index, stop)) => {
                        outcomes.push((index, Err(with.end(stop, &self.config).await)));
                        at = index + 1;
                    }
                }
            }
        }
        if let Some(worker) = worker {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
        }
        outcomes
    }

    /// Returns an idle worker, one that knows the job's template if there is one, or a new one.
    async fn worker(&self, job: &Job) -> Result<Worker, Problem> {
        let idle = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let known = idle.iter().position(|worker| worker.slots.holds(job.template.digest()));
            known.or_else(|| idle.len().checked_sub(1)).map(|index| idle.swap_remove(index))
        };
        if let Some(mut worker) = idle
            && worker.is_alive()
        {
            return Ok(worker);
        }
        Worker::start(&self.config)
            .await
            .map_err(|error| Problem::new(Code::Internal, format!("a render worker could not be started: {error}")))
    }
}

/// Why a worker is of no more use.
#[derive(Debug)]
enum Stop {
    /// It took too long over a render.
    Render,
    /// It took too long over a template.
    Prepare,
    /// It ended, or said something out of turn.
    Broken,
}

#[derive(Debug)]
struct Worker {
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
    async fn start(config: &RendererConfig) -> io::Result<Self> {
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

    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Does jobs of `range` in order and returns where it stopped: at the end of the range or of a full batch. An error
    /// holds the job that stopped the worker.
    async fn work(
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
            match self.request(&jobs[index], index, &mut out, &mut expected) {
                Ok(()) => done = index + 1,
                Err(_) if expected.is_empty() => return Err((index, Stop::Broken)),
                Err(_) => break,
            }
            if out.len() >= BATCH_BYTES {
                break;
            }
        }
        let Self { input, output, .. } = self;
        let mut writing = std::pin::pin!(input.write_all(&out));
        let mut reading = std::pin::pin!(read_all(output, config, jobs, &expected, outcomes));
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
    async fn end(mut self, stop: Stop, config: &RendererConfig) -> Problem {
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
            (Stop::Render, _) => stopped(&format!("after {} ms", config.render_timeout.as_millis())),
            (Stop::Prepare, _) => stopped(&format!("after {} ms of compiling", config.prepare_timeout.as_millis())),
            (Stop::Broken, status) if status.is_some_and(was_out_of_memory) => {
                stopped(&format!("at more than {} MiB of memory", MEMORY >> 20))
            }
            (Stop::Broken, status) => {
                let how = status.map_or_else(|| "an answer out of turn".to_owned(), |status| status.to_string());
                Problem::new(Code::Internal, format!("the render worker failed: {how}"))
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

fn stopped(how: &str) -> Problem {
    let detail = format!("rendering was stopped {how}");
    Problem::new(Code::RenderFailed, detail.clone())
        .at("/spec", detail)
        .hint("look for a loop or a text that grows with every turn")
}

fn lost() -> Problem {
    Problem::new(Code::Internal, "rendering was abandoned")
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
    jobs: &[Job],
    expected: &[Expected],
    outcomes: &mut Vec<Outcome>,
) -> Result<(), (usize, Stop)> {
    for expected in expected {
        let (index, limit) = match expected {
            Expected::Prepared(index) => (*index, config.prepare_timeout),
            Expected::Bundle(index) => (*index, config.render_timeout),
        };
        let (head, body) = match (timeout(limit, read_frame(output)).await, expected) {
            (Ok(Ok(frame)), _) => frame,
            (Ok(Err(_)), _) => return Err((index, Stop::Broken)),
            (Err(_), Expected::Prepared(_)) => return Err((index, Stop::Prepare)),
            (Err(_), Expected::Bundle(_)) => return Err((index, Stop::Render)),
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

/// Which template lies in which slot of a worker; the one unused for longest makes room.
#[derive(Debug, Default)]
struct Slots {
    held: BTreeMap<Digest, (u8, u64)>,
    uses: u64,
}

impl Slots {
    fn holds(&self, template: Digest) -> bool {
        self.held.contains_key(&template)
    }

    /// Returns a slot for `template` and whether it lies there already.
    fn take(&mut self, template: Digest) -> (u8, bool) {
        self.uses += 1;
        let uses = self.uses;
        if let Some((slot, used)) = self.held.get_mut(&template) {
            *used = uses;
            return (*slot, true);
        }
        let free = (0..SLOTS as u8).find(|slot| self.held.values().all(|(held, _)| held != slot));
        let slot = free.unwrap_or_else(|| {
            let oldest =
                self.held.iter().min_by_key(|(_, (_, used))| *used).map(|(digest, (slot, _))| (*digest, *slot));
            oldest.map_or(0, |(digest, slot)| {
                self.held.remove(&digest);
                slot
            })
        });
        self.held.insert(template, (slot, uses));
        (slot, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_unused_for_longest_makes_room() {
        let mut slots = Slots::default();
        let digest = |n: usize| Digest::of(&n.to_le_bytes());
        for n in 0..SLOTS {
            assert_eq!(slots.take(digest(n)), (n as u8, false));
        }
        assert_eq!(slots.take(digest(0)), (0, true));
        assert_eq!(slots.take(digest(99)), (1, false));
        assert!(!slots.holds(digest(1)) && slots.holds(digest(0)));
    }
}
