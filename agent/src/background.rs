//! Work in the background: what may take long (a pull, a hook, a probe) runs beside everything else, so that one deployment
//! never holds up another (law 8). It runs on the agent's one thread; whoever asked looks again when the agent is woken.

use std::{collections::HashMap, fmt, future::Future, hash::Hash};

use tokio::{
    runtime::Handle,
    sync::oneshot::{self, error::TryRecvError},
    task::AbortHandle,
};

use crate::wake::Wake;

/// What runs in the background, by key.
pub(crate) struct Background<K, T> {
    io: Handle,
    wake: Wake,
    running: HashMap<K, Running<T>>,
}

struct Running<T> {
    answer: oneshot::Receiver<T>,
    task: AbortHandle,
}

/// How something in the background stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stands<T> {
    /// Nobody started it.
    Unknown,
    /// It runs.
    Running,
    /// It has ended with this, which is told once.
    Ended(T),
    /// It ended without a result.
    Lost,
}

impl<K, T> fmt::Debug for Background<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

impl<K: Eq + Hash, T: Send + 'static> Background<K, T> {
    pub(crate) fn new(io: Handle, wake: Wake) -> Self {
        Self { io, wake, running: HashMap::new() }
    }

    /// Starts `work` under `key`, unless something runs under it.
    pub(crate) fn start(&mut self, key: K, work: impl Future<Output = T> + Send + 'static) {
        if self.running.contains_key(&key) {
            return;
        }
        let (say, answer) = oneshot::channel();
        let wake = self.wake.clone();
        let task = self.io.spawn(async move {
            let _nobody_waits = say.send(work.await);
            wake.ended();
        });
        self.running.insert(key, Running { answer, task: task.abort_handle() });
    }

    /// Returns how the work under `key` stands.
    pub(crate) fn look(&mut self, key: &K) -> Stands<T> {
        let Some(running) = self.running.get_mut(key) else { return Stands::Unknown };
        let stands = match running.answer.try_recv() {
            Ok(answer) => Stands::Ended(answer),
            Err(TryRecvError::Empty) => return Stands::Running,
            Err(TryRecvError::Closed) => Stands::Lost,
        };
        self.running.remove(key);
        stands
    }

    /// Ends all work whose key `keep` does not want.
    pub(crate) fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.running.retain(|key, running| {
            let kept = keep(key);
            if !kept {
                running.task.abort();
            }
            kept
        });
    }

    /// Whether anything is being done, whoever looked.
    pub(crate) fn is_busy(&self) -> bool {
        self.are_busy(|_| true)
    }

    /// Whether anything is being done under such keys.
    pub(crate) fn are_busy(&self, of: impl Fn(&K) -> bool) -> bool {
        self.running.iter().any(|(key, running)| of(key) && !running.task.is_finished())
    }

    /// Whether nothing runs, and whatever ended was told.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }
}

impl<K, T> Drop for Background<K, T> {
    fn drop(&mut self) {
        self.running.values().for_each(|running| running.task.abort());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_told_once_and_wakes_whoever_waits() {
        let wake = Wake::default();
        let mut background = Background::new(Handle::current(), wake.clone());
        assert_eq!(background.look(&1), Stands::Unknown);
        background.start(1, async { 7 });
        background.start(1, async { 8 });
        background.start(2, std::future::pending());
        wake.notified().await;
        assert_eq!(background.look(&1), Stands::Ended(7));
        assert_eq!(background.look(&1), Stands::Unknown);
        assert_eq!((background.look(&2), background.is_busy()), (Stands::Running, true));
        background.retain(|_| false);
        assert!(background.is_idle());
    }
}
