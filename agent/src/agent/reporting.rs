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
    pub(super) async fn report(&mut self, all: bool) -> Option<ClientError> {
        if all {
            self.with_worker(|worker| worker.outbox.all_due()).await;
        }
        loop {
            let report = self.due().await?;
            let (report, result) = self.reporting(report).await;
            if let Some(error) = self.reported(&report, result).await {
                return Some(error);
            }
        }
    }

    /// Returns a report that is being sent, which can be waited for beside other things.
    pub(super) fn reporting(&self, report: Report) -> impl Future<Output = (Report, Result<(), ClientError>)> + use<> {
        let (client, host) = (self.client.clone(), self.host.clone());
        async move {
            let result = client.report(&host, &report).await;
            (report, result)
        }
    }

    /// Takes note of what came of a report. Returns why it was not taken in, if it makes no sense to send it again at once.
    pub(super) async fn reported(&mut self, report: &Report, result: Result<(), ClientError>) -> Option<ClientError> {
        let Err(error) = result else {
            fault!("report-sent");
            self.recounted = false;
            self.with_worker(|worker| {
                worker.outbox.sent(report);
                worker.outbox.save(&worker.state);
            })
            .await;
            fault!("report-noted");
            return None;
        };
        if report.unchanged && is_missed(&error) {
            // Reports were lost there, or never written down: an older state came back.
            self.with_worker(|worker| worker.outbox.all_due()).await;
            return None;
        }
        let Some(seen) = newest_seen(&error).filter(|_| !self.recounted) else { return Some(error) };
        let counted = self.with_worker(|worker| {
            let possible = worker.outbox.count_from(seen);
            worker.outbox.save(&worker.state);
            possible
        });
        self.recounted = counted.await;
        if !self.recounted {
            return Some(error);
        }
        tracing::warn!("the control plane knows newer reports of this host, so its state is an older one");
        None
    }

    /// Returns what is to be reported now.
    pub(super) async fn due(&self) -> Option<Report> {
        let due = self.with_worker(|worker| {
            let told = worker.outbox.tells_usage();
            let usage = Usage {
                memory_bytes: facts::resident_bytes().filter(|_| told),
                state_bytes: if told { directory_bytes(worker.state.path()) } else { None },
            };
            if worker.outbox.is_due(&self.facts) {
                worker.outbox.set_numbers_aside(&worker.state);
            }
            let report = worker.outbox.due(worker.saved_cursor(), &self.facts, usage);
            worker.outbox.save(&worker.state);
            report
        });
        due.await
    }
}

/// Returns the newest report's number that the control plane has, if a report was refused for being older.
fn newest_seen(error: &ClientError) -> Option<u64> {
    let ClientError::Refused { problem, .. } = error else { return None };
    let fault = problem.errors.iter().find(|fault| fault.pointer == "/seq").filter(|_| problem.code == Code::Stale)?;
    fault.detail.parse().ok()
}

/// Whether a report that nothing changed was refused because the one before it is not known.
fn is_missed(error: &ClientError) -> bool {
    let ClientError::Refused { problem, .. } = error else { return false };
    problem.code == Code::Stale && problem.errors.iter().any(|fault| fault.pointer == "/unchanged")
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
