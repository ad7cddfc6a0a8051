//! Units that run on as they were made before, since systemd does not restart them (`RefuseManualStop=`).

use std::collections::BTreeMap;

use titan_api::Digest;

use super::{
    bus::{Bus, BusError},
    names::UNIT,
};
use crate::{
    apply::Condition,
    claims::{Claim, Claims},
};

/// Those units, by name.
#[derive(Debug, Default)]
pub(super) struct Lagging(BTreeMap<String, Old>);

#[derive(Debug)]
struct Old {
    /// What it was made from, as the ledger said.
    from: Option<Digest>,
    /// Since when it runs, by systemd's own clock.
    since: Option<u64>,
    /// What systemd said.
    why: String,
}

fn since(bus: &mut Bus, unit: &str) -> Result<Option<u64>, BusError> {
    bus.property(unit, "Unit", "ActiveEnterTimestampMonotonic")
}

impl Lagging {
    /// Notes units that systemd did not restart, which the ledger owned as `before`.
    pub(super) fn note(
        &mut self,
        bus: &mut Bus,
        refused: BTreeMap<String, String>,
        before: &Claims,
    ) -> Result<(), BusError> {
        for (unit, why) in refused {
            let since = since(bus, &unit)?;
            let known = self.0.get(&unit).filter(|old| old.since == since).map(|old| old.from);
            let from = known.unwrap_or_else(|| before.get(&Claim::new(UNIT, &unit)).copied());
            self.0.insert(unit, Old { from, since, why });
        }
        Ok(())
    }

    /// Whether a unit is to be again what it runs from all the time: there is nothing to restart it for.
    pub(super) fn is_back(&mut self, bus: &mut Bus, unit: &str, to_be: Option<Digest>) -> Result<bool, BusError> {
        self.refresh(bus, unit)?;
        let back = self.0.get(unit).is_some_and(|old| old.from == to_be);
        if back {
            self.forget(unit);
        }
        Ok(back)
    }

    /// Returns how a unit does that is well by all that systemd tells of it.
    pub(super) fn condition(&mut self, bus: &mut Bus, unit: &str) -> Result<Condition, BusError> {
        self.refresh(bus, unit)?;
        let why = self.0.get(unit).map(|old| format!("systemd does not restart it: {}", old.why));
        Ok(why.map_or(Condition::Well, Condition::Failed))
    }

    pub(super) fn forget(&mut self, unit: &str) {
        self.0.remove(unit);
    }

    /// Forgets a unit that began anew since.
    fn refresh(&mut self, bus: &mut Bus, unit: &str) -> Result<(), BusError> {
        if let Some(old) = self.0.get(unit)
            && since(bus, unit)? != old.since
        {
            self.forget(unit);
        }
        Ok(())
    }
}
