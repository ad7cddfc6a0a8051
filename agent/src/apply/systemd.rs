//! The applier `systemd`: units, drop-ins, and what starts them at boot.
//!
//! The files stay in the deployment's own directory; systemd gets links to them, so that the switch of that directory is the
//! switch of the units, and a host that boots in between finds the old ones or the new ones. Owned are, as claims:
//! `unit:app.service`, `dropin:app.service.d/x.conf` (also of units of others), `enabled:multi-user.target.wants/app.service`
//! and `alias:web.service` (what `[Install]` asks for; systemd's own tools take these links for theirs). What each unit is
//! made from is told in [`units`].
//!
//! Foreign are, and stay: units and drop-ins that the host's owner made. Drop-ins that people add to units of ours are
//! reported and never removed.

pub(in crate::apply) mod bus;
pub(in crate::apply) mod checks;
pub(in crate::apply) mod jobs;
mod lagging;
mod links;
pub(in crate::apply) mod names;
pub(in crate::apply) mod states;
mod straying;
pub(in crate::apply) mod unit_file;
pub(in crate::apply) mod units;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use titan_api::{drift::Drift, limits, templates::Applier as Kind};

use self::{
    bus::BusError,
    checks::Checks,
    jobs::Jobs,
    lagging::Lagging,
    links::{Found, Links},
    names::{ALIAS, DROP_IN, ENABLED, UNIT},
    units::{OnChange, Units},
};
use super::{Applier, ApplyError, Condition, Observation, Readiness, Strays, Target, Work, appliers::Ground};
use crate::{
    bundles::Bundle,
    claims::{Claim, Claims},
    config::appliers::Systemd as Settings,
    drifts,
    faults::fault,
    spaces::Need,
};

/// How long a change waits for units that leave to stop. Those that take longer are left to systemd, which ends them in its
/// own time.
const LEAVE: Duration = Duration::from_millis(800);
/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(20);

/// The applier.
#[derive(Debug)]
pub(crate) struct Systemd {
    settings: Settings,
    jobs: Jobs,
    checks: Checks,
    lagging: Lagging,
}

impl Systemd {
    pub(crate) fn new(settings: &Settings, ground: &Ground) -> Self {
        let (io, wake) = (ground.io.clone(), ground.wake.clone());
        Self {
            settings: settings.clone(),
            jobs: Jobs::new(io.clone(), wake.clone(), Kind::Systemd, settings.bus.clone()),
            checks: Checks::new(io, wake, ground.state.clone()),
            lagging: Lagging::default(),
        }
    }

    /// Returns the units of the work's bundle.
    fn units(work: &Work<'_>) -> Result<Units, ApplyError> {
        work.bundle.map_or_else(|| Ok(Units::default()), |bundle| Units::read(work.target, bundle))
    }

    /// Refuses what is there already and not the agent's.
    fn check_foreign(&mut self, work: &Work<'_>, bundle: &Bundle, units: &Units) -> Result<(), ApplyError> {
        let directory = self.settings.directory.clone();
        let links = Links::new(&directory, work.home);
        for (claim, file) in units.links.iter().filter(|(claim, _)| !work.before.contains_key(claim)) {
            let Some(place) = names::place(claim) else { continue };
            let ours = match links.find(place)? {
                Found::Link(there) if links.is_ours(&there) => true,
                Found::Missing => false,
                Found::File(Some(text)) if says_the_same(bundle, file, &text) => continue,
                _ => return Err(ApplyError::Foreign(claim.clone())),
            };
            let named = claim.kind == UNIT || claim.kind == ALIAS;
            if ours || !named || names::is_template(place) {
                continue;
            }
            let there = self.jobs.bus.file_of(place).map_err(|error| error.doing(&format!("looking for {place}")))?;
            if there.is_some_and(|there| !links.is_ours(Path::new(&there))) {
                return Err(ApplyError::Foreign(claim.clone()));
            }
        }
        Ok(())
    }

    /// Returns the units among claims that are this deployment's to stop: not one whose link leads elsewhere by now.
    fn leaving<'a>(&self, work: &Work<'a>) -> Result<BTreeSet<&'a str>, ApplyError> {
        let links = Links::new(&self.settings.directory, work.home);
        let mut leaving = BTreeSet::new();
        for claim in work.before.keys().filter(|claim| claim.kind == UNIT && !work.after.contains_key(claim)) {
            let Some(place) = names::place(claim).filter(|place| !names::is_template(place)) else { continue };
            let ours = match links.find(place)? {
                Found::Missing => true,
                Found::Link(there) => there.starts_with(work.home),
                _ => false,
            };
            if ours {
                leaving.insert(place);
            }
        }
        Ok(leaving)
    }

    /// Takes links away that are owned no more.
    fn unlink(&self, work: &Work<'_>) -> Result<(), ApplyError> {
        let links = Links::new(&self.settings.directory, work.home);
        let gone = work.before.keys().filter(|claim| !work.after.contains_key(claim));
        for place in gone.filter_map(names::place) {
            links.take(place)?;
        }
        Ok(())
    }

    /// Returns how a link differs from what was made.
    fn link_drift(links: &Links<'_>, claim: &Claim, file: &str) -> Result<Option<Drift>, ApplyError> {
        let Some(place) = names::place(claim).filter(|_| !file.is_empty()) else { return Ok(None) };
        if links.holds(place, file)? {
            return Ok(None);
        }
        let (how, diff, found) = match links.find(place)? {
            Found::Missing if claim.kind == ENABLED => ("disabled", String::new(), None),
            Found::Missing => ("missing", String::new(), None),
            Found::Link(there) if there == Path::new("/dev/null") => ("masked", String::new(), None),
            Found::Link(there) => ("replaced", format!("-{file}\n+{}\n", there.display()), None),
            Found::File(text) => {
                let text = text.unwrap_or_default();
                ("replaced", added(place, &text), Some(text).filter(|_| claim.kind == DROP_IN))
            }
            Found::Other => ("replaced", String::new(), None),
        };
        Ok(Some(Drift { what: place.to_owned(), how: how.to_owned(), diff, found, repaired: false }))
    }
}

impl Applier for Systemd {
    fn plan(&self, target: &Target, bundle: &Bundle) -> Result<Claims, ApplyError> {
        let units = Units::read(target, bundle)?;
        units.check(&self.settings)?;
        Ok(units.claims)
    }

    fn prepare(&mut self, work: &Work<'_>) -> Result<Readiness, ApplyError> {
        let Some(bundle) = work.bundle else { return Ok(Readiness::Ready) };
        let units = Units::read(work.target, bundle)?;
        if !self.settings.adopt {
            self.check_foreign(work, bundle, &units)?;
        }
        self.checks.verify(work, bundle, &units)
    }

    fn room(&self, work: &Work<'_>) -> Vec<(PathBuf, Need)> {
        let only = |here: &'_ Claims, there: &'_ Claims| {
            let links = here.keys().filter(|claim| !there.contains_key(claim)).filter_map(names::place);
            // A link, and the directory that it may be the first or the last in.
            links.map(|place| if place.contains('/') { 2 } else { 1 }).sum::<u64>()
        };
        // What leaves goes first.
        let files = only(work.after, work.before).saturating_sub(only(work.before, work.after));
        vec![(self.settings.directory.clone(), Need { bytes: 0, files })]
    }

    fn rests_on(&self, target: &Target, bundle: &Bundle, claims: &Claims) -> Result<BTreeSet<String>, ApplyError> {
        let Units { links, parts, .. } = Units::read(target, bundle)?;
        let links = links.into_iter().filter(|(claim, _)| claims.contains_key(claim));
        let parts = parts.into_iter().filter(|(unit, _)| claims.contains_key(&Claim::new(UNIT, unit)));
        let files = links.map(|(_, file)| format!("{}/{file}", target.home()));
        Ok(files.chain(parts.flat_map(|(_, paths)| paths)).collect())
    }

    fn apply(&mut self, work: &Work<'_>) -> Result<(), ApplyError> {
        let units = Self::units(work)?;
        let differs = |claim: &&Claim| work.before.get(*claim) != work.after.get(*claim);
        let touched: Vec<&Claim> = work.after.keys().filter(differs).collect();
        let gone: Vec<&Claim> = work.before.keys().filter(|claim| !work.after.contains_key(claim)).collect();
        if touched.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let leaving = self.leaving(work)?;
        let until = Instant::now() + LEAVE;
        let stopping = |error: BusError| error.doing("stopping units that leave");
        let mut running =
            if leaving.is_empty() { BTreeSet::new() } else { self.jobs.stop(&leaving).map_err(stopping)? };
        while !running.is_empty() && Instant::now() < until {
            thread::sleep(LOOK);
            let states = self.jobs.bus.states(running.iter().map(String::as_str)).map_err(stopping)?;
            running.retain(|unit| states.get(unit).is_some_and(|state| !state.rests()));
        }
        fault!("units-stopped");
        self.unlink(work)?;
        fault!("units-unlinked");
        let links = Links::new(&self.settings.directory, work.home);
        for (claim, file) in &units.links {
            if let Some(place) = names::place(claim).filter(|_| work.after.contains_key(claim)) {
                links.put(place, file)?;
            }
        }
        fault!("units-linked");
        self.jobs.bus.reload().map_err(|error| error.doing("having systemd read its files again"))?;
        fault!("units-reloaded");
        for unit in &leaving {
            self.jobs.bus.leave(unit).map_err(stopping)?;
        }
        let is_known = |claim: &&&Claim| work.before.contains_key(**claim);
        let runs = |claim: &Claim| work.before.get(claim) != Some(&straying::only_read());
        let touched: Vec<&Claim> = touched.into_iter().filter(|claim| runs(claim)).collect();
        let of_kind = |kind: &'static str| touched.iter().filter(move |claim| claim.kind == kind);
        let fresh: BTreeSet<&str> =
            of_kind(UNIT).filter(|claim| !is_known(claim)).map(|claim| claim.name.as_str()).collect();
        let mut changed: BTreeSet<&str> = of_kind(UNIT).filter(is_known).map(|claim| claim.name.as_str()).collect();
        let mut others = BTreeMap::new();
        for claim in touched.iter().chain(&gone).filter(|claim| claim.kind == DROP_IN) {
            let Some(unit) = names::unit_of(claim) else { continue };
            if let Some(on_change) = units.others.get(unit) {
                others.insert(unit, *on_change);
            } else if units.own.contains_key(unit) {
                // A drop-in that somebody took away and that is back; one of a template is one of all its instances.
                let of = |name: &&String| *name == unit || names::instance(name).is_some_and(|(of, _)| of == unit);
                let names = units.own.keys().filter(of).map(String::as_str);
                changed.extend(names.filter(|name| !fresh.contains(name)));
            } else if !leaving.contains(unit) {
                others.insert(unit, OnChange::Restart);
            }
        }
        let starting = |error: BusError| error.doing("starting units");
        for unit in changed.clone() {
            let to_be = work.after.get(&Claim::new(UNIT, unit)).copied();
            if self.lagging.is_back(&mut self.jobs.bus, unit, to_be).map_err(starting)? {
                changed.remove(unit);
            }
        }
        let refused = self.jobs.start(&units.own, &fresh, &changed).map_err(starting)?;
        self.lagging.note(&mut self.jobs.bus, refused, work.before).map_err(starting)?;
        self.jobs.restart_others(&others).map_err(starting)
    }

    fn observe(&mut self, work: &Work<'_>) -> Result<Vec<Observation>, ApplyError> {
        let units = Self::units(work)?;
        let asking = |error: BusError| error.doing("asking how units do");
        let states = self.jobs.bus.states(units.observed()).map_err(asking)?;
        let directory = self.settings.directory.clone();
        let links = Links::new(&directory, work.home);
        let mut observations = Vec::new();
        for claim in work.after.keys() {
            let file = units.links.get(claim).map(String::as_str).unwrap_or_default();
            let mut drift = Self::link_drift(&links, claim, file)?;
            let mut condition = Condition::Well;
            let unit = units.own.get(&claim.name).filter(|_| claim.kind == UNIT);
            if let (Some(unit), Some(state)) = (unit, states.get(&claim.name)) {
                let (found, stopped) = self.jobs.condition(&claim.name, unit, state).map_err(asking)?;
                condition = match found {
                    Condition::Well => self.lagging.condition(&mut self.jobs.bus, &claim.name).map_err(asking)?,
                    other => other,
                };
                if stopped && drift.is_none() {
                    let (what, how) = (claim.name.clone(), "stopped".to_owned());
                    drift = Some(Drift { what, how, diff: String::new(), found: None, repaired: false });
                }
            }
            observations.push(Observation { claim: claim.clone(), condition, drift });
        }
        for name in units.own.keys() {
            let ours = |place: &str| work.after.contains_key(&Claim::new(DROP_IN, place));
            for (place, text) in links.foreign_drop_ins(name, ours) {
                let diff = text.as_deref().map(|text| added(&place, text)).unwrap_or_default();
                let found = text.filter(|text| text.len() <= limits::DRIFT_BYTES);
                let claim = Claim::new(DROP_IN, &place);
                let drift = Drift { what: place, how: drifts::ADDED.to_owned(), diff, found, repaired: false };
                observations.push(Observation { claim, condition: Condition::Well, drift: Some(drift) });
            }
        }
        Ok(observations)
    }

    fn untouched(&mut self, work: &Work<'_>, strays: &Strays) -> Result<Claims, ApplyError> {
        let units = Self::units(work)?;
        self.see_strays(work, &units, strays).map_err(|error| error.doing("asking since when units run"))
    }

    fn remove(&mut self, work: &Work<'_>) -> Result<Readiness, ApplyError> {
        let gone: Vec<&Claim> = work.before.keys().filter(|claim| !work.after.contains_key(claim)).collect();
        if gone.is_empty() {
            return Ok(Readiness::Ready);
        }
        let leaving = self.leaving(work)?;
        let stopping = |error: BusError| error.doing("stopping units");
        let running = self.jobs.stop(&leaving).map_err(stopping)?;
        if !running.is_empty() {
            let running: Vec<_> = running.into_iter().collect();
            return Ok(Readiness::Underway(format!("stopping {}", running.join(", "))));
        }
        let on_change = Self::units(work).map(|units| units.others).unwrap_or_default();
        fault!("units-stopped");
        self.unlink(work)?;
        fault!("units-unlinked");
        self.jobs.bus.reload().map_err(|error| error.doing("having systemd read its files again"))?;
        fault!("units-reloaded");
        for unit in &leaving {
            self.jobs.forget(unit);
            self.lagging.forget(unit);
            self.jobs.bus.leave(unit).map_err(stopping)?;
        }
        let mut others = BTreeMap::new();
        for unit in gone.iter().filter(|claim| claim.kind == DROP_IN).filter_map(|claim| names::unit_of(claim)) {
            let is_own = work.before.contains_key(&Claim::new(UNIT, unit));
            if !is_own {
                others.insert(unit, on_change.get(unit).copied().unwrap_or_default());
            }
        }
        self.jobs.restart_others(&others).map_err(stopping)?;
        Ok(Readiness::Ready)
    }

    fn adopt(&mut self, work: &Work<'_>) -> Result<Vec<(String, String)>, ApplyError> {
        let units = Self::units(work)?;
        let links = Links::new(&self.settings.directory, work.home);
        let mut files = Vec::new();
        for name in units.own.keys() {
            let ours = |place: &str| work.after.contains_key(&Claim::new(DROP_IN, place));
            let found = links.foreign_drop_ins(name, ours);
            files.extend(found.into_iter().filter_map(|(place, text)| text.map(|text| (place, text))));
        }
        Ok(files)
    }

    fn watch(&mut self) {
        self.jobs.bus.watch();
    }
}

/// Whether a file of the bundle says what stands in its place.
fn says_the_same(bundle: &Bundle, path: &str, text: &str) -> bool {
    let file = bundle.files.iter().find(|file| file.path == path && !file.rooted);
    file.is_some_and(|file| file.sha256 == titan_api::Digest::of(text.as_bytes()))
}

/// Returns the difference that a file makes which was not there.
fn added(path: &str, text: &str) -> String {
    let mut diff = format!("--- /dev/null\n+++ {path}\n");
    for line in text.lines() {
        if diff.len() + line.len() > limits::DRIFT_BYTES {
            break;
        }
        diff.push_str(&format!("+{line}\n"));
    }
    diff
}

#[cfg(test)]
mod tests;
