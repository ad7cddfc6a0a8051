//! How long a worker is waited for.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How long a worker is waited for: its time limit, and again as long as it was hardly given a processor.
///
/// On a busy machine a worker may stand still for as long as a render may take. That is not the template's fault.
#[derive(Debug)]
pub(super) struct Patience {
    process: Option<u32>,
    since: Instant,
    extensions: u32,
    /// How long the worker had run, and when that was.
    spent: Option<Duration>,
    looked: Instant,
}

impl Patience {
    /// Limits that a worker which is not running may be waited for.
    const MOST: u32 = 10;
    /// How old the look at a worker's time may be; little, beside the time limits.
    const STALE: Duration = Duration::from_millis(20);

    /// Begins to wait.
    pub(super) fn new(process: Option<u32>) -> Self {
        let now = Instant::now();
        Self { process, since: now, extensions: 1, spent: process.and_then(spent), looked: now }
    }

    /// Begins to wait anew: the worker has answered.
    pub(super) fn renew(&mut self) {
        self.since = Instant::now();
        self.extensions = 1;
        if self.since.duration_since(self.looked) > Self::STALE {
            self.spent = self.process.and_then(spent);
            self.looked = self.since;
        }
    }

    /// Returns when the worker has had `limit` for its answer.
    pub(super) async fn end(&mut self, limit: Duration) {
        loop {
            sleep_until(self.since + limit).await;
            if self.extensions >= Self::MOST || !self.was_starved(limit) {
                return;
            }
            self.since += limit;
            self.extensions += 1;
        }
    }

    /// Whether the worker has had less than half of `limit` on a processor since it was last looked at.
    fn was_starved(&self, limit: Duration) -> bool {
        let spent_now = self.process.and_then(spent);
        matches!((self.spent, spent_now), (Some(before), Some(now)) if now.saturating_sub(before) < limit / 2)
    }
}

/// Returns how long a process has run on a processor, where the system says so.
fn spent(process: u32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
    Some(Duration::from_millis((user + system) * 1000 / rustix::param::clock_ticks_per_second()))
}
