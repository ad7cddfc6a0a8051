//! Removals: how deployments leave hosts.

use std::{collections::HashMap, sync::Arc};

use titan_api::{deployments::OnRemove, poll::RemovalReason};

use super::{Planned, Planning};
use crate::{
    fleet::{agenda::Item, moves},
    store::Description,
};

impl Planning<'_> {
    /// A deployment that is gone leaves every host that has it.
    pub(super) fn remove_deployment(&mut self, item: &Item, planned: &mut Planned) {
        let mut removals = Removals::default();
        for host in &item.hosts {
            self.release_booking(item.deployment, *host, planned);
            let existing = self.existing(item.deployment, *host);
            let moved = existing.as_ref().and_then(|existing| {
                let on_remove = existing.description.on_remove;
                let told = removals.told(&existing.description, RemovalReason::DeploymentDeleted, on_remove);
                moves::absent(existing, *host, &told)
            });
            match moved {
                Some(moved) => self.moves(planned, moved, existing),
                None => self.stays(planned, item.deployment, *host, None),
            }
        }
        if item.last {
            self.standing.barriers.remove(&item.deployment);
            for host in self.settle_problems(planned, item.deployment, |_| true) {
                self.release_booking(item.deployment, host, planned);
            }
        }
    }
}

/// How hosts are told to remove what they have: once for all that were told alike.
#[derive(Default)]
pub(super) struct Removals(HashMap<(usize, RemovalReason), Arc<Description>>);

impl Removals {
    pub(super) fn told(
        &mut self,
        before: &Arc<Description>,
        reason: RemovalReason,
        on_remove: OnRemove,
    ) -> Arc<Description> {
        // By address: whoever asks holds what was told before, so that no other takes its place.
        let told = self.0.entry((Arc::as_ptr(before).addr(), reason));
        Arc::clone(told.or_insert_with(|| Arc::new(moves::removal(before, reason, on_remove))))
    }
}
