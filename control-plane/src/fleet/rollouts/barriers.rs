//! Barriers: gates that are ready to be asked.

use titan_api::problems::Fault;

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
        let rank = rank(self.gate.deployment, host.uid());
        let mut openings = self.gate.openings.iter().zip(&self.matchers);
        openings.any(|(opening, matcher)| {
            let reached = opening.up_to.is_none_or(|up_to| rank <= up_to);
            reached && matcher.as_ref().is_none_or(|matcher| matcher.matches(host))
        })
    }

    /// Whether a host may be to have another release than it was `before` the gate moved.
    #[must_use]
    pub fn moves(&self, before: &Self, host: Host<'_>) -> bool {
        let (was, is) = (before.lets(host), self.lets(host));
        let (before, now) = (&before.gate, &self.gate);
        before.to != now.to || was != is || (!is && before.from != now.from)
    }

    /// Returns the number of the release that a host is to have, or `None` if it is to have none yet; `existing` is what
    /// it has. Whom the release has not reached keeps what it has: the proven one, or one that was superseded on its way.
    #[must_use]
    pub fn release(&self, host: Host<'_>, existing: Option<&Entry>) -> Option<i64> {
        let Gate { to, from, .. } = self.gate;
        if self.lets(host) {
            return Some(to);
        }
        let has =
            existing.filter(|existing| existing.present()).and_then(|existing| number(&existing.description.release));
        has.filter(|has| *has < to && from.is_none_or(|from| *has > from)).or(from)
    }
}

/// Returns the number in a release's name, such as `prod#7`.
fn number(release: &str) -> Option<i64> {
    release.rsplit_once('#')?.1.parse().ok()
}
