//! Rates: how often one credential may ask, so that no caller keeps the others out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use titan_api::{Code, Digest, Problem};

/// What may come at once after a silence, in microseconds: what the rate allows in that time.
const BURST: i64 = 5_000_000;
/// Credentials that are counted; who is forgotten begins anew.
const COUNTED: u64 = 100_000;
/// How long a silent credential is remembered: longer than a burst takes to be allowed again.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How much of its rate each credential has used, by the hash of its secret. Time is that of the machine since the
/// beginning, which nobody puts back.
#[derive(Debug)]
pub(super) struct Rates {
    used: moka::sync::Cache<Digest, Arc<AtomicI64>>,
    since: Instant,
}

impl Default for Rates {
    fn default() -> Self {
        let used = moka::sync::Cache::builder().max_capacity(COUNTED).time_to_idle(REMEMBERED).build();
        Self { used, since: Instant::now() }
    }
}

impl Rates {
    /// Counts a request; refuses it if there were more than `per_second` of this credential, bursts aside.
    pub(super) fn count(&self, credential: Digest, per_second: u32) -> Result<(), Problem> {
        let used = self.used.get_with(credential, Arc::default);
        let apart = 1_000_000 / i64::from(per_second.max(1));
        let now = i64::try_from(self.since.elapsed().as_micros()).unwrap_or(i64::MAX);
        if admitted(&used, apart.max(1), now) {
            return Ok(());
        }
        let detail = format!("more than {per_second} requests a second came with this credential");
        let hint = "ask less often, or raise requestsPerSecond of the control plane";
        Err(Problem::new(Code::Overloaded, detail).hint(hint))
    }
}

/// Whether another request is within the rate, `now` microseconds after the beginning. `used` is when all that came would
/// have come one by one, each `apart` from the one before: a burst runs ahead of the time, and what is refused takes
/// nothing from what may come.
fn admitted(used: &AtomicI64, apart: i64, now: i64) -> bool {
    let most = now.saturating_add(BURST);
    let next = |used: i64| Some(used.max(now).saturating_add(apart)).filter(|next| *next <= most);
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn admitted_of(used: &AtomicI64, requests: usize, now: i64) -> usize {
        (0..requests).filter(|_| admitted(used, SECOND / 10, now)).count()
    }

    /// S3-22.
    #[test]
    fn as_many_as_the_rate_allows_and_a_burst_after_a_silence() {
        let used = AtomicI64::new(0);
        let now = 1_000 * SECOND;
        assert_eq!(admitted_of(&used, 1000, now), 50, "five seconds of ten");
        assert_eq!(admitted_of(&used, 1000, now + SECOND), 10);
        // Whoever goes on asking is not kept out for that: he gets his rate.
        let steadily = (1..=1000).map(|step| admitted_of(&used, 1, now + SECOND + step * SECOND / 100)).sum::<usize>();
        assert_eq!(steadily, 100, "ten seconds of ten, asked ten times as often");
        assert_eq!(admitted_of(&used, 1000, now + 3600 * SECOND), 50, "what was not used does not gather");
    }

    #[test]
    fn each_credential_has_a_rate_of_its_own() {
        let rates = Rates::default();
        let count = |who: &[u8]| rates.count(Digest::of(who), 1);
        for _ in 0..5 {
            count(b"ann").expect("within the burst");
        }
        let refused = (0..1000).find_map(|_| count(b"ann").err()).expect("too often");
        assert_eq!((refused.code, refused.status), (Code::Overloaded, 429));
        assert!(refused.detail.contains("more than 1 requests a second"), "{}", refused.detail);
        count(b"bob").expect("somebody else");
    }
}
