//! Bringing quadlets about: units that leave are stopped, files are written, systemd reads them once, and only what
//! changed is restarted. Every step looks at what is there first, so all of it may be begun again after any cut.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use super::{Keeper, QUADLET, Quadlets, placed, placed::Placed};
use crate::{
    apply::{
        ApplyError, Work,
        podman::{
            images::platform,
            libpod::{Ask, LibpodError, encode},
            lookups::find_network,
            marks::{Mark, Whose},
        },
        systemd::{bus::BusError, names::UNIT},
    },
    claims::{Claim, Claims},
    faults::fault,
};

/// How long one call waits for units to stop, and how often it looks.
const LEAVE: Duration = Duration::from_millis(800);
const LOOK: Duration = Duration::from_millis(20);

impl Keeper {
    /// Has units stop that leave, or whose network is made anew. Returns what is waited for, if they have not stopped yet.
    pub(in super::super) fn stop(
        &mut self,
        work: &Work<'_>,
        before: &Claims,
        quadlets: Option<&Quadlets>,
    ) -> Result<Option<String>, ApplyError> {
        let stopping = |error: BusError| error.doing("stopping units that leave");
        let mut leaving = BTreeSet::new();
        for claim in before.keys().filter(|claim| claim.kind == UNIT && !work.after.contains_key(claim)) {
            if self.is_ours(&claim.name, &work.target.home()).map_err(stopping)? {
                leaving.insert(claim.name.as_str());
            }
        }
        for (file, quadlet) in quadlets.iter().flat_map(|quadlets| &quadlets.all) {
            let anew = |file: &str| {
                let other = quadlets.and_then(|quadlets| quadlets.all.get(file));
                let network = other.and_then(|other| other.thing.as_ref()).filter(|thing| thing.kind == "network");
                network.is_some_and(|network| is_anew(network, before, work.after))
            };
            let needs = quadlets.map(|quadlets| quadlets.needed(file)).unwrap_or_default();
            if anew(file) || needs.into_iter().any(anew) {
                leaving.insert(quadlet.unit.as_str());
            }
        }
        if leaving.is_empty() {
            return Ok(None);
        }
        let until = Instant::now() + LEAVE;
        let mut running = self.jobs.stop(&leaving).map_err(stopping)?;
        while !running.is_empty() && Instant::now() < until {
            thread::sleep(LOOK);
            let states = self.jobs.bus.states(running.iter().map(String::as_str)).map_err(stopping)?;
            running.retain(|unit| states.get(unit).is_some_and(|state| !state.rests()));
        }
        if running.is_empty() {
            fault!("quadlets-stopped");
            return Ok(None);
        }
        Ok(Some(format!("stopping {}", running.into_iter().collect::<Vec<_>>().join(", "))))
    }

    /// Whether a unit is this deployment's to stop: not one that is made from what somebody else put there.
    fn is_ours(&mut self, unit: &str, home: &str) -> Result<bool, BusError> {
        let fragment: Option<String> = self.jobs.bus.property(unit, "Unit", "FragmentPath")?;
        if fragment.is_none_or(|fragment| fragment.is_empty()) {
            // Its file is gone; what still runs of it is what was made from it.
            return Ok(true);
        }
        let Some(file) = self.source(unit)? else { return Ok(false) };
        let found = Placed(&self.directory).find(&file);
        Ok(matches!(found, Ok(placed::Found::Ours(whose, _)) if whose == home))
    }

    /// Takes networks and files away that leave, and networks that are made anew. Returns whether a file was taken.
    pub(in super::super) fn clear(&mut self, work: &Work<'_>, before: &Claims) -> Result<bool, ApplyError> {
        let mark = Mark::of(work.target);
        for claim in before.keys().filter(|claim| claim.kind == "network") {
            if work.after.contains_key(claim) && !is_anew(claim, before, work.after) {
                continue;
            }
            let removed = self.ground.io.block_on(async {
                let Some(found) = find_network(&self.libpod, &claim.name).await? else { return Ok(()) };
                if mark.whose(&found.labels) != Whose::Ours {
                    return Ok(());
                }
                match self.libpod.ask(Ask::delete(&format!("/networks/{}", encode(&found.id)))).await {
                    Err(LibpodError::Missing(_)) => Ok(()),
                    other => other.map(drop),
                }
            });
            removed.map_err(|error| platform(format!("removing {claim}"), &error))?;
        }
        let mut taken = false;
        for claim in before.keys().filter(|claim| claim.kind == QUADLET && !work.after.contains_key(claim)) {
            taken |= Placed(&self.directory).take(&claim.name, &work.target.home())?;
        }
        fault!("quadlets-cleared");
        Ok(taken)
    }

    /// Whether systemd still knows units that left.
    pub(in super::super) fn remembers(&mut self, work: &Work<'_>, before: &Claims) -> Result<bool, ApplyError> {
        let asking = |error: BusError| error.doing("asking for units that left");
        let left = before.keys().filter(|claim| claim.kind == UNIT && !work.after.contains_key(claim));
        let left: Vec<&str> = left.map(|claim| claim.name.as_str()).collect();
        let states = self.jobs.bus.states(left.iter().copied()).map_err(asking)?;
        left.iter().try_for_each(|unit| self.jobs.bus.unwatch(unit)).map_err(asking)?;
        Ok(states.values().any(|state| state.load != "not-found"))
    }

    /// Has systemd forget units that left.
    pub(in super::super) fn forget(&mut self, work: &Work<'_>, before: &Claims) -> Result<(), ApplyError> {
        self.jobs.bus.reload().map_err(|error| error.doing("having systemd read its files again"))?;
        for claim in before.keys().filter(|claim| claim.kind == UNIT && !work.after.contains_key(claim)) {
            self.jobs.forget(&claim.name);
            self.jobs.bus.leave(&claim.name).map_err(|error| error.doing("forgetting units that left"))?;
        }
        Ok(())
    }

    /// Writes the files, and has units started or restarted that differ from `before`.
    pub(in super::super) fn start(
        &mut self,
        work: &Work<'_>,
        before: &Claims,
        quadlets: &Quadlets,
        roots: &[std::path::PathBuf],
        image: impl Fn(&str) -> String,
    ) -> Result<(), ApplyError> {
        for (file, quadlet) in &quadlets.all {
            if let Some(mount) = quadlet.mounts.iter().find(|mount| !mount.stays(work.home, roots)) {
                let path = mount.path(work.home);
                let message = format!("{} leads out of what may be mounted; a link is in the way", path.display());
                return Err(ApplyError::Malformed { path: file.clone(), message });
            }
        }
        for (file, (text, mode)) in quadlets.texts(work, image) {
            Placed(&self.directory).put(&file, &text, mode)?;
        }
        fault!("quadlets-written");
        self.forget(work, before)?;
        fault!("quadlets-reloaded");
        let differs = |claim: &Claim| before.get(claim) != work.after.get(claim);
        let (mut fresh, mut changed) = (BTreeSet::new(), BTreeSet::new());
        for quadlet in quadlets.all.values() {
            let unit = Claim::new(UNIT, &quadlet.unit);
            let others = [Some(Claim::new(QUADLET, &quadlet.file)), quadlet.thing.clone()];
            if !before.contains_key(&unit) {
                fresh.insert(quadlet.unit.as_str());
            } else if differs(&unit) || others.iter().flatten().any(differs) {
                changed.insert(quadlet.unit.as_str());
            }
        }
        let starting = |error: BusError| error.doing("starting units");
        let refused = self.jobs.start(&quadlets.units(), &fresh, &changed).map_err(starting)?;
        // That what runs is made from something else is seen by its marks.
        for (unit, why) in refused {
            tracing::warn!("systemd does not restart {unit}: {why}");
        }
        Ok(())
    }
}

/// Whether a network is to be made again, since what it is made from changed.
fn is_anew(network: &Claim, before: &Claims, after: &Claims) -> bool {
    let (before, after) = (before.get(network), after.get(network));
    before.is_some() && after.is_some() && before != after
}
