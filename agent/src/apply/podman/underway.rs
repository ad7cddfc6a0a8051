//! What was begun and is not known to have ended: it is begun again after the agent was cut off, since by then it is
//! taken for applied.

use std::{collections::BTreeMap, path::PathBuf};

use titan_api::Digest;
use uuid::Uuid;

use crate::{
    apply::{ApplyError, appliers::Ground},
    claims::{Claim, Claims},
    disk,
    settle::chain,
};

/// What each deployment owned before, of those that are not brought in line yet.
#[derive(Debug)]
pub(crate) struct Underway {
    file: PathBuf,
    before: BTreeMap<Uuid, Claims>,
}

impl Underway {
    /// Reads what was written in `file`, a name in the state directory.
    pub(crate) fn open(ground: &Ground, file: &str) -> Result<Self, ApplyError> {
        let file = ground.state.file(file);
        let before = disk::read_json(&file).map_err(|error| failed(&error))?.unwrap_or_default();
        Ok(Self { file, before })
    }

    /// Returns what a deployment owned before, if it is not in line yet.
    pub(crate) fn get(&self, id: Uuid) -> Option<&Claims> {
        self.before.get(&id)
    }

    /// Notes that a deployment is being brought in line with what it owns now, and returns what it may still have of before:
    /// if it was being brought in line already, all of that as well, so that nobody forgets what is still to be taken down.
    pub(crate) fn begin(&mut self, id: Uuid, before: &Claims) -> Result<Claims, ApplyError> {
        let Some(earlier) = self.before.get(&id) else {
            return self.note(id, before.clone());
        };
        let all = both(earlier, before);
        if all == *earlier { Ok(all) } else { self.note(id, all) }
    }

    fn note(&mut self, id: Uuid, before: Claims) -> Result<Claims, ApplyError> {
        let mut next = self.before.clone();
        next.insert(id, before.clone());
        self.write(next).map(|()| before)
    }

    /// Notes that it is.
    pub(crate) fn end(&mut self, id: Uuid) -> Result<(), ApplyError> {
        let mut next = self.before.clone();
        if next.remove(&id).is_some() { self.write(next) } else { Ok(()) }
    }

    /// What cannot be written is not taken for noted.
    fn write(&mut self, next: BTreeMap<Uuid, Claims>) -> Result<(), ApplyError> {
        disk::write_json(&self.file, &next).map_err(|error| failed(&error))?;
        self.before = next;
        Ok(())
    }
}

/// Returns what may be there on the way from one to the other: what both have alike is as it was, and of anything else nobody
/// knows how far it came, so that it is made anew if it is wanted. Volumes that were given up meanwhile stay: whoever takes
/// them over wants what is in them.
fn both(earlier: &Claims, before: &Claims) -> Claims {
    let unknown = Digest::of(b"under way");
    let given_up = |claim: &&Claim| claim.kind == "volume" && !before.contains_key(*claim);
    let either = earlier.keys().filter(|claim| !given_up(claim)).chain(before.keys());
    either
        .map(|claim| {
            let (was, is) = (earlier.get(claim), before.get(claim));
            (claim.clone(), was.filter(|_| was == is).copied().unwrap_or(unknown))
        })
        .collect()
}

fn failed(error: &disk::DiskError) -> ApplyError {
    ApplyError::Platform { what: "noting what is under way".to_owned(), message: chain(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(1);

    fn claims(parts: &[(&str, &str)]) -> Claims {
        parts.iter().map(|(name, made)| (Claim::new("unit", *name), Digest::of(made.as_bytes()))).collect()
    }

    fn underway(directory: &tempfile::TempDir) -> Underway {
        Underway { file: directory.path().join("underway.json"), before: BTreeMap::new() }
    }

    #[test]
    fn what_comes_in_between_forgets_nothing_that_is_still_taken_down() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut underway = underway(&directory);
        let first = claims(&[("same", "1"), ("changed", "1"), ("old", "1")]);
        let second = claims(&[("same", "1"), ("changed", "2"), ("new", "2")]);
        assert_eq!(underway.begin(ID, &first).expect("noted"), first);
        assert_eq!(underway.begin(ID, &first).expect("noted"), first, "the same once more");
        let all = underway.begin(ID, &second).expect("noted");
        let expected = claims(&[("same", "1"), ("changed", "under way"), ("old", "under way"), ("new", "under way")]);
        assert_eq!(all, expected);
        assert_eq!(underway.begin(ID, &second).expect("noted"), expected, "nothing is known better");
        let read: BTreeMap<Uuid, Claims> = disk::read_json(&underway.file).expect("read").expect("there");
        assert_eq!(read, BTreeMap::from([(ID, expected)]));
        let volume = |made: &str| Claims::from([(Claim::new("volume", "data"), Digest::of(made.as_bytes()))]);
        assert_eq!(both(&volume("1"), &Claims::new()), Claims::new(), "what somebody may have taken over");
        assert_eq!(both(&volume("1"), &volume("1")), volume("1"));
        underway.end(ID).expect("noted");
        assert_eq!(underway.begin(ID, &second).expect("noted"), second, "what is over is forgotten");
    }

    #[test]
    fn what_could_not_be_written_is_not_noted() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut underway = underway(&directory);
        underway.file = directory.path().join("missing/underway.json");
        let first = claims(&[("a", "1")]);
        assert!(underway.begin(ID, &first).is_err() && underway.get(ID).is_none());
        assert!(underway.begin(ID, &first).is_err(), "nor the second time");
        underway.file = directory.path().join("underway.json");
        underway.begin(ID, &first).expect("noted");
        underway.file = directory.path().join("missing/underway.json");
        assert!(underway.end(ID).is_err() && underway.get(ID).is_some());
    }
}
