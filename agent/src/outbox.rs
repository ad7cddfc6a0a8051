//! What is to be reported: kept on disk and sent again until the control plane has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use titan_api::{
    Digest, Revision,
    hosts::Facts,
    limits,
    reports::{DeploymentReport, Orphan, Phase, Report, Usage},
};
use uuid::Uuid;

use crate::{
    disk::{self, DiskError},
    excerpts::excerpt,
    faults::fault,
    settle::chain,
    state::StateDir,
};

const FILE: &str = "outbox.json";
/// Sequence numbers are set aside in blocks, so that sending a report does not cost a write.
const BLOCK: u64 = 1000;
/// How far ahead numbers begin at most that could not be set aside.
const AHEAD: u32 = 1 << 20;
/// How long it may be until everything is told again though the control plane knows it: for what nobody has thought of.
const EVERYTHING: Duration = Duration::from_hours(24);

/// What is to be reported.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Outbox {
    /// Sequence numbers below this may have been used.
    reserved: u64,
    /// The newest state of each deployment.
    pub(crate) reports: BTreeMap<Uuid, DeploymentReport>,
    /// Those that the control plane has not got.
    pub(crate) unsent: BTreeSet<Uuid>,
    /// Orphans as of now.
    orphans: Vec<Orphan>,
    /// Whether the control plane has to be told of them.
    orphans_unsent: bool,
    /// Digest of the facts that the control plane has.
    facts: Option<Digest>,
    #[serde(skip)]
    next: u64,
    #[serde(skip)]
    dirty: bool,
    /// Whether everything is to be told.
    #[serde(skip)]
    all: bool,
    /// Whether it is to be told that nothing changed.
    #[serde(skip)]
    beat: bool,
    /// The number of the report under way that tells everything.
    #[serde(skip)]
    whole: Option<u64>,
    /// When the control plane was last told everything.
    #[serde(skip)]
    told: Option<Instant>,
    /// Whether the disk does not take it, which was said.
    #[serde(skip)]
    unwritten: bool,
}

impl Outbox {
    /// Reads the outbox; an empty one if there is none.
    pub(crate) fn read(state: &StateDir) -> Result<Self, DiskError> {
        let mut outbox: Self = disk::read_json(&state.file(FILE))?.unwrap_or_default();
        outbox.next = outbox.reserved;
        Ok(outbox)
    }

    /// Writes the outbox down if something in it changed. If the disk does not take it, what is in memory is reported all
    /// the same, and written down as soon as that works: a full disk keeps no report away.
    pub(crate) fn save(&mut self, state: &StateDir) {
        let saved = self.save_for_sure(state);
        if let (Err(error), false) = (&saved, self.unwritten) {
            tracing::warn!("reports are sent from memory: {}", chain(error));
        }
        self.unwritten = saved.is_err();
    }

    /// Writes the outbox down if something in it changed, for what may be forgotten only once that is on disk.
    pub(crate) fn save_for_sure(&mut self, state: &StateDir) -> Result<(), DiskError> {
        if std::mem::take(&mut self.dirty) {
            disk::write_json(&state.file(FILE), self).inspect_err(|_| self.dirty = true)?;
            fault!("outcome-noted");
        }
        Ok(())
    }

    /// Sets numbers aside for the reports to come, if there are none. If the disk does not take that, the next ones begin
    /// somewhere ahead: whoever starts anew on a full disk would count from the same number each time, and the control
    /// plane would take what is said for what it has already. Should it know a newer number it says from where to count.
    pub(crate) fn set_numbers_aside(&mut self, state: &StateDir) {
        if self.next < self.reserved {
            return;
        }
        self.next = self.next.max(1);
        self.reserved = self.next + BLOCK;
        self.dirty = true;
        self.save(state);
        if self.unwritten {
            self.next += 1 + u64::from(getrandom::u32().unwrap_or_default() % AHEAD);
            self.reserved = self.next + BLOCK;
        }
    }

    /// Notes the state of a deployment; it is sent if it is not what was sent before.
    pub(crate) fn note(&mut self, mut report: DeploymentReport) {
        if report.message.len() > limits::MESSAGE_BYTES {
            report.message = excerpt(&report.message, limits::MESSAGE_BYTES);
        }
        if let Some(known) = self.reports.get(&report.id) {
            // A message about what happened once stands until there is something new to say.
            let lasting =
                known.phase == report.phase && known.digest == report.digest && known.release == report.release;
            if lasting && report.message.is_empty() && report.phase == Phase::Healthy {
                report.message.clone_from(&known.message);
            }
            if *known == report {
                return;
            }
        }
        self.unsent.insert(report.id);
        self.reports.insert(report.id, report);
        self.dirty = true;
    }

    /// Notes the orphans.
    pub(crate) fn note_orphans(&mut self, orphans: Vec<Orphan>) {
        if self.orphans != orphans {
            self.orphans = orphans;
            self.orphans_unsent = true;
            self.dirty = true;
        }
    }

    /// Forgets deployments of which nothing is left to say.
    pub(crate) fn keep(&mut self, known: impl Fn(&Uuid) -> bool) {
        let before = self.reports.len();
        self.reports.retain(|id, report| known(id) || report.phase == Phase::Removed);
        self.unsent.retain(|id| self.reports.contains_key(id));
        self.dirty |= before != self.reports.len();
    }

    /// Has everything reported with the next report.
    pub(crate) const fn all_due(&mut self) {
        self.all = true;
    }

    /// Has the control plane told that this host is as it was, or everything if that is long ago.
    pub(crate) fn beat_due(&mut self, now: Instant) {
        match self.told {
            Some(told) if now.duration_since(told) < EVERYTHING => self.beat = true,
            _ => self.all = true,
        }
    }

    /// Whether there is nothing to report but, at a beat, that nothing changed.
    pub(crate) fn is_quiet(&self, facts: &Facts) -> bool {
        !self.all && !self.orphans_unsent && self.unsent.is_empty() && self.facts == Some(digest(facts))
    }

    /// Whether the next report says what the agent uses.
    pub(crate) const fn tells_usage(&self) -> bool {
        self.all || self.beat
    }

    /// Whether there is something to say.
    pub(crate) fn is_due(&self, facts: &Facts) -> bool {
        self.beat || !self.is_quiet(facts)
    }

    /// Returns the report that is due: everything, what changed, or at a beat that nothing did. `None` if there is nothing
    /// to say. Its number is one of those that were set aside.
    pub(crate) fn due(&mut self, cursor: Option<Revision>, facts: &Facts, usage: Usage) -> Option<Report> {
        let all = self.all;
        let facts_new = self.facts != Some(digest(facts));
        let unchanged = self.is_quiet(facts);
        if !self.is_due(facts) {
            return None;
        }
        let seq = self.next;
        self.next += 1;
        self.whole = all.then_some(seq);
        let due = |id: &Uuid| all || self.unsent.contains(id);
        Some(Report {
            seq,
            acked_cursor: cursor,
            unchanged,
            facts: (facts_new || all).then(|| facts.clone()),
            deployments: self.reports.iter().filter(|(id, _)| due(id)).map(|(_, report)| report.clone()).collect(),
            orphans: (self.orphans_unsent || all).then(|| self.orphans.clone()),
            usage: self.tells_usage().then_some(usage),
        })
    }

    /// Goes on counting after `seen`, a number that the control plane has from this host, which was restored from an
    /// older state. Returns whether that is possible.
    pub(crate) fn count_from(&mut self, seen: u64) -> bool {
        let Some(next) = seen.checked_add(1).filter(|next| next.checked_add(BLOCK).is_some()) else { return false };
        if next > self.next {
            (self.next, self.reserved, self.dirty) = (next, next + BLOCK, true);
        }
        true
    }

    /// Notes that the control plane has a report.
    pub(crate) fn sent(&mut self, report: &Report) {
        self.beat &= report.usage.is_none();
        if self.whole == Some(report.seq) {
            (self.all, self.whole, self.told) = (false, None, Some(Instant::now()));
        }
        for sent in &report.deployments {
            if self.reports.get(&sent.id) == Some(sent) {
                self.dirty |= self.unsent.remove(&sent.id);
                if sent.phase == Phase::Removed {
                    self.reports.remove(&sent.id);
                    self.dirty = true;
                }
            }
        }
        if report.orphans.as_ref() == Some(&self.orphans) {
            self.dirty |= std::mem::take(&mut self.orphans_unsent);
        }
        if let Some(facts) = &report.facts {
            let digest = Some(digest(facts));
            self.dirty |= self.facts != digest;
            self.facts = digest;
        }
    }
}

fn digest(facts: &Facts) -> Digest {
    Digest::of(&serde_json::to_vec(facts).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(phase: Phase, message: &str) -> DeploymentReport {
        DeploymentReport {
            id: Uuid::from_u128(1),
            release: "one#1".into(),
            revision: Revision::ZERO,
            digest: None,
            phase,
            message: message.into(),
            healthy_since: None,
            commit: None,
            push: None,
            drift: Vec::new(),
        }
    }

    fn due(outbox: &mut Outbox) -> Option<Report> {
        outbox.due(None, &Facts::new(), Usage::default())
    }

    #[test]
    fn numbers_that_cannot_be_set_aside_are_others_after_each_start() {
        let dir = tempfile::tempdir().expect("dir");
        let state = StateDir::new(dir.path());
        let mut numbers = BTreeSet::new();
        let mut start = |state: &StateDir| {
            let mut outbox = Outbox::read(state).expect("read");
            outbox.all_due();
            outbox.set_numbers_aside(state);
            let first = due(&mut outbox).expect("due").seq;
            assert_eq!(due(&mut outbox).expect("due").seq, first + 1, "one after the other all the same");
            numbers.insert(first);
            first
        };
        let before = start(&state);
        // As if there was no room for what is written beside it.
        std::fs::create_dir(dir.path().join("outbox.new")).expect("in the way");
        for _ in 0..4 {
            assert!(start(&state) > before + BLOCK);
        }
        assert_eq!(numbers.len(), 5, "the control plane would take the same number for the same report");
    }

    #[test]
    fn a_beat_says_in_a_few_bytes_that_nothing_changed_unless_everything_was_never_said_or_long_ago() {
        let mut outbox = Outbox::default();
        outbox.note(report(Phase::Healthy, ""));
        let now = Instant::now();
        outbox.beat_due(now);
        let first = due(&mut outbox).expect("due");
        assert!(!first.unchanged && first.facts.is_some() && first.orphans.is_some());
        assert_eq!(first.deployments.len(), 1);
        outbox.sent(&first);
        outbox.beat_due(now);
        let beat = due(&mut outbox).expect("due");
        assert!(
            outbox.is_quiet(&Facts::new())
                && beat.unchanged
                && beat.usage.is_some()
                && beat.facts.is_none()
                && beat.deployments.is_empty()
        );
        let bytes = serde_json::to_vec(&beat).expect("JSON").len();
        assert!(bytes < 100, "{bytes} bytes without a cursor and figures");
        assert!(due(&mut outbox).is_some(), "until it has arrived");
        outbox.sent(&beat);
        assert_eq!(due(&mut outbox), None);
        // What happens meanwhile goes along, and is no longer nothing.
        outbox.beat_due(now);
        outbox.note(report(Phase::Degraded, "why"));
        let news = due(&mut outbox).expect("due");
        assert!(!news.unchanged && news.usage.is_some() && news.deployments.len() == 1);
        outbox.sent(&news);
        outbox.beat_due(Instant::now() + EVERYTHING);
        let daily = due(&mut outbox).expect("due");
        assert!(!daily.unchanged && daily.facts.is_some() && daily.deployments.len() == 1);
    }

    #[test]
    fn a_report_is_sent_until_it_is_accepted_and_not_again() {
        let mut outbox = Outbox::default();
        outbox.note(report(Phase::Healthy, ""));
        let first = due(&mut outbox).expect("due");
        let second = due(&mut outbox).expect("still due");
        assert!(second.seq > first.seq && second.deployments == first.deployments);
        outbox.sent(&second);
        assert_eq!(due(&mut outbox), None);
        outbox.note(report(Phase::Healthy, ""));
        assert_eq!(due(&mut outbox), None, "nothing new");
        outbox.note(report(Phase::Failed, "why"));
        assert_eq!(due(&mut outbox).expect("due").deployments.len(), 1);
    }

    #[test]
    fn a_removal_is_kept_until_it_is_accepted() {
        let mut outbox = Outbox::default();
        outbox.note(report(Phase::Removed, ""));
        outbox.keep(|_| false);
        let sent = due(&mut outbox).expect("due");
        outbox.sent(&sent);
        assert!(outbox.reports.is_empty() && due(&mut outbox).is_none());
    }

    #[test]
    fn sequence_numbers_never_come_twice() {
        let dir = tempfile::tempdir().expect("dir");
        let state = StateDir::new(dir.path());
        let mut last = 0;
        for _ in 0..3 {
            let mut outbox = Outbox::read(&state).expect("read");
            for _ in 0..2 {
                outbox.all_due();
                outbox.set_numbers_aside(&state);
                let seq = due(&mut outbox).expect("due").seq;
                outbox.save(&state);
                assert!(seq > last);
                last = seq;
            }
        }
    }

    #[test]
    fn long_messages_keep_their_last_words() {
        let mut outbox = Outbox::default();
        outbox.note(report(Phase::Failed, &format!("{}the end", "ä".repeat(limits::MESSAGE_BYTES))));
        let message = &outbox.reports[&Uuid::from_u128(1)].message;
        assert!(message.len() <= limits::MESSAGE_BYTES && message.ends_with("ääthe end"));
    }
}
