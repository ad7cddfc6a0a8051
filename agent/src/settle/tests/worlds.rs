//! A host that is a directory, with its worker and appliers that note what they are asked for.

use std::{
    collections::BTreeSet,
    fs,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use titan_api::{
    Name,
    deployments::{Dependency, DependencyState},
    drift::Drift,
    poll::{RemovalReason, Tombstone},
};
use tokio::{runtime::Builder, sync::oneshot};

use super::super::*;
use crate::{
    apply::{Applier as Applies, ApplyError, Condition, Observation, Readiness, Target, Work},
    bundles::Bundle,
    claims::{Claim, Claims},
    desired::DesiredEntry,
    ledger::LedgerEntry,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What an applier was asked for, and what it says when it is to prepare or to remove something.
#[derive(Debug, Default)]
pub(super) struct Said {
    calls: Vec<String>,
    prepares: Option<String>,
    removes: Option<String>,
    /// Whether what was applied is down, until it is applied again.
    down: bool,
    /// In whose name it was asked last.
    whose: String,
    /// Whether nothing can be applied.
    fails: bool,
    /// What cannot be removed.
    held: Option<String>,
    /// Whether something that was begun goes on.
    busy: bool,
}

/// An applier whose bundles claim one thing each, which always does well: the same, but for those that say `other`, or `both`.
#[derive(Debug, Clone)]
pub(super) struct Fake {
    pub(super) name: &'static str,
    pub(super) claim: Claim,
    pub(super) said: Arc<Mutex<Said>>,
}

impl Fake {
    fn note(&self, what: &str, work: &Work<'_>) {
        let names = |claims: &Claims| claims.keys().map(Claim::to_string).collect::<Vec<_>>().join(",");
        let text = format!("{} {what} {} > {}", self.name, names(work.before), names(work.after));
        let mut said = self.said.lock().expect("said");
        said.calls.push(text);
        said.whose = work.target.home();
    }

    /// `!` says no, anything else is under way.
    fn answer(said: Option<String>) -> Result<Readiness, ApplyError> {
        match said {
            None => Ok(Readiness::Ready),
            Some(text) if text == "!" => {
                Err(ApplyError::Platform { what: "preparing".to_owned(), message: "no".to_owned() })
            }
            Some(text) => Ok(Readiness::Underway(text)),
        }
    }
}

impl Applies for Fake {
    fn plan(&self, _: &Target, bundle: &Bundle) -> Result<Claims, ApplyError> {
        let text: String = bundle.files.iter().map(|file| file.text(100).expect("text")).collect();
        let other = Claim::new(&self.claim.kind, "other");
        let claims = match text.as_str() {
            "other" => vec![other],
            "both" => vec![other, self.claim.clone()],
            _ => vec![self.claim.clone()],
        };
        Ok(claims.into_iter().map(|claim| (claim, Digest::of(text.as_bytes()))).collect())
    }

    fn prepare(&mut self, work: &Work<'_>) -> Result<Readiness, ApplyError> {
        self.note("prepares", work);
        let said = self.said.lock().expect("said").prepares.clone();
        Self::answer(said)
    }

    fn rests_on(&self, target: &Target, bundle: &Bundle, _: &Claims) -> Result<BTreeSet<String>, ApplyError> {
        Ok(bundle.files.iter().map(|file| format!("{}/{}", target.home(), file.path)).collect())
    }

    fn apply(&mut self, work: &Work<'_>) -> Result<(), ApplyError> {
        self.note("applies", work);
        let mut said = self.said.lock().expect("said");
        if said.fails {
            return Self::answer(Some("!".to_owned())).map(drop);
        }
        said.down = false;
        Ok(())
    }

    fn observe(&mut self, work: &Work<'_>) -> Result<Vec<Observation>, ApplyError> {
        let down = self.said.lock().expect("said").down;
        let seen = |claim: &Claim| {
            let condition = if down { Condition::Ill("it is down".to_owned()) } else { Condition::Well };
            let drift = down.then(|| Drift {
                what: claim.to_string(),
                how: "stopped".to_owned(),
                diff: String::new(),
                found: None,
                repaired: false,
            });
            Observation { claim: claim.clone(), condition, drift }
        };
        Ok(work.after.keys().map(seen).collect())
    }

    fn remove(&mut self, work: &Work<'_>) -> Result<Readiness, ApplyError> {
        self.note("removes", work);
        let (said, held) = {
            let said = self.said.lock().expect("said");
            (said.removes.clone(), said.held.clone())
        };
        let is_held = work.before.keys().any(|claim| Some(claim.to_string()) == held);
        Self::answer(if is_held { Some("!".to_owned()) } else { said })
    }

    fn is_busy(&self) -> bool {
        self.said.lock().expect("said").busy
    }

    fn release(&mut self, work: &Work<'_>) -> Result<Readiness, ApplyError> {
        self.note("releases", work);
        let said = self.said.lock().expect("said").removes.clone();
        Self::answer(said)
    }
}

/// A runtime in a thread of its own, until this value ends.
struct Elsewhere {
    io: Handle,
    _stop: oneshot::Sender<()>,
}

impl Elsewhere {
    fn begin() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("runtime");
        let (stop, stopped) = oneshot::channel();
        let io = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(async { stopped.await.is_ok() }));
        Self { io, _stop: stop }
    }
}

/// A host with its worker.
pub(super) struct World {
    pub(super) worker: Worker,
    wake: Wake,
    runtime: Elsewhere,
    pub(super) said: Arc<Mutex<Said>>,
    clock: i64,
    /// Whether the control plane answers.
    pub(super) in_touch: bool,
    pub(super) dir: tempfile::TempDir,
}

impl World {
    pub(super) fn new(git: bool) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let (runtime, wake) = (Elsewhere::begin(), Wake::default());
        let mut settings = Settings::new(dir.path().join("state"));
        settings.git = settings.git.filter(|_| git);
        settings.appliers.exec = Some(Exec::default());
        let mut worker = Worker::open(&settings, &runtime.io, &wake).expect("worker");
        let said = Arc::<Mutex<Said>>::default();
        for (kind, name, claim) in
            [(Applier::Systemd, "systemd", "unit:app.service"), (Applier::Podman, "podman", "pod:app")]
        {
            let claim = Claim::try_from(claim.to_owned()).expect("claim");
            worker.appliers.put(kind, Box::new(Fake { name, claim, said: said.clone() }));
        }
        Self { worker, wake, runtime, said, clock: 1_000_000, in_touch: false, dir }
    }

    /// Declares a deployment of one file `a`, and hands its bundle over. Returns its id.
    pub(super) fn declare(&mut self, name: &str, text: &str, more: &Value) -> Uuid {
        let bundle = bundle(text, more);
        self.worker.bundles.put(&Digest::of(bundle.as_bytes()), bundle.as_bytes()).expect("kept");
        self.declare_only(name, text, more)
    }

    /// Declares it without its bundle.
    pub(super) fn declare_only(&mut self, name: &str, text: &str, more: &Value) -> Uuid {
        self.clock += 10;
        let id = id_of(name);
        let depends_on = more["dependsOn"]
            .as_str()
            .map(|on| Dependency { name: Name::new(on).expect("name"), state: DependencyState::Healthy });
        let entry = DesiredEntry {
            name: Name::new(name).expect("name"),
            workspace: Name::new("default").expect("name"),
            release: format!("{name}#{text}"),
            revision: Revision::from_micros(self.clock),
            digest: Digest::of(bundle(text, more).as_bytes()),
            depends_on: depends_on.into_iter().collect(),
            on_remove: OnRemove::Delete,
            orphan: false,
        };
        self.worker.desired.entries.insert(id, entry);
        id
    }

    /// Declares that a deployment is to leave.
    pub(super) fn withdraw(&mut self, name: &str) {
        self.withdraw_and(name, OnRemove::Delete);
    }

    /// Declares that a deployment is to leave, and what becomes of what it made.
    pub(super) fn withdraw_and(&mut self, name: &str, on_remove: OnRemove) {
        self.clock += 10;
        let (id, revision) = (id_of(name), Revision::from_micros(self.clock));
        let DesiredEntry { name, workspace, .. } = self.worker.desired.entries.remove(&id).expect("declared");
        let reason = RemovalReason::DeploymentDeleted;
        let tombstone = Tombstone { id, name, workspace, revision, deleted_at: revision, reason, on_remove };
        self.worker.desired.removals.insert(id, tombstone);
    }

    /// Closes the owner's windows for two to three days, by the host's own clock.
    pub(super) fn close_windows(&mut self) {
        // 1970 began on a Thursday.
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        let day = now().micros() / 86_400_000_000 + 3;
        self.windows(&format!("{} 00:00-24:00", DAYS[usize::try_from(day % 7).expect("a day")]));
    }

    /// Opens a window that is there always.
    pub(super) fn open_windows(&mut self) {
        self.windows("* 00:00-24:00");
    }

    fn windows(&mut self, text: &str) {
        self.worker.windows = Windows::parse(&[text.to_owned()]).expect("a window");
    }

    pub(super) fn pass(&mut self) -> Vec<Done> {
        self.worker.settle(&Scope { in_touch: self.in_touch, ..Scope::default() })
    }

    /// Looks at everything, as after a start.
    pub(super) fn look_over(&mut self) -> Vec<Done> {
        self.worker.settle(&Scope { all: true, in_touch: self.in_touch, ..Scope::default() })
    }

    /// Passes until it is so.
    pub(super) fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !so(self) {
            assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
            self.pass();
            let wake = self.wake.clone();
            let _woken = self
                .runtime
                .io
                .block_on(async move { tokio::time::timeout(Duration::from_millis(20), wake.notified()).await });
        }
    }

    /// Lives like the agent that stays, for so long; returns how many passes that took.
    pub(super) fn live(&mut self, span: Duration) -> usize {
        let (until, mut passes) = (Instant::now() + span, 0);
        loop {
            self.pass();
            passes += 1;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return passes;
            }
            let pause = self.worker.idle_for().map_or(left, |idle| idle.max(Duration::from_millis(1)).min(left));
            let wake = self.wake.clone();
            let _woken = self.runtime.io.block_on(async move { tokio::time::timeout(pause, wake.notified()).await });
        }
    }

    /// What is in the file of a deployment.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.worker.state.file("files").join("default").join(name).join("a")).ok()
    }

    pub(super) fn id(&self, name: &str) -> Uuid {
        id_of(name)
    }

    pub(super) fn entry(&self, name: &str) -> &LedgerEntry {
        &self.worker.ledger.entries[&id_of(name)]
    }

    pub(super) fn report(&self, name: &str) -> &titan_api::reports::DeploymentReport {
        &self.worker.outbox.reports[&id_of(name)]
    }

    /// What appliers were asked for since the last time.
    pub(super) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.said.lock().expect("said").calls)
    }

    /// Has nothing be applied from now on, or everything.
    pub(super) fn fails(&self, fails: bool) {
        self.said.lock().expect("said").fails = fails;
    }

    /// Has something be what cannot be removed, or nothing.
    pub(super) fn holds(&self, claim: Option<&str>) {
        self.said.lock().expect("said").held = claim.map(str::to_owned);
    }

    /// Has something that an applier began go on, or be done.
    pub(super) fn keeps_busy(&self, busy: bool) {
        self.said.lock().expect("said").busy = busy;
    }

    /// In whose name appliers were asked last.
    pub(super) fn whose(&self) -> String {
        self.said.lock().expect("said").whose.clone()
    }

    pub(super) fn say(&self, prepares: Option<&str>, removes: Option<&str>) {
        let mut said = self.said.lock().expect("said");
        (said.prepares, said.removes) = (prepares.map(str::to_owned), removes.map(str::to_owned));
    }

    /// Has what nobody wants be tried again, as if it had been to be taken down for so long.
    pub(super) fn burdens_are_due(&mut self, after: Duration) {
        for burden in self.worker.burdens.values_mut() {
            burden.since = Instant::now().checked_sub(after).expect("a clock that runs for long");
            burden.again = Instant::now();
        }
    }

    /// Has the control plane take what is to be reported.
    pub(super) fn takes_reports(&mut self) {
        self.worker.outbox.unsent.clear();
    }

    /// Has whatever runs be down.
    pub(super) fn goes_down(&self) {
        self.said.lock().expect("said").down = true;
    }

    /// Has the host be one that has booted since.
    pub(super) fn reboots(&mut self) {
        let ids: Vec<_> = self.worker.ledger.entries.keys().copied().collect();
        for id in ids {
            self.worker.amend(id, |entry| entry.boot = Some("the one before".to_owned())).expect("noted");
        }
    }

    /// Has what is in place prove bad.
    pub(super) fn proves_bad(&mut self, name: &str) {
        let bad = |entry: &mut LedgerEntry| {
            entry.bad.insert(entry.digest, "it does not answer".to_owned());
        };
        self.worker.amend(id_of(name), bad).expect("noted");
    }
}

fn id_of(name: &str) -> Uuid {
    Uuid::from_slice(&Digest::of(name.as_bytes()).as_bytes()[..16]).expect("16 bytes")
}

fn bundle(text: &str, more: &Value) -> String {
    let mut bundle = json!({ "applier": "files", "files": [{ "path": "a", "mode": "0644", "content": text }] });
    let more = more.as_object().expect("an object").iter().filter(|(key, _)| *key != "dependsOn");
    bundle.as_object_mut().expect("an object").extend(more.map(|(key, value)| (key.clone(), value.clone())));
    bundle.to_string()
}

pub(super) fn shell(line: &str) -> Value {
    json!({ "hooks": { "preApply": { "command": ["/bin/sh", "-c", line] } } })
}
