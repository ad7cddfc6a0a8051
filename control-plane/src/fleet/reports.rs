//! Reports: what is written of what hosts say, given what is known of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState},
};

use titan_api::{
    Revision, SetDigest,
    hosts::Facts,
    limits,
    reports::{Orphan, Phase, Report},
};
use uuid::Uuid;

use crate::store::{ObservedDeployment, ObservedHost, Removal};

/// A report that was checked, and what it is about.
#[derive(Debug, Clone)]
pub struct Said {
    /// The host that says it.
    pub host: Uuid,
    /// When, by the control plane's clock.
    pub at: Revision,
    /// The report's number.
    pub seq: i64,
    /// Whether it says that all that was said before stands.
    pub unchanged: bool,
    /// The newest cursor that the host has written down.
    pub acked_cursor: Option<Revision>,
    /// All facts, if they are told.
    pub facts: Option<Facts>,
    /// The orphans, if they are told.
    pub orphans: Option<Vec<Orphan>>,
    /// What is said of deployments that the host has, in the order in which it says it.
    pub deployments: Vec<ObservedDeployment>,
    /// The removals that it confirms.
    pub removals: Vec<Removal>,
    /// Stands for everything that is said, but the number, the cursor and the time.
    pub print: u64,
}

impl Said {
    /// Returns what `host` says in a report. `deployment_of` knows the deployments of the assignments that the host has, and
    /// `set` is their digest: a report that says the same about another set is news. `key` is of this process alone, so
    /// that nobody outside can look for two reports with one print.
    #[must_use]
    pub fn new(
        (host, at, seq): (Uuid, Revision, i64),
        report: Report,
        (set, key): (SetDigest, &RandomState),
        deployment_of: impl Fn(Uuid) -> Option<Uuid>,
    ) -> Self {
        let print = print(&report, set, key);
        let (mut deployments, mut removals) = (Vec::new(), Vec::new());
        for mut report in report.deployments {
            // An orphan has no assignment; it is in the list of orphans.
            let Some(deployment) = deployment_of(report.id) else { continue };
            if report.phase == Phase::Removed {
                removals.push(Removal { host, deployment, assignment: report.id, revision: report.revision });
            } else {
                cut(&mut report.message, limits::MESSAGE_BYTES);
                deployments.push(ObservedDeployment { host, deployment, report, reported_at: at });
            }
        }
        let Report { unchanged, acked_cursor, facts, orphans, .. } = report;
        Self { host, at, seq, unchanged, acked_cursor, facts, orphans, deployments, removals, print }
    }

    /// Returns about how many bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const FIXED: usize = 256;
        let facts =
            self.facts.iter().flatten().map(|(name, value)| name.len() + value.as_str().map_or(8, str::len) + 64);
        let orphans = self.orphans.iter().flatten().map(|_| FIXED);
        let deployments = self.deployments.iter().map(|observed| {
            let report = &observed.report;
            let git = report.commit.as_ref().map_or(0, String::len) + report.push.as_ref().map_or(0, String::len);
            let drift = report.drift.iter().map(|drift| {
                let found = drift.found.as_ref().map_or(0, String::len);
                FIXED + drift.what.len() + drift.how.len() + drift.diff.len() + found
            });
            FIXED + report.release.len() + report.message.len() + git + drift.sum::<usize>()
        });
        let removals = self.removals.iter().map(|_| FIXED);
        FIXED + facts.chain(orphans).chain(deployments).chain(removals).sum::<usize>()
    }
}

/// Cuts a text to at most `limit` bytes, between characters.
fn cut(text: &mut String, limit: usize) {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
    }
}

/// Returns what stands for everything that a report says, but its number, its cursor and what the agent uses.
fn print(report: &Report, set: SetDigest, key: &RandomState) -> u64 {
    let Report { seq: _, acked_cursor: _, unchanged, facts, deployments, orphans, usage: _ } = report;
    let mut hasher = key.build_hasher();
    (set, unchanged).hash(&mut hasher);
    serde_json::to_vec(&(facts, deployments, orphans)).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is news.
    News,
    /// It was taken in before, and the answer was lost.
    Before,
    /// It is older than the one of this number: late, or from an agent that was restored from the past.
    Stale(i64),
    /// It says that nothing changed since the one before it, which is not the one of this number, the newest that was taken
    /// in: what is in between was lost, as when a backup is restored.
    Missed(i64),
}

/// What is written of many reports.
#[derive(Debug, Default)]
pub struct Batch {
    /// What is known of the hosts now.
    pub hosts: BTreeMap<Uuid, ObservedHost>,
    /// What is said of deployments, by host and assignment.
    pub deployments: BTreeMap<(Uuid, Uuid), ObservedDeployment>,
    /// Removals that are confirmed.
    pub removals: BTreeSet<Removal>,
    /// Hosts whose facts changed.
    pub facts: BTreeSet<Uuid>,
    /// What stands for the newest report of a host, of those that are known to this process.
    prints: HashMap<Uuid, u64>,
}

impl Batch {
    /// Notes what stands for the newest report of a host that was taken in before, unless one of this batch is newer.
    pub fn knows(&mut self, host: Uuid, print: u64) {
        if !self.hosts.contains_key(&host) {
            self.prints.insert(host, print);
        }
    }

    /// Takes in a report of a host, of which `known` was known before; later reports of the same host go on from there.
    pub fn take(&mut self, known: &ObservedHost, said: &Said) -> Taken {
        let known = self.hosts.get(&said.host).unwrap_or(known);
        if said.seq == known.report_seq {
            // A number that came twice for two things: an agent that could not write down how far it had counted.
            let other = self.prints.get(&said.host).is_some_and(|print| *print != said.print);
            return if other { Taken::Stale(known.report_seq) } else { Taken::Before };
        }
        if said.seq < known.report_seq {
            return Taken::Stale(known.report_seq);
        }
        if said.unchanged && known.report_seq.checked_add(1) != Some(said.seq) {
            return Taken::Missed(known.report_seq);
        }
        let mut host = known.clone();
        host.uid = said.host;
        host.report_seq = said.seq;
        host.last_seen = host.last_seen.max(Some(said.at));
        host.acked_cursor = host.acked_cursor.max(said.acked_cursor);
        if let Some(orphans) = &said.orphans {
            host.orphans.clone_from(orphans);
        }
        if let Some(facts) = said.facts.as_ref().filter(|facts| **facts != host.facts) {
            host.facts.clone_from(facts);
            self.facts.insert(said.host);
        }
        self.hosts.insert(said.host, host);
        self.prints.insert(said.host, said.print);
        for observed in &said.deployments {
            self.deployments.insert((said.host, observed.report.id), observed.clone());
        }
        self.removals.extend(&said.removals);
        Taken::News
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use titan_api::reports::DeploymentReport;

    use super::*;

    const HOST: Uuid = Uuid::from_u128(1);

    fn at(micros: i64) -> Revision {
        Revision::from_micros(micros)
    }

    fn about(id: u128, phase: Phase) -> DeploymentReport {
        DeploymentReport {
            id: Uuid::from_u128(id),
            release: "a#1".to_owned(),
            revision: at(5),
            digest: None,
            phase,
            message: String::new(),
            healthy_since: None,
            commit: None,
            push: None,
            drift: Vec::new(),
        }
    }

    /// Says something as a host that has the assignments 10 and 11.
    fn said(seq: i64, report: Report) -> Said {
        let deployment = |id: Uuid| [10, 11].contains(&id.as_u128()).then(|| Uuid::from_u128(id.as_u128() + 100));
        Said::new((HOST, at(50), seq), report, (SetDigest::default(), &RandomState::new()), deployment)
    }

    #[test]
    fn messages_are_cut_between_characters() {
        let mut text = "aü".repeat(10);
        cut(&mut text, 5);
        assert_eq!(text, "aüa");
    }

    #[test]
    fn report_speaks_only_of_what_the_host_has() {
        let deployments = vec![about(10, Phase::Healthy), about(11, Phase::Removed), about(12, Phase::Removed)];
        let said = said(1, Report { deployments, ..Report::default() });
        assert_eq!(said.deployments.len(), 1);
        assert_eq!(said.deployments[0].deployment, Uuid::from_u128(110));
        assert_eq!(said.removals.iter().map(|removal| removal.assignment.as_u128()).collect::<Vec<_>>(), [11]);
    }

    #[test]
    fn print_is_of_what_is_said_and_not_of_when() {
        let report = |phase| Report { deployments: vec![about(10, phase)], ..Report::default() };
        let key = RandomState::new();
        let print = |seq, report| Said::new((HOST, at(seq), seq), report, (SetDigest::default(), &key), |_| None).print;
        let acked = Report { acked_cursor: Some(at(9)), ..report(Phase::Healthy) };
        assert_eq!(print(1, report(Phase::Healthy)), print(2, acked));
        assert_ne!(print(1, report(Phase::Healthy)), print(1, report(Phase::Failed)));
        let facts = Report { facts: Some([("arch".to_owned(), json!("arm"))].into()), ..report(Phase::Healthy) };
        assert_ne!(print(1, report(Phase::Healthy)), print(1, facts));
        let mut drifted = report(Phase::Healthy);
        drifted.deployments[0]
            .drift
            .push(serde_json::from_value(json!({"what": "a", "how": "missing"})).expect("drift"));
        assert_ne!(print(1, report(Phase::Healthy)), print(1, drifted));
        let orphans = Report { orphans: Some(Vec::new()), ..report(Phase::Healthy) };
        assert_ne!(print(1, report(Phase::Healthy)), print(1, orphans));
        let other = SetDigest::default().with(Uuid::from_u128(10), at(5));
        let moved = Said::new((HOST, at(50), 1), report(Phase::Healthy), (other, &key), |_| None);
        assert_ne!(print(1, report(Phase::Healthy)), moved.print);
    }

    #[test]
    fn that_nothing_changed_is_believed_only_without_a_gap() {
        let unchanged = || Report { unchanged: true, ..Report::default() };
        let mut batch = Batch::default();
        let known = ObservedHost { uid: HOST, report_seq: 3, ..ObservedHost::default() };
        assert_eq!(batch.take(&known, &said(3, unchanged())), Taken::Before, "its answer was lost");
        assert_eq!(batch.take(&known, &said(5, unchanged())), Taken::Missed(3));
        assert!(batch.hosts.is_empty(), "it is not counted: the next one must not seem to follow");
        assert_eq!(batch.take(&known, &said(4, unchanged())), Taken::News);
        assert_eq!(batch.take(&known, &said(5, unchanged())), Taken::News, "the one before is in the same batch");
        let everything = Report { deployments: vec![about(10, Phase::Healthy)], ..Report::default() };
        assert_eq!(
            batch.take(&known, &said(9, everything)),
            Taken::News,
            "what is said in full needs nothing before it"
        );
    }

    #[test]
    fn number_that_comes_twice_is_taken_before_only_if_it_says_the_same() {
        let key = RandomState::new();
        let said = |seq, phase| {
            let report = Report { deployments: vec![about(10, phase)], ..Report::default() };
            Said::new((HOST, at(50), seq), report, (SetDigest::default(), &key), |_| Some(Uuid::from_u128(110)))
        };
        let known = ObservedHost { uid: HOST, report_seq: 3, ..ObservedHost::default() };
        let mut batch = Batch::default();
        assert_eq!(batch.take(&known, &said(3, Phase::Failed)), Taken::Before, "nobody knows what it said");
        batch.knows(HOST, said(3, Phase::Healthy).print);
        assert_eq!(batch.take(&known, &said(3, Phase::Healthy)), Taken::Before);
        assert_eq!(batch.take(&known, &said(3, Phase::Failed)), Taken::Stale(3));
        assert_eq!(batch.take(&known, &said(4, Phase::Failed)), Taken::News);
        batch.knows(HOST, said(3, Phase::Healthy).print);
        assert_eq!(batch.take(&known, &said(4, Phase::Failed)), Taken::Before, "one of the same batch");
        assert_eq!(batch.take(&known, &said(4, Phase::Healthy)), Taken::Stale(4));
    }

    #[test]
    fn reports_are_taken_once_and_in_the_order_of_their_numbers() {
        let mut batch = Batch::default();
        let known = ObservedHost { uid: HOST, report_seq: 3, acked_cursor: Some(at(9)), ..ObservedHost::default() };
        assert_eq!(batch.take(&known, &said(3, Report::default())), Taken::Before);
        assert_eq!(batch.take(&known, &said(2, Report::default())), Taken::Stale(3));
        assert!(batch.hosts.is_empty(), "nothing is written of what is no news");
        let facts = Some([("arch".to_owned(), json!("arm"))].into());
        let deployments = vec![about(10, Phase::Applying)];
        let first = Report { facts: facts.clone(), deployments, acked_cursor: Some(at(7)), ..Report::default() };
        assert_eq!(batch.take(&known, &said(4, first)), Taken::News);
        assert!(batch.facts.contains(&HOST));
        batch.facts.clear();
        // The next one comes into the same batch, with the same facts.
        let second = Report { facts, deployments: vec![about(10, Phase::Healthy)], ..Report::default() };
        assert_eq!(batch.take(&known, &said(6, second)), Taken::News);
        assert_eq!(batch.take(&known, &said(5, Report::default())), Taken::Stale(6));
        assert!(batch.facts.is_empty(), "the facts are as they were");
        let host = &batch.hosts[&HOST];
        assert_eq!((host.report_seq, host.acked_cursor, host.last_seen), (6, Some(at(9)), Some(at(50))));
        let phases: Vec<_> = batch.deployments.values().map(|observed| observed.report.phase).collect();
        assert_eq!(phases, [Phase::Healthy]);
    }
}
