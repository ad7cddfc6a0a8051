//! Quadlets: files from which podman's generator makes units of systemd. The agent writes them to the directory that the
//! generator reads, with its marks, with paths of this host and with images by their ids, and looks after the units.
//!
//! | what it owns | claim | how it is known again | how it proves health |
//! |---|---|---|---|
//! | a file there | `quadlet:web.container` | its first line | it says what was written |
//! | the unit made from it | `unit:web.service` | the file that it comes from | it is active |
//! | what the unit makes | `container:NAME`, `pod:NAME`, `network:NAME`, `volume:NAME` | labels `titan.*` | a container runs and its health check, if it has one, passes; the others are there |
//!
//! [`file`](self::file) and [`keys`](self::keys) decide what may be asked for, [`bringing`](self::bringing) brings it
//! about, [`seeing`](self::seeing) tells how it does.

mod bringing;
mod checking;
mod file;
mod keys;
mod placed;
mod seeing;
mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use titan_api::{Digest, templates::Applier as Kind};

use self::{checking::Checking, file::Reader, keys::Sort};
use super::{
    kube::is_kube,
    libpod::Libpod,
    marks::{Labels, Mark},
    references,
};
pub(super) use crate::apply::podman::quadlets::file::Quadlet;
use crate::{
    apply::{
        ApplyError, Work,
        appliers::Ground,
        systemd::{
            jobs::Jobs,
            names::UNIT,
            units::{UNIT_BYTES, Unit},
        },
    },
    bundles::Bundle,
    claims::{Claim, Claims},
    config::appliers::Podman as Allowed,
    spaces::Need,
};

/// How many quadlets a bundle may have.
const QUADLETS: usize = 64;
/// What marks and paths of this host add to a file, in bytes.
const MARKS: u64 = 4096;
/// The kind of the claim on a file in the generator's directory.
const QUADLET: &str = "quadlet";

/// The quadlets of a bundle by file.
#[derive(Debug, Default)]
pub(super) struct Quadlets {
    all: BTreeMap<String, Quadlet>,
    /// All that is owned.
    pub(super) claims: Claims,
}

/// Whether a bundle is one of quadlets.
pub(super) fn are(bundle: &Bundle) -> bool {
    bundle.files.iter().any(|file| !file.rooted && Sort::of(&file.path).is_some())
}

/// Whether claims are those of quadlets.
pub(super) fn own(claims: &Claims) -> bool {
    claims.keys().any(|claim| [QUADLET, UNIT].contains(&claim.kind.as_str()))
}

impl Quadlets {
    /// Reads the quadlets of a bundle. `exchanged`: whether the deployment's directory is another one after each change.
    pub(super) fn read(bundle: &Bundle, allowed: &Allowed, exchanged: bool) -> Result<Self, ApplyError> {
        let malformed = |path: &str, message: String| ApplyError::Malformed { path: path.to_owned(), message };
        let mut sorts = BTreeMap::new();
        for file in bundle.files.iter().filter(|file| !file.rooted) {
            match Sort::of(&file.path) {
                Some(Ok(sort)) => drop(sorts.insert(file.path.clone(), (sort, file))),
                Some(Err(instead)) => return Err(malformed(&file.path, format!("is not applied: {instead}"))),
                None if is_drop_in(&file.path) => {
                    let message = "drop-ins of quadlets are not applied: write what it says into the file itself";
                    return Err(malformed(&file.path, message.to_owned()));
                }
                None if is_kube(&file.path) => {
                    let message = "kube YAML and quadlets do not go into one bundle: make two deployments of them, or put \
                                   a file that is no kube YAML into a directory";
                    return Err(malformed(&file.path, message.to_owned()));
                }
                None => {}
            }
        }
        if let Some((path, _)) = sorts.iter().nth(QUADLETS) {
            return Err(malformed(path, format!("is one too many: a bundle may have {QUADLETS} quadlets")));
        }
        let unit = |(path, (sort, _)): (&String, &(Sort, _))| {
            let stem = path.rsplit_once('.').map_or(path.as_str(), |(stem, _)| stem);
            format!("{stem}{}", sort.suffix())
        };
        let own: BTreeSet<String> = sorts.keys().cloned().chain(sorts.iter().map(unit)).collect();
        let mut quadlets = Self::default();
        for (path, (sort, file)) in sorts {
            let reader = Reader { file: &path, allowed, own: &own };
            let quadlet = Quadlet::read(&reader, sort, &file.text(UNIT_BYTES)?, file.mode.bits())?;
            let same = |other: &&Quadlet| {
                other.unit == quadlet.unit || (quadlet.thing.is_some() && other.thing == quadlet.thing)
            };
            if let Some(other) = quadlets.all.values().find(same) {
                return Err(malformed(&path, format!("it makes what {} makes under the same name", other.file)));
            }
            quadlets.all.insert(path, quadlet);
        }
        quadlets.claims = quadlets.claim(bundle, exchanged);
        Ok(quadlets)
    }

    /// Returns the claims: a unit is made from its file, what it mounts of the bundle, and the quadlets that it needs.
    fn claim(&self, bundle: &Bundle, exchanged: bool) -> Claims {
        let own = |quadlet: &Quadlet| quadlet.text(&Labels::new(), "".as_ref(), str::to_owned);
        let mut claims = Claims::new();
        for (path, quadlet) in &self.all {
            let text = own(quadlet);
            let mut all = text.clone();
            for needed in self.needed(path) {
                all.push_str(&own(&self.all[needed]));
            }
            all.push_str(&references::own_files(&quadlet.mounts, bundle, exchanged));
            let (text, all) = (Digest::of(text.as_bytes()), Digest::of(all.as_bytes()));
            claims.insert(Claim::new(QUADLET, path), text);
            claims.insert(Claim::new(UNIT, &quadlet.unit), all);
            if let Some(thing) = &quadlet.thing {
                // What a volume is made from never changes: there would be no way to keep what is in it.
                let made = match quadlet.sort {
                    Sort::Volume => Digest::of(thing.name.as_bytes()),
                    Sort::Network => text,
                    _ => all,
                };
                claims.insert(thing.clone(), made);
            }
        }
        claims
    }

    /// Returns the quadlets that one needs, and those that these need.
    fn needed(&self, path: &str) -> BTreeSet<&str> {
        let mut needed = BTreeSet::new();
        let mut next = Vec::from_iter(self.all.get_key_value(path).map(|(path, _)| path.as_str()));
        while let Some(path) = next.pop() {
            let Some(quadlet) = self.all.get(path) else { continue };
            next.extend(quadlet.needs.iter().map(String::as_str).filter(|other| needed.insert(*other)));
        }
        needed.remove(path);
        needed
    }

    /// Returns every image that is wanted.
    pub(super) fn images(&self) -> BTreeSet<&str> {
        self.all.values().flat_map(|quadlet| &quadlet.images).map(String::as_str).collect()
    }

    /// Returns the units as far as their states are to be judged.
    fn units(&self) -> BTreeMap<String, Unit> {
        self.all.values().map(|quadlet| (quadlet.unit.clone(), quadlet.model.clone())).collect()
    }

    /// Returns what is to be written, by file, with its permission bits. `image`: the id that a reference means.
    fn texts(&self, work: &Work<'_>, image: impl Fn(&str) -> String) -> BTreeMap<String, (String, u32)> {
        let mark = Mark::of(work.target);
        let text = |(path, quadlet): (&String, &Quadlet)| {
            let made = quadlet.thing.as_ref().and_then(|thing| self.claims.get(thing));
            let labels = made.map(|made| mark.lasting(made)).unwrap_or_default();
            let text = quadlet.text(&labels, work.home, &image);
            (path.clone(), (format!("{}{text}", placed::first_line(&work.target.home())), quadlet.mode))
        };
        self.all.iter().map(text).collect()
    }
}

/// Whether a path is that of a drop-in of a quadlet.
fn is_drop_in(path: &str) -> bool {
    let directory = path.split_once('/').and_then(|(directory, _)| directory.strip_suffix(".d"));
    directory.is_some_and(|quadlet| Sort::of(quadlet).is_some())
}

/// Whoever keeps quadlets on this host.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) jobs: Jobs,
    libpod: Libpod,
    ground: Ground,
    directory: PathBuf,
    adopt: bool,
    /// Whether systemd is this host's.
    here: bool,
    checking: Checking,
    /// The version of podman, once it is known.
    version: Option<(u64, u64)>,
}

impl Keeper {
    pub(super) fn new(allowed: &Allowed, libpod: &Libpod, ground: &Ground) -> Self {
        let bus = allowed.bus.clone();
        Self {
            here: bus.is_none(),
            jobs: Jobs::new(ground.io.clone(), ground.wake.clone(), Kind::Podman, bus),
            libpod: libpod.clone(),
            ground: ground.clone(),
            directory: allowed.quadlets.clone(),
            adopt: allowed.adopt,
            checking: Checking::new(ground),
            version: None,
        }
    }

    /// Returns what is to be written to the generator's directory at most: what is new, and of what changes the largest,
    /// since each takes the place of the one before once it is written.
    pub(super) fn room(&self, work: &Work<'_>, bundle: &Bundle) -> (PathBuf, Need) {
        let (mut need, mut beside) = (Need::default(), 0);
        for file in bundle.files.iter().filter(|file| !file.rooted) {
            let (claim, bytes) = (Claim::new(QUADLET, &file.path), file.size + MARKS);
            match (work.after.get(&claim), work.before.get(&claim)) {
                (None, _) => {}
                (Some(_), None) => need = Need { bytes: need.bytes + bytes, files: need.files + 1 },
                (Some(after), Some(before)) if after != before => beside = bytes.max(beside),
                (Some(_), Some(_)) => {}
            }
        }
        if beside > 0 {
            need = Need { bytes: need.bytes + beside, files: need.files + 1 };
        }
        (self.directory.clone(), need)
    }
}

#[cfg(test)]
mod tests;
