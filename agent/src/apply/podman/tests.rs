//! What every test of the applier stands on; against a real podman is `tests/real.rs`, what is pure `tests/documents.rs`.

mod documents;
mod real;
#[path = "../../../../tests/src/podman.rs"]
#[expect(unreachable_pub, reason = "the system tests use the rest of it")]
pub(crate) mod service;

use std::{path::PathBuf, time::Instant};

use serde_json::Value;
use tempfile::TempDir;
use titan_api::{Name, Revision, poll, templates::FileMode};
use tokio::{runtime::Handle, sync::oneshot};

use super::*;
use crate::{state::StateDir, wake::Wake};
use service::{IMAGE, podman};

/// An agent's worth of ground below an applier: a runtime on a thread of its own, and a state directory.
pub(crate) struct Bench {
    pub(crate) service: service::Podman,
    folder: TempDir,
    io: Handle,
    wake: Wake,
    _stop: oneshot::Sender<()>,
}

impl Bench {
    fn new() -> Option<Self> {
        podman().map(Self::of)
    }

    /// One whose podman may make bridges.
    pub(crate) fn alone() -> Option<Self> {
        service::podman_alone().map(Self::of)
    }

    fn of(service: service::Podman) -> Self {
        let folder = tempfile::tempdir().expect("dir");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let (stop, stopped) = oneshot::channel();
        let io = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(stopped));
        Self { service, folder, io, wake: Wake::default(), _stop: stop }
    }

    fn allowed(&self) -> Allowed {
        Allowed { socket: self.service.socket(), privileged: true, ..Allowed::default() }
    }

    fn open_with(&self, allowed: &Allowed) -> Podman {
        Podman::open(allowed, Switch::File, &self.ground()).expect("open")
    }

    pub(crate) fn ground(&self) -> Ground {
        let state = StateDir::new(self.folder.path());
        Ground { io: self.io.clone(), wake: self.wake.clone(), state }
    }

    fn open(&self) -> Podman {
        self.open_with(&self.allowed())
    }

    pub(crate) fn home(&self) -> PathBuf {
        let home = self.folder.path().join("files/default/one");
        std::fs::create_dir_all(&home).expect("home");
        home
    }

    /// Returns what has this very name, where it has one: for want of it podman tells of what has an id that begins so.
    fn find(&self, kind: &str, name: &str) -> Option<Value> {
        let text = self.service.run(&[kind, "inspect", name]).ok()?;
        let told: Value = serde_json::from_str(&text).expect("JSON");
        let told = if told.is_array() { told[0].clone() } else { told };
        let named = told.get("Name").or_else(|| told.get("name"));
        named.is_none_or(|named| named == name).then_some(told)
    }

    fn id(&self, name: &str) -> String {
        let pod = self.find("pod", name).unwrap_or_else(|| panic!("there is no pod {name}"));
        pod["Id"].as_str().expect("id").to_owned()
    }

    pub(crate) fn exists(&self, kind: &str, name: &str) -> bool {
        self.find(kind, name).is_some()
    }
}

pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(Instant::now() < deadline, "not {what} after a minute");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn target(name: &str, content: &str) -> Target {
    Target {
        id: Uuid::from_u128(7),
        workspace: Name::new("default").expect("name"),
        name: Name::new(name).expect("name"),
        release: format!("{name}#1"),
        revision: Revision::ZERO,
        digest: Digest::of(content.as_bytes()),
        depends_on: vec![],
    }
}

pub(crate) fn bundle(files: &[(&str, &str)]) -> Bundle {
    let file = |(path, content): &(&str, &str)| poll::BundleFile {
        path: (*path).to_owned(),
        rooted: false,
        mode: FileMode::PLAIN,
        owner: None,
        group: None,
        content: Some((*content).to_owned()),
        content_base64: None,
    };
    poll::Bundle { files: files.iter().map(file).collect(), ..poll::Bundle::default() }.try_into().expect("bundle")
}

/// A pod that runs a script, without a network of its own: no test touches the machine's.
fn pod(name: &str, image: &str, script: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{ name: \"{name}\" }}\nspec:\n  hostNetwork: true\n  \
         terminationGracePeriodSeconds: 0\n  containers:\n  - name: main\n    image: {image}\n    \
         command: [/bin/sh, -c, \"{script}\"]\n"
    )
}

#[test]
fn a_podman_that_is_not_there_is_said_so() {
    let folder = tempfile::tempdir().expect("dir");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let ground = Ground { io: runtime.handle().clone(), wake: Wake::default(), state: StateDir::new(folder.path()) };
    let allowed = Allowed { socket: folder.path().join("none.sock"), ..Allowed::default() };
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || runtime.block_on(stopped));
    let mut applier = Podman::open(&allowed, Switch::File, &ground).expect("open");
    let (target, yaml) = (target("one", ""), pod("a", IMAGE, "x").replace("hostNetwork: true", "hostNetwork: false"));
    let bundle = bundle(&[("pod.yaml", &yaml)]);
    let after = applier.plan(&target, &bundle).expect("plan");
    let work =
        Work { target: &target, home: folder.path(), bundle: Some(&bundle), before: &Claims::new(), after: &after };
    for error in [applier.prepare(&work).expect_err("none"), applier.observe(&work).expect_err("none")] {
        assert!(error.to_string().contains("none.sock"), "{error}");
    }
    drop(stop);
    thread.join().expect("thread").expect_err("dropped");
}
