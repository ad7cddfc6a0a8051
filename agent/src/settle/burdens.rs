//! Burdens: what was left to a deployment, is wanted by nobody, and is not down yet. They hold up nothing for long.

use std::time::{Duration, Instant};

use titan_api::deployments::OnRemove;
use uuid::Uuid;

use super::{Worker, chain};
use crate::{claims::Claims, pace};

/// How long a deployment waits at most until what was left to it is down, and how long a window is waited for at a time.
const PATIENCE: Duration = Duration::from_mins(1);
/// The pause before it is tried again: doubled each time, up to the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(15), Duration::from_mins(10));

/// What of others a deployment has to put up with.
#[derive(Debug)]
pub(super) struct Burden {
    /// When it was to be taken down first.
    pub(super) since: Instant,
    /// Why it is not, where that holds nobody up any more.
    why: Option<String>,
    count: u32,
    /// When it is tried again.
    pub(super) again: Instant,
}

impl Worker {
    /// Takes down what others left to a deployment and nobody wants. What cannot be taken down, or takes longer than a minute, is
    /// told and tried again later; without `waits` nothing is waited for at all. Returns what is waited for.
    pub(super) fn unburden(
        &mut self,
        id: Uuid,
        wants: &Claims,
        heir: &dyn Fn(&str) -> Option<Uuid>,
        waits: bool,
    ) -> Option<String> {
        let told = self.burdens.get(&id).is_some_and(|burden| burden.why.is_some());
        if told && self.bears(id) {
            return None;
        }
        let declined = self.decline(id, wants, heir, OnRemove::Delete);
        let now = Instant::now();
        let burden = self.burdens.entry(id).or_insert(Burden { since: now, why: None, count: 0, again: now });
        let why = match declined {
            Ok(None) => {
                self.burdens.remove(&id);
                return None;
            }
            Ok(Some(why)) if waits && burden.why.is_none() && burden.since.elapsed() < PATIENCE => return Some(why),
            Ok(Some(why)) => why,
            Err(error) => chain(&error),
        };
        if burden.why.as_ref() != Some(&why) {
            tracing::warn!(deployment.id = %id, "what was left to a deployment is not down: {why}");
        }
        burden.again = now + pace::doubled(RETRY, burden.count);
        burden.count += 1;
        burden.why = Some(why);
        None
    }

    /// Leaves what was left to a deployment for now, since nothing may be begun.
    pub(super) fn bear(&mut self, id: Uuid) {
        let now = Instant::now();
        let burden = self.burdens.entry(id).or_insert(Burden { since: now, why: None, count: 0, again: now });
        burden.again = burden.again.max(now + PATIENCE);
    }

    /// Whether a deployment goes on with what was left to it, until that is tried again.
    pub(super) fn bears(&self, id: Uuid) -> bool {
        self.burdens.get(&id).is_some_and(|burden| Instant::now() < burden.again)
    }

    /// Returns why what was left to a deployment is not down.
    pub(super) fn burden(&self, id: Uuid) -> Option<&str> {
        self.burdens.get(&id).and_then(|burden| burden.why.as_deref()).filter(|_| self.ledger.is_left(id))
    }

    /// Returns when a burden is looked at again.
    pub(super) fn next_burden(&self) -> Option<Instant> {
        let ahead = |next: &Instant| self.passed.is_none_or(|passed| *next > passed);
        let ends = |burden: &Burden| burden.since + PATIENCE;
        self.burdens.values().flat_map(|burden| [burden.again, ends(burden)]).filter(ahead).min()
    }
}
