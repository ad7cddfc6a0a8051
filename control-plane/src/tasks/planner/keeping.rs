//! Keeping the model: what is declared and what agents report, moved along by the history.

use std::collections::BTreeSet;

use titan_api::{
    Kind, Problem,
    changes::{Change, Operation},
};
use uuid::Uuid;

use super::{BATCH, Leading, Planner};
use crate::{
    fleet::{hosts::Loader, model::Model},
    state::AppState,
    store::{ChangeFilter, StoreError, Tx},
};

/// How many hosts are taken off the queue of those whose facts changed at a time.
const QUEUED: u32 = 4096;
/// How many hosts' facts are read in one statement.
const TAKEN: usize = 1024;

impl Planner {
    /// Builds the model from one snapshot.
    pub async fn load(&mut self) -> Result<(), StoreError> {
        if self.state.store.postgres().is_none() {
            // This process holds the file's lock: whoever held a lease is gone.
            let mut tx = self.state.store.write("lease").await?;
            tx.end_leases().await?;
            tx.commit().await?;
        }
        let mut tx = self.state.store.read().await?;
        let revision = tx.clock().await?;
        let documents = tx.documents_beside_hosts().await?;
        let mut hosts = Loader::new(0);
        tx.hosts(|uid, name, labels, spec, facts| {
            if let Err(error) = hosts.add(uid, name, labels, spec, facts) {
                let error: &dyn std::error::Error = &error;
                tracing::error!(host.name = name, error, "a stored host cannot be read");
            }
        })
        .await?;
        drop(tx);
        self.state.change_model(|model| {
            *model = Model::default();
            model.set_hosts(hosts.finish());
            for stored in &documents {
                if let Err(problem) = model.put(&stored.document()) {
                    unreadable(&stored.name, &problem);
                }
            }
            model.revision = revision;
        });
        self.loaded = true;
        Ok(())
    }

    /// Moves the model along by the history, and returns the hosts whose facts changed.
    pub(super) async fn follow(&mut self) -> Result<Vec<(Uuid, i64)>, StoreError> {
        let mut tx = self.state.store.read().await?;
        let clock = tx.clock().await?;
        let mut seen = self.state.model().revision;
        while seen < clock {
            let (changes, end) = tx.changes_page(seen.next(), &ChangeFilter::default(), BATCH).await?;
            let Some(end) = end else { break };
            let leading = &mut self.leading;
            self.state.change_model(|model| {
                for change in &changes {
                    leave(leading.as_mut(), model, change);
                    if let Err(problem) = model.follow(change) {
                        unreadable(&change.name, &problem);
                    }
                    rebook(leading.as_mut(), model, change);
                }
            });
            // A host that was made a moment ago may have reported facts before the model knew it.
            let made = changes.iter().filter(|change| change.kind == Kind::Host).map(|change| change.uid).collect();
            take_facts(&self.state, &mut tx, made).await?;
            seen = end;
        }
        self.state.change_model(|model| model.revision = model.revision.max(clock));
        // What is on the agenda already is taken in, and comes first.
        let agenda = self.leading.as_ref().map_or(0, |leading| leading.queued.len());
        let mut queued = tx.queued_facts(QUEUED.saturating_add(u32::try_from(agenda).unwrap_or(u32::MAX))).await?;
        let known = |(host, mark): &(Uuid, i64)| {
            self.leading.as_ref().is_some_and(|leading| leading.queued.get(host) == Some(mark))
        };
        queued.retain(|queued| !known(queued));
        take_facts(&self.state, &mut tx, queued.iter().map(|(host, _)| *host).collect()).await?;
        Ok(queued)
    }
}

/// Takes a host that is deleted out of what a leader stands on, before its number is given to another.
fn leave(leading: Option<&mut Leading>, model: &Model, change: &Change) {
    if let Some(leading) = leading
        && (change.kind, change.operation) == (Kind::Host, Operation::Delete)
        && let Some(number) = model.hosts().number(change.uid)
    {
        leading.standing.remove_host(number);
    }
}

/// Takes in that a deployment asks for more or less than before.
fn rebook(leading: Option<&mut Leading>, model: &Model, change: &Change) {
    if let Some(leading) = leading
        && change.kind == Kind::Deployment
    {
        let shifted = leading.standing.rebook(change.uid, model);
        leading.agenda.shift(shifted);
    }
}

/// Takes what agents reported of these hosts into the model.
async fn take_facts(state: &AppState, tx: &mut Tx, hosts: BTreeSet<Uuid>) -> Result<(), StoreError> {
    let hosts: Vec<Uuid> = hosts.into_iter().collect();
    for hosts in hosts.chunks(TAKEN) {
        let observed = tx.observed_hosts_of(hosts).await?;
        state.change_model(|model| observed.into_iter().for_each(|host| model.set_facts(host.uid, &host.facts)));
    }
    Ok(())
}

/// A stored document that cannot be read holds up nobody else; it is said once each time that it is met.
fn unreadable(name: &str, problem: &Problem) {
    tracing::error!(document.name = name, %problem, errors = ?problem.errors, "a stored document cannot be read");
}
