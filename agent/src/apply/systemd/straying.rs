//! What runs from files that others changed, told from what systemd knows before they are put right.
//!
//! systemd says whether it has read a unit's files as they are now, and since when a unit runs; the file system says since
//! when a file is as it is. A unit that began later than its files changed runs from what others wrote, if systemd had
//! read that. One that began earlier is left alone: systemd only has to read its files again.

use std::time::{Duration, SystemTime};

use titan_api::Digest;

use super::{
    Systemd,
    bus::BusError,
    names::{self, DROP_IN, UNIT},
    units::{Start, Units},
};
use crate::{
    apply::{Strays, Work},
    claims::{Claim, Claims},
    clocks::uptime,
};

/// The digest of a unit that runs as it was made, though systemd may have read what others wrote.
pub(super) fn only_read() -> Digest {
    Digest::of(b"read by systemd, and no more")
}

/// The digest of a unit that runs from what others wrote.
fn taken_in() -> Digest {
    Digest::of(b"")
}

impl Systemd {
    /// Returns what runs as it was made, for [`Applier::untouched`](crate::apply::Applier::untouched).
    pub(super) fn see_strays(&mut self, work: &Work<'_>, units: &Units, strays: &Strays) -> Result<Claims, BusError> {
        let mut claims = work.after.clone();
        let home = format!("{}/", work.target.home());
        let is_text = |path: &str| {
            let inside = path.strip_prefix(&home);
            inside.is_some_and(|path| names::suffix_of_file(path).is_some() || names::drop_in(path).is_some())
        };
        for (name, parts) in &units.parts {
            let strayed = || strays.iter().filter(|(path, _)| parts.contains(*path));
            let texts: Vec<SystemTime> = strayed().filter(|(path, _)| is_text(path)).map(|(_, since)| *since).collect();
            let plain: Vec<SystemTime> =
                strayed().filter(|(path, _)| !is_text(path)).map(|(_, since)| *since).collect();
            if texts.is_empty() && plain.is_empty() {
                continue;
            }
            let claim = Claim::new(UNIT, name);
            let runs = units.own.get(name).is_some_and(|unit| unit.start != Start::Never);
            let Some(began) = self.since(name, "InactiveExitTimestampMonotonic")?.filter(|_| runs) else {
                // It never ran: it is to, if it is one that runs.
                match runs {
                    true => drop(claims.remove(&claim)),
                    false => drop(claims.insert(claim, only_read())),
                }
                continue;
            };
            // A service that was reloaded has read its own files anew.
            let stirred = self.since(name, "StateChangeTimestampMonotonic")?.unwrap_or(began);
            if (began_after(began, &texts) && self.has_read(name)?) || began_after(stirred, &plain) {
                claims.insert(claim, taken_in());
            } else if !texts.is_empty() {
                claims.insert(claim, only_read());
            }
        }
        for claim in work.after.keys().filter(|claim| claim.kind == DROP_IN) {
            let Some(unit) = names::unit_of(claim).filter(|unit| units.others.contains_key(*unit)) else { continue };
            let Some(since) = strays.get(&format!("{home}{}", claim.name)) else { continue };
            claims.insert(claim.clone(), if self.has_taken_in(unit, *since)? { taken_in() } else { only_read() });
        }
        Ok(claims)
    }

    /// Whether a unit of others, or any instance of such a template, runs with a drop-in as it is since then.
    fn has_taken_in(&mut self, unit: &str, since: SystemTime) -> Result<bool, BusError> {
        let units = if names::is_template(unit) { self.jobs.bus.instances(unit)? } else { vec![unit.to_owned()] };
        for unit in units {
            let began = self.since(&unit, "InactiveExitTimestampMonotonic")?;
            if began.is_some_and(|began| began_after(began, &[since])) && self.has_read(&unit)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether systemd has read a unit's files as they are now.
    fn has_read(&mut self, unit: &str) -> Result<bool, BusError> {
        Ok(self.jobs.bus.property(unit, "Unit", "NeedDaemonReload")? != Some(true))
    }

    /// Returns how long ago something was in a unit's life, if it was at all.
    fn since(&mut self, unit: &str, property: &str) -> Result<Option<Duration>, BusError> {
        let at: Option<u64> = self.jobs.bus.property(unit, "Unit", property)?;
        Ok(at.filter(|at| *at > 0).map(|at| uptime().saturating_sub(Duration::from_micros(at))))
    }
}

/// Whether what is that old began after any of these times. A time that is yet to come was told by a clock that is wrong
/// by now, or was then: before that everything may have been.
fn began_after(age: Duration, times: &[SystemTime]) -> bool {
    times.iter().any(|time| time.elapsed().map_or(true, |elapsed| age <= elapsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_later_than_a_file_changed_began_after_it() {
        let ago = |seconds| SystemTime::now() - Duration::from_secs(seconds);
        let age = Duration::from_secs(50);
        assert!(began_after(age, &[ago(60)]) && began_after(age, &[ago(1), ago(60)]));
        assert!(!began_after(age, &[ago(40)]) && !began_after(age, &[]));
        assert!(began_after(age, &[SystemTime::now() + Duration::from_secs(60)]), "the clock was wrong");
    }
}
