//! What the control plane declared for this host: answers folded into one set. Pure.
//!
//! A delta adds, moves and removes what it names and nothing else. A full answer is the whole truth about what is
//! present, yet what it leaves out without a tombstone is not removed: it becomes an orphan, which is kept, reported
//! and left out of the digest (law 5). The digest of the result tells whether the agent holds what the control plane
//! believes it holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use titan_api::{
    Digest, Name, Revision, SetDigest,
    deployments::{Dependency, OnRemove},
    poll::{DesiredDeployment, PollAnswer, RemovalReason, Tombstone},
};
use uuid::Uuid;

/// The set of deployments that the host is to have.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Desired {
    /// Where the next poll continues; absent before the first full answer.
    pub cursor: Option<Revision>,
    /// What is declared, and orphans.
    pub entries: BTreeMap<Uuid, DesiredEntry>,
    /// What is to be removed and is not yet.
    pub removals: BTreeMap<Uuid, Tombstone>,
}

/// One deployment that the host is to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredEntry {
    /// The deployment's name.
    pub name: Name,
    /// Its workspace.
    pub workspace: Name,
    /// The release, such as `prod#7`.
    pub release: String,
    /// When the assignment last moved.
    pub revision: Revision,
    /// The digest of the bundle.
    pub digest: Digest,
    /// Deployments of the same workspace that go first.
    pub depends_on: Vec<Dependency>,
    /// What happens to the files when it leaves.
    pub on_remove: OnRemove,
    /// Whether the last full answer left it out without a tombstone.
    pub orphan: bool,
}

/// What folding an answer did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Folded {
    /// Set if the answer was refused and nothing changed.
    pub refused: Option<Refused>,
    /// Deployments that were not there before.
    pub added: Vec<Uuid>,
    /// Deployments at another revision than before.
    pub moved: Vec<Uuid>,
    /// Deployments that stayed as they were.
    pub unchanged: Vec<Uuid>,
    /// Deployments that are to be removed now.
    pub removed: Vec<Uuid>,
    /// Deployments that a full answer left out.
    pub orphaned: Vec<Uuid>,
    /// Whether the set is what the control plane believes it is.
    pub digest_matches: bool,
}

/// Why an answer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer ends at {answer}, older than {accepted}, which this host has accepted already")]
pub struct Refused {
    /// The answer's cursor.
    pub answer: Revision,
    /// The newest cursor that was accepted.
    pub accepted: Revision,
}

impl Desired {
    /// Returns the digest of what is declared, orphans left out.
    #[must_use]
    pub fn digest(&self) -> SetDigest {
        SetDigest::of(self.entries.iter().filter(|(_, entry)| !entry.orphan).map(|(id, entry)| (*id, entry.revision)))
    }

    /// Returns the orphans.
    pub fn orphans(&self) -> impl Iterator<Item = (Uuid, &DesiredEntry)> {
        self.entries.iter().filter(|(_, entry)| entry.orphan).map(|(id, entry)| (*id, entry))
    }

    /// Returns the declared deployment of a workspace and name; the one that moved last if there are several.
    #[must_use]
    pub fn declared(&self, workspace: &Name, name: &Name) -> Option<Uuid> {
        let named = |entry: &DesiredEntry| !entry.orphan && entry.name == *name && entry.workspace == *workspace;
        let declared = self.entries.iter().filter(|(_, entry)| named(entry));
        declared.max_by_key(|(_, entry)| entry.revision).map(|(id, _)| *id)
    }

    /// Returns the orphans that a declared deployment of the same workspace and name stands for now, with its id: the host
    /// or the deployment was made again, or the same documents went to another database. What was there last comes first.
    #[must_use]
    pub fn successions(&self) -> Vec<(Uuid, Uuid)> {
        let mut orphans: Vec<_> = self.orphans().collect();
        orphans.sort_by_key(|(_, orphan)| std::cmp::Reverse(orphan.revision));
        let successor = |orphan: &DesiredEntry| self.declared(&orphan.workspace, &orphan.name);
        orphans.into_iter().filter_map(|(id, orphan)| Some((id, successor(orphan)?))).collect()
    }

    /// Forgets the cursor after the control plane said that it is ahead of its clock, so that a full answer with an
    /// older one can be accepted.
    pub const fn forget_cursor(&mut self) {
        self.cursor = None;
    }

    /// Moves the cursor on after an answer that nothing changed. Returns `Err` if that would move it back.
    pub fn advance(&mut self, cursor: Revision) -> Result<(), Refused> {
        match self.cursor {
            Some(accepted) if cursor < accepted => Err(Refused { answer: cursor, accepted }),
            _ => {
                self.cursor = Some(cursor);
                Ok(())
            }
        }
    }

    /// Folds an answer into the set. Folding the same answer again changes nothing.
    pub fn fold(&mut self, answer: &PollAnswer) -> Folded {
        let mut folded = Folded::default();
        if let Err(refused) = self.advance(answer.cursor) {
            folded.refused = Some(refused);
            return folded;
        }
        for deployment in &answer.deployments {
            self.declare(deployment, answer.full, &mut folded);
        }
        for tombstone in &answer.tombstones {
            self.bury(tombstone, &mut folded);
        }
        if answer.full {
            for (id, entry) in &mut self.entries {
                if !entry.orphan && !answer.deployments.iter().any(|deployment| deployment.id == *id) {
                    entry.orphan = true;
                    folded.orphaned.push(*id);
                }
            }
        }
        folded.digest_matches = self.digest() == answer.digest;
        folded
    }

    /// Marks an orphan for removal, as a person on the host asked. Returns whether there was such an orphan.
    pub fn prune(&mut self, id: Uuid) -> bool {
        if !self.entries.get(&id).is_some_and(|entry| entry.orphan) {
            return false;
        }
        if let Some(DesiredEntry { name, workspace, revision, .. }) = self.entries.remove(&id) {
            let (reason, on_remove) = (RemovalReason::Pruned, OnRemove::Delete);
            let tombstone = Tombstone { id, name, workspace, revision, deleted_at: revision, reason, on_remove };
            self.removals.insert(id, tombstone);
        }
        true
    }

    fn declare(&mut self, deployment: &DesiredDeployment, full: bool, folded: &mut Folded) {
        let DesiredDeployment { id, revision, .. } = *deployment;
        // A removal that is still to be done is newer knowledge than a delta from before it.
        if !full && self.removals.get(&id).is_some_and(|removal| removal.revision >= revision) {
            return folded.unchanged.push(id);
        }
        let entry = DesiredEntry {
            name: deployment.name.clone(),
            workspace: deployment.workspace.clone(),
            release: deployment.release.clone(),
            revision,
            digest: deployment.digest,
            depends_on: deployment.depends_on.clone(),
            on_remove: deployment.on_remove,
            orphan: false,
        };
        match self.entries.get(&id) {
            // The database may have been restored: a full answer is right even where it is older. A delta is not.
            Some(old) if !full && old.revision > revision => return folded.unchanged.push(id),
            Some(old) if *old == entry => folded.unchanged.push(id),
            Some(old) if old.revision == revision => folded.unchanged.push(id),
            Some(_) => folded.moved.push(id),
            None => folded.added.push(id),
        }
        self.removals.remove(&id);
        self.entries.insert(id, entry);
    }

    fn bury(&mut self, tombstone: &Tombstone, folded: &mut Folded) {
        let id = tombstone.id;
        match self.entries.get(&id) {
            Some(entry) if entry.revision > tombstone.revision => return,
            Some(_) => {
                self.entries.remove(&id);
                folded.removed.push(id);
            }
            None => {}
        }
        if self.removals.get(&id).is_none_or(|known| known.revision < tombstone.revision) {
            self.removals.insert(id, tombstone.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("name")
    }

    fn deployment(id: u8, revision: i64) -> DesiredDeployment {
        DesiredDeployment {
            id: Uuid::from_u128(id.into()),
            name: name(&format!("d{id}")),
            workspace: name("default"),
            release: format!("d{id}#{revision}"),
            revision: Revision::from_micros(revision),
            digest: Digest::of(&revision.to_be_bytes()),
            depends_on: vec![],
            on_remove: OnRemove::Delete,
            bundle: None,
        }
    }

    fn tombstone(id: u8, revision: i64) -> Tombstone {
        let at = Revision::from_micros(revision);
        Tombstone {
            id: Uuid::from_u128(id.into()),
            name: name(&format!("d{id}")),
            workspace: name("default"),
            revision: at,
            deleted_at: at,
            reason: RemovalReason::DeploymentDeleted,
            on_remove: OnRemove::Delete,
        }
    }

    fn answer(full: bool, cursor: i64, deployments: &[(u8, i64)], tombstones: &[(u8, i64)]) -> PollAnswer {
        let deployments: Vec<_> = deployments.iter().map(|(id, at)| deployment(*id, *at)).collect();
        PollAnswer {
            cursor: Revision::from_micros(cursor),
            full,
            digest: SetDigest::of(deployments.iter().map(|d| (d.id, d.revision))),
            deployments,
            tombstones: tombstones.iter().map(|(id, at)| tombstone(*id, *at)).collect(),
            poll_after_seconds: 30,
        }
    }

    const ONE: Uuid = Uuid::from_u128(1);

    #[test]
    fn nothing_is_removed_because_it_was_missing() {
        let mut desired = Desired::default();
        desired.fold(&answer(true, 10, &[(1, 5), (2, 6)], &[]));
        let folded = desired.fold(&answer(true, 20, &[(2, 6)], &[]));
        assert_eq!((folded.orphaned, folded.removed), (vec![ONE], vec![]));
        assert!(desired.removals.is_empty() && desired.entries[&ONE].orphan && folded.digest_matches);
        let folded = desired.fold(&answer(true, 30, &[], &[]));
        assert_eq!(folded.orphaned.len(), 1, "an empty database removes nothing");
        assert!(desired.removals.is_empty());
    }

    #[test]
    fn an_orphan_that_is_declared_again_is_none() {
        let mut desired = Desired::default();
        desired.fold(&answer(true, 10, &[(1, 5)], &[]));
        desired.fold(&answer(true, 20, &[], &[]));
        let folded = desired.fold(&answer(true, 30, &[(1, 5)], &[]));
        assert!(folded.digest_matches && !desired.entries[&ONE].orphan);
    }

    #[test]
    fn a_tombstone_older_than_what_is_here_removes_nothing() {
        let mut desired = Desired::default();
        desired.fold(&answer(false, 10, &[(1, 9)], &[]));
        let folded = desired.fold(&answer(false, 11, &[], &[(1, 8)]));
        assert!(folded.removed.is_empty());
        assert!(desired.entries.contains_key(&ONE) && desired.removals.is_empty());
        let folded = desired.fold(&answer(false, 12, &[], &[(1, 11)]));
        assert_eq!(folded.removed, vec![ONE]);
    }

    #[test]
    fn an_older_cursor_is_refused_until_it_is_forgotten() {
        let mut desired = Desired::default();
        desired.fold(&answer(true, 10, &[(1, 5)], &[]));
        let before = desired.clone();
        let folded = desired.fold(&answer(true, 9, &[], &[(1, 8)]));
        assert!(folded.refused.is_some());
        assert_eq!(desired, before);
        assert!(desired.advance(Revision::from_micros(9)).is_err());
        desired.forget_cursor();
        assert_eq!(desired.fold(&answer(true, 9, &[(1, 4)], &[])).moved, vec![ONE]);
    }

    #[test]
    fn a_deployment_that_comes_back_is_not_removed() {
        let mut desired = Desired::default();
        desired.fold(&answer(true, 10, &[(1, 5)], &[]));
        desired.fold(&answer(false, 20, &[], &[(1, 15)]));
        assert!(desired.removals.contains_key(&ONE));
        desired.fold(&answer(false, 30, &[(1, 25)], &[]));
        assert!(desired.removals.is_empty() && desired.entries.contains_key(&ONE));
    }

    #[test]
    fn only_orphans_are_pruned() {
        let mut desired = Desired::default();
        desired.fold(&answer(true, 10, &[(1, 5)], &[]));
        assert!(!desired.prune(ONE));
        desired.fold(&answer(true, 20, &[], &[]));
        assert!(desired.prune(ONE) && desired.removals.contains_key(&ONE));
    }

    #[test]
    fn only_a_declared_deployment_of_the_same_name_stands_for_an_orphan() {
        let mut desired = Desired::default();
        desired.fold(&answer(true, 10, &[(1, 5), (2, 5)], &[]));
        let mut again = answer(true, 20, &[(3, 15)], &[]);
        again.deployments[0].name = name("d1");
        desired.fold(&again);
        assert_eq!(desired.successions(), [(ONE, Uuid::from_u128(3))]);
        desired.fold(&answer(true, 30, &[], &[]));
        assert_eq!(desired.successions(), []);
    }

    /// Assignments as the control plane has them: id to revision and whether present.
    type Rows = BTreeMap<u8, (i64, bool)>;

    fn served(rows: &Rows, clock: i64, since: Option<i64>) -> PollAnswer {
        let shown = |present: bool| -> Vec<(u8, i64)> {
            let rows = rows.iter().filter(|(_, row)| row.1 == present && since.is_none_or(|since| row.0 >= since));
            rows.map(|(id, row)| (*id, row.0)).collect()
        };
        let mut answer = answer(since.is_none(), clock + 1, &shown(true), &shown(false));
        let present = rows.iter().filter(|(_, row)| row.1).map(|(id, row)| (Uuid::from_u128((*id).into()), row.0));
        answer.digest = SetDigest::of(present.map(|(id, at)| (id, Revision::from_micros(at))));
        answer
    }

    proptest! {
        #[test]
        fn fold_of_deltas_equals_the_full_answer(
            steps in prop::collection::vec((0_u8..6, any::<bool>(), 0_u8..4), 1..60),
        ) {
            let (mut rows, mut clock, mut desired) = (Rows::new(), 100, Desired::default());
            for (id, present, poll) in steps {
                clock += 1;
                rows.insert(id, (clock, present));
                if poll > 0 {
                    let answer = served(&rows, clock, desired.cursor.map(Revision::micros));
                    // With 1 the answer is lost, with 3 it arrives twice.
                    for _ in 1..poll {
                        let folded = desired.fold(&answer);
                        prop_assert!(folded.digest_matches && folded.refused.is_none());
                    }
                }
            }
            desired.fold(&served(&rows, clock, desired.cursor.map(Revision::micros)));
            let mut fresh = Desired::default();
            fresh.fold(&served(&rows, clock, None));
            prop_assert_eq!(&desired.entries, &fresh.entries);
            prop_assert_eq!(desired.digest(), fresh.digest());
            let again = desired.clone();
            desired.fold(&served(&rows, clock, None));
            prop_assert_eq!(&desired.entries, &again.entries);
        }

        #[test]
        fn order_within_an_answer_is_irrelevant(ids in prop::collection::vec((0_u8..5, 1_i64..40), 0..12)) {
            let mut one = Desired::default();
            let mut other = Desired::default();
            one.fold(&answer(false, 50, &ids, &[]));
            let reversed: Vec<_> = ids.iter().rev().copied().collect();
            other.fold(&answer(false, 50, &reversed, &[]));
            prop_assert_eq!(one, other);
        }
    }
}
