//! Going over many hosts, one after the other, so that others can use the processor meanwhile.

use std::time::Instant;

use tokio::sync::{Semaphore, SemaphorePermit};

/// After so many hosts others may use the processor.
const BREATH: usize = 1024;
/// Whoever goes over more hosts than these goes alone, and works half of the time: a fleet's worth of stages that all begin
/// when the control plane does would leave nothing to polls and to the planner.
const CROWD: usize = 65_536;

/// A way over many hosts.
#[derive(Debug)]
pub(super) struct Stride<'s> {
    alone: Option<SemaphorePermit<'s>>,
    passed: usize,
    since: Instant,
}

impl<'s> Stride<'s> {
    /// Begins to go over so many hosts; where they are a crowd, once nobody else goes over one.
    pub(super) async fn over(crowds: &'s Semaphore, hosts: usize) -> Self {
        // It is never closed.
        let alone = if hosts > CROWD { crowds.acquire().await.ok() } else { None };
        Self { alone, passed: 0, since: Instant::now() }
    }

    /// Passes a host.
    pub(super) async fn pass(&mut self) {
        self.passed += 1;
        if self.passed.is_multiple_of(BREATH) {
            match self.alone {
                Some(_) => tokio::time::sleep(self.since.elapsed()).await,
                None => tokio::task::yield_now().await,
            }
            self.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn crowds_are_gone_over_one_after_the_other_and_hold_up_nobody_else() {
        let crowds = Semaphore::new(1);
        let first = Stride::over(&crowds, CROWD + 1).now_or_never().expect("nobody is before it");
        assert!(Stride::over(&crowds, CROWD + 1).now_or_never().is_none());
        assert!(Stride::over(&crowds, CROWD).now_or_never().is_some(), "these are few");
        drop(first);
        assert!(Stride::over(&crowds, CROWD + 1).now_or_never().is_some());
    }
}
