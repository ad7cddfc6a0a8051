//! Jobs on their way through one worker.
//!
//! A worker is given more while it is at work, so that it never waits, and what it says is read as it comes. If it ends
//! or takes too long while it has more than one job, any of them may be the reason: it holds answers back for a moment
//! ([`crate::render::worker`]). They are done again, one at a time, and then the guilty one is known.

use std::collections::VecDeque;

use bytes::Bytes;
use titan_api::{Code, Problem, digests::Digest};
use tokio::io::AsyncWriteExt as _;

use super::{
    Job, Outcome, RenderedBundle, RendererConfig,
    patience::Patience,
    process::{Stop, Worker},
    queue::Queue,
};
use crate::render::{
    failure::Failure,
    frames::{self, Head, Kind, SLOTS},
    overlay, patch,
};

/// Bytes of requests that a worker may be given before it has answered the first.
const WINDOW_BYTES: usize = 1 << 20;
/// Bytes up to which a context is kept by a worker, patches to it counted as well: each of its templates may have one.
const KEPT: usize = 128 << 10;

/// Why a template or context does not fit into a frame.
const TOO_LONG: &str = "what is to be rendered takes more than 64 MiB";

/// What a worker has been asked and has not answered.
#[derive(Debug)]
pub(super) struct Pipeline<'a> {
    config: &'a RendererConfig,
    queue: &'a mut Queue,
    outcomes: &'a mut Vec<Outcome>,
    /// Requests that have not been written yet, from `written` on.
    out: Vec<u8>,
    written: usize,
    flight: VecDeque<Expected>,
    /// Bytes of the requests in flight.
    bytes: usize,
    /// The job whose context each slot of the worker holds, and how many bytes that is.
    kept: [Option<(usize, usize)>; SLOTS],
}

/// What the worker is to answer.
#[derive(Debug, Clone, Copy)]
struct Expected {
    index: usize,
    kind: Kind,
    bytes: usize,
}

impl<'a> Pipeline<'a> {
    pub(super) fn new(config: &'a RendererConfig, queue: &'a mut Queue, outcomes: &'a mut Vec<Outcome>) -> Self {
        Self {
            config,
            queue,
            outcomes,
            out: Vec::new(),
            written: 0,
            flight: VecDeque::new(),
            bytes: 0,
            kept: Default::default(),
        }
    }

    /// Does jobs until none is left. An error says why the worker is of no more use; then [`Self::suspects`] are not done.
    pub(super) async fn run(&mut self, worker: &mut Worker) -> Result<(), Stop> {
        let mut patience = Patience::new(worker.id());
        loop {
            self.fill(worker);
            let Some(next) = self.flight.front() else { return Ok(()) };
            let (limit, late) = match next.kind {
                Kind::Prepared => (self.config.prepare_timeout, Stop::Prepare),
                _ => (self.config.render_timeout, Stop::Render),
            };
            tokio::select! {
                biased;
                written = worker.input.write(&self.out[self.written..]), if self.written < self.out.len() => {
                    // If it cannot be written the worker has ended, which reading will find.
                    self.written += written.unwrap_or(self.out.len());
                }
                read = worker.answers.more() => {
                    read.map_err(|_| Stop::Broken)?;
                    let mut answered = false;
                    while let Some(head) = worker.answers.head().map_err(|_| Stop::Broken)? {
                        self.settle(head, worker.answers.body(head))?;
                        worker.answers.advance(head);
                        answered = true;
                    }
                    if answered {
                        patience.renew();
                    }
                }
                () = patience.end(limit) => return Err(late),
            }
        }
    }

    /// Returns the jobs that have not been answered.
    pub(super) fn suspects(&self) -> Vec<usize> {
        let mut suspects: Vec<_> = self.flight.iter().map(|expected| expected.index).collect();
        suspects.dedup();
        suspects
    }

    /// Adds requests once half of what may be in flight is answered.
    fn fill(&mut self, worker: &mut Worker) {
        let window = self.queue.window();
        if self.flight.len() * 2 > window || self.bytes * 2 > WINDOW_BYTES {
            return;
        }
        if self.written >= self.out.len() {
            self.out.clear();
            self.out.shrink_to(WINDOW_BYTES);
            self.written = 0;
        }
        while self.flight.len() < window && self.bytes < WINDOW_BYTES {
            let Some(index) = self.queue.take() else { break };
            if let Err(problem) = self.request(worker, index) {
                self.done(index, Err(problem));
            }
        }
    }

    /// Adds the frames of one job.
    fn request(&mut self, worker: &mut Worker, index: usize) -> Result<(), Problem> {
        let job = &self.queue[index];
        job.check()?;
        let begun = self.out.len();
        let (slot, known) = worker.slots.take(job.template.digest());
        if !known {
            self.kept[usize::from(slot)] = None;
            let written = serde_json::to_vec(job.template.spec().as_ref())
                .is_ok_and(|spec| frames::push(&mut self.out, Kind::Template, slot, &spec).is_ok());
            if !written {
                worker.slots.forget(job.template.digest());
                return Err(unsendable(&TOO_LONG));
            }
            self.expect(index, Kind::Prepared, begun);
        }
        let begun = self.out.len();
        let kind = match self.context(usize::from(slot), index) {
            Ok(kind) => kind,
            Err(problem) => {
                self.out.truncate(begun);
                return Err(problem);
            }
        };
        frames::end(&mut self.out, begun, kind, slot).map_err(|_| unsendable(&TOO_LONG))?;
        self.expect(index, Kind::Bundle, begun);
        Ok(())
    }

    /// Adds a job's context, as a patch if the slot holds another, without the frame's head.
    fn context(&mut self, slot: usize, index: usize) -> Result<Kind, Problem> {
        let begun = frames::begin(&mut self.out) + frames::HEAD;
        let Job { template, context, .. } = &self.queue[index];
        if let Some((before, bytes)) = self.kept[slot] {
            let before = &self.queue[before].context;
            patch::write_patch(template.reads(), before, context, &mut self.out).map_err(|error| unsendable(&error))?;
            let bytes = bytes + self.out.len() - begun;
            if bytes <= KEPT {
                self.kept[slot] = Some((index, bytes));
                return Ok(Kind::Render);
            }
            self.out.truncate(begun);
        }
        patch::write(template.reads(), context, &mut self.out).map_err(|error| unsendable(&error))?;
        let bytes = self.out.len() - begun;
        self.kept[slot] = (bytes <= KEPT).then_some((index, bytes));
        Ok(if bytes <= KEPT { Kind::Render } else { Kind::RenderOnce })
    }

    fn expect(&mut self, index: usize, kind: Kind, begun: usize) {
        let bytes = self.out.len() - begun;
        self.bytes += bytes;
        self.flight.push_back(Expected { index, kind, bytes });
    }

    /// Takes one answer.
    fn settle(&mut self, head: Head, body: &[u8]) -> Result<(), Stop> {
        let Expected { index, kind, bytes } = *self.flight.front().ok_or(Stop::Broken)?;
        let result = match (kind, head.kind) {
            (Kind::Prepared, Kind::Prepared) => None,
            (Kind::Bundle, Kind::Bundle) => {
                let Job { context, overlay, .. } = &self.queue[index];
                let body = match overlay {
                    Some(overlay) => overlay::laid(body, overlay).map(Bytes::from),
                    None => Ok(Bytes::copy_from_slice(body)),
                };
                let body = body.map_err(|failure| failure.render_failed(context));
                Some(body.map(|body| RenderedBundle { digest: Digest::of(&body), body }))
            }
            (Kind::Bundle, Kind::Failed) => {
                let failure: Failure = serde_json::from_slice(body).map_err(|_| Stop::Broken)?;
                Some(Err(failure.render_failed(&self.queue[index].context)))
            }
            _ => return Err(Stop::Broken),
        };
        self.flight.pop_front();
        self.bytes -= bytes;
        if let Some(result) = result {
            self.done(index, result);
        }
        Ok(())
    }

    fn done(&mut self, index: usize, result: Result<RenderedBundle, Problem>) {
        self.outcomes.push((index, result));
        self.queue.done();
    }
}

fn unsendable(reason: &impl std::fmt::Display) -> Problem {
    Problem::new(Code::RenderFailed, reason.to_string())
}
