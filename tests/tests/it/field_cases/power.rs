//! Power cuts: what is on the disk is old or new, never a mixture.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use titan_tests::{agents::AgentNode, disks::Disk, nodes};

use super::{Scene, versioned, versions};

/// The most that a replay of the journal may take, in the middle of all; the machine may be busy with something else.
const REPLAY: Duration = Duration::from_secs(1);

/// Returns the command that runs `command` until it comes to its `number`th sync of one thread, at which it is killed.
fn killed_at_sync(command: &Command, number: usize) -> Command {
    let mut traced = Command::new("strace");
    let syncs = "fsync,fdatasync,syncfs,sync";
    traced.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={syncs}"), "-e"]);
    traced.arg(format!("inject={syncs}:signal=SIGKILL:when={number}"));
    traced.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => traced.env(name, value),
            None => traced.env_remove(name),
        };
    }
    traced
}

/// Whether processes may be traced here; says so if not.
#[expect(clippy::print_stderr, reason = "whoever runs the tests is to know what they did not show")]
fn may_trace() -> bool {
    let traced = killed_at_sync(&Command::new("true"), 1).output().is_ok_and(|output| output.status.success());
    if !traced {
        assert!(std::env::var_os("CI").is_none(), "install strace, and allow it to trace");
        eprintln!("skipped: install strace, and allow it to trace");
    }
    traced
}

/// Returns the version that is in place, after a check that all of it is.
fn version(scene: &Scene, when: &str) -> String {
    let own = scene.file("default/web/version").unwrap_or_else(|| panic!("{when}: nothing is there"));
    assert_eq!(scene.file("default/web/name").as_deref(), Some("web\n"), "{when}");
    own.trim().to_owned()
}

/// What only the kernel's memory held is lost with the power, at each of the instants at which the agent waits for the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cut_at_every_fsync_boundary() {
    let Some(disk) = Disk::in_file(24).expect("a disk") else { return };
    if !may_trace() {
        return;
    }
    let agent = AgentNode::below(crate::NODE, &disk.path()).expect("an agent");
    let scene = Scene::with(agent, [versions()].into_iter().chain(versioned("web", "old"))).await;
    let server = scene.world.plane.server.clone();
    scene.configure(&server, "");
    scene.agent.settle().expect("applied");
    disk.unmount().expect("unmounted");
    let before = disk.snapshot().expect("read");
    disk.mount().expect("mounted");
    scene.apply(versioned("web", "new").into_iter().chain(versioned("fresh", "new"))).await;
    let mut replays = Vec::new();
    for number in 1.. {
        let when = format!("at sync {number}");
        disk.restore(&before).expect("restored");
        let mut traced = killed_at_sync(&scene.agent.command(&["once"]), number);
        let ended = nodes::output(&mut traced).expect("run");
        if ended.status.success() {
            break;
        }
        assert_eq!(ended.status.signal(), Some(9), "{when}: {ended:?}");
        let left = disk.snapshot().expect("read");
        disk.restore(&left).expect("the power is back");
        let own = version(&scene, &when);
        assert!(own == "old" || own == "new", "{when}: {own}");
        // Without a network it settles to one or the other, quickly.
        scene.configure("http://127.0.0.1:1", "");
        let begun = Instant::now();
        let output = scene.agent.once().expect("run");
        replays.push(begun.elapsed());
        assert!(!String::from_utf8_lossy(&output.stderr).contains("damaged"), "{when}: {output:?}");
        let own = version(&scene, &when);
        assert!(own == "old" || own == "new", "{when}: {own}");
        scene.configure(&server, "");
        scene.agent.settle().unwrap_or_else(|error| panic!("{when}: {error:#}"));
        assert_eq!(version(&scene, &when), "new", "{when}");
        check_owned(&scene, &when);
    }
    replays.sort();
    assert!(replays.len() > 10, "only {} syncs", replays.len());
    let (middle, longest) = (replays[replays.len() / 2], replays[replays.len() - 1]);
    eprintln!("{} power cuts; back within {middle:?}, at most {longest:?}", replays.len());
    assert!(middle < REPLAY, "{replays:?}");
}

/// Fails unless the ledger says exactly what is on disk.
fn check_owned(scene: &Scene, when: &str) {
    let read = |name: &str| fs::read(scene.agent.state().join(name));
    let ledger: serde_json::Value = serde_json::from_slice(&read("ledger.json").expect("read")).expect("a ledger");
    let entries = ledger["entries"].as_object().expect("entries").values();
    let mut owned: Vec<_> = entries.flat_map(|entry| entry["files"].as_object().expect("files").keys()).collect();
    owned.sort();
    let files = scene.agent.files().expect("files");
    assert_eq!(owned, files.keys().collect::<Vec<_>>(), "{when}");
    let left = |path: &Path| assert!(!path.exists(), "{when}: {} is left", path.display());
    left(&scene.agent.state().join("journal.json"));
    left(&scene.agent.root().join(".titan"));
}
