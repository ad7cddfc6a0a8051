//! Being told by the kernel when others change files that are owned.

use super::Worker;
use crate::watches::Watches;

impl Worker {
    /// Has the kernel tell when others change what is owned.
    pub(super) fn watch_files(&mut self, again: bool) {
        if let (None, Some(files), Some(_)) = (&self.watches, &self.settings, &self.files) {
            match Watches::new(&self.io, self.wake.clone(), files.root.clone()) {
                Ok(watches) => self.watches = Some(watches),
                Err(error) => {
                    tracing::debug!("changes of files are found at the next beat, the kernel does not tell: {error}");
                    return;
                }
            }
        }
        let Some(watches) = self.watches.as_ref().filter(|_| again || self.watched != Some(self.ledger.switches))
        else {
            return;
        };
        let switched = self.watched.is_some_and(|before| before != self.ledger.switches);
        self.watched = Some(self.ledger.switches);
        let paths = self.ledger.entries.values().flat_map(|entry| entry.files.keys().cloned()).collect();
        let left = watches.set(&paths, switched);
        if left > 0 {
            tracing::warn!("{left} directories are not watched; what changes in them is found at the next beat");
        }
    }
}
