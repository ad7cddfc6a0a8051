//! The units of a bundle: which of its files are units, what becomes of each, and what they are made from.
//!
//! Files at the top of the bundle with the name of a unit are units; `<unit>.d/*.conf` are drop-ins, also for units that
//! the bundle does not bring; everything else is a plain file. What systemd itself does not know is said in a section
//! `[X-Titan]`, which it passes over:
//!
//! - `Start=yes|no`: whether the unit is started and kept running. Unless told, every unit is, but for templates, slices,
//!   and those without `[Install]` that another unit of the bundle starts: a socket, timer, path or automount unit, or
//!   `OnFailure=` and `OnSuccess=`.
//! - `OnChange=restart|reload|nothing`: what is done when it or anything it is made from changed.
//! - `Instances=a b c` in a template: the instances that are wanted.

mod made_from;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    names::{self, ALIAS, DROP_IN, ENABLED, UNIT},
    unit_file::UnitFile,
};
use crate::{
    apply::{ApplyError, Target},
    bundles::Bundle,
    claims::{Claim, Claims},
    config::appliers::{Systemd as Settings, allows},
};

/// Bytes of a unit file or drop-in.
pub(in crate::apply) const UNIT_BYTES: usize = 256 * 1024;
/// Instances of one template.
const INSTANCES: usize = 64;
/// The section that is ours.
pub(in crate::apply) const OURS: &str = "X-Titan";
/// The key of the host's configuration that says which units may be touched.
const KEY: &str = "appliers.systemd.units";

/// How a unit comes to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::apply) enum Start {
    /// It is started, and is to run.
    Now,
    /// Others start it. If it runs when it changes it is restarted, or left as it is.
    ByOthers {
        /// Whether it is restarted then.
        restart: bool,
    },
    /// It is a template and never runs itself.
    Never,
}

/// What is done with a unit that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::apply) enum OnChange {
    /// It is restarted.
    #[default]
    Restart,
    /// It is reloaded, or restarted if it cannot be.
    Reload,
    /// It goes on as it is.
    Nothing,
}

/// One unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::apply) struct Unit {
    /// How it comes to run.
    pub(in crate::apply) start: Start,
    /// What is done when it changes.
    pub(super) on_change: OnChange,
    /// Whether it is a service that does one thing, and then is done.
    pub(in crate::apply) ends: bool,
    /// The units that it starts.
    pub(super) activates: Vec<String>,
    says: UnitFile,
}

/// The units of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Units {
    /// The bundle's own, with the wanted instances of templates.
    pub(super) own: BTreeMap<String, Unit>,
    /// Those of others that get drop-ins, and what is done with them when those change.
    pub(super) others: BTreeMap<String, OnChange>,
    /// The links that are to be: what each claim points to, below the deployment's directory.
    pub(super) links: BTreeMap<Claim, String>,
    /// All that is owned.
    pub(super) claims: Claims,
    /// What each of the bundle's own is made from: paths below the agent's root.
    pub(super) parts: BTreeMap<String, BTreeSet<String>>,
}

fn malformed(path: &str, message: impl Into<String>) -> ApplyError {
    ApplyError::Malformed { path: path.to_owned(), message: message.into() }
}

impl Units {
    /// Reads the units of a bundle.
    pub(super) fn read(target: &Target, bundle: &Bundle) -> Result<Self, ApplyError> {
        let mut texts = BTreeMap::new();
        let mut files = BTreeMap::new();
        let mut drop_ins: BTreeMap<String, Vec<UnitFile>> = BTreeMap::new();
        for file in bundle.files.iter().filter(|file| !file.rooted) {
            let is_unit = names::suffix_of_file(&file.path).is_some();
            let drop_in = names::drop_in(&file.path);
            if !is_unit && drop_in.is_none() {
                continue;
            }
            let text = file.text(UNIT_BYTES)?;
            let says = UnitFile::parse(&text).map_err(|message| malformed(&file.path, message))?;
            match drop_in {
                Some((unit, _)) => drop_ins.entry(unit.to_owned()).or_default().push(says),
                None => drop(files.insert(file.path.clone(), says)),
            }
            texts.insert(file.path.clone(), text);
        }
        if files.is_empty() && drop_ins.is_empty() {
            let message = "the bundle has no unit: name one at its top, such as app.service";
            return Err(malformed("the bundle", message));
        }
        let mut units = Self::default();
        for (name, says) in &mut files {
            drop_ins.remove(name).unwrap_or_default().into_iter().for_each(|more| says.add(more));
        }
        let instances = instances(&files)?;
        for (name, template) in &instances {
            let mut says = files[template].clone();
            drop_ins.remove(name).unwrap_or_default().into_iter().for_each(|more| says.add(more));
            if files.contains_key(name) {
                return Err(malformed(name, format!("it is an instance of {template} as well; keep one of the two")));
            }
            units.own.insert(name.clone(), Unit::new(name, says)?);
        }
        for (name, says) in files {
            let unit = Unit::new(&name, says)?;
            units.own.insert(name, unit);
        }
        for (name, says) in drop_ins {
            let mut all = UnitFile::default();
            says.into_iter().for_each(|more| all.add(more));
            let on_change = on_change(&name, &all)?;
            units.others.insert(name, on_change);
        }
        units.tell_starts()?;
        units.link(&texts, &instances)?;
        let made = made_from::parts(target, bundle, &units, &texts, &instances);
        units.claims = made_from::claims(target, bundle, &units, &made);
        units.parts = made_from::paths(target, &made);
        Ok(units)
    }

    /// Decides which units are started by others of the bundle.
    fn tell_starts(&mut self) -> Result<(), ApplyError> {
        let mut by_others: BTreeMap<String, bool> = BTreeMap::new();
        for (name, unit) in &self.own {
            let restart = name.ends_with(".socket") || name.ends_with(".automount");
            for activated in &unit.activates {
                *by_others.entry(activated.clone()).or_default() |= restart;
            }
            for key in ["OnFailure", "OnSuccess"] {
                for activated in unit.says.words("Unit", key) {
                    by_others.entry(activated).or_default();
                }
            }
        }
        for (name, unit) in &mut self.own {
            let told = unit.says.flag(OURS, "Start").map_err(|message| malformed(name, message))?;
            let installed = ["WantedBy", "RequiredBy", "UpheldBy", "Alias"];
            let installed = installed.iter().any(|key| !unit.says.words("Install", key).is_empty());
            unit.start = match (told, by_others.get(name)) {
                _ if names::is_template(name) => Start::Never,
                (Some(true), _) => Start::Now,
                (Some(false), _) => Start::ByOthers { restart: true },
                (None, Some(restart)) if !installed => Start::ByOthers { restart: *restart },
                (None, _) if name.ends_with(".slice") => Start::ByOthers { restart: false },
                (None, _) => Start::Now,
            };
        }
        Ok(())
    }

    /// Collects the links that are to be.
    fn link(
        &mut self,
        texts: &BTreeMap<String, String>,
        instances: &BTreeMap<String, String>,
    ) -> Result<(), ApplyError> {
        for path in texts.keys() {
            let kind = if path.contains('/') { DROP_IN } else { UNIT };
            self.links.insert(Claim::new(kind, path), path.clone());
        }
        for (name, unit) in &self.own {
            if names::is_template(name) {
                continue;
            }
            let file = instances.get(name).unwrap_or(name);
            for (key, kind) in [("WantedBy", "wants"), ("RequiredBy", "requires"), ("UpheldBy", "upholds")] {
                for wanting in unit.says.words("Install", key) {
                    let wanting = expand(name, &wanting)?;
                    let claim = Claim::new(ENABLED, format!("{wanting}.{kind}/{name}"));
                    self.links.insert(claim, file.clone());
                }
            }
            for alias in unit.says.words("Install", "Alias") {
                let alias = expand(name, &alias)?;
                if names::suffix(&alias) != names::suffix(name) {
                    return Err(malformed(file, format!("Alias={alias} is a unit of another type than {name}")));
                }
                if self.own.contains_key(&alias) {
                    return Err(malformed(file, format!("Alias={alias} is a unit of the bundle")));
                }
                self.links.insert(Claim::new(ALIAS, alias), file.clone());
            }
            if let Some(also) = unit.says.words("Install", "Also").iter().find(|also| !texts.contains_key(*also)) {
                return Err(malformed(file, format!("Also={also} is not in the bundle")));
            }
        }
        Ok(())
    }

    /// Checks that the owner allows all of it.
    pub(super) fn check(&self, allowed: &Settings) -> Result<(), ApplyError> {
        let beyond = |what: String| Err(ApplyError::Beyond { what, key: KEY });
        for name in self.own.keys().chain(self.others.keys()) {
            if !allows(&allowed.units, name) {
                return beyond(format!("the unit {name}"));
            }
        }
        for claim in self.links.keys() {
            if claim.kind == ALIAS && !allows(&allowed.units, &claim.name) {
                return beyond(format!("the alias {}", claim.name));
            }
            // To be wanted by a target is what units are for; anything else changes a unit that may not be ours.
            if let Some((directory, unit)) = claim.name.split_once('/').filter(|_| claim.kind == ENABLED) {
                let (wanting, kind) = directory.rsplit_once('.').unwrap_or((directory, ""));
                let harmless = wanting.ends_with(".target") && kind == "wants";
                if !harmless && !allows(&allowed.units, wanting) {
                    return beyond(format!("that {wanting} {kind} {unit}"));
                }
            }
        }
        Ok(())
    }

    /// Returns the names of all units whose state matters: not those of templates.
    pub(super) fn observed(&self) -> BTreeSet<&str> {
        self.own.iter().filter(|(_, unit)| unit.start != Start::Never).map(|(name, _)| name.as_str()).collect()
    }
}

impl Unit {
    pub(in crate::apply) fn new(name: &str, says: UnitFile) -> Result<Self, ApplyError> {
        let remains = says.flag("Service", "RemainAfterExit").map_err(|message| malformed(name, message))?;
        let oneshot = says.last("Service", "Type").is_some_and(|kind| kind == "oneshot");
        let stem = names::stem(name);
        let named = |key: &str, section: &str, suffix: &str| -> Result<Vec<String>, ApplyError> {
            let activated = says.last(section, key).unwrap_or_else(|| format!("{stem}{suffix}"));
            expand(name, &activated).map(|activated| vec![activated])
        };
        let activates = match names::suffix(name) {
            Some(".socket") if says.flag("Socket", "Accept") == Ok(Some(true)) => Vec::new(),
            Some(".socket") => named("Service", "Socket", ".service")?,
            Some(".timer") => named("Unit", "Timer", ".service")?,
            Some(".path") => named("Unit", "Path", ".service")?,
            Some(".automount") => vec![format!("{stem}.mount")],
            _ => Vec::new(),
        };
        let (ends, on_change) = (oneshot && remains != Some(true), on_change(name, &says)?);
        Ok(Self { start: Start::Now, on_change, ends, activates, says })
    }
}

fn on_change(name: &str, says: &UnitFile) -> Result<OnChange, ApplyError> {
    match says.last(OURS, "OnChange").as_deref() {
        None | Some("restart") => Ok(OnChange::Restart),
        Some("reload") => Ok(OnChange::Reload),
        Some("nothing") => Ok(OnChange::Nothing),
        Some(other) => Err(malformed(name, format!("OnChange={other} in [{OURS}]: restart, reload or nothing"))),
    }
}

/// Returns the wanted instances, each with its template.
fn instances(files: &BTreeMap<String, UnitFile>) -> Result<BTreeMap<String, String>, ApplyError> {
    let mut instances = BTreeMap::new();
    for (template, says) in files.iter().filter(|(name, _)| names::is_template(name)) {
        let mut wanted = says.words(OURS, "Instances");
        wanted.extend(says.last("Install", "DefaultInstance"));
        if wanted.len() > INSTANCES {
            return Err(malformed(template, format!("{} instances, at most {INSTANCES} are allowed", wanted.len())));
        }
        for instance in wanted {
            let name = names::instantiate(template, &instance);
            if instance.contains('@') || names::instance(&name).is_none() {
                return Err(malformed(template, format!("{instance:?} is no name of an instance")));
            }
            instances.insert(name, template.clone());
        }
    }
    Ok(instances)
}

/// Returns a name of a unit with what stands for parts of `unit`'s own name filled in.
fn expand(unit: &str, text: &str) -> Result<String, ApplyError> {
    let (template, instance) = names::instance(unit).unwrap_or_default();
    let prefix = template.split_once('@').map_or_else(|| names::stem(unit), |(prefix, _)| prefix);
    let mut name = String::new();
    let mut parts = text.split('%');
    name.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let mut letters = part.chars();
        match letters.next() {
            Some('i') => name.push_str(instance),
            Some('p') => name.push_str(prefix),
            Some('n') => name.push_str(unit),
            Some('N') => name.push_str(names::stem(unit)),
            _ => return Err(malformed(unit, format!("{text:?}: only %i, %p, %n and %N can stand there"))),
        }
        name.push_str(letters.as_str());
    }
    if names::suffix(&name).is_none() {
        return Err(malformed(unit, format!("{name:?} is no name of a unit")));
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
