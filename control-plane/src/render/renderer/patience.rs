//! How long a worker is waited for.

use std::time::Duration;

use tokio::time::timeout;

/// How long a worker is waited for: its time limit, and again as long as it was hardly given a processor.
///
/// On a busy machine a worker may stand still for as long as a render may take. That is not the template's fault.
#[derive(Debug)]
pub(super) struct Patience {
    process: Option<u32>,
    spent_before: Option<Duration>,
}

/// A worker took too long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Late;

impl Patience {
    /// Limits that a worker which is not running may be waited for.
    const MOST: u32 = 10;

    pub(super) fn new(process: Option<u32>) -> Self {
        Self { process, spent_before: process.and_then(spent) }
    }

    /// Returns what `answer` gives within the limit.
    pub(super) async fn wait<T>(&self, limit: Duration, answer: impl Future<Output = T>) -> Result<T, Late> {
        let mut answer = std::pin::pin!(answer);
        for _ in 0..Self::MOST {
            match timeout(limit, &mut answer).await {
                Ok(answer) => return Ok(answer),
                Err(_) if self.was_starved(limit) => {}
                Err(_) => break,
            }
        }
        Err(Late)
    }

    /// Whether the worker has had less than half of `limit` on a processor since the batch was sent.
    fn was_starved(&self, limit: Duration) -> bool {
        let spent_now = self.process.and_then(spent);
        matches!((self.spent_before, spent_now), (Some(before), Some(now)) if now.saturating_sub(before) < limit / 2)
    }
}

/// Returns how long a process has run on a processor, where the system says so.
fn spent(process: u32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
    Some(Duration::from_millis((user + system) * 1000 / rustix::param::clock_ticks_per_second()))
}
