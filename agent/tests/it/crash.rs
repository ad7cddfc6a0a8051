//! Law 7: the process ends at every step of an apply, and what is there is old or new.

use std::fs;

use titan_agent::FAULT_POINTS;
use titan_api::Digest;

use crate::{
    host::{Host, map},
    plane::{Misbehaviour, Plane, id_of},
};

/// More hits of one point than this are not tried: they are the same step for another deployment.
const HITS: u32 = 6;
/// How many hosts are killed at a time.
const TOGETHER: usize = 4;

const OLD: [(&str, &str); 3] = [("a", "old"), ("b", "old"), ("sub/c", "old")];
const NEW: [(&str, &str); 3] = [("a", "new"), ("b", "new"), ("d", "new")];

fn prepare(plane: &Plane, host: &Host) {
    plane.deploy("one", &[&OLD[..], &[("@etc/one", "old"), ("@etc/two", "old")]].concat());
    plane.deploy("gone", &[("x", "old"), ("@etc/gone", "old")]);
    host.settle();
    plane.deploy("one", &[&NEW[..], &[("@etc/one", "new"), ("@etc/three", "new")]].concat());
    plane.deploy("fresh", &[("y", "new")]);
    plane.delete("gone");
}

/// Fails unless the ledger says exactly what is on disk.
pub(crate) fn check_ledger(host: &Host, when: &str) {
    let (ledger, files) = (host.ledger(), host.files());
    let mut owned = Vec::new();
    for entry in ledger.entries.values() {
        for (path, file) in &entry.files {
            let content = files.get(path).unwrap_or_else(|| panic!("{when}: {path} is in the ledger and not on disk"));
            assert_eq!(Digest::of(content.as_bytes()), file.sha256, "{when}: {path}");
            owned.push(path.clone());
        }
    }
    owned.sort();
    assert_eq!(owned, files.keys().cloned().collect::<Vec<_>>(), "{when}: files without an owner");
    assert!(!host.state().join("journal.json").exists(), "{when}: the journal");
    assert!(!host.root().join(".titan").exists(), "{when}: the stage");
}

fn crash_at(point: &str, env: &[(&str, &str)]) -> u32 {
    for hit in 1..=HITS {
        let plane = Plane::start();
        let host = Host::new(&plane);
        prepare(&plane, &host);
        let at = format!("{point}:{hit}");
        let mut all = env.to_vec();
        all.push(("TITAN_FAULT", &at));
        let ended = host.agent(&["once"], &all);
        if !ended.killed {
            return hit - 1;
        }
        let own = host.files_of("one");
        assert!(own == map(&OLD) || own == map(&NEW), "{at}: at the very instant: {own:?}");
        // Cut off from the control plane, it settles to one or the other.
        plane.misbehave(Some(Misbehaviour::Whole("500 X", "text/plain", vec![])));
        host.once();
        let (own, all) = (host.files_of("one"), host.files());
        let rooted = |name: &str| all.get(&format!("etc/{name}")).map(String::as_str);
        if own == map(&OLD) {
            assert_eq!((rooted("one"), rooted("two"), rooted("three")), (Some("old"), Some("old"), None), "{at}");
        } else {
            assert_eq!(own, map(&NEW), "{at}");
            assert_eq!((rooted("one"), rooted("two"), rooted("three")), (Some("new"), None, Some("new")), "{at}");
        }
        check_ledger(&host, &at);
        plane.misbehave(None);
        host.settle();
        let mut wanted = map(&[("etc/one", "new"), ("etc/three", "new"), ("default/fresh/y", "new")]);
        wanted.extend(NEW.iter().map(|(path, content)| (format!("default/one/{path}"), (*content).to_owned())));
        assert_eq!(host.files(), wanted, "{at}");
        check_ledger(&host, &at);
        for name in ["one", "fresh"] {
            assert_eq!(plane.reported(name)["phase"], "healthy", "{at}");
            assert!(plane.reported(name)["commit"].is_string(), "{at}");
        }
        assert_eq!(plane.reported("gone")["phase"], "removed", "{at}");
        let log = commits(&host);
        let count = |title: &str| log.iter().filter(|subject| *subject == title).count();
        for title in ["default/one one#1", "default/one one#2", "default/fresh fresh#1", "default/gone removed"] {
            assert_eq!(count(title), 1, "{at}: {title}: {log:?}");
        }
        let ledger = host.ledger();
        assert!(ledger.uncommitted.is_empty() && ledger.entries[&id_of("one")].committed.is_some(), "{at}");
    }
    HITS
}

fn crash_at_each(points: &[&str], env: &[(&str, &str)]) {
    std::thread::scope(|scope| {
        for first in 0..TOGETHER {
            scope.spawn(move || {
                for point in points.iter().skip(first).step_by(TOGETHER) {
                    assert!(crash_at(point, env) > 0, "{point} is never reached");
                }
            });
        }
    });
}

fn commits(host: &Host) -> Vec<String> {
    let repo = git2::Repository::open(host.state().join("git")).unwrap();
    let mut walk = repo.revwalk().unwrap();
    walk.push_ref("refs/heads/main").unwrap();
    walk.map(|id| repo.find_commit(id.unwrap()).unwrap().summary().unwrap().unwrap().to_owned()).collect()
}

#[test]
fn killed_at_every_step_the_deployment_is_old_or_new() {
    let elsewhere = ["journal-undoing", "undo-step", "beside-applied", "proved-good", "proved-bad"];
    let points: Vec<_> = FAULT_POINTS.iter().copied().filter(|point| !elsewhere.contains(point)).collect();
    crash_at_each(&points, &[]);
}

#[test]
fn killed_while_undoing_the_deployment_is_old_or_new() {
    let points = ["journal-undoing", "undo-step", "stage-removed", "journal-removed"];
    crash_at_each(&points, &[("TITAN_FAIL", "switch-step:5")]);
}

#[test]
fn a_step_that_fails_leaves_the_old_bundle() {
    for step in 1..=4 {
        let plane = Plane::start();
        let host = Host::with(&plane, "appliers: { files: { switch: file } }");
        plane.deploy("one", &OLD);
        host.settle();
        plane.deploy("one", &NEW);
        let fail = format!("switch-step:{step}");
        let ended = host.agent(&["once"], &[("TITAN_FAIL", &fail)]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.out.contains("a test asked for it"), "{ended:?}");
        assert_eq!(host.files_of("one"), map(&OLD));
        assert_eq!(plane.reported("one")["phase"], "failed");
        check_ledger(&host, &fail);
        host.settle();
        assert_eq!(host.files_of("one"), map(&NEW));
    }
}

#[test]
fn a_ledger_that_cannot_be_written_after_a_switch_is_made_up_for_before_the_next_one() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("aa", &OLD);
    plane.deploy("bb", &OLD);
    host.settle();
    plane.deploy("aa", &NEW);
    plane.deploy("bb", &NEW);
    let ended = host.agent(&["once"], &[("TITAN_FAIL", "ledger-write:1")]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    check_ledger(&host, "made up for");
    assert_eq!((host.files_of("aa"), host.files_of("bb")), (map(&NEW), map(&NEW)));
    // Over and over: nothing else is begun, the other deployment is whole, and all that is said.
    plane.deploy("aa", &OLD);
    plane.deploy("bb", &OLD);
    let ended = host.agent(&["once"], &[("TITAN_FAIL", "ledger-write:1+")]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(!ended.out.contains("what was there before still is"), "{ended:?}");
    assert_eq!(host.files_of("bb"), map(&NEW));
    assert_eq!((&plane.reported("aa")["phase"], &plane.reported("bb")["phase"]), (&"failed".into(), &"pending".into()));
    let status = host.agent(&["status"], &[]).out;
    assert!(status.contains("cannot be brought to its end"), "{status}");
    let ended = host.agent(&["once"], &[("TITAN_FAIL", "ledger-write:1+")]);
    assert_eq!((ended.code, plane.reported("aa")["phase"].as_str()), (Some(1), Some("failed")), "{ended:?}");
    host.settle();
    check_ledger(&host, "mended");
    assert_eq!((host.files_of("aa"), host.files_of("bb")), (map(&OLD), map(&OLD)));
    assert!(!host.agent(&["status"], &[]).out.contains("cannot be brought to its end"));
}

#[test]
fn a_switch_that_is_stuck_holds_up_no_other_deployment() {
    let plane = Plane::start();
    let host = Host::with(&plane, "appliers: { files: { switch: file } }");
    plane.deploy("aa", &OLD);
    plane.deploy("bb", &OLD);
    plane.deploy("gone", &OLD);
    host.settle();
    plane.deploy("aa", &[&NEW[..], &[("@etc/aa", "new")]].concat());
    plane.deploy("bb", &NEW);
    plane.deploy("greedy", &[("@etc/aa", "taken")]);
    plane.delete("gone");
    for _ in 0..2 {
        let ended = host.agent(&["once"], &[("TITAN_FAIL", "switch-step:6,undo-step:1+")]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.out.contains("stuck      default/aa"), "{ended:?}");
        assert_eq!(host.files_of("bb"), map(&NEW));
        let phase = |name: &str| plane.reported(name)["phase"].as_str().unwrap().to_owned();
        assert_eq!((phase("aa"), phase("bb"), phase("gone")), ("failed".into(), "healthy".into(), "removed".into()));
        assert_eq!(phase("greedy"), "failed", "its path is in doubt");
    }
    plane.delete("greedy");
    host.settle();
    assert_eq!(host.files_of("aa"), map(&NEW));
    check_ledger(&host, "mended");
    assert_eq!(fs::read_dir(host.state().join("stuck")).unwrap().count(), 0);
}

#[test]
fn traces_that_cannot_be_cleared_away_leave_the_ledger_as_it_is_on_disk() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("aa", &OLD);
    plane.deploy("bb", &OLD);
    let ended = host.agent(&["once"], &[("TITAN_FAIL", "forget:1+")]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!((host.files_of("aa"), host.files_of("bb")), (map(&OLD), map(&OLD)));
    let ledger = host.ledger();
    assert!(ledger.entries.len() == 2 && ledger.entries.values().all(|entry| entry.committed.is_some()), "{ledger:?}");
    host.settle();
    check_ledger(&host, "cleared away");
    assert_eq!(host.ledger(), ledger);
}

#[test]
fn a_damaged_ledger_stops_the_agent_and_is_named() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("one", &OLD);
    host.settle();
    fs::write(host.state().join("ledger.json"), "{").unwrap();
    let ended = host.once();
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("ledger.json is damaged"), "{ended:?}");
    assert_eq!(host.files_of("one"), map(&OLD));
}

/// Whoever put something right and died before it could say so says it when it is back.
#[test]
fn drift_is_told_though_the_agent_died_when_it_had_put_it_right() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("one", &[("a", "1\n")]);
    host.settle();
    fs::write(host.home("one").join("a"), "by hand\n").unwrap();
    // As long as the control plane answers it is told before.
    plane.misbehave(Some(Misbehaviour::Whole("500 X", "text/plain", vec![])));
    let ended = host.agent(&["once"], &[("TITAN_FAULT", "files-applied:1")]);
    assert!(ended.killed, "{ended:?}");
    assert_eq!(host.files_of("one"), map(&[("a", "1\n")]), "it is as it was");
    assert_eq!(plane.reported("one")["drift"], serde_json::Value::Null, "nobody was told");
    plane.misbehave(None);
    host.settle();
    let report = plane.reported("one");
    let drift = &report["drift"][0];
    assert_eq!((&report["phase"], &drift["repaired"]), (&"healthy".into(), &true.into()), "{report}");
    assert!(drift["diff"].as_str().is_some_and(|diff| diff.contains("-1\n+by hand\n")), "{report}");
}
