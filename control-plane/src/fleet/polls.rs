//! Polls: what a host is told.

use titan_api::{Revision, SetDigestStart};

use crate::fleet::view::{Entry, HostSet};

/// What a host is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing moved.
    Unchanged,
    /// These moved.
    Delta(Vec<Entry>),
    /// This is everything.
    Full(Vec<Entry>),
}

/// Decides what to tell a host that asks for what moved at or after `since` and holds a set of digest `have`.
///
/// Without `since` it is told everything. If nothing moved and yet the digests differ, it is told everything too: the
/// cursor is for speed, the digest is the truth.
#[must_use]
pub fn answer(set: &HostSet, since: Option<Revision>, have: Option<SetDigestStart>) -> Answer {
    let all = || set.entries().to_vec();
    let Some(since) = since else { return Answer::Full(all()) };
    if set.entries().iter().any(|entry| entry.revision >= since) {
        Answer::Delta(set.entries().iter().filter(|entry| entry.revision >= since).cloned().collect())
    } else if have.is_some_and(|have| !have.fits(set.digest())) {
        Answer::Full(all())
    } else {
        Answer::Unchanged
    }
}
