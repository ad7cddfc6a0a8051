//! What the applier has to remember of a deployment beyond the ledger: which fields were ours, and a job that is not done.
//!
//! The ledger says what is owned before anything is sent; this says what of it may not have been sent yet, so that whatever
//! is cut short is taken up again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::jobs::Fields;
use crate::{
    apply::ApplyError,
    claims::Claim,
    disk::{self, DiskError},
    state::StateDir,
};

const FOLDER: &str = "kubernetes";

/// What is remembered of one deployment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Record {
    /// The fields of each object that were ours when it was applied last.
    pub(crate) fields: Fields,
    /// What is not applied yet, though the ledger owns it.
    pub(crate) todo: BTreeSet<Claim>,
    /// What is not removed yet, though the ledger does not own it any more.
    pub(crate) gone: BTreeSet<Claim>,
}

impl Record {
    /// Whether a job is not done.
    pub(crate) fn is_pending(&self) -> bool {
        !self.todo.is_empty() || !self.gone.is_empty()
    }
}

/// The records of all deployments.
#[derive(Debug)]
pub(crate) struct Records {
    state: StateDir,
    known: BTreeMap<Uuid, Record>,
}

impl Records {
    pub(crate) const fn new(state: StateDir) -> Self {
        Self { state, known: BTreeMap::new() }
    }

    fn file(&self, id: Uuid) -> std::path::PathBuf {
        self.state.file(FOLDER).join(format!("{id}.json"))
    }

    /// Returns a deployment's record; an empty one if there is none. One that cannot be read is begun anew: it only spares
    /// questions.
    pub(crate) fn get(&mut self, id: Uuid) -> Record {
        if let Some(record) = self.known.get(&id) {
            return record.clone();
        }
        let read: Result<Option<Record>, DiskError> = disk::read_json(&self.file(id));
        let record = read.unwrap_or_else(|error| {
            tracing::warn!(deployment.id = %id, "what was remembered of {id} is left aside: {error}");
            None
        });
        self.known.entry(id).or_insert(record.unwrap_or_default()).clone()
    }

    /// Writes a deployment's record down, if it is another one than before.
    pub(crate) fn put(&mut self, id: Uuid, record: Record) -> Result<(), ApplyError> {
        if self.known.get(&id) == Some(&record) {
            return Ok(());
        }
        let write = || {
            disk::private_dir(&self.state.file(FOLDER))?;
            disk::write_json(&self.file(id), &record)
        };
        write().map_err(|error| fault(&error))?;
        self.known.insert(id, record);
        Ok(())
    }

    /// Returns the deployments of which there are records: those that this agent looks after.
    pub(crate) fn ids(&self) -> BTreeSet<Uuid> {
        let files = std::fs::read_dir(self.state.file(FOLDER)).into_iter().flatten().flatten();
        let named = files.filter_map(|file| Uuid::parse_str(file.path().file_stem()?.to_str()?).ok());
        named.chain(self.known.keys().copied()).collect()
    }

    /// Forgets a deployment.
    pub(crate) fn forget(&mut self, id: Uuid) -> Result<(), ApplyError> {
        self.known.remove(&id);
        disk::remove(&self.file(id)).map_err(|error| fault(&error))
    }
}

fn fault(error: &DiskError) -> ApplyError {
    ApplyError::Platform { what: "writing down what is applied".to_owned(), message: crate::settle::chain(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_outlive_the_process_and_a_damaged_one_is_begun_anew() {
        let dir = tempfile::tempdir().expect("dir");
        let open = || Records::new(StateDir::new(dir.path()));
        let id = Uuid::from_u128(7);
        let record = Record { todo: [Claim::new("object", "/Service/n/x")].into(), ..Record::default() };
        open().put(id, record.clone()).expect("put");
        assert_eq!(open().get(id), record);
        std::fs::write(dir.path().join(FOLDER).join(format!("{id}.json")), "{").expect("damage");
        assert_eq!(open().get(id), Record::default());
        open().forget(id).expect("forget");
        open().forget(id).expect("forget what is gone");
    }
}
