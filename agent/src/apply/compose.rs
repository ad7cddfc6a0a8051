//! Compose: one project for each deployment, run by the program that the host's owner configured.
//!
//! | what it owns | claim | how it is known again | how it proves health |
//! |---|---|---|---|
//! | a project, `WORKSPACE-DEPLOYMENT`: its containers and networks | `project:NAME` | labels `titan.*` on its containers | every service has a container that runs and is not unhealthy, or has ended with 0 if it is not started again |
//!
//! Volumes stay when the project goes, as `compose down` leaves them; so do images. Compose is given a file of its own,
//! made from the bundle's by [`file`](self::file), and everything that takes long runs in the background.

mod engine;
mod events;
mod file;
mod services;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use titan_api::{Digest, drift::Drift};
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::{
    Applier, ApplyError, Condition, Observation, Readiness, Target, Work, appliers::Ground, podman::underway::Underway,
};
use crate::{
    background::{Background, Stands},
    bundles::Bundle,
    claims::{Claim, Claims},
    config::appliers::{self, Compose as Allowed},
    disk,
    faults::fault,
    settle::chain,
};
use engine::{Container, Engine};
use file::Project;
use services::Service;

/// The assignment's id.
const DEPLOYMENT: &str = "titan.deployment";
/// `workspace/name` of the deployment.
const HOME: &str = "titan.home";
/// The first half of the digest of what a service is made from.
const DIGEST: &str = "titan.digest";

/// How long a pull of one image, a start or a stop of a whole project may take.
const PULL: Duration = Duration::from_mins(30);
const UP: Duration = Duration::from_mins(10);
const DOWN: Duration = Duration::from_mins(10);

/// Compose.
#[derive(Debug)]
pub(crate) struct Compose {
    allowed: Allowed,
    engine: Engine,
    ground: Ground,
    underway: Underway,
    pulls: Background<Digest, Result<(), String>>,
    /// Bundles whose images are there, until they are applied.
    ready: BTreeSet<Digest>,
    errands: Background<Uuid, Result<String, String>>,
    /// What each errand is about: what it brings up, or nothing for what it takes down.
    goals: BTreeMap<Uuid, Option<Digest>>,
    failed: BTreeMap<Uuid, String>,
    /// What Compose printed when it brought a project up.
    said: BTreeMap<Uuid, String>,
    /// What follows the engine's events.
    watching: Option<AbortHandle>,
}

fn short(digest: &Digest) -> String {
    digest.to_string()[..32].to_owned()
}

fn name(target: &Target) -> String {
    format!("{}-{}", target.workspace, target.name)
}

fn failure(what: &str, message: String) -> ApplyError {
    ApplyError::Platform { what: what.to_owned(), message }
}

impl Compose {
    pub(crate) fn open(allowed: &Allowed, ground: &Ground) -> Result<Self, ApplyError> {
        let engine = Engine::of(&allowed.command).ok_or_else(|| {
            failure("running Compose", "appliers.compose.command in agent.yaml names no program".to_owned())
        })?;
        Ok(Self {
            underway: Underway::open(ground, "compose-underway.json")?,
            pulls: Background::new(ground.io.clone(), ground.wake.clone()),
            errands: Background::new(ground.io.clone(), ground.wake.clone()),
            ready: BTreeSet::new(),
            allowed: allowed.clone(),
            ground: ground.clone(),
            engine,
            goals: BTreeMap::new(),
            failed: BTreeMap::new(),
            said: BTreeMap::new(),
            watching: None,
        })
    }

    /// Returns where the file is that Compose is given.
    fn file(&self, project: &str) -> PathBuf {
        self.ground.state.file("compose").join(project).join("compose.json")
    }

    fn containers(&self, project: &str) -> Result<Vec<Container>, ApplyError> {
        let containers = self.ground.io.block_on(self.engine.containers(project));
        containers.map_err(|message| failure("looking at containers", message))
    }

    /// Refuses a project of that name that somebody else made.
    fn check_foreign(&self, work: &Work<'_>, project: &str) -> Result<Vec<Container>, ApplyError> {
        let (claim, home) = (Claim::new("project", project), work.target.home());
        let containers = self.containers(project)?;
        if containers.iter().all(|container| container.is_of(work.target.id, &home)) {
            return Ok(containers);
        }
        Err(ApplyError::Foreign(claim))
    }

    fn begin(&mut self, work: &Work<'_>) -> Result<(), ApplyError> {
        let (id, project) = (work.target.id, name(work.target));
        let Some((bundle, digest)) = work.bundle.zip(work.after.get(&Claim::new("project", &project))) else {
            return Ok(());
        };
        if matches!(self.look(id), Standing::Running) && self.goals.get(&id) == Some(&Some(*digest)) {
            return Ok(());
        }
        let there = self.check_foreign(work, &project)?;
        let read = Project::read(bundle, &self.allowed)?;
        let away = read.mounts.iter().find(|mount| !mount.stays(work.home, &self.allowed.mounts));
        if let Some(mount) = away {
            let path = mount.path(work.home);
            let message = format!("{} leads out of what may be mounted; a link is in the way", path.display());
            return Err(failure("mounting", message));
        }
        let (home, deployment) = (work.target.home(), id.to_string());
        let document = read.document(work.home, |digest| {
            let labels = [(DEPLOYMENT, deployment.clone()), (HOME, home.clone()), (DIGEST, short(digest))];
            labels.map(|(key, value)| (key.to_owned(), value)).into()
        });
        let file = self.file(&project);
        let parent = file.parent().unwrap_or(Path::new("/"));
        let written = disk::private_dir(parent).and_then(|()| disk::write(&file, document.as_bytes()));
        written.map_err(|error| failure("writing what Compose is given", chain(&error)))?;
        fault!("project-written");
        self.errands.retain(|other| *other != id);
        self.failed.remove(&id);
        self.said.remove(&id);
        self.goals.insert(id, Some(*digest));
        let wanted = |container: &Container| container.service().and_then(|name| read.services.get(name));
        let fits = |container: &Container| wanted(container).is_some_and(|service| container.fits(&service.digest));
        let mut arguments = vec!["up", "-d", "--remove-orphans"];
        if self.engine.forced && !there.iter().all(fits) {
            arguments.push("--force-recreate");
        }
        let engine = self.engine.clone();
        self.errands.start(id, async move {
            let done = engine.compose(&file, &project, &arguments, UP).await;
            fault!("project-up");
            done
        });
        Ok(())
    }

    fn look(&mut self, id: Uuid) -> Standing {
        match self.errands.look(&id) {
            Stands::Unknown => Standing::Idle,
            Stands::Running => Standing::Running,
            Stands::Lost => Standing::Idle,
            Stands::Ended(Ok(said)) => {
                self.said.insert(id, said);
                Standing::Ended
            }
            Stands::Ended(Err(message)) => {
                self.failed.insert(id, message);
                Standing::Ended
            }
        }
    }

    /// Returns how one service does, and how it differs.
    async fn service(&self, name: &str, service: &Service, there: &[Container]) -> (Condition, Option<&'static str>) {
        let mut containers = there.iter().filter(|container| container.service() == Some(name)).peekable();
        if containers.peek().is_none() {
            return (Condition::Ill(format!("{name} has no container")), Some("missing"));
        }
        for container in containers {
            if !container.fits(&service.digest) {
                return (Condition::Ill(format!("{} is made from something else", container.name)), Some("replaced"));
            }
            let status = &container.status;
            match (container.state(), container.code()) {
                ("running", _) if status.contains("unhealthy") => {
                    return (Condition::Ill(self.story(container, "is unhealthy").await), None);
                }
                ("running", _) if status.contains("starting") => {
                    let why = format!("{} runs, and its health check has not passed yet", container.name);
                    return (Condition::Starting(why), None);
                }
                ("running", _) => {}
                ("exited", Some(0)) if !service.restarts => {}
                ("exited", Some(code)) => {
                    let story = self.story(container, &format!("ended with {code}")).await;
                    let condition = if service.restarts { Condition::Ill(story) } else { Condition::Failed(story) };
                    return (condition, Some("stopped"));
                }
                ("paused", _) => return (Condition::Ill(format!("{} is paused", container.name)), Some("paused")),
                (state, _) => {
                    let story = self.story(container, &format!("is {state}")).await;
                    return (Condition::Ill(story), Some("stopped"));
                }
            }
        }
        (Condition::Well, None)
    }

    async fn story(&self, container: &Container, what: &str) -> String {
        let said = self.engine.said(container).await;
        let end = if said.trim().is_empty() { String::new() } else { format!(":\n{}", said.trim_end()) };
        format!("{} {what}{end}", container.name)
    }
}

/// How the errand of a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Idle,
    Running,
    Ended,
}

impl Applier for Compose {
    fn plan(&self, target: &Target, bundle: &Bundle) -> Result<Claims, ApplyError> {
        let project = name(target);
        if !appliers::allows(&self.allowed.projects, &project) {
            let what = format!("the project {project}");
            return Err(ApplyError::Beyond { what, key: "appliers.compose.projects" });
        }
        let digest = Project::read(bundle, &self.allowed)?.digest(bundle);
        Ok(Claims::from([(Claim::new("project", project), digest)]))
    }

    fn prepare(&mut self, work: &Work<'_>) -> Result<Readiness, ApplyError> {
        let Some(bundle) = work.bundle else { return Ok(Readiness::Ready) };
        let key = work.target.digest;
        match self.pulls.look(&key) {
            Stands::Running => return Ok(Readiness::Underway("pulling images".to_owned())),
            Stands::Ended(Ok(())) => {
                self.ready.insert(key);
            }
            Stands::Ended(Err(message)) => return Err(failure("pulling images", message)),
            Stands::Unknown | Stands::Lost => {}
        }
        if self.ready.contains(&key) {
            return Ok(Readiness::Ready);
        }
        if work.before.is_empty() {
            self.check_foreign(work, &name(work.target))?;
        }
        let project = Project::read(bundle, &self.allowed)?;
        let images: BTreeSet<String> = project.services.into_values().map(|s| s.image).collect();
        let engine = self.engine.clone();
        self.pulls.start(key, async move {
            for image in images {
                if !engine.has(&image).await {
                    engine.pull(&image, PULL).await.map_err(|error| format!("{image}: {error}"))?;
                }
            }
            Ok(())
        });
        Ok(Readiness::Underway("looking for images".to_owned()))
    }

    fn apply(&mut self, work: &Work<'_>) -> Result<(), ApplyError> {
        if work.before == work.after {
            return Ok(());
        }
        self.ready.remove(&work.target.digest);
        self.underway.begin(work.target.id, work.before)?;
        self.begin(work)
    }

    fn observe(&mut self, work: &Work<'_>) -> Result<Vec<Observation>, ApplyError> {
        let (id, project) = (work.target.id, name(work.target));
        let mut standing = self.look(id);
        match standing {
            Standing::Ended => self.underway.end(id)?,
            // It was cut off: begun again.
            Standing::Idle if self.underway.get(id).is_some() => {
                self.begin(work)?;
                standing = Standing::Running;
            }
            _ => {}
        }
        let Some(bundle) = work.bundle else { return Ok(Vec::new()) };
        let claim = Claim::new("project", &project);
        let observed = |condition, drift| vec![Observation { claim: claim.clone(), condition, drift }];
        if standing == Standing::Running {
            return Ok(observed(Condition::Starting("Compose is bringing it up".to_owned()), None));
        }
        let read = Project::read(bundle, &self.allowed)?;
        let there = self.containers(&project)?;
        let mut worst = (Condition::Well, None);
        for (name, service) in &read.services {
            let seen = self.ground.io.block_on(self.service(name, service, &there));
            if seen.0 != Condition::Well && (worst.0 == Condition::Well || matches!(seen.0, Condition::Failed(_))) {
                worst = seen;
            }
        }
        let stray = |container: &&Container| !container.service().is_some_and(|name| read.services.contains_key(name));
        let stray = there.iter().find(stray).filter(|container| container.is_of(id, &work.target.home()));
        if let (Condition::Well, Some(container)) = (&worst.0, stray) {
            worst = (Condition::Ill(format!("{} is of no service", container.name)), Some("too many"));
        }
        match (&worst.0, self.failed.get(&id), self.said.get(&id)) {
            (Condition::Well, ..) => drop(self.said.remove(&id)),
            (_, Some(message), _) => worst.0 = Condition::Failed(message.clone()),
            // It was just brought up, and is not: some versions of Compose do not say so by their end.
            (Condition::Ill(why), None, Some(said)) if worst.1 == Some("missing") => {
                worst.0 = Condition::Failed(format!("{why}; Compose said:\n{}", said.trim_end()));
            }
            _ => {}
        }
        let drift = worst.1.map(|how| Drift {
            what: claim.to_string(),
            how: how.to_owned(),
            diff: String::new(),
            found: None,
            repaired: false,
        });
        Ok(observed(worst.0, drift))
    }

    fn remove(&mut self, work: &Work<'_>) -> Result<Readiness, ApplyError> {
        let (id, project) = (work.target.id, name(work.target));
        if !work.before.contains_key(&Claim::new("project", &project)) {
            return Ok(Readiness::Ready);
        }
        let underway = || Ok(Readiness::Underway("containers are being stopped".to_owned()));
        match self.look(id) {
            Standing::Running if self.goals.get(&id) == Some(&None) => return underway(),
            Standing::Ended if self.goals.remove(&id) == Some(None) => {
                if let Some(message) = self.failed.remove(&id) {
                    return Err(failure("taking the project down", message));
                }
                self.underway.end(id)?;
                let file = self.file(&project);
                match file.parent().map_or(Ok(()), fs::remove_dir_all) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failure("removing what Compose was given", error.to_string()));
                    }
                    _ => return Ok(Readiness::Ready),
                }
            }
            _ => {}
        }
        let home = work.target.home();
        let ours: Vec<_> = self.containers(&project)?.into_iter().filter(|c| c.is_of(id, &home)).collect();
        let (file, engine) = (self.file(&project), self.engine.clone());
        self.errands.retain(|other| *other != id);
        self.failed.remove(&id);
        self.goals.insert(id, None);
        self.errands.start(id, async move {
            if file.exists() && !ours.is_empty() {
                engine.compose(&file, &project, &["down"], DOWN).await?;
                fault!("project-down");
            }
            // Whatever Compose did not know of, or left.
            let left: Vec<_> = engine.containers(&project).await?.into_iter().filter(|c| c.is_of(id, &home)).collect();
            engine.remove(&left, DOWN).await.map(|()| String::new())
        });
        underway()
    }

    fn is_busy(&self) -> bool {
        self.errands.is_busy() || self.pulls.is_busy()
    }

    fn watch(&mut self) {
        if self.watching.is_none() && self.allowed.events {
            let watch = events::watch(self.engine.clone(), self.ground.wake.clone());
            self.watching = Some(self.ground.io.spawn(watch).abort_handle());
        }
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if let Some(watching) = &self.watching {
            watching.abort();
        }
    }
}

#[cfg(test)]
mod tests;
