//! Holders: which hosts have which deployments.

use std::collections::HashMap;

use roaring::RoaringBitmap;
use uuid::Uuid;

use crate::fleet::{
    hosts::{HostNumber, Hosts},
    view::FleetView,
};

/// Which hosts have which deployments now, as numbers of the model's table, so that an edit costs what it moves.
#[derive(Debug, Clone, Default)]
pub struct Holders {
    of: HashMap<Uuid, RoaringBitmap>,
}

impl Holders {
    /// Returns who has what according to the view. Hosts that are not in the table are left out.
    #[must_use]
    pub fn of_view(view: &FleetView, hosts: &Hosts) -> Self {
        let slots = view.slots();
        let mut numbered: Vec<_> = slots.iter().filter_map(|slot| Some((hosts.number(slot.uid())?.0, slot))).collect();
        // In order, numbers are appended.
        numbered.sort_unstable_by_key(|(number, _)| *number);
        let mut holders = Self::default();
        for (number, slot) in numbered {
            for entry in slot.set().entries().iter().filter(|entry| entry.present()) {
                holders.of.entry(entry.deployment()).or_default().insert(number);
            }
        }
        holders
    }

    /// Returns who has what of some hosts according to the view.
    #[must_use]
    pub fn of_hosts(view: &FleetView, hosts: &Hosts, some: &RoaringBitmap) -> Self {
        let mut holders = Self::default();
        for host in hosts.among(some) {
            let Some(slot) = view.find(host.uid()) else { continue };
            for entry in slot.set().entries().iter().filter(|entry| entry.present()) {
                holders.set(entry.deployment(), host.number(), true);
            }
        }
        holders
    }

    /// Returns the hosts that have a deployment.
    #[must_use]
    pub fn of(&self, deployment: Uuid) -> RoaringBitmap {
        self.of.get(&deployment).cloned().unwrap_or_default()
    }

    /// Takes in that a host has a deployment from now on, or has it no longer.
    pub fn set(&mut self, deployment: Uuid, host: HostNumber, present: bool) {
        if present {
            self.of.entry(deployment).or_default().insert(host.0);
        } else if let Some(hosts) = self.of.get_mut(&deployment) {
            hosts.remove(host.0);
            if hosts.is_empty() {
                self.of.remove(&deployment);
            }
        }
    }

    /// Takes a host out whose number will be another's.
    pub fn remove_host(&mut self, host: HostNumber) {
        self.of.retain(|_, hosts| {
            hosts.remove(host.0);
            !hosts.is_empty()
        });
    }
}
