//! Looks for hosts that were not seen for so long that their replicas are to be elsewhere.
//!
//! Only the planner that leads looks, and what it knows begins anew with it: a host is missed for the time during which
//! somebody watched and others were seen, never because the control plane itself was away.

use std::{collections::BTreeMap, time::Duration};

use titan_api::Revision;
use uuid::Uuid;

use crate::{
    fleet::{absences::Watch, causes::Affected, model::Model, placements},
    planning::Standing,
    state::AppState,
    store::StoreError,
    tasks::heartbeats,
};

/// How often hosts are looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// Whoever looks for hosts that are missed.
#[derive(Debug, Default)]
pub struct Lookout {
    watch: Watch,
    looked: Revision,
}

impl Lookout {
    /// Brings what is known of absent hosts up to date, and returns what is to be decided because of it.
    pub async fn pass(&mut self, state: &AppState, standing: &mut Standing) -> Result<Affected, StoreError> {
        let now = state.clock.now();
        self.watch.look(now, state.view.heard());
        let since = now.micros().checked_sub(self.looked.micros()).and_then(|span| u64::try_from(span).ok());
        if since.is_some_and(|since| Duration::from_micros(since) < INTERVAL) {
            return Ok(Affected::default());
        }
        self.looked = now;
        let model = state.model();
        if model.deployments_that_book().all(|deployment| deployment.spec.failover().is_none())
            && standing.absences.hosts().next().is_none()
        {
            return Ok(Affected::default());
        }
        if state.store.postgres().is_some() {
            // Other replicas are polled too.
            let heard = state.store.read().await?.newest_seen().await?;
            self.watch.look(now, heard);
        }
        let mut unseen = self.suspects(state, &model, standing);
        if state.store.postgres().is_some() && !unseen.is_empty() {
            let hosts: Vec<_> = unseen.keys().copied().collect();
            for seen in state.store.read().await?.observed_hosts_of(&hosts).await? {
                let elsewhere = self.unseen(state, state.view.seen(seen.uid).max(seen.last_seen));
                unseen.entry(seen.uid).and_modify(|unseen| *unseen = (*unseen).min(elsewhere));
            }
        }
        Ok(taken(state, &model, standing, unseen))
    }

    /// Returns for how long a host was not seen, if that is longer than what it is told.
    fn unseen(&self, state: &AppState, seen: Option<Revision>) -> Duration {
        let unseen = self.watch.unseen(seen);
        if unseen < heartbeats::silence(state) { Duration::ZERO } else { unseen }
    }

    /// Returns the hosts that were missed, or that some deployment on them misses as far as this process has seen, with how
    /// long they were not seen. With a host that is newly missed come those that its replicas are not to go to either.
    fn suspects(&self, state: &AppState, model: &Model, standing: &Standing) -> BTreeMap<Uuid, Duration> {
        let unseen = |host: Uuid| match model.host(host) {
            Some(_) => self.unseen(state, state.view.seen(host)),
            None => Duration::ZERO,
        };
        let mut suspects: BTreeMap<_, _> = standing.absences.hosts().map(|host| (host, unseen(host))).collect();
        for deployment in model.deployments_that_book() {
            let Some(after) = deployment.spec.failover() else { continue };
            let missed = |host: &Uuid| unseen(*host) >= after.max(heartbeats::silence(state));
            let booked = standing.bookings.hosts(deployment.uid);
            let booked = model.hosts().among(&booked).map(|host| host.uid());
            let gone: Vec<_> = booked.filter(missed).collect();
            if gone.iter().any(|host| !standing.absences.misses(deployment, *host)) {
                let possible = placements::possible(model, deployment);
                let others: Vec<_> = model.hosts().among(&possible).map(|host| host.uid()).filter(missed).collect();
                suspects.extend(others.into_iter().map(|host| (host, unseen(host))));
            }
            suspects.extend(gone.into_iter().map(|host| (host, unseen(host))));
        }
        suspects
    }
}

/// Takes in how long hosts were not seen; returns the deployments that leave one of them, and the hosts that are back.
fn taken(state: &AppState, model: &Model, standing: &mut Standing, unseen: BTreeMap<Uuid, Duration>) -> Affected {
    if unseen.is_empty() {
        return Affected::default();
    }
    let before = standing.absences.clone();
    let mut affected = Affected::default();
    for (host, unseen) in unseen {
        if unseen.is_zero() && model.host(host).is_some() {
            affected.hosts.insert(host);
        }
        standing.absences.set(host, unseen);
    }
    for deployment in model.deployments_that_book().filter(|deployment| deployment.spec.failover().is_some()) {
        for host in model.hosts().among(&standing.bookings.hosts(deployment.uid)) {
            let uid = host.uid();
            if standing.absences.misses(deployment, uid) && !before.misses(deployment, uid) {
                affected.targets.insert(deployment.uid);
                let (name, unseen) = (host.name(), standing.absences.unseen(uid).as_secs());
                tracing::warn!(
                    host.name = name,
                    deployment.name = %deployment.name,
                    unseen_s = unseen,
                    "host {name} was not seen for {unseen} s: the replica of {} is to be elsewhere",
                    deployment.name
                );
            }
        }
    }
    state.absences.store(std::sync::Arc::new(standing.absences.clone()));
    affected
}
