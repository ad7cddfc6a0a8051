//! The applier against a real systemd, in a container.

#[path = "../../../../../tests/src/nspawn.rs"]
#[expect(dead_code, unreachable_pub, reason = "the system's tests use the rest of it")]
mod nspawn;

mod names;
mod straying;

use std::{
    fs,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use nspawn::{Machine, eventually};
use titan_api::poll;
use tokio::runtime::Handle;

use super::*;
use crate::{state::StateDir, wake::Wake};

const PATIENCE: Duration = Duration::from_secs(20);

/// A host for all tests of this file, or `None` where there can be none.
fn machine() -> Option<MutexGuard<'static, Machine>> {
    static MACHINE: OnceLock<Option<Mutex<Machine>>> = OnceLock::new();
    let start = || {
        nspawn::possible()?;
        let mut machine = Machine::start("applier", &[])?;
        machine.booted()?;
        Ok::<_, std::io::Error>(Mutex::new(machine))
    };
    let machine = MACHINE.get_or_init(|| match start() {
        Ok(machine) => Some(machine),
        Err(error) if std::env::var("CI").is_ok_and(|value| value == "true") => {
            panic!("a host with systemd is needed here: {error}")
        }
        Err(error) => {
            eprintln!("left out: the applier on a real systemd ({error})");
            None
        }
    });
    machine.as_ref().map(|machine| machine.lock().unwrap_or_else(PoisonError::into_inner))
}

/// One deployment on the host, and the applier that looks after it.
struct Site<'a> {
    machine: &'a Machine,
    applier: Systemd,
    target: Target,
    bundle: Bundle,
    claims: Claims,
    wake: Wake,
    _state: tempfile::TempDir,
}

impl<'a> Site<'a> {
    fn new(machine: &'a Machine, name: &str, io: &Handle, adopt: bool) -> Self {
        let state = tempfile::tempdir().expect("state");
        let wake = Wake::default();
        let ground = Ground { io: io.clone(), wake: wake.clone(), state: StateDir::new(state.path()) };
        let directory = machine.path("/etc/systemd/system");
        let settings = Settings { directory, bus: Some(machine.bus()), adopt, ..Settings::default() };
        let mut applier = Systemd::new(&settings, &ground);
        applier.watch();
        let (target, bundle) = (target(name), Bundle::default());
        Self { machine, applier, target, bundle, claims: Claims::new(), wake, _state: state }
    }

    fn home(&self) -> std::path::PathBuf {
        Path::new("/srv/titan").join(self.target.home())
    }

    /// Puts the files of a bundle in place, as the layer below does it.
    fn switch(&mut self, files: &[(&str, &str)]) {
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| serde_json::json!({"path": path, "mode": "0644", "content": text}))
            .collect();
        let bundle: poll::Bundle =
            serde_json::from_value(serde_json::json!({"applier": "systemd", "files": files})).expect("bundle");
        self.bundle = bundle.try_into().expect("bundle");
        let text: Vec<u8> = self.bundle.files.iter().flat_map(|file| file.sha256.to_string().into_bytes()).collect();
        self.target.digest = Digest::of(&text);
    }

    fn put_files(&self) {
        let home = self.machine.path(&self.home().display().to_string());
        let _not_there_yet = fs::remove_dir_all(&home);
        for file in &self.bundle.files {
            let path = home.join(&file.path);
            fs::create_dir_all(path.parent().expect("parent")).expect("directory");
            fs::write(path, file.content(1 << 20).expect("content")).expect("write");
        }
    }

    fn with<T>(&mut self, before: &Claims, after: &Claims, call: impl FnOnce(&mut Systemd, &Work<'_>) -> T) -> T {
        let home = self.home();
        let bundle = (!after.is_empty()).then_some(&self.bundle);
        call(&mut self.applier, &Work { target: &self.target, home: &home, bundle, before, after })
    }

    fn prepare(&mut self, after: &Claims) -> Result<(), ApplyError> {
        let before = self.claims.clone();
        let until = Instant::now() + PATIENCE;
        while self.with(&before, after, Systemd::prepare)? != Readiness::Ready {
            assert!(Instant::now() < until, "the check does not end");
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Brings a bundle in place. Returns the claims before it.
    fn bring(&mut self, files: &[(&str, &str)]) -> Result<Claims, ApplyError> {
        self.switch(files);
        let after = self.applier.plan(&self.target, &self.bundle)?;
        self.prepare(&after)?;
        self.put_files();
        let before = std::mem::replace(&mut self.claims, after);
        self.apply(&before)?;
        Ok(before)
    }

    fn apply(&mut self, before: &Claims) -> Result<(), ApplyError> {
        let after = self.claims.clone();
        self.with(before, &after, Systemd::apply)
    }

    fn observe(&mut self) -> Vec<Observation> {
        let claims = self.claims.clone();
        self.with(&claims, &claims, Systemd::observe).expect("observe")
    }

    /// Waits until everything is well.
    fn proves_well(&mut self) {
        let mut seen = Vec::new();
        let well = eventually("all is well", PATIENCE, || {
            seen = self.observe();
            seen.iter().all(|seen| seen.condition == Condition::Well).then_some(())
        });
        assert!(well.is_ok(), "{seen:#?}");
    }

    /// Returns what has drifted, and puts it right as the policy `enforce` does.
    fn enforce(&mut self) -> Vec<String> {
        let mut before = self.claims.clone();
        let mut drifts = Vec::new();
        for Observation { claim, drift, .. } in self.observe() {
            if let Some(drift) = drift {
                before.remove(&claim);
                drifts.push(format!("{} {}", drift.what, drift.how));
            }
        }
        self.apply(&before).expect("enforce");
        drifts
    }

    fn remove(&mut self) {
        let before = std::mem::take(&mut self.claims);
        let mut left = None;
        eventually("it is removed", PATIENCE, || {
            left = Some(self.with(&before, &Claims::new(), Systemd::remove).expect("remove"));
            (left == Some(Readiness::Ready)).then_some(())
        })
        .unwrap_or_else(|error| panic!("{error}: {left:?}"));
        // Once more, as after a cut.
        assert_eq!(self.with(&before, &Claims::new(), Systemd::remove).expect("again"), Readiness::Ready);
    }

    fn say(&self, command: &[&str]) -> String {
        self.machine.say(command).expect("inside")
    }

    fn pid(&self, unit: &str) -> String {
        self.say(&["systemctl", "show", "--value", "-p", "MainPID", unit])
    }

    fn reloads(&self) -> u64 {
        self.applier.jobs.bus.reloads()
    }
}

/// Runs a test on a thread that may block, with the runtime on another one, as in the agent.
fn on_site(name: &str, adopt: bool, test: impl FnOnce(Site<'_>) + Send) {
    let Some(guard) = machine() else { return };
    let machine: &Machine = &guard;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let io = runtime.handle().clone();
    let (done, ended) = tokio::sync::oneshot::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let _ends_also_by_panic = done;
            test(Site::new(machine, name, &io, adopt));
        });
        let _ended = runtime.block_on(ended);
    });
}

const SLEEPS: &str = "[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=multi-user.target\n";
const QUICK: &str = "[Service]\nExecStart=/bin/sleep 2000\n[Install]\nWantedBy=multi-user.target\n";

#[test]
fn only_what_changed_is_restarted_and_files_are_read_once_a_change() {
    on_site("one", false, |mut site| {
        let timer = ("one-job.timer", "[Timer]\nOnBootSec=100h\n[Install]\nWantedBy=timers.target\n");
        let job = ("one-job.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n");
        site.bring(&[("one-a.service", SLEEPS), ("one-b.service", SLEEPS), timer, job]).expect("install");
        site.proves_well();
        assert_eq!(site.reloads(), 1);
        let enabled = site.say(&["systemctl", "is-enabled", "one-a.service", "one-job.timer"]);
        assert_eq!(enabled, "enabled\nenabled");
        assert_eq!(site.say(&["systemctl", "is-active", "one-job.service"]), "inactive");
        let (a, b) = (site.pid("one-a.service"), site.pid("one-b.service"));

        site.apply(&site.claims.clone()).expect("the same");
        assert_eq!(site.reloads(), 1, "nothing to do");
        site.apply(&Claims::new()).expect("as after a cut");
        site.proves_well();
        assert_eq!((site.pid("one-a.service"), site.pid("one-b.service")), (a.clone(), b.clone()), "none restarted");
        assert_eq!(site.reloads(), 2);

        site.bring(&[("one-a.service", QUICK), ("one-b.service", SLEEPS), timer, job]).expect("change");
        site.proves_well();
        assert_eq!(site.reloads(), 3);
        assert!(site.pid("one-a.service") != a && site.pid("one-b.service") == b, "only what changed");

        site.bring(&[("one-a.service", QUICK)]).expect("some leave");
        site.proves_well();
        assert_eq!(site.reloads(), 4);
        assert_eq!(site.say(&["systemctl", "is-active", "one-b.service", "one-job.timer"]), "inactive\ninactive");
        assert!(!site.machine.path("/etc/systemd/system/timers.target.wants/one-job.timer").exists());
        site.remove();
        assert_eq!(site.say(&["systemctl", "show", "--value", "-p", "LoadState", "one-a.service"]), "not-found");
        let left = site.say(&["sh", "-c", "ls -R /etc/systemd/system | grep one-"]);
        assert_eq!(left, "");
    });
}

#[test]
fn what_people_do_is_told_and_put_right_but_their_files_stay() {
    on_site("two", false, |mut site| {
        site.bring(&[("two.service", SLEEPS)]).expect("install");
        site.proves_well();
        assert_eq!(site.enforce(), [""; 0]);
        let _earlier = site.wake.take();
        site.say(&["systemctl", "stop", "two.service"]);
        eventually("the agent is woken", PATIENCE, || site.wake.take().contains(&Kind::Systemd).then_some(()))
            .expect("wake");
        assert_eq!(site.enforce(), ["two.service stopped"]);
        site.proves_well();
        site.say(&["systemctl", "disable", "two.service"]);
        assert_eq!(site.enforce(), ["multi-user.target.wants/two.service disabled", "two.service missing"]);
        site.proves_well();
        assert_eq!(site.say(&["systemctl", "is-enabled", "two.service"]), "enabled");

        let theirs = "[Service]\nNice=5\n";
        site.machine.write("/etc/systemd/system/two.service.d/override.conf", theirs).expect("theirs");
        let (pid, reloads) = (site.pid("two.service"), site.reloads());
        assert_eq!(site.enforce(), ["two.service.d/override.conf added"]);
        assert_eq!((site.pid("two.service"), site.reloads()), (pid, reloads), "it is told and no more");
        let claims = site.claims.clone();
        let adopted = site.with(&claims, &claims, Systemd::adopt).expect("adopt");
        assert_eq!(adopted, [("two.service.d/override.conf".to_owned(), theirs.to_owned())]);
        // It becomes the bundle's, since it says the same.
        site.bring(&[("two.service", SLEEPS), ("two.service.d/override.conf", theirs)]).expect("adopted");
        site.proves_well();
        assert_eq!(site.say(&["systemctl", "show", "--value", "-p", "Nice", "two.service"]), "5");
        site.remove();
        let back = fs::read_to_string(site.machine.path("/etc/systemd/system/two.service.d/override.conf"));
        assert_eq!(back.expect("theirs"), theirs);
        fs::remove_dir_all(site.machine.path("/etc/systemd/system/two.service.d")).expect("clear");
    });
}

#[test]
fn what_does_not_work_is_told_and_the_way_back_restarts_it() {
    on_site("three", false, |mut site| {
        site.bring(&[("three.service", SLEEPS)]).expect("install");
        site.proves_well();
        let good = site.pid("three.service");
        let bad = "[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=60\n[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=50ms\n";
        let before = site.claims.clone();
        site.bring(&[("three.service", bad)]).expect("bad");
        let failed = eventually("it fails", PATIENCE, || {
            site.observe().into_iter().find_map(|seen| match seen.condition {
                Condition::Failed(why) => Some(why),
                _ => None,
            })
        });
        let why = failed.expect("failed");
        assert!(why.contains("exit-code") || why.contains("start-limit-hit"), "{why}");
        let bad_claims = site.bring(&[("three.service", SLEEPS)]).expect("back");
        assert_ne!(bad_claims, before);
        site.proves_well();
        assert_eq!(site.claims, before);
        assert_ne!(site.pid("three.service"), good, "it was restarted");

        // What systemd would not load is refused before anything is touched, where it can be asked.
        let refused = site.bring(&[("three.service", "[Service]\nType=simple\n")]);
        assert!(matches!(refused, Err(ApplyError::Malformed { .. })), "{refused:?}");
        site.claims = before;
        site.remove();
    });
}

#[test]
fn what_others_made_is_refused_unless_it_may_be_adopted() {
    let theirs = "[Service]\nExecStart=/bin/sleep 3000\n";
    let place = "/etc/systemd/system/four.service";
    on_site("four", false, |mut site| {
        site.machine.write(place, theirs).expect("theirs");
        for name in ["four.service", "systemd-logind.service"] {
            let refused = site.bring(&[(name, SLEEPS)]);
            assert!(matches!(&refused, Err(ApplyError::Foreign(claim)) if claim.name == name), "{refused:?}");
            assert!(site.claims.is_empty());
        }
        assert_eq!(fs::read_to_string(site.machine.path(place)).expect("theirs"), theirs);
    });
    on_site("four", true, |mut site| {
        site.bring(&[("four.service", SLEEPS)]).expect("adopt");
        site.proves_well();
        assert!(site.claims.len() == 2 && site.machine.path(place).is_symlink());
        site.remove();
        assert_eq!(fs::read_to_string(site.machine.path(place)).expect("back"), theirs);
        fs::remove_file(site.machine.path(place)).expect("clear");
    });
}

#[test]
fn instances_sockets_and_drop_ins_of_others_are_looked_after() {
    on_site("five", false, |mut site| {
        let template =
            "[Service]\nExecStart=/bin/sleep 10%i\n[Install]\nWantedBy=multi-user.target\n[X-Titan]\nInstances=1 2\n";
        let socket = "[Socket]\nListenStream=/run/five.sock\n[Install]\nWantedBy=sockets.target\n";
        let nice = "[Service]\nNice=3\n";
        site.say(&["systemctl", "start", "systemd-logind.service"]);
        let logind = site.pid("systemd-logind.service");
        let files = [
            ("five@.service", template),
            ("five.socket", socket),
            ("five.service", "[Service]\nExecStart=/bin/sleep 4000\n"),
            ("systemd-logind.service.d/50-five.conf", nice),
        ];
        site.bring(&files).expect("install");
        site.proves_well();
        let active = |site: &Site<'_>| {
            site.say(&["systemctl", "is-active", "five@1.service", "five@2.service", "five.socket", "five.service"])
        };
        assert_eq!(active(&site), "active\nactive\nactive\ninactive");
        assert_eq!(site.say(&["systemctl", "is-enabled", "five@2.service"]), "enabled");
        let restarted = || (site.pid("systemd-logind.service") != logind).then_some(());
        eventually("the unit of others runs with its drop-in", PATIENCE, restarted).expect("restart");
        assert_eq!(site.say(&["systemctl", "show", "--value", "-p", "Nice", "systemd-logind.service"]), "3");

        // The socket's service runs, and the socket changes.
        site.say(&["systemctl", "start", "five.service"]);
        let mut changed = files;
        changed[1].1 = "[Socket]\nListenStream=/run/five-b.sock\n[Install]\nWantedBy=sockets.target\n";
        changed[0].1 =
            "[Service]\nExecStart=/bin/sleep 20%i\n[Install]\nWantedBy=multi-user.target\n[X-Titan]\nInstances=1\n";
        site.bring(&changed).expect("change");
        site.proves_well();
        assert!(site.machine.path("/run/five-b.sock").exists());
        assert_eq!(active(&site), "active\ninactive\nactive\ninactive");
        site.remove();
        assert_eq!(active(&site), "inactive\ninactive\ninactive\ninactive");
        assert_eq!(site.say(&["systemctl", "show", "--value", "-p", "Nice", "systemd-logind.service"]), "0");
    });
}

#[test]
fn a_bus_that_goes_away_is_found_again() {
    on_site("six", false, |mut site| {
        site.bring(&[("six.service", SLEEPS)]).expect("install");
        site.proves_well();
        site.say(&["systemctl", "kill", "--signal=KILL", "dbus.service"]);
        site.say(&["systemctl", "reset-failed", "dbus.service"]);
        let claims = site.claims.clone();
        let again = eventually("the bus is found", PATIENCE, || site.with(&claims, &claims, Systemd::observe).ok());
        assert!(again.is_ok());
        let _earlier = site.wake.take();
        site.say(&["systemctl", "stop", "six.service"]);
        eventually("the agent is woken", PATIENCE, || site.wake.take().contains(&Kind::Systemd).then_some(()))
            .expect("wake");
        site.remove();
    });
}
