//! Podman: pods and volumes from `kube` YAML, over podman's own socket, and units from [`quadlets`](self::quadlets).
//!
//! | what it owns | claim | how it is known again | how it proves health |
//! |---|---|---|---|
//! | a pod | `pod:NAME` | labels `titan.*` | every container runs and its health check, if it has one, passes |
//! | a volume | `volume:NAME` | labels `titan.*` | it is there |
//! | an image that it pulled | none | written down before the pull | none |
//!
//! [`kube`](self::kube) decides what is asked for, [`errands`](self::errands) bring it about, [`sight`](self::sight) tells
//! how it does. Containers take their time to stop, so an errand runs in the background and what came of it is observed.

mod checks;
mod errands;
pub(in crate::apply) mod events;
mod fields;
pub(crate) mod images;
mod kube;
pub(crate) mod libpod;
mod lookups;
mod marks;
mod pods;
mod quadlets;
pub(crate) mod references;
mod sight;
mod steps;
pub(crate) mod underway;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use titan_api::{Digest, templates::Applier as Kind};
use tokio::{sync::RwLock, task::AbortHandle};
use uuid::Uuid;

use super::{Applier, ApplyError, Condition, Observation, Readiness, Target, Work, appliers::Ground};
use crate::{
    background::{Background, Stands},
    bundles::Bundle,
    claims::{Claim, Claims},
    config::{Switch, appliers::Podman as Allowed},
    spaces::Need,
};
use checks::Checks;
use errands::{Errand, Trouble, Troubles, WantedPod, WantedVolume};
use images::{Images, platform};
use kube::Kube;
use libpod::{Libpod, LibpodError};
use lookups::find_labels;
use marks::{Mark, Whose};
use quadlets::{Keeper, Quadlets};
use sight::{Sight, observation};
use steps::is_podmans;
use underway::Underway;

/// Podman.
#[derive(Debug)]
pub(crate) struct Podman {
    allowed: Allowed,
    /// Whether a deployment's directory is exchanged as a whole when its files change.
    exchanged: bool,
    ground: Ground,
    libpod: Libpod,
    images: Images,
    underway: Underway,
    checks: Checks,
    keeper: Keeper,
    errands: Background<Uuid, Troubles>,
    /// What each errand that runs is about.
    goals: BTreeMap<Uuid, (BTreeSet<Claim>, Claims)>,
    /// Held by whatever stops pods of a deployment.
    stops: BTreeMap<Uuid, Arc<RwLock<()>>>,
    /// What came of the last one.
    troubles: BTreeMap<Uuid, Troubles>,
    /// What the ledger was seen to say whose it is.
    owned: BTreeMap<Uuid, BTreeSet<Claim>>,
    alarm: Option<(Instant, AbortHandle)>,
    watching: Option<AbortHandle>,
}

impl Podman {
    pub(crate) fn open(allowed: &Allowed, switch: Switch, ground: &Ground) -> Result<Self, ApplyError> {
        let libpod = Libpod::new(&allowed.socket, ground.io.clone());
        let libpod = libpod.map_err(|error| platform("reaching podman", &error))?;
        Ok(Self {
            images: Images::open(libpod.clone(), ground, "podman-images.json")?,
            underway: Underway::open(ground, "podman-underway.json")?,
            checks: Checks::new(ground),
            keeper: Keeper::new(allowed, &libpod, ground),
            errands: Background::new(ground.io.clone(), ground.wake.clone()),
            allowed: allowed.clone(),
            exchanged: switch == Switch::Directory,
            ground: ground.clone(),
            libpod,
            goals: BTreeMap::new(),
            stops: BTreeMap::new(),
            troubles: BTreeMap::new(),
            owned: BTreeMap::new(),
            alarm: None,
            watching: None,
        })
    }

    fn read(&self, bundle: &Bundle) -> Result<Kube, ApplyError> {
        Kube::read(bundle, &self.allowed, self.exchanged)
    }

    /// Begins to bring a deployment from `before` to `work.after`; whatever else was under way for it is given up.
    fn begin(&mut self, work: &Work<'_>, before: &Claims) -> Result<(), ApplyError> {
        let id = work.target.id;
        let mut changed = work.after.clone();
        changed.retain(|claim, digest| before.get(claim) != Some(digest));
        let down: BTreeSet<Claim> = before.keys().filter(|claim| !work.after.contains_key(*claim)).cloned().collect();
        let goal = (down.clone(), changed.clone());
        if matches!(self.look(id), Standing::Running) && self.goals.get(&id) == Some(&goal) {
            return Ok(());
        }
        self.errands.retain(|other| *other != id);
        self.troubles.remove(&id);
        let kube = match work.bundle.filter(|_| !changed.is_empty()) {
            Some(bundle) => self.read(bundle)?,
            None => Kube::default(),
        };
        let mark = Mark::of(work.target);
        let image = |reference: &str| self.images.id(&work.target.digest, reference);
        let pods = kube.pods.into_iter().filter_map(|pod| {
            let digest = *changed.get(&Claim::new("pod", &pod.name))?;
            let play = pod.play(&mark.labels(&digest), work.home, image);
            let pods::Pod { name, grace, containers, forever, mounts, .. } = pod;
            Some(WantedPod { name, digest, grace, containers, forever, mounts, play })
        });
        let volumes = kube.volumes.into_iter().filter_map(|(name, volume)| {
            let digest = *changed.get(&Claim::new("volume", &name))?;
            Some(WantedVolume { name, digest, goes: volume.goes, config: volume.config })
        });
        let mut owned = self.owned.get(&id).cloned().unwrap_or_default();
        owned.extend(before.keys().cloned());
        let errand = Errand {
            home: work.home.to_owned(),
            roots: self.allowed.mounts.clone(),
            volumes: volumes.collect(),
            pods: pods.collect(),
            adopt: self.allowed.adopt,
            mark,
            down,
            owned,
            left: before.keys().cloned().collect(),
            stops: Arc::clone(self.stops.entry(id).or_default()),
        };
        self.goals.insert(id, goal);
        self.errands.start(id, errand.run(self.libpod.clone()));
        Ok(())
    }

    /// Returns how a deployment's errand stands.
    fn look(&mut self, id: Uuid) -> Standing {
        match self.errands.look(&id) {
            Stands::Unknown => Standing::Idle,
            Stands::Running => Standing::Running,
            Stands::Lost => Standing::Lost,
            Stands::Ended(troubles) => {
                self.troubles.insert(id, troubles);
                Standing::Ended
            }
        }
    }

    /// Whether the last errand of a deployment, on its way to `after`, has to be run again.
    fn is_unfinished(&self, id: Uuid, after: &Claims) -> bool {
        let left = |(claim, trouble): (&Claim, &Trouble)| trouble.leaves_to_do(!after.contains_key(claim));
        self.troubles.get(&id).is_some_and(|troubles| troubles.iter().any(left))
    }

    fn check_foreign(&self, mark: &Mark, claim: &Claim) -> Result<(), ApplyError> {
        let labels = self.ground.io.block_on(find_labels(&self.libpod, claim));
        let labels = labels.map_err(|error| platform(format!("looking for {claim}"), &error))?;
        match labels.map(|labels| mark.whose(&labels)) {
            None | Some(Whose::Ours) => Ok(()),
            Some(Whose::Nobody) if self.allowed.adopt => Ok(()),
            // Another deployment's may be on its way out; if it is not, that is told when this one is to be made.
            Some(Whose::Another) => Ok(()),
            Some(Whose::Nobody) => Err(ApplyError::Foreign(claim.clone())),
        }
    }

    /// Wakes the agent after some time, if nothing does so before.
    fn wake_after(&mut self, after: Duration) {
        let due = Instant::now() + after;
        if let Some((set, task)) = &self.alarm {
            if *set <= due && !task.is_finished() {
                return;
            }
            task.abort();
        }
        let wake = self.ground.wake.clone();
        let task = self.ground.io.spawn(async move {
            tokio::time::sleep(after).await;
            wake.stirred(Kind::Podman);
        });
        self.alarm = Some((due, task.abort_handle()));
    }
}

/// How the errand of a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Idle,
    Running,
    Lost,
    Ended,
}

impl Applier for Podman {
    fn plan(&self, target: &Target, bundle: &Bundle) -> Result<Claims, ApplyError> {
        if quadlets::are(bundle) {
            return Ok(Quadlets::read(bundle, &self.allowed, self.exchanged)?.claims);
        }
        let kube = self.read(bundle)?;
        if kube.pods.is_empty() && kube.volumes.is_empty() {
            let message =
                "the bundle has neither kube YAML nor a quadlet at its top, such as pod.yaml or web.container";
            return Err(ApplyError::Malformed { path: ".".to_owned(), message: message.to_owned() });
        }
        // Of two deployments that declare the same pod each makes its own: the marks on it say whose it is.
        let own = |digest: Digest| Digest::of(format!("{}\n{digest}", target.home()).as_bytes());
        Ok(kube.claims().into_iter().map(|(claim, digest)| (claim, own(digest))).collect())
    }

    fn prepare(&mut self, work: &Work<'_>) -> Result<Readiness, ApplyError> {
        let Some(bundle) = work.bundle else { return Ok(Readiness::Ready) };
        if let Some(quadlets) = self.read_quadlets(work)? {
            self.keeper.check_host(&quadlets)?;
            self.keeper.check_foreign(work)?;
            let pulled = self.images.prepare(work.target.digest, &quadlets.images(), &BTreeSet::new())?;
            if pulled != Readiness::Ready {
                return Ok(pulled);
            }
            let (images, digest) = (&self.images, &work.target.digest);
            return self.keeper.dry_run(work, &quadlets, |reference| images.id(digest, reference));
        }
        let mark = Mark::of(work.target);
        for claim in work.after.keys().filter(|claim| !work.before.contains_key(*claim)) {
            self.check_foreign(&mark, claim)?;
        }
        let kube = self.read(bundle)?;
        let always = kube.pods.iter().flat_map(|pod| &pod.always).map(String::as_str).collect();
        self.images.prepare(work.target.digest, &kube.images(), &always)
    }

    fn room(&self, work: &Work<'_>) -> Vec<(PathBuf, Need)> {
        work.bundle.map(|bundle| self.keeper.room(work, bundle)).into_iter().collect()
    }

    fn apply(&mut self, work: &Work<'_>) -> Result<(), ApplyError> {
        if work.before == work.after {
            return Ok(());
        }
        let before = self.underway.begin(work.target.id, work.before)?;
        let waits = self.bring(work, &before)?;
        if waits.is_none() && quadlets::own(work.after) {
            self.underway.end(work.target.id)?;
        }
        Ok(())
    }

    fn observe(&mut self, work: &Work<'_>) -> Result<Vec<Observation>, ApplyError> {
        if quadlets::own(work.after) {
            return self.observe_quadlets(work);
        }
        let id = work.target.id;
        let mut standing = self.look(id);
        match (standing, self.underway.get(id).cloned()) {
            (Standing::Ended, _) if !self.is_unfinished(id, work.after) => self.underway.end(id)?,
            // It was cut off, or podman was not there: begun again.
            (Standing::Ended | Standing::Idle | Standing::Lost, Some(before)) => {
                let troubles = self.troubles.get(&id).cloned().unwrap_or_default();
                // Until units that leave have stopped as well it is under way.
                let _what_it_waits_for = self.bring(work, &before)?;
                // Until it is known better.
                self.troubles.insert(id, troubles);
                standing = Standing::Running;
            }
            _ => {}
        }
        let Some(bundle) = work.bundle else { return Ok(Vec::new()) };
        if standing == Standing::Running {
            // Podman does not answer while it stops a container that is asked for.
            let troubles = self.troubles.get(&id).cloned().unwrap_or_default();
            let leaving = troubles.keys().filter(|claim| !work.after.contains_key(*claim));
            let busy = |claim: &Claim| {
                let why = match troubles.get(claim) {
                    Some(Trouble::Failed(why) | Trouble::Unreachable(why)) => format!("podman tries again: {why}"),
                    Some(Trouble::Foreign) | None => "podman is making it".to_owned(),
                };
                observation(claim.clone(), (Condition::Starting(why), None))
            };
            return Ok(work.after.keys().chain(leaving).map(busy).collect());
        }
        let kube = self.read(bundle)?;
        let (libpod, mark) = (self.libpod.clone(), Mark::of(work.target));
        let troubles = self.troubles.get(&id).cloned().unwrap_or_default();
        let checks = &mut self.checks;
        let seen: Result<(Vec<_>, _), _> = self.ground.io.block_on(async {
            let mut sight = Sight::take(&libpod, &mark, !kube.volumes.is_empty()).await?;
            let mut all = Vec::new();
            for (claim, digest) in work.after {
                let seen = match kube.pods.iter().find(|pod| claim.kind == "pod" && pod.name == claim.name) {
                    Some(pod) => sight.pod(pod, digest).await?,
                    None => {
                        sight.volume(&claim.name, kube.volumes.get(&claim.name).is_some_and(|volume| volume.config))
                    }
                };
                all.push((claim.clone(), seen));
            }
            let next = checks.run(&libpod, &sight.containers).await;
            Ok((all, sight.again.into_iter().chain(next).min()))
        });
        let (seen, again) = match seen {
            Ok(seen) => seen,
            // Podman cannot make a list while something in it goes.
            Err(LibpodError::Said(_) | LibpodError::Missing(_)) => {
                let changing = || (Condition::Starting("podman is changing it".to_owned()), None);
                let all = work.after.keys().map(|claim| (claim.clone(), changing())).collect();
                (all, Some(Duration::from_secs(1)))
            }
            Err(error) => return Err(platform("looking at what runs", &error)),
        };
        let seen = seen.into_iter().map(|(claim, (condition, drift))| {
            let foreign = troubles.get(&claim) == Some(&Trouble::Foreign);
            if !foreign {
                self.owned.entry(id).or_default().insert(claim.clone());
            }
            let seen = match (condition, troubles.get(&claim)) {
                (_, Some(Trouble::Foreign)) => {
                    (Condition::Failed(ApplyError::Foreign(claim.clone()).to_string()), drift)
                }
                (Condition::Well, _) => (Condition::Well, None),
                (condition, Some(Trouble::Failed(message))) => (told(condition, message), drift),
                (_, Some(Trouble::Unreachable(message))) => (Condition::Ill(message.clone()), None),
                (condition, None) => (condition, drift),
            };
            observation(claim, seen)
        });
        let seen = seen.collect();
        if let Some(again) = again {
            self.wake_after(again);
        }
        Ok(seen)
    }

    fn remove(&mut self, work: &Work<'_>) -> Result<Readiness, ApplyError> {
        let id = work.target.id;
        let mut gone = self.underway.get(id).cloned().unwrap_or_default();
        gone.extend(work.before.clone());
        gone.retain(|claim, _| !work.after.contains_key(claim));
        if let Some(why) = self.take_units(work, &gone, None)? {
            return Ok(Readiness::Underway(why));
        }
        gone.retain(|claim, _| is_podmans(claim));
        if !gone.is_empty()
            && let Readiness::Underway(why) = self.take_down(work, &gone)?
        {
            return Ok(Readiness::Underway(why));
        }
        self.underway.end(id)?;
        self.owned.remove(&id);
        self.stops.remove(&id);
        self.checks.forget();
        Ok(Readiness::Ready)
    }

    fn adopt(&mut self, work: &Work<'_>) -> Result<Vec<(String, String)>, ApplyError> {
        let Some(quadlets) = self.read_quadlets(work)? else { return Ok(Vec::new()) };
        let (images, digest) = (&self.images, &work.target.digest);
        self.keeper.adopt(work, &quadlets, |reference| images.id(digest, reference))
    }

    fn keep(&mut self, bundles: &BTreeSet<Digest>) -> Result<(), ApplyError> {
        self.images.keep(bundles)
    }

    fn is_busy(&self) -> bool {
        self.errands.is_busy() || self.images.pulls()
    }

    fn watch(&mut self) {
        if self.watching.is_none() {
            let task = self.ground.io.spawn(events::watch(self.libpod.clone(), self.ground.wake.clone()));
            self.watching = Some(task.abort_handle());
        }
        self.keeper.jobs.bus.watch();
    }
}

/// Returns a condition with what podman said when it was asked to make it otherwise.
fn told(condition: Condition, message: &str) -> Condition {
    match condition {
        Condition::Failed(why) => Condition::Failed(why),
        Condition::Well => Condition::Well,
        Condition::Starting(why) | Condition::Ill(why) => Condition::Failed(format!("{message} ({why})")),
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let alarm = self.alarm.take().map(|(_, task)| task);
        self.watching.take().into_iter().chain(alarm).for_each(|task| task.abort());
    }
}

#[cfg(test)]
pub(crate) mod tests;
