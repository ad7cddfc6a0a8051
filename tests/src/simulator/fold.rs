//! What one agent holds, and how answers are folded into it: the rules of `titan-agent`, in a few bytes.

use titan_api::{Revision, SetDigest};
use uuid::Uuid;

/// Where the state of a piece of knowledge stands beside its revision, which ends far below.
const STATE_SHIFT: u32 = 60;
const REVISION: i64 = (1 << STATE_SHIFT) - 1;

/// What an agent knows of one assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is declared.
    Present,
    /// A full answer left it out without a tombstone: kept, and left out of the digest.
    Orphan,
    /// It is to be removed, and that is not confirmed yet.
    Removal,
}

/// One assignment, in 24 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Held {
    id: [u8; 16],
    word: i64,
}

impl Held {
    const fn new(id: Uuid, revision: Revision, state: State) -> Self {
        let state = match state {
            State::Present => 0,
            State::Orphan => 1,
            State::Removal => 2,
        };
        Self { id: id.into_bytes(), word: (revision.micros() & REVISION) | (state << STATE_SHIFT) }
    }

    const fn id(self) -> Uuid {
        Uuid::from_bytes(self.id)
    }

    const fn revision(self) -> Revision {
        Revision::from_micros(self.word & REVISION)
    }

    const fn state(self) -> State {
        match self.word >> STATE_SHIFT {
            0 => State::Present,
            1 => State::Orphan,
            _ => State::Removal,
        }
    }
}

/// The envelope of an answer, without bundles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Where the next poll continues.
    pub cursor: Revision,
    /// Whether it holds every assignment.
    pub full: bool,
    /// Of the complete set.
    pub digest: SetDigest,
    /// What is present, new or moved.
    pub present: Vec<(Uuid, Revision)>,
    /// What is to be removed.
    pub absent: Vec<(Uuid, Revision)>,
}

/// What folding an answer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folded {
    /// The set is what the control plane believes it is.
    Matches,
    /// It is not: everything is to be asked for.
    Differs,
    /// The answer is older than one that was accepted; nothing changed.
    Refused,
}

/// What one agent holds.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Desired {
    digest: SetDigest,
    /// In microseconds; 0 before the first full answer.
    cursor: i64,
    held: Box<[Held]>,
}

impl Desired {
    /// Returns where the next poll continues; none before the first full answer.
    #[must_use]
    pub const fn cursor(&self) -> Option<Revision> {
        if self.cursor == 0 { None } else { Some(Revision::from_micros(self.cursor)) }
    }

    /// Returns the digest of what is declared.
    #[must_use]
    pub const fn digest(&self) -> SetDigest {
        self.digest
    }

    /// Forgets the cursor, after the control plane said that it is ahead of its clock.
    pub const fn forget_cursor(&mut self) {
        self.cursor = 0;
    }

    /// Moves the cursor on; `false` if that would move it back.
    pub const fn advance(&mut self, cursor: Revision) -> bool {
        if cursor.micros() < self.cursor {
            return false;
        }
        self.cursor = cursor.micros();
        true
    }

    /// Returns what is known, with its state.
    pub fn entries(&self) -> impl Iterator<Item = (Uuid, Revision, State)> {
        self.held.iter().map(|held| (held.id(), held.revision(), held.state()))
    }

    /// Returns how many bytes this takes on the heap, the allocator's own aside.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        size_of_val(&*self.held)
    }

    /// Folds an answer into the set. Folding the same answer again changes nothing.
    pub fn fold(&mut self, answer: &Envelope) -> Folded {
        if !self.advance(answer.cursor) {
            return Folded::Refused;
        }
        let mut held = std::mem::take(&mut self.held).into_vec();
        for (id, revision) in &answer.present {
            self.declare(&mut held, *id, *revision, answer.full);
        }
        for (id, revision) in &answer.absent {
            self.bury(&mut held, *id, *revision);
        }
        if answer.full {
            for entry in &mut held {
                let (id, revision) = (entry.id(), entry.revision());
                if entry.state() == State::Present && !answer.present.iter().any(|(there, _)| *there == id) {
                    self.digest = self.digest.without(id, revision);
                    *entry = Held::new(id, revision, State::Orphan);
                }
            }
        }
        self.held = held.into_boxed_slice();
        if self.digest == answer.digest { Folded::Matches } else { Folded::Differs }
    }

    fn declare(&mut self, held: &mut Vec<Held>, id: Uuid, revision: Revision, full: bool) {
        let known = held.iter_mut().find(|entry| entry.id() == id);
        if let Some(known) = known {
            let (old, state) = (known.revision(), known.state());
            // A removal that is still to be done is newer knowledge than a delta from before it; a full answer is right
            // even where it is older.
            let newer = if state == State::Removal { old >= revision } else { old > revision };
            if !full && newer {
                return;
            }
            if state == State::Present {
                self.digest = self.digest.without(id, old);
            }
            *known = Held::new(id, revision, State::Present);
        } else {
            held.push(Held::new(id, revision, State::Present));
        }
        self.digest = self.digest.with(id, revision);
    }

    fn bury(&mut self, held: &mut Vec<Held>, id: Uuid, revision: Revision) {
        let Some(known) = held.iter_mut().find(|entry| entry.id() == id) else {
            return held.push(Held::new(id, revision, State::Removal));
        };
        if known.revision() > revision {
            return;
        }
        if known.state() == State::Present {
            self.digest = self.digest.without(id, known.revision());
        }
        *known = Held::new(id, revision, State::Removal);
    }

    /// Forgets removals that the control plane has taken note of.
    pub fn removed(&mut self, ids: &[Uuid]) {
        let mut held = std::mem::take(&mut self.held).into_vec();
        held.retain(|entry| entry.state() != State::Removal || !ids.contains(&entry.id()));
        self.held = held.into_boxed_slice();
    }

    /// Says how this differs from a full answer; `None` if it does not.
    #[must_use]
    pub fn difference(&self, full: &Envelope) -> Option<String> {
        let digest = SetDigest::of(
            self.entries().filter(|entry| entry.2 == State::Present).map(|(id, revision, _)| (id, revision)),
        );
        if digest != self.digest {
            return Some(format!("its running digest {} is not that of its set, {digest}", self.digest));
        }
        for (id, revision) in &full.present {
            match self.entries().find(|entry| entry.0 == *id) {
                Some((_, held, State::Present)) if held == *revision => {}
                Some((_, held, state)) => {
                    return Some(format!("it holds {id} at {held} ({state:?}), the full answer says {revision}"));
                }
                None => return Some(format!("it lacks {id} of {revision}")),
            }
        }
        for (id, revision, state) in self.entries() {
            if state != State::Removal && !full.present.iter().any(|(there, _)| *there == id) {
                return Some(format!("it holds {id} of {revision} ({state:?}), which the full answer has not"));
            }
        }
        (full.digest != digest).then(|| format!("its digest is {digest}, the full answer says {}", full.digest))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn rows(rows: &[(u8, i64)]) -> Vec<(Uuid, Revision)> {
        rows.iter().map(|(id, at)| (Uuid::from_u128((*id).into()), Revision::from_micros(*at))).collect()
    }

    fn answer(full: bool, cursor: i64, present: &[(u8, i64)], absent: &[(u8, i64)]) -> Envelope {
        let present = rows(present);
        let digest = SetDigest::of(present.iter().copied());
        Envelope { cursor: Revision::from_micros(cursor), full, digest, present, absent: rows(absent) }
    }

    #[test]
    fn an_agent_at_rest_with_five_assignments_is_small() {
        let mut desired = Desired::default();
        desired.fold(&answer(true, 9, &[(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)], &[]));
        assert!(size_of::<Desired>() + desired.heap_bytes() <= 176, "{} B", size_of::<Desired>());
    }

    #[test]
    fn what_a_full_answer_leaves_out_is_an_orphan_and_a_difference() {
        let mut desired = Desired::default();
        desired.fold(&answer(true, 10, &[(1, 5), (2, 6)], &[]));
        let second = answer(true, 20, &[(2, 6)], &[]);
        assert_eq!(desired.fold(&second), Folded::Matches);
        assert!(desired.difference(&second).expect("a difference").contains("Orphan"));
        assert_eq!(desired.fold(&answer(true, 19, &[], &[])), Folded::Refused);
    }

    #[test]
    fn a_false_answer_is_found_out() {
        let mut desired = Desired::default();
        desired.fold(&answer(true, 10, &[(1, 5)], &[]));
        let mut wrong = answer(false, 20, &[(1, 15)], &[]);
        wrong.digest = SetDigest::default();
        assert_eq!(desired.fold(&wrong), Folded::Differs);
        let full = answer(true, 30, &[(1, 14)], &[]);
        assert!(desired.difference(&full).expect("a difference").contains("the full answer says"));
        assert!(desired.difference(&answer(true, 30, &[(1, 15)], &[])).is_none());
        assert!(desired.difference(&answer(true, 30, &[(1, 15), (2, 1)], &[])).expect("one").contains("lacks"));
    }

    /// Assignments as the control plane has them: id to revision and whether present.
    type Rows = BTreeMap<u8, (i64, bool)>;

    fn served(rows: &Rows, clock: i64, since: Option<i64>) -> Envelope {
        let shown = |present: bool| -> Vec<(u8, i64)> {
            let rows = rows.iter().filter(|(_, row)| row.1 == present && since.is_none_or(|since| row.0 >= since));
            rows.map(|(id, row)| (*id, row.0)).collect()
        };
        let mut envelope = answer(since.is_none(), clock + 1, &shown(true), &shown(false));
        let all: Vec<_> = rows.iter().filter(|(_, row)| row.1).map(|(id, row)| (*id, row.0)).collect();
        envelope.digest = answer(true, 1, &all, &[]).digest;
        envelope
    }

    proptest! {
        #[test]
        fn fold_of_deltas_equals_the_full_answer(
            steps in prop::collection::vec((0_u8..6, any::<bool>(), 0_u8..5), 1..60),
        ) {
            let (mut rows, mut clock, mut desired) = (Rows::new(), 100, Desired::default());
            for (id, present, poll) in steps {
                clock += 1;
                rows.insert(id, (clock, present));
                // With 1 the answer is lost, with 3 it arrives twice, with 4 the removals are confirmed.
                for _ in 1..poll.min(3) {
                    let folded = desired.fold(&served(&rows, clock, desired.cursor().map(Revision::micros)));
                    prop_assert_eq!(folded, Folded::Matches);
                }
                if poll == 4 {
                    let gone: Vec<_> = desired.entries().filter(|e| e.2 == State::Removal).map(|e| e.0).collect();
                    desired.removed(&gone);
                }
            }
            desired.fold(&served(&rows, clock, desired.cursor().map(Revision::micros)));
            prop_assert_eq!(desired.difference(&served(&rows, clock, None)), None);
        }
    }
}
