//! What is to be rendered next.

use std::{
    collections::VecDeque,
    ops::Index,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::Job;

/// Jobs that are taken from the common heap at a time.
pub(super) const BLOCK: usize = 32;
/// Jobs that a worker may be given before it has answered the first.
const WINDOW: usize = 256;

/// The jobs of one call, shared by the lanes that do them.
#[derive(Debug, Clone)]
pub(super) struct Heap {
    jobs: Arc<[Job]>,
    next: Arc<AtomicUsize>,
}

/// The jobs of one lane.
#[derive(Debug)]
pub(super) struct Queue {
    heap: Heap,
    taken: VecDeque<usize>,
    window: usize,
    /// Jobs that are to be done one at a time, because one of them has stopped a worker.
    suspects: usize,
}

impl Heap {
    pub(super) fn new(jobs: Vec<Job>) -> Self {
        Self { jobs: jobs.into(), next: Arc::default() }
    }

    /// Returns the queue of one of `lanes` lanes.
    pub(super) fn queue(&self, lanes: usize) -> Queue {
        // No lane takes so much at once that the others have nothing to do.
        let window = (self.jobs.len() / lanes.max(1) / 2).clamp(BLOCK, WINDOW);
        Queue { heap: self.clone(), taken: VecDeque::new(), window, suspects: 0 }
    }
}

impl Index<usize> for Queue {
    type Output = Job;

    fn index(&self, index: usize) -> &Job {
        &self.heap.jobs[index]
    }
}

impl Queue {
    /// Returns the number of the next job without taking it.
    pub(super) fn peek(&mut self) -> Option<usize> {
        if self.taken.is_empty() {
            let start = self.heap.next.fetch_add(BLOCK, Ordering::Relaxed);
            self.taken.extend(start..(start + BLOCK).min(self.heap.jobs.len()));
        }
        self.taken.front().copied()
    }

    /// Takes the next job.
    pub(super) fn take(&mut self) -> Option<usize> {
        self.peek()?;
        self.taken.pop_front()
    }

    /// Takes all jobs that no other lane will do.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = usize> {
        self.suspects = 0;
        self.taken.drain(..)
    }

    /// Returns how many jobs may be under way at once.
    pub(super) const fn window(&self) -> usize {
        if self.suspects > 0 { 1 } else { self.window }
    }

    /// Says that a job is done.
    pub(super) const fn done(&mut self) {
        self.suspects = self.suspects.saturating_sub(1);
    }

    /// Puts jobs back of which one has stopped a worker; nobody knows which.
    pub(super) fn put_back(&mut self, suspects: &[usize]) {
        self.suspects = suspects.len();
        suspects.iter().rev().for_each(|index| self.taken.push_front(*index));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use titan_api::templates::{TemplateFile, TemplateSpec};

    use super::*;
    use crate::render::Template;

    fn heap(count: usize) -> Heap {
        let file = TemplateFile::of(b"x".to_vec(), false);
        let spec = TemplateSpec { files: [("a".to_owned(), file)].into() };
        let template = Arc::new(Template::parse(&spec).expect("template"));
        Heap::new(vec![Job { template, context: Arc::new(json!({})), overlay: None }; count])
    }

    #[test]
    fn every_job_is_taken_once() {
        let heap = heap(100);
        let mut queues = [heap.queue(2), heap.queue(2)];
        let mut taken = Vec::new();
        while let Some(index) = queues[taken.len() % 2].take().or_else(|| queues[0].take()).or_else(|| queues[1].take())
        {
            taken.push(index);
        }
        taken.sort_unstable();
        assert_eq!(taken, (0..100).collect::<Vec<_>>());
        assert_eq!((queues[0].peek(), queues[1].peek()), (None, None));
    }

    #[test]
    fn suspects_are_done_first_and_one_at_a_time() {
        let mut queue = heap(1000).queue(1);
        assert_eq!(queue.window(), WINDOW);
        let suspects: Vec<_> = (0..3).filter_map(|_| queue.take()).collect();
        queue.put_back(&suspects[1..]);
        assert_eq!((queue.window(), queue.take(), queue.take()), (1, Some(1), Some(2)));
        queue.done();
        assert_eq!(queue.window(), 1);
        queue.done();
        assert_eq!((queue.window(), queue.take()), (WINDOW, Some(3)));
    }
}
