//! Barriers: gates that are ready to be asked.

use titan_api::{Revision, problems::Fault};

use crate::fleet::{
    hosts::Host,
    matchers::Matcher,
    rollouts::{gates::Gate, ranks::rank},
    view::Entry,
};

/// A gate with its selectors ready to match.
#[derive(Debug)]
pub struct Barrier {
    gate: Gate,
    /// One for each opening that has a selector.
    matchers: Vec<Option<Matcher>>,
}

impl Barrier {
    /// Returns a gate that is ready to be asked, or what is wrong with an expression of it.
    pub fn new(gate: Gate) -> Result<Self, Fault> {
        let matchers = gate.openings.iter().map(|opening| opening.selector.clone().map(Matcher::new).transpose());
        Ok(Self { matchers: matchers.collect::<Result<_, _>>()?, gate })
    }

    /// Returns the gate.
    #[must_use]
    pub const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Whether a host has the release that is handed out.
    #[must_use]
    pub fn lets(&self, host: Host<'_>) -> bool {
        if self.gate.is_settled() {
            return true;
        }
        self.lets_rank(rank(self.gate.deployment, host.uid()), host)
    }

    fn lets_rank(&self, rank: u64, host: Host<'_>) -> bool {
        if self.gate.is_settled() {
            return true;
        }
        let mut openings = self.gate.openings.iter().zip(&self.matchers);
        openings.any(|(opening, matcher)| {
            let reached = opening.up_to.is_none_or(|up_to| rank <= up_to);
            reached && matcher.as_ref().is_none_or(|matcher| matcher.matches(host))
        })
    }

    /// Whether a host may be to have another release than it was `before` the gate moved.
    #[must_use]
    pub fn moves(&self, before: &Self, host: Host<'_>) -> bool {
        if before.gate.to != self.gate.to {
            return true;
        }
        // Of one deployment both: its rank is worked out once.
        let rank = rank(self.gate.deployment, host.uid());
        let (was, is) = (before.lets_rank(rank, host), self.lets_rank(rank, host));
        was != is || (!is && before.gate.from != self.gate.from)
    }

    /// Returns the number of the release that a host is to have, or `None` if it is to have none yet; `existing` is what
    /// it has. Whom the release has not reached keeps what it has: the proven one, or one that was superseded on its way,
    /// unless that was taken back.
    #[must_use]
    pub fn release(&self, host: Host<'_>, existing: Option<&Entry>) -> Option<i64> {
        let Gate { to, from, taken_back, .. } = &self.gate;
        let (to, from) = (*to, *from);
        if self.lets(host) {
            return Some(to);
        }
        let has =
            existing.filter(|existing| existing.present()).and_then(|existing| number(&existing.description.release));
        let stays = |has: &i64| *has < to && from.is_none_or(|from| *has > from) && !taken_back.contains(has);
        has.filter(stays).or(from)
    }
}

/// Whether a host with this entry had the release `to` when its gate was closed at `closed`, and so has to return: it was
/// given another one since, or cannot leave it. Whom the release never reached was told nothing since.
#[must_use]
pub fn had(entry: &Entry, to: i64, closed: Revision) -> bool {
    entry.present() && (entry.revision > closed || number(&entry.description.release) == Some(to))
}

/// Returns the number in a release's name, such as `prod#7`.
fn number(release: &str) -> Option<i64> {
    release.rsplit_once('#')?.1.parse().ok()
}
