//! The worker on a host that is a directory, with appliers that only note what they are asked for.

mod bequests;
mod burdens;
mod keeping;
mod telling;
mod worlds;

use std::fs;

use serde_json::json;
use titan_api::Name;

use self::worlds::{Fake, World, shell};
use super::*;
use crate::{claims::Claim, ledger::Removal};

/// How the reason begins why something waits for a window.
const CLOSED: &str = "outside of the maintenance windows; the next one opens ";

#[test]
fn what_failed_once_and_then_waits_for_its_hook_leaves_the_agent_at_rest() {
    let mut world = World::new(false);
    let flag = world.dir.path().join("flag").display().to_string();
    let id = world.declare("one", "1", &shell(&format!("[ -e {flag} ] || {{ touch {flag}; exit 1; }}; sleep 2")));
    world.until("the failure", |world| world.worker.failures.contains_key(&id));
    // The pause is over.
    world.worker.failures.get_mut(&id).expect("failed").again = Instant::now();
    let passes = world.live(Duration::from_millis(1200));
    assert!(passes < 10, "{passes} passes while the hook ran");
    assert!(world.worker.waiting.contains(&id), "it waits for its hook");
    world.until("the end of the hook", |world| world.text("one").as_deref() == Some("1"));
    assert!(world.worker.failures.is_empty());
}

#[test]
fn what_failed_and_is_missing_or_declared_otherwise_leaves_the_agent_at_rest() {
    let mut world = World::new(false);
    let id = world.declare("one", "1", &shell("exit 1"));
    world.until("the failure", |world| world.worker.failures.contains_key(&id));
    world.worker.failures.get_mut(&id).expect("failed").again = Instant::now();
    world.declare_only("one", "2", &json!({}));
    assert!(world.live(Duration::from_millis(300)) < 5, "its bundle is missing");
    assert!(world.worker.failures.is_empty(), "it is another one that failed");
}

#[test]
fn a_host_that_is_halted_looks_again_in_a_while_and_goes_on() {
    let mut world = World::new(false);
    let health = json!({ "interval": "20ms", "initialDelay": "0ms", "probes": [{ "file": { "path": "a" } }] });
    world.declare("one", "1", &json!({ "health": health }));
    let id = world.declare("two", "1", &shell("exit 1"));
    world.until("health and failure", |world| {
        world.worker.failures.contains_key(&id)
            && world.worker.outbox.reports.values().any(|report| report.phase == Phase::Healthy)
    });
    let journal = world.worker.state.file("journal.json");
    fs::write(&journal, "{").expect("damaged");
    world.worker.failures.get_mut(&id).expect("failed").again = Instant::now();
    let passes = world.live(Duration::from_millis(500));
    assert!(world.worker.halted.is_some() && passes < 10, "{passes} passes while nothing can be changed");
    let idle = world.worker.idle_for().expect("it looks again by itself");
    assert!(idle > Duration::from_secs(5) && idle <= Duration::from_secs(10), "{idle:?}");
    fs::remove_file(&journal).expect("mended");
    world.declare("one", "2", &json!({}));
    world.until("the second release", |world| world.text("one").as_deref() == Some("2"));
    assert!(world.worker.halted.is_none());
}

#[test]
fn the_old_applier_goes_only_once_the_new_one_is_prepared() {
    let mut world = World::new(false);
    world.declare("one", "1", &json!({ "applier": "systemd" }));
    world.pass();
    assert_eq!(world.calls(), ["systemd prepares  > unit:app.service", "systemd applies  > unit:app.service"]);
    world.declare("one", "2", &json!({ "applier": "podman" }));
    for refused in ["!", "pulling"] {
        world.say(Some(refused), None);
        world.worker.failures.clear();
        world.pass();
        assert_eq!(world.calls(), ["podman prepares  > pod:app"], "what runs goes on");
        assert!(!world.entry("one").claims.is_empty());
    }
    world.say(None, Some("stopping"));
    world.pass();
    assert_eq!(world.calls(), ["podman prepares  > pod:app", "systemd removes unit:app.service > "]);
    world.pass();
    assert_eq!(world.calls(), ["systemd removes unit:app.service > "], "it is prepared");
    assert_eq!((world.text("one").as_deref(), world.report("one").phase), (Some("1"), Phase::Applying));
    world.say(None, None);
    world.pass();
    assert_eq!(world.calls(), ["systemd removes unit:app.service > ", "podman applies  > pod:app"]);
    assert_eq!((world.text("one").as_deref(), world.report("one").phase), (Some("2"), Phase::Healthy));
}

/// As with a unit of systemd and a quadlet that makes a unit of the same name.
#[test]
fn what_both_appliers_call_the_same_is_not_foreign_to_the_new_one() {
    let mut world = World::new(false);
    let claim = Claim::new("unit", "app.service");
    let podman = Fake { name: "podman", claim, said: world.said.clone() };
    world.worker.appliers.put(Applier::Podman, Box::new(podman));
    world.declare("one", "1", &json!({ "applier": "systemd" }));
    world.pass();
    world.calls();
    world.declare("one", "2", &json!({ "applier": "podman" }));
    world.pass();
    let expected = [
        "podman prepares unit:app.service > unit:app.service",
        "systemd removes unit:app.service > ",
        "podman applies  > unit:app.service",
    ];
    assert_eq!(world.calls(), expected);
}

#[test]
fn going_back_to_the_applier_that_was_taken_down_starts_what_ran_before() {
    for drift in ["enforce", "report", "once"] {
        let mut world = World::new(false);
        let old = json!({ "applier": "systemd", "drift": drift });
        world.declare("one", "1", &old);
        world.pass();
        // The switch fails: a file is in the way that is not the agent's.
        let mut new = json!({ "applier": "podman" });
        new["files"] = json!([{ "path": "b", "mode": "0644", "content": "2" }]);
        let theirs = world.worker.state.file("files").join("default/one/b");
        fs::write(&theirs, "theirs").expect("written");
        world.declare("one", "2", &new);
        world.pass();
        assert!(world.entry("one").claims.is_empty(), "{drift}: it was taken down");
        world.calls();
        world.declare("one", "1", &old);
        world.pass();
        assert_eq!(world.calls(), ["systemd applies  > unit:app.service"], "{drift}");
        assert!(world.entry("one").unfinished.is_none() && world.report("one").phase == Phase::Healthy, "{drift}");
        world.worker.settle(&Scope { all: true, ..Scope::default() });
        assert_eq!(world.calls(), Vec::<String>::new(), "{drift}: once");
    }
}

#[test]
fn what_proves_bad_does_not_stay_while_a_newer_release_is_missing_or_held_back() {
    let dir = tempfile::tempdir().expect("dir");
    let (log, gate) = (dir.path().join("log"), dir.path().join("gate"));
    let waits = format!("echo once >> {}; while [ ! -e {} ]; do sleep 0.02; done", log.display(), gate.display());
    for how in ["missing", "hook", "dependency", "fails"] {
        let mut world = World::new(false);
        let id = world.declare("one", "1", &json!({}));
        world.pass();
        world.declare("one", "2", &json!({}));
        world.pass();
        assert_eq!(world.text("one").as_deref(), Some("2"));
        let third = match how {
            "hook" => shell(&waits),
            "fails" => shell("exit 1"),
            "dependency" => json!({ "dependsOn": "base" }),
            _ => json!({}),
        };
        if how == "dependency" {
            // Its bundle is one that nobody else has.
            world.declare_only("base", "base", &json!({}));
        }
        if how == "missing" {
            world.declare_only("one", "3", &third)
        } else {
            world.declare("one", "3", &third)
        };
        world.pass();
        if how == "fails" {
            world.until("the failure", |world| world.worker.failures.contains_key(&id));
        }
        assert_eq!(world.text("one").as_deref(), Some("2"), "{how}: what is in place is not bad yet");
        world.proves_bad("one");
        world.until("the way back", |world| world.text("one").as_deref() == Some("1"));
        assert_eq!(world.entry("one").release, "one#1", "{how}");
        assert_ne!(world.report("one").phase, Phase::Healthy, "{how}: it is not what is declared");
        for _ in 0..3 {
            world.pass();
        }
        assert_eq!(world.text("one").as_deref(), Some("1"), "{how}: it stays");
        match how {
            "missing" => {
                world.declare("one", "3", &third);
            }
            "hook" => fs::write(&gate, "").expect("gate"),
            "dependency" => {
                world.declare("base", "base", &json!({}));
            }
            _ => continue,
        }
        world.until("the newer release", |world| world.text("one").as_deref() == Some("3"));
        assert_eq!(world.report("one").phase, Phase::Healthy, "{how}");
    }
    assert_eq!(fs::read_to_string(&log).expect("log"), "once\n", "its hook ran through the way back");
}

#[test]
fn a_change_waits_for_a_window_and_is_made_once_one_is_open() {
    let mut world = World::new(false);
    world.declare("one", "1", &json!({}));
    world.pass();
    world.close_windows();
    // What runs is put right all the same.
    fs::write(world.worker.state.file("files").join("default/one/a"), "tampered").expect("written");
    world.worker.settle(&Scope { all: true, ..Scope::default() });
    assert_eq!((world.text("one").as_deref(), world.report("one").phase), (Some("1"), Phase::Healthy));
    let ran = world.dir.path().join("ran");
    world.declare("one", "2", &shell(&format!("touch {}", ran.display())));
    world.declare("two", "1", &json!({ "applier": "systemd" }));
    let passes = world.live(Duration::from_millis(300));
    assert!(passes < 10, "{passes} passes while no window is open");
    assert_eq!((world.text("one").as_deref(), world.text("two")), (Some("1"), None));
    assert!(!ran.exists() && world.calls().is_empty(), "nothing is begun");
    for name in ["one", "two"] {
        let report = world.report(name);
        assert!(report.phase == Phase::Pending && report.message.starts_with(CLOSED), "{name}: {report:?}");
    }
    let (idle, day) = (world.worker.idle_for().expect("by itself"), Duration::from_hours(24));
    assert!(idle > day && idle <= 3 * day, "{idle:?}: it looks again when one opens");
    world.open_windows();
    world.until("the second release", |world| world.text("one").as_deref() == Some("2"));
    assert!(ran.exists());
    assert_eq!(world.calls(), ["systemd prepares  > unit:app.service", "systemd applies  > unit:app.service"]);
    assert!(["one", "two"].iter().all(|name| world.report(name).phase == Phase::Healthy));
}

#[test]
fn a_removal_waits_for_a_window() {
    let mut world = World::new(false);
    world.declare("one", "1", &json!({ "applier": "systemd" }));
    world.pass();
    world.calls();
    world.close_windows();
    world.withdraw("one");
    let passes = world.live(Duration::from_millis(300));
    assert!(passes < 10, "{passes} passes while no window is open");
    assert_eq!((world.text("one").as_deref(), world.calls()), (Some("1"), Vec::new()), "nothing is stopped");
    let report = world.report("one");
    assert!(report.phase == Phase::Removing && report.message.starts_with(CLOSED), "{report:?}");
    let (idle, day) = (world.worker.idle_for().expect("by itself"), Duration::from_hours(24));
    assert!(idle > day && idle <= 3 * day, "{idle:?}: it looks again when one opens");
    world.open_windows();
    world.pass();
    assert_eq!((world.text("one"), world.calls()), (None, vec!["systemd removes unit:app.service > ".to_owned()]));
    assert!(world.worker.ledger.entries.is_empty() && world.worker.desired.removals.is_empty());
}

#[test]
fn the_way_back_waits_for_no_window() {
    for newer in [false, true] {
        let mut world = World::new(false);
        for text in ["1", "2"] {
            world.declare("one", text, &json!({}));
            world.pass();
        }
        world.close_windows();
        if newer {
            world.declare("one", "3", &json!({}));
            world.pass();
        }
        assert_eq!(world.text("one").as_deref(), Some("2"));
        world.proves_bad("one");
        world.pass();
        assert_eq!(
            (world.text("one").as_deref(), world.entry("one").release.as_str()),
            (Some("1"), "one#1"),
            "{newer}"
        );
        let report = world.report("one");
        if newer {
            assert!(report.phase == Phase::Pending && report.message.starts_with(CLOSED), "{report:?}");
        } else {
            assert_eq!((report.phase, report.message.as_str()), (Phase::RolledBack, "it does not answer"));
        }
        world.open_windows();
        world.pass();
        assert_eq!(world.text("one").as_deref(), Some(if newer { "3" } else { "1" }), "what is bad is not tried again");
    }
}

#[test]
fn no_window_is_open_by_a_clock_that_is_not_set() {
    let mut world = World::new(false);
    world.open_windows();
    world.worker.desired.cursor = Some(Revision::from_micros(now().micros() + 3_600_000_000));
    world.declare("one", "1", &json!({}));
    world.pass();
    let report = world.report("one");
    assert!(report.phase == Phase::Pending && report.message.contains("this host's clock is not set"), "{report:?}");
    // As if it had been set: the newest answer is not ahead of it any more.
    world.worker.desired.cursor = Some(now());
    world.pass();
    assert_eq!(world.text("one").as_deref(), Some("1"));
}

#[test]
fn what_cannot_be_committed_is_told_and_tried_again_after_a_pause() {
    let mut world = World::new(true);
    let repository = world.worker.state.file("git");
    fs::write(&repository, "in the way").expect("written");
    world.declare("one", "1", &json!({}));
    world.pass();
    let push = world.report("one").push.clone().expect("told");
    assert!(push.starts_with("not committed: "), "{push}");
    fs::remove_file(&repository).expect("removed");
    world.pass();
    assert_eq!(world.report("one").push.as_ref(), Some(&push), "not at once");
    let idle = world.worker.idle_for().expect("by itself");
    assert!(idle > Duration::from_secs(4) && idle <= Duration::from_secs(10), "{idle:?}");
    world.worker.settle(&Scope { all: true, ..Scope::default() });
    assert!(world.report("one").commit.is_some(), "a beat tries it at once");
    assert!(world.worker.idle_for().is_none());
}

#[test]
fn a_removal_that_is_committed_late_takes_nothing_of_a_deployment_made_again() {
    let mut world = World::new(true);
    world.declare("one", "1", &json!({}));
    world.pass();
    let committed = world.entry("one").committed.clone().expect("committed");
    let path = committed.paths.first().expect("a path").clone();
    let (old, name) = (Uuid::from_u128(7), |text: &str| Name::new(text).expect("name"));
    let paths = ["default/one/old".to_owned(), path.clone()].into();
    let removal = Removal { workspace: name("default"), name: name("one"), revision: Revision::ZERO, paths };
    world.worker.ledger.uncommitted.insert(old, removal);
    world.pass();
    assert!(world.worker.ledger.uncommitted.is_empty());
    let repo = git2::Repository::open(world.worker.state.file("git")).expect("repository");
    let tree = repo.head().and_then(|head| head.peel_to_tree()).expect("tree");
    assert!(tree.get_path(std::path::Path::new(&path)).is_ok(), "{path} is in place and committed");
}

#[test]
fn one_round_lasts_until_what_appliers_began_is_done() {
    let mut world = World::new(false);
    world.declare("one", "1", &json!({ "applier": "systemd" }));
    world.until("health", |world| world.worker.outbox.reports.values().any(|report| report.phase == Phase::Healthy));
    assert!(!world.worker.is_busy());
    world.keeps_busy(true);
    assert!(world.worker.is_busy(), "such as a way back, which has nothing to prove");
    world.keeps_busy(false);
    assert!(!world.worker.is_busy());
}

#[test]
fn what_has_yet_to_prove_itself_is_tried_again_while_there_is_time() {
    let mut world = World::new(false);
    let pause = |world: &World| {
        let again = world.worker.next_retry().expect("it failed");
        again.saturating_duration_since(Instant::now())
    };
    world.fails(true);
    world.declare("one", "1", &json!({ "applier": "systemd" }));
    world.pass();
    assert!(world.worker.is_on_trial(world.id("one")) && pause(&world) <= Duration::from_secs(2));
    let mut other = World::new(false);
    other.say(Some("!"), None);
    other.declare("one", "1", &json!({ "applier": "systemd" }));
    other.pass();
    assert!(pause(&other) > Duration::from_secs(10), "nothing of it is in place");
}
