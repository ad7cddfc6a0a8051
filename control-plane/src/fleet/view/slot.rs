//! A host's place in the view: its set, whoever waits for it, the credential that it showed and when it was seen.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use titan_api::{Name, Revision};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::fleet::{
    told::Told,
    view::{Entry, HostSet},
};

/// A host's place in the view: all that a poll needs, found by one lookup.
#[derive(Debug)]
pub struct Slot {
    uid: Uuid,
    /// Known once the host has shown its credential.
    name: OnceLock<Name>,
    pub(super) set: ArcSwap<HostSet>,
    moved: Notify,
    trust: Trust,
    /// When the host was seen last, in microseconds, twice; odd if that is not written down yet. 0 for never.
    seen: AtomicI64,
    told: Told,
}

/// The credential that a host showed last, as a fingerprint.
#[derive(Debug, Default)]
struct Trust {
    print: [AtomicU64; 2],
    until: AtomicI64,
    /// The stamp under which it was looked up: whatever ends credentials changes it.
    stamp: AtomicU64,
    /// Counts how often credentials of this host were ended.
    ended: AtomicU32,
}

impl Slot {
    pub(super) fn new(uid: Uuid) -> Self {
        Self {
            uid,
            name: OnceLock::new(),
            set: ArcSwap::default(),
            moved: Notify::new(),
            trust: Trust::default(),
            seen: AtomicI64::new(0),
            told: Told::default(),
        }
    }

    /// Returns the host's id.
    #[must_use]
    pub const fn uid(&self) -> Uuid {
        self.uid
    }

    /// Returns the host's name, if it has shown a credential that says so.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        self.name.get()
    }

    pub(super) fn set_name(&self, name: Name) {
        // A host keeps its name for life.
        let _known_already = self.name.set(name);
    }

    /// Returns the set as it is now.
    #[must_use]
    pub fn set(&self) -> Arc<HostSet> {
        self.set.load_full()
    }

    /// Returns the assignment of a deployment, as it is now.
    #[must_use]
    pub fn entry(&self, deployment: Uuid) -> Option<Entry> {
        self.set.load().of_deployment(deployment).cloned()
    }

    /// Returns what completes when the set moves. Subscribe, then read, then wait.
    pub const fn moved(&self) -> &Notify {
        &self.moved
    }

    /// Returns the stamp of now: take it before a credential is looked up, and give it to [`Slot::trust`] after.
    /// `epoch` counts how often all credentials were ended.
    #[must_use]
    pub fn stamp(&self, epoch: u32) -> u64 {
        u64::from(epoch) << 32 | u64::from(self.trust.ended.load(Ordering::Acquire))
    }

    /// Trusts the credential of this fingerprint until `until`, unless credentials were ended since `stamp`.
    pub fn trust(&self, print: u128, until: Revision, stamp: u64) {
        // In this order: whoever reads a half of the old and a half of the new is looking for neither.
        self.trust.until.store(0, Ordering::Release);
        self.trust.print[0].store(print as u64, Ordering::Release);
        self.trust.print[1].store((print >> 64) as u64, Ordering::Release);
        self.trust.stamp.store(stamp, Ordering::Release);
        self.trust.until.store(until.micros(), Ordering::Release);
    }

    /// Whether the credential of this fingerprint is trusted without looking it up.
    #[must_use]
    pub fn trusts(&self, print: u128, now: Revision, epoch: u32) -> bool {
        let trust = &self.trust;
        trust.until.load(Ordering::Acquire) > now.micros()
            && trust.print[0].load(Ordering::Acquire) == print as u64
            && trust.print[1].load(Ordering::Acquire) == (print >> 64) as u64
            && trust.stamp.load(Ordering::Acquire) == self.stamp(epoch)
    }

    /// Ends the trust in whatever the host showed.
    pub fn distrust(&self) {
        self.trust.ended.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes that the host was seen; returns whether it is the first time since that was last written down.
    pub(super) fn see(&self, now: Revision) -> bool {
        self.seen.swap(now.micros() << 1 | 1, Ordering::AcqRel) & 1 == 0
    }

    /// Returns when this process saw the host last.
    #[must_use]
    pub fn seen(&self) -> Option<Revision> {
        match self.seen.load(Ordering::Acquire) >> 1 {
            0 => None,
            at => Some(Revision::from_micros(at)),
        }
    }

    /// Takes the mark that it is to be written down when the host was seen; returns whether there was one.
    pub(super) fn take_seen(&self) -> bool {
        self.seen.fetch_and(!1, Ordering::AcqRel) & 1 == 1
    }

    /// Puts the mark back, because it could not be written down; returns whether there was none.
    pub(super) fn unwritten(&self) -> bool {
        self.seen.fetch_or(1, Ordering::AcqRel) & 1 == 0
    }

    /// Returns what the host said last.
    #[must_use]
    pub const fn told(&self) -> &Told {
        &self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_trusted_until_its_time_or_until_credentials_end() {
        let slot = Slot::new(Uuid::from_u128(1));
        let at = Revision::from_micros;
        assert!(!slot.trusts(0, at(1), 0), "nothing is trusted before it was looked up");
        slot.trust(7 << 70 | 9, at(100), slot.stamp(0));
        assert!(slot.trusts(7 << 70 | 9, at(99), 0));
        assert!(!slot.trusts(7 << 70 | 9, at(100), 0), "its time is over");
        assert!(!slot.trusts(9, at(1), 0) && !slot.trusts(7 << 70, at(1), 0), "a half is not the whole");
        assert!(!slot.trusts(7 << 70 | 9, at(1), 1), "all credentials were looked at anew");
        let before = slot.stamp(0);
        slot.distrust();
        assert!(!slot.trusts(7 << 70 | 9, at(1), 0), "the host's credentials were ended");
        slot.trust(5, at(100), before);
        assert!(!slot.trusts(5, at(1), 0), "what was looked up before the end is not kept");
    }
}
