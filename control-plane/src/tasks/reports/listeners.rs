//! Listeners: what hosts say of a deployment, for whoever waits for it, without reading it again from the database.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

use crate::store::ObservedDeployment;

/// What each host said last; so there are no more of them than hosts.
type Heard = Mutex<HashMap<Uuid, ObservedDeployment>>;

/// Whoever listens, by deployment.
#[derive(Debug, Default)]
pub struct Listeners(Mutex<HashMap<Uuid, Vec<Arc<Heard>>>>);

/// Hears what hosts say of one deployment to this process, from when it is made until it is dropped.
#[derive(Debug)]
pub struct Listener {
    deployment: Uuid,
    heard: Arc<Heard>,
    among: Arc<Listeners>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listeners {
    /// Begins to listen.
    #[must_use]
    pub fn listen(self: &Arc<Self>, deployment: Uuid) -> Listener {
        let heard = Arc::new(Heard::default());
        locked(&self.0).entry(deployment).or_default().push(Arc::clone(&heard));
        Listener { deployment, heard, among: Arc::clone(self) }
    }

    /// Passes on what is on disk now. What has drifted is left out: it may be long.
    pub fn tell<'a>(&self, said: impl IntoIterator<Item = &'a ObservedDeployment>) {
        let listeners = locked(&self.0);
        if listeners.is_empty() {
            return;
        }
        for observed in said {
            for heard in listeners.get(&observed.deployment).into_iter().flatten() {
                let mut observed = observed.clone();
                observed.report.drift = Vec::new();
                locked(heard).insert(observed.host, observed);
            }
        }
    }
}

impl Listener {
    /// Returns what was heard since the last time, by host.
    #[must_use]
    pub fn take(&self) -> HashMap<Uuid, ObservedDeployment> {
        std::mem::take(&mut *locked(&self.heard))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut listeners = locked(&self.among.0);
        if let Some(all) = listeners.get_mut(&self.deployment) {
            all.retain(|heard| !Arc::ptr_eq(heard, &self.heard));
            if all.is_empty() {
                listeners.remove(&self.deployment);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use titan_api::{
        Revision,
        reports::{DeploymentReport, Phase},
    };

    use super::*;

    fn said(host: u128, deployment: u128, at: i64) -> ObservedDeployment {
        let report = DeploymentReport {
            id: Uuid::nil(),
            release: String::new(),
            revision: Revision::ZERO,
            digest: None,
            phase: Phase::Healthy,
            message: String::new(),
            healthy_since: None,
            commit: None,
            push: None,
            drift: Vec::new(),
        };
        let (host, deployment) = (Uuid::from_u128(host), Uuid::from_u128(deployment));
        ObservedDeployment { host, deployment, report, reported_at: Revision::from_micros(at) }
    }

    #[test]
    fn listeners_hear_the_newest_of_each_host_once_and_of_their_deployment_alone() {
        let listeners = Arc::new(Listeners::default());
        listeners.tell(&[said(1, 7, 1)]);
        let listener = listeners.listen(Uuid::from_u128(7));
        listeners.tell(&[said(1, 7, 2), said(2, 8, 2), said(3, 7, 2), said(1, 7, 3)]);
        let heard = listener.take();
        assert_eq!(heard.len(), 2, "what was said before, and of others, is not heard");
        assert_eq!(heard[&Uuid::from_u128(1)], said(1, 7, 3));
        assert!(listener.take().is_empty());
    }

    #[test]
    fn nothing_is_left_of_listeners_that_are_gone() {
        let listeners = Arc::new(Listeners::default());
        let (one, other) = (listeners.listen(Uuid::nil()), listeners.listen(Uuid::nil()));
        drop(one);
        listeners.tell(&[said(1, 0, 1)]);
        assert_eq!(other.take().len(), 1);
        drop(other);
        assert!(locked(&listeners.0).is_empty());
    }
}
