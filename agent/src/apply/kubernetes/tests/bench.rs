//! A worker by hand: drives the applier as the agent does.

use std::{
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use titan_api::{Digest, Revision, poll, templates::FileMode};
use tokio::{runtime::Handle, sync::oneshot};
use uuid::Uuid;

use super::apiserver::ApiServer;
use crate::{
    apply::{
        Applier as _, ApplyError, Condition, Observation, Readiness, Target, Work,
        appliers::Ground,
        kubernetes::{Kubernetes, objects::Key},
    },
    bundles::Bundle,
    claims::Claims,
    config::appliers::Kubernetes as Allowed,
    state::StateDir,
    wake::Wake,
};

/// A real server's collector of garbage learns of a new kind within half a minute, and nothing of that kind is gone before.
const PATIENCE: Duration = Duration::from_secs(60);

/// A worker by hand, with a cluster.
pub(super) struct Bench {
    pub(super) server: ApiServer,
    pub(super) applier: Kubernetes,
    pub(super) target: Target,
    /// What the ledger says.
    pub(super) owned: Claims,
    pub(super) wake: Wake,
    pub(super) dir: TempDir,
    allowed: Allowed,
    io: Io,
}

/// A runtime on a thread of its own, as the agent's is.
struct Io {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Io {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || drop(runtime.block_on(stopped)));
        Self { handle, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the runtime's thread");
        }
    }
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut Allowed)) -> Self {
        let server = ApiServer::start();
        let dir = tempfile::tempdir().expect("dir");
        let kubeconfig = dir.path().join("kubeconfig");
        server.write_kubeconfig(&kubeconfig);
        let mut allowed = Allowed { kubeconfig: Some(kubeconfig), cluster_scoped: true, ..Allowed::default() };
        change(&mut allowed);
        let (io, wake) = (Io::start(), Wake::default());
        let ground =
            Ground { io: io.handle.clone(), wake: wake.clone(), state: StateDir::new(dir.path().join("state")) };
        std::fs::create_dir(dir.path().join("state")).expect("state");
        let applier = Kubernetes::open(allowed.clone(), &ground).expect("applier");
        Self { server, applier, target: target("shop", 7), owned: Claims::new(), wake, dir, allowed, io }
    }

    /// The agent is started anew: all that it had in memory is gone.
    pub(super) fn restart(&mut self) {
        let ground = Ground {
            io: self.io.handle.clone(),
            wake: self.wake.clone(),
            state: StateDir::new(self.dir.path().join("state")),
        };
        self.applier = Kubernetes::open(self.allowed.clone(), &ground).expect("applier");
    }

    pub(super) fn plan(&self, bundle: &Bundle) -> Claims {
        self.applier.plan(&self.target, bundle).expect("plan")
    }

    fn work<T>(
        &mut self,
        bundle: Option<&Bundle>,
        before: &Claims,
        after: &Claims,
        call: impl FnOnce(&mut Kubernetes, &Work<'_>) -> T,
    ) -> T {
        let home = self.dir.path().join("home");
        let target = self.target.clone();
        call(&mut self.applier, &Work { target: &target, home: &home, bundle, before, after })
    }

    /// Prepares until that has come to an end.
    pub(super) fn prepare(&mut self, bundle: &Bundle) -> Result<(), ApplyError> {
        let (before, after) = (self.owned.clone(), self.applier.plan(&self.target, bundle)?);
        let until = Instant::now() + PATIENCE;
        loop {
            match self.work(Some(bundle), &before, &after, |applier, work| applier.prepare(work))? {
                Readiness::Ready => return Ok(()),
                Readiness::Underway(text) => assert!(Instant::now() < until, "{text}"),
            }
        }
    }

    /// The step from what is owned to a bundle, without waiting for more than the applier does.
    pub(super) fn apply(&mut self, bundle: &Bundle) -> Result<(), ApplyError> {
        let (before, after) = (self.owned.clone(), self.plan(bundle));
        self.owned = after.clone();
        self.apply_from(bundle, &before, &after)
    }

    pub(super) fn apply_from(&mut self, bundle: &Bundle, before: &Claims, after: &Claims) -> Result<(), ApplyError> {
        self.work(Some(bundle), before, after, |applier, work| applier.apply(work))
    }

    pub(super) fn observe(&mut self, bundle: &Bundle) -> Result<Vec<Observation>, ApplyError> {
        let owned = self.owned.clone();
        self.work(Some(bundle), &owned, &owned, |applier, work| applier.observe(work))
    }

    /// Looks until what is seen is as `is` wants it.
    pub(super) fn wait(&mut self, bundle: &Bundle, is: impl Fn(&[Observation]) -> bool) -> Vec<Observation> {
        let until = Instant::now() + PATIENCE;
        loop {
            let seen = self.observe(bundle);
            if let Ok(seen) = &seen
                && is(seen)
            {
                return seen.clone();
            }
            assert!(Instant::now() < until, "{seen:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn wait_well(&mut self, bundle: &Bundle) -> Vec<Observation> {
        let count = self.owned.len();
        self.wait(bundle, |seen| seen.len() == count && seen.iter().all(|seen| seen.condition == Condition::Well))
    }

    /// All of a change: prepare, apply, and wait until everything is well.
    pub(super) fn settle(&mut self, bundle: &Bundle) -> Vec<Observation> {
        self.prepare(bundle).expect("prepare");
        self.apply(bundle).expect("apply");
        self.wait_well(bundle)
    }

    /// Removes until that has come to an end.
    pub(super) fn remove(&mut self, bundle: Option<&Bundle>) -> Result<(), ApplyError> {
        let before = self.owned.clone();
        let until = Instant::now() + PATIENCE;
        loop {
            match self.work(bundle, &before, &Claims::new(), |applier, work| applier.remove(work))? {
                Readiness::Ready => break,
                Readiness::Underway(text) => assert!(Instant::now() < until, "{text}"),
            }
        }
        self.owned.clear();
        Ok(())
    }

    pub(super) fn remove_once(&mut self) -> Result<Readiness, ApplyError> {
        let before = self.owned.clone();
        self.work(None, &before, &Claims::new(), |applier, work| applier.remove(work))
    }

    /// Lets go of everything.
    pub(super) fn release(&mut self) {
        let before = self.owned.clone();
        let until = Instant::now() + PATIENCE;
        let none = Claims::new();
        while let Readiness::Underway(text) =
            self.work(None, &before, &none, |applier, work| applier.release(work)).expect("release")
        {
            assert!(Instant::now() < until, "{text}");
        }
    }

    pub(super) fn adopt(&mut self, bundle: &Bundle) -> Vec<(String, String)> {
        let owned = self.owned.clone();
        self.work(Some(bundle), &owned, &owned, |applier, work| applier.adopt(work)).expect("adopt")
    }

    /// Puts right what has drifted, as the policy `enforce` does. Returns what had.
    pub(super) fn enforce(&mut self, bundle: &Bundle) -> Vec<Observation> {
        let seen = self.observe(bundle).expect("observe");
        let drifted: Vec<Observation> = seen.into_iter().filter(|seen| seen.drift.is_some()).collect();
        let (mut before, after) = (self.owned.clone(), self.owned.clone());
        before.retain(|claim, _| !drifted.iter().any(|seen| seen.claim == *claim));
        self.apply_from(bundle, &before, &after).expect("enforce");
        drifted
    }
}

pub(super) fn target(name: &str, id: u128) -> Target {
    Target {
        id: Uuid::from_u128(id),
        workspace: "default".parse().expect("name"),
        name: name.parse().expect("name"),
        release: format!("{name}#1"),
        revision: Revision::from_micros(1),
        digest: Digest::of(b""),
        depends_on: Vec::new(),
    }
}

pub(super) fn bundle(files: &[(&str, &str)]) -> Bundle {
    let file = |(path, content): &(&str, &str)| poll::BundleFile {
        path: (*path).to_owned(),
        rooted: false,
        mode: FileMode::PLAIN,
        owner: None,
        group: None,
        content: Some((*content).to_owned()),
        content_base64: None,
    };
    let files = files.iter().map(file).collect();
    poll::Bundle { files, ..poll::Bundle::default() }.try_into().expect("bundle")
}

/// Returns a namespace, a config map and a deployment with this image.
pub(super) fn web(image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: web, namespace: shop}}\ndata: {{on: 'yes'}}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: shop}}\nspec:\n  replicas: 2\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      \
         containers:\n      - {{name: app, image: '{image}', resources: {{limits: {{cpu: 2000m}}}}}}\n"
    )
}

pub(super) fn web_key() -> Key {
    Key::new("apps", "Deployment", "shop", "web")
}
