//! What was begun and is not known to have ended: it is begun again after the agent was cut off, since by then it is
//! taken for applied.

use std::{collections::BTreeMap, path::PathBuf};

use uuid::Uuid;

use crate::{
    apply::{ApplyError, appliers::Ground},
    claims::Claims,
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

    /// Notes that a deployment is being brought in line.
    pub(crate) fn begin(&mut self, id: Uuid, before: &Claims) -> Result<(), ApplyError> {
        let known = self.before.insert(id, before.clone());
        if known.as_ref() == Some(before) { Ok(()) } else { self.write() }
    }

    /// Notes that it is.
    pub(crate) fn end(&mut self, id: Uuid) -> Result<(), ApplyError> {
        if self.before.remove(&id).is_some() { self.write() } else { Ok(()) }
    }

    fn write(&self) -> Result<(), ApplyError> {
        disk::write_json(&self.file, &self.before).map_err(|error| failed(&error))
    }
}

fn failed(error: &disk::DiskError) -> ApplyError {
    ApplyError::Platform { what: "noting what is under way".to_owned(), message: chain(error) }
}
