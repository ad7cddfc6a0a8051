//! The pool of render workers.
//!
//! Jobs go through a worker one after another ([`pipeline`]). A worker that runs out of memory or time takes down the job
//! it was at, which fails with a sentence that says so, and is replaced; the jobs around it go on.

mod answers;
mod patience;
mod pipeline;
mod process;
mod queue;
mod slots;

use std::{
    ffi::OsString,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use serde_json::Value;
use titan_api::{Code, Problem, digests::Digest, values::Values};
use tokio::{sync::Semaphore, task::JoinSet};

use self::{
    pipeline::Pipeline,
    process::Worker,
    queue::{BLOCK, Heap, Queue},
};
use super::{Overlay, Template, worker::COMMAND};

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
    /// Files of the host that are as a person left them.
    pub overlay: Option<Arc<Overlay>>,
}

impl Job {
    /// Checks the context's values against the template's schema.
    fn check(&self) -> Result<(), Problem> {
        match self.context.get("values") {
            Some(Value::Object(values)) => self.template.check_values(values),
            _ => self.template.check_values(&Values::new()),
        }
    }
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
    done: Counter,
}

impl Renderer {
    /// Returns a renderer that has not started any worker yet.
    #[must_use]
    pub fn new(mut config: RendererConfig) -> Self {
        config.workers = config.workers.max(1);
        let permits = Semaphore::new(config.workers);
        Self { shared: Arc::new(Shared { config, permits, idle: Mutex::default(), done: Counter::default() }) }
    }

    /// Returns what counts the jobs that were done, failed ones included.
    #[must_use]
    pub(crate) fn done(&self) -> Counter {
        self.shared.done.clone()
    }

    /// Returns the result of every job, in order. Values that do not fit the template's schema are not rendered.
    ///
    /// A problem has the code `render_failed` if it is the template's or the values' fault, and `internal` if a worker
    /// could not be used.
    pub async fn render(&self, jobs: Vec<Job>) -> Vec<Result<RenderedBundle, Problem>> {
        let lanes = jobs.len().div_ceil(BLOCK).min(self.shared.config.workers);
        let mut results: Vec<Option<_>> = vec![None; jobs.len()];
        let heap = Heap::new(jobs);
        let mut running = JoinSet::new();
        for _ in 0..lanes {
            running.spawn(Arc::clone(&self.shared).lane(heap.queue(lanes)));
        }
        while let Some(lane) = running.join_next().await {
            for (index, result) in lane.unwrap_or_default() {
                results[index] = Some(result);
            }
        }
        self.shared.done.inc_by(results.len() as u64);
        results.into_iter().map(|result| result.unwrap_or_else(|| Err(lost()))).collect()
    }
}

type Outcome = (usize, Result<RenderedBundle, Problem>);

impl Shared {
    /// Does jobs until none is left.
    async fn lane(self: Arc<Self>, mut queue: Queue) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let Ok(_permit) = self.permits.acquire().await else { return outcomes };
        while let Some(next) = queue.peek() {
            let mut worker = match self.worker(&queue[next]).await {
                Ok(worker) => worker,
                Err(problem) => {
                    outcomes.extend(queue.take_all().map(|index| (index, Err(problem.clone()))));
                    continue;
                }
            };
            let mut pipeline = Pipeline::new(&self.config, &mut queue, &mut outcomes);
            let ended = pipeline.run(&mut worker).await;
            let suspects = pipeline.suspects();
            match (ended, suspects.as_slice()) {
                (Ok(()), _) => self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker),
                (Err(stop), [index]) => {
                    let problem = worker.end(stop, &self.config, &queue[*index].template).await;
                    outcomes.push((*index, Err(problem)));
                    queue.done();
                }
                (Err(_), several) => {
                    queue.put_back(several);
                    worker.kill().await;
                }
            }
        }
        outcomes
    }

    /// Returns an idle worker, one that knows the job's template if there is one, or a new one.
    async fn worker(&self, job: &Job) -> Result<Worker, Problem> {
        let idle = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let known = idle.iter().position(|worker| worker.holds(job.template.digest()));
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

fn lost() -> Problem {
    Problem::new(Code::Internal, "rendering was abandoned")
}
