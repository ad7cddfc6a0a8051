//! Telling the control plane how things stand.

use std::path::Path;

use titan_api::{
    Code,
    client::ClientError,
    reports::{Report, Usage},
};

use super::Agent;
use crate::{facts, faults::fault};

impl Agent {
    /// Sends what is due. Returns why that did not work.
    pub(super) async fn report(&self, all: bool) -> Option<ClientError> {
        let mut recounted = false;
        loop {
            let report = self.due(all)?;
            match self.client.report(&self.host, &report).await {
                Ok(()) => {
                    fault!("report-sent");
                    self.with_worker(|worker| {
                        worker.outbox.sent(&report);
                        worker.outbox.save(&worker.state);
                    });
                    fault!("report-noted");
                    return None;
                }
                Err(error) => {
                    let seen = newest_seen(&error).filter(|_| !recounted);
                    let counts_on = |seen| {
                        self.with_worker(|worker| {
                            let possible = worker.outbox.count_from(seen);
                            worker.outbox.save(&worker.state);
                            possible
                        })
                    };
                    recounted = seen.is_some_and(counts_on);
                    if !recounted {
                        return Some(error);
                    }
                    tracing::warn!("the control plane knows newer reports of this host, so its state is an older one");
                }
            }
        }
    }

    fn due(&self, all: bool) -> Option<Report> {
        self.with_worker(|worker| {
            let usage = Usage {
                memory_bytes: facts::resident_bytes().filter(|_| all),
                state_bytes: if all { directory_bytes(worker.state.path()) } else { None },
            };
            let report = worker.outbox.due(worker.saved_cursor(), &self.facts, all, usage);
            worker.outbox.save(&worker.state);
            report
        })
    }
}

/// Returns the newest report's number that the control plane has, if a report was refused for being older.
fn newest_seen(error: &ClientError) -> Option<u64> {
    let ClientError::Refused { problem, .. } = error else { return None };
    let fault = problem.errors.iter().find(|fault| fault.pointer == "/seq").filter(|_| problem.code == Code::Stale)?;
    fault.detail.parse().ok()
}

/// Returns the bytes of all files below a directory, as far as they can be seen.
fn directory_bytes(path: &Path) -> Option<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(path).ok()?.flatten() {
        let Ok(kind) = entry.metadata() else { continue };
        sum += if kind.is_dir() { directory_bytes(&entry.path()).unwrap_or(0) } else { kind.len() };
    }
    Some(sum)
}
