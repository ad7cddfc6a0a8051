//! Proof of health: trials, the way back, hooks, dependencies and drift, with the real agent against a control plane's
//! double.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Stdio},
};

use serde_json::{Value, json};
use titan_agent::ledger::Ledger;

use crate::{
    crash::check_ledger,
    host::{Host, map},
    plane::{Misbehaviour, Plane, id_of},
    run::wait_for,
};

/// Fault points that a release passes which proves bad, in a host on which the one before proved good.
const ON_THE_WAY: &[&str] = &[
    "bundle-cached",
    "desired-saved",
    "journal-staging",
    "journal-switching",
    "switch-step",
    "switch-synced",
    "ledger-saved",
    "journal-removed",
    "files-applied",
    "proved-bad",
    "outcome-noted",
    "report-sent",
    "report-noted",
];

/// Deploys files that are healthy if `path` is there, below the deployment's directory or absolute.
fn deploy_proven(plane: &Plane, name: &str, files: &[(&str, &str)], path: &str) {
    let health = json!({
        "interval": "50ms", "timeout": "1s", "failureThreshold": 2, "minReadySeconds": 0, "deadline": "1s",
        "initialDelay": "0ms", "probes": [{ "file": { "path": path } }],
    });
    deploy(plane, name, files, &json!({ "health": health }));
}

fn deploy(plane: &Plane, name: &str, files: &[(&str, &str)], more: &Value) {
    plane.deploy_with(name, files, |row| {
        let mut bundle: Value = serde_json::from_str(row.bundle.as_ref().unwrap()).unwrap();
        bundle.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row.bundle = Some(bundle.to_string());
    });
}

fn offline(plane: &Plane) {
    plane.misbehave(Some(Misbehaviour::Whole("500 X", "text/plain", vec![])));
}

fn entry(ledger: &Ledger, name: &str) -> titan_agent::ledger::LedgerEntry {
    ledger.entries[&id_of(name)].clone()
}

#[test]
fn a_release_that_does_not_prove_itself_goes_back_and_is_not_tried_again() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    deploy_proven(&plane, "one", &[("a", "1")], "a");
    let out = host.settle();
    assert!(out.contains("applied") && plane.reported("one")["phase"] == "healthy", "{out}");
    assert!(plane.reported("one")["healthySince"].is_string());
    let good = plane.reported("one")["commit"].clone();
    deploy_proven(&plane, "one", &[("a", "2"), ("b", "2")], "missing");
    let ended = host.once();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.out.contains("rolled back default/one"), "{ended:?}");
    assert_eq!(host.files_of("one"), map(&[("a", "1")]));
    let report = plane.reported("one");
    assert_eq!((&report["phase"], &report["release"]), (&json!("rolledBack"), &json!("one#2")));
    let message = report["message"].as_str().unwrap();
    assert!(message.contains("file missing") && !message.contains("the bundle before it"), "{report}");
    assert_eq!(report["commit"], good, "only what is proven is committed");
    let writes = fs::metadata(host.home("one").join("a")).unwrap().modified().unwrap();
    let ended = host.once();
    assert!(ended.code == Some(1) && ended.out.contains("rolled back"), "it is not as declared: {ended:?}");
    assert_eq!(fs::metadata(host.home("one").join("a")).unwrap().modified().unwrap(), writes);
    assert_eq!(plane.reported("one")["phase"], "rolledBack");
    // Other inputs are tried again.
    deploy_proven(&plane, "one", &[("a", "3")], "a");
    host.settle();
    assert_eq!(host.files_of("one"), map(&[("a", "3")]));
    assert_eq!(plane.reported("one")["phase"], "healthy");
}

/// Whoever takes a release back and hands it out again wants it tried again: what was missing may be there.
#[test]
fn a_release_that_proved_bad_is_tried_again_once_another_was_declared_between() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    let wanted = tempfile::NamedTempFile::new().unwrap();
    let (path, gone) = (wanted.path().to_str().unwrap().to_owned(), wanted.path().with_extension("gone"));
    deploy_proven(&plane, "one", &[("a", "1")], "a");
    host.settle();
    fs::rename(wanted.path(), &gone).unwrap();
    deploy_proven(&plane, "one", &[("a", "2")], &path);
    assert!(host.once().out.contains("rolled back default/one"));
    deploy_proven(&plane, "one", &[("a", "1")], "a");
    host.settle();
    assert_eq!(plane.reported("one")["phase"], "healthy");
    fs::rename(&gone, wanted.path()).unwrap();
    deploy_proven(&plane, "one", &[("a", "2")], &path);
    host.settle();
    assert_eq!(host.files_of("one"), map(&[("a", "2")]));
    assert_eq!(plane.reported("one")["phase"], "healthy");
}

/// Somebody mended what was missing, and wants the same release tried again.
#[test]
fn a_release_that_proved_bad_is_tried_again_once_it_is_declared_anew() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    let wanted = tempfile::NamedTempFile::new().unwrap();
    let (path, gone) = (wanted.path().to_str().unwrap().to_owned(), wanted.path().with_extension("gone"));
    deploy_proven(&plane, "one", &[("a", "1")], "a");
    host.settle();
    fs::rename(wanted.path(), &gone).unwrap();
    deploy_proven(&plane, "one", &[("a", "2")], &path);
    assert!(host.once().out.contains("rolled back default/one"));
    fs::rename(&gone, wanted.path()).unwrap();
    assert!(host.once().out.contains("rolled back"), "not by itself");
    assert_eq!(host.files_of("one"), map(&[("a", "1")]));
    deploy_proven(&plane, "one", &[("a", "2")], &path);
    host.settle();
    assert_eq!(host.files_of("one"), map(&[("a", "2")]));
    assert_eq!(plane.reported("one")["phase"], "healthy");
    // Still bad, it goes back again, and stays there.
    fs::rename(wanted.path(), &gone).unwrap();
    deploy_proven(&plane, "one", &[("a", "3")], &path);
    assert!(host.once().out.contains("rolled back default/one"));
    deploy_proven(&plane, "one", &[("a", "3")], &path);
    assert!(host.once().out.contains("rolled back default/one"));
    let writes = fs::metadata(host.home("one").join("a")).unwrap().modified().unwrap();
    host.once();
    assert_eq!(host.files_of("one"), map(&[("a", "2")]));
    assert_eq!(fs::metadata(host.home("one").join("a")).unwrap().modified().unwrap(), writes);
    fs::rename(&gone, wanted.path()).unwrap();
}

#[test]
fn a_first_release_that_is_not_healthy_stays_and_may_become_so() {
    let plane = Plane::start();
    let host = Host::with(&plane, "polling: { wait: 1s }");
    let flag = host.path().join("flag");
    deploy_proven(&plane, "one", &[("a", "1")], flag.to_str().unwrap());
    let mut child = host.command(&["run"], &[]).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the end of the trial", || plane.reported("one")["phase"] == "failed");
    let report = plane.reported("one");
    assert!(report["message"].as_str().unwrap().contains("no bundle to return to"), "{report}");
    assert_eq!(host.files_of("one"), map(&[("a", "1")]));
    fs::write(&flag, "").unwrap();
    wait_for("health", || plane.reported("one")["phase"] == "healthy");
    fs::remove_file(&flag).unwrap();
    wait_for("trouble", || plane.reported("one")["phase"] == "degraded");
    assert_eq!(host.files_of("one"), map(&[("a", "1")]), "what was healthy once is not rolled back later");
    fs::write(&flag, "").unwrap();
    wait_for("health again", || plane.reported("one")["phase"] == "healthy");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn without_a_network_the_way_back_is_found_by_the_deadline_and_reported_later() {
    let plane = Plane::start();
    let host = Host::with(&plane, "polling: { wait: 1s, maxBackoff: 200ms }");
    deploy_proven(&plane, "one", &[("a", "1")], "a");
    host.settle();
    let mut child = host.command(&["run"], &[]).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the first poll", || plane.table().polls.len() > 1);
    deploy_proven(&plane, "one", &[("a", "2")], "missing");
    wait_for("the switch", || host.files_of("one") == map(&[("a", "2")]));
    offline(&plane);
    let before = plane.table().reports.len();
    let polls = plane.table().polls.len();
    wait_for("a poll after one that failed", || plane.table().polls.len() > polls + 1);
    let asked = plane.table().polls[polls + 1].clone();
    assert!(!asked.contains("wait=1"), "whoever is back is not to wait for it: {asked}");
    wait_for("the way back", || host.files_of("one") == map(&[("a", "1")]));
    plane.misbehave(None);
    wait_for("the report", || plane.reported("one")["phase"] == "rolledBack");
    let told = |report: &&Value| {
        let one = |one: &Value| one["phase"] == "rolledBack";
        report["deployments"].as_array().is_some_and(|all| all.iter().any(one))
    };
    assert_eq!(plane.table().reports[before..].iter().filter(told).count(), 1, "told once");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn killed_at_every_step_of_a_release_that_proves_bad_the_host_ends_on_the_one_before() {
    let crash = |point: &str, hit: u32| {
        let plane = Plane::start();
        let host = Host::new(&plane);
        deploy_proven(&plane, "one", &[("a", "1"), ("x", "1")], "a");
        host.settle();
        deploy_proven(&plane, "one", &[("a", "2"), ("y", "2")], "missing");
        let ended = host.agent(&["once"], &[("TITAN_FAULT", &format!("{point}:{hit}"))]);
        let at = format!("{point}:{hit}");
        if !ended.killed {
            return false;
        }
        // It finds its way without the control plane, if it knows of the release at all.
        offline(&plane);
        host.once();
        check_ledger(&host, &at);
        plane.misbehave(None);
        host.once();
        assert_eq!(host.files_of("one"), map(&[("a", "1"), ("x", "1")]), "{at}");
        assert_eq!(plane.reported("one")["phase"], "rolledBack", "{at}");
        check_ledger(&host, &at);
        true
    };
    std::thread::scope(|scope| {
        for first in 0..4 {
            scope.spawn(move || {
                for point in ON_THE_WAY.iter().skip(first).step_by(4) {
                    assert!(crash(point, 1), "{point} is never reached");
                    for hit in 2..5 {
                        crash(point, hit);
                    }
                }
            });
        }
    });
}

#[test]
fn a_trial_goes_on_where_it_was_when_the_agent_is_killed() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    deploy_proven(&plane, "one", &[("a", "1")], "a");
    let ended = host.agent(&["once"], &[("TITAN_FAULT", "files-applied")]);
    assert!(ended.killed);
    let began = entry(&host.ledger(), "one").trial.expect("on trial").began;
    let ended = host.agent(&["once"], &[("TITAN_FAULT", "proved-good")]);
    assert!(ended.killed, "{ended:?}");
    assert!(entry(&host.ledger(), "one").trial.is_none() && began > 0);
    host.settle();
    assert_eq!(plane.reported("one")["phase"], "healthy");
}

/// An agent that ends with this value.
struct Runs(Child);

impl Drop for Runs {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Runs a release whose hook waits as long as `hold` is there, and one that proves bad; returns once the first is back and
/// its hook waits.
fn back_and_its_hook_runs(plane: &Plane, host: &Host, after: &str) -> (Runs, PathBuf) {
    let (hold, began) = (host.path().join("hold"), host.path().join("began"));
    let wait = format!("touch {}; while [ -e {} ]; do sleep 0.02; done; {after}", began.display(), hold.display());
    let hooks = json!({ "hooks": { "postApply": { "command": ["/bin/sh", "-c", wait] } } });
    deploy(plane, "one", &[("a", "1")], &hooks);
    let child = Runs(host.command(&["run"], &[]).stderr(Stdio::null()).spawn().unwrap());
    wait_for("the first release", || plane.reported("one")["phase"] == "healthy");
    fs::write(&hold, "").unwrap();
    fs::remove_file(&began).unwrap();
    deploy_proven(plane, "one", &[("a", "2")], "missing");
    wait_for("the way back", || host.files_of("one") == map(&[("a", "1")]) && began.exists());
    (child, hold)
}

/// What a release that goes back said last is told, as much of it as a message holds.
#[test]
fn the_last_words_of_what_goes_back_are_told_and_not_the_first() {
    let plane = Plane::start();
    let host = Host::with(&plane, SHELL);
    deploy(&plane, "one", &[("a", "1")], &json!({}));
    host.settle();
    let script = "seq -f 'line %05g' 1 4000; echo the end; exit 1";
    let probe = json!({ "exec": { "command": ["/bin/sh", "-c", script] } });
    let health = json!({
        "interval": "50ms", "timeout": "2s", "failureThreshold": 2, "minReadySeconds": 0, "deadline": "2s",
        "initialDelay": "0ms", "probes": [probe],
    });
    deploy(&plane, "one", &[("a", "2")], &json!({ "health": health }));
    let ended = host.once();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let report = plane.reported("one");
    let message = report["message"].as_str().unwrap();
    assert_eq!(report["phase"], "rolledBack", "{message}");
    assert!(message.trim_end().ends_with("the end") && message.contains("line 04000"), "{message}");
    assert!(!message.contains("line 00500"), "{message}");
    let most = titan_api::limits::MESSAGE_BYTES;
    assert!(message.len() <= most && message.len() > most * 3 / 4, "{} bytes", message.len());
}

const SHELL: &str = "appliers: { files: {}, exec: { commands: [/bin/sh] } }\npolling: { wait: 1s }";

#[test]
fn a_release_that_comes_while_the_hook_of_the_way_back_runs_has_a_way_back_too() {
    let plane = Plane::start();
    let host = Host::with(&plane, SHELL);
    let (_agent, hold) = back_and_its_hook_runs(&plane, &host, "true");
    deploy_proven(&plane, "one", &[("a", "3")], "missing");
    wait_for("the third release", || entry(&host.ledger(), "one").release == "one#3");
    let previous = entry(&host.ledger(), "one").previous.expect("the first is what it returns to");
    assert_eq!(previous.release, "one#1");
    wait_for("the way back", || host.files_of("one") == map(&[("a", "1")]));
    fs::remove_file(&hold).unwrap();
    wait_for("the report", || {
        let report = plane.reported("one");
        report["phase"] == "rolledBack" && report["release"] == "one#3"
    });
}

#[test]
fn a_hook_that_fails_on_the_way_back_does_not_make_the_bundle_bad_while_a_newer_release_waits() {
    let plane = Plane::start();
    let host = Host::with(&plane, SHELL);
    let failed = host.path().join("failed");
    let fails = format!("[ -e {0}.allowed ] || exit 0; touch {0}; exit 1", failed.display());
    let (_agent, hold) = back_and_its_hook_runs(&plane, &host, &fails);
    fs::write(host.path().join("failed.allowed"), "").unwrap();
    // The third release waits for its own hook, and is what is declared meanwhile.
    let wait = format!("while [ ! -e {} ]; do sleep 0.02; done; sleep 0.3", failed.display());
    let more = json!({
        "hooks": { "preApply": { "command": ["/bin/sh", "-c", wait] } },
        "health": { "deadline": "1s", "interval": "50ms", "probes": [{ "file": { "path": "missing" } }] },
    });
    deploy(&plane, "one", &[("a", "3")], &more);
    wait_for("the hook before the third", || {
        plane.reported("one")["message"].as_str().is_some_and(|m| m.contains("preApply"))
    });
    fs::remove_file(&hold).unwrap();
    wait_for("the third release", || host.files_of("one") == map(&[("a", "3")]));
    wait_for("the way back", || host.files_of("one") == map(&[("a", "1")]));
}

#[test]
fn what_depends_on_another_waits_until_that_is_healthy() {
    let plane = Plane::start();
    let host = Host::with(&plane, "polling: { wait: 1s }");
    let flag = host.path().join("flag");
    deploy_proven(&plane, "db", &[("a", "1")], flag.to_str().unwrap());
    for (name, on) in [("app", "db"), ("log", "db:applied")] {
        plane.deploy_with(name, &[("b", "1")], |row| row.depends_on = vec![on]);
    }
    let mut child = host.command(&["run"], &[]).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the log", || plane.reported("log")["phase"] == "healthy");
    assert_eq!(plane.reported("app")["phase"], "pending");
    assert!(plane.reported("app")["message"].as_str().unwrap().contains("default/db is healthy"));
    assert!(host.files_of("app").is_empty());
    fs::write(&flag, "").unwrap();
    wait_for("the app", || plane.reported("app")["phase"] == "healthy");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn hooks_run_around_a_change_if_the_owner_allows_them() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    let log = host.path().join("log");
    let hook = |word: &str| {
        let line = format!("echo {word} $TITAN_WORKSPACE/$TITAN_DEPLOYMENT >> {}", log.display());
        json!({ "command": ["/bin/sh", "-c", line] })
    };
    let hooks = json!({
        "hooks": { "preApply": hook("before"), "postApply": hook("after"), "onRemove": hook("farewell") }
    });
    deploy(&plane, "one", &[("a", "1")], &hooks);
    let ended = host.once();
    assert_eq!(ended.code, Some(1));
    assert!(ended.out.contains("appliers.exec"), "{ended:?}");
    assert!(host.files().is_empty() && !log.exists(), "nothing happened");
    host.configure("appliers: { files: {}, exec: { commands: [/bin/sh] } }");
    host.settle();
    host.settle();
    assert_eq!(fs::read_to_string(&log).unwrap(), "before default/one\nafter default/one\n", "each once");
    plane.delete("one");
    host.settle();
    assert!(fs::read_to_string(&log).unwrap().ends_with("farewell default/one\n"));
    assert!(host.files().is_empty());
    // One that fails before the switch keeps it from happening, and says why.
    let fails = json!({ "hooks": { "preApply": { "command": ["/bin/sh", "-c", "echo no such disk; exit 3"] } } });
    deploy(&plane, "two", &[("a", "1")], &fails);
    let ended = host.once();
    assert_eq!(ended.code, Some(1));
    assert!(ended.out.contains("no such disk") && ended.out.contains("ended with 3"), "{ended:?}");
    assert!(host.files_of("two").is_empty());
}

#[test]
fn drift_is_repaired_reported_or_left_as_the_bundle_says() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    for policy in ["enforce", "report", "once"] {
        deploy(&plane, policy, &[("a", "1\n")], &json!({ "drift": policy }));
    }
    host.settle();
    for policy in ["enforce", "report", "once"] {
        fs::write(host.home(policy).join("a"), "by hand\n").unwrap();
    }
    let ended = host.once();
    assert!(ended.out.contains("repaired"), "{ended:?}");
    assert_eq!(host.files_of("enforce"), map(&[("a", "1\n")]));
    for left in ["report", "once"] {
        assert_eq!(host.files_of(left), map(&[("a", "by hand\n")]));
    }
    let drift = plane.reported("enforce")["drift"][0].clone();
    assert_eq!((&drift["what"], &drift["how"]), (&json!("default/enforce/a"), &json!("content")));
    assert_eq!(drift["repaired"], true);
    assert!(drift["diff"].as_str().unwrap().contains("-1\n+by hand\n"), "{drift}");
    assert_eq!(drift["found"], "by hand\n");
    let report = plane.reported("report");
    assert_eq!((&report["phase"], report["drift"].as_array().map(Vec::len)), (&json!("degraded"), Some(1)));
    assert_eq!(plane.reported("once")["phase"], "healthy");
    fs::write(host.home("report").join("a"), "1\n").unwrap();
    host.settle();
    assert_eq!(plane.reported("report")["phase"], "healthy");
    // A new bundle is applied in any case.
    deploy(&plane, "once", &[("a", "2\n")], &json!({ "drift": "once" }));
    host.settle();
    assert_eq!(host.files_of("once"), map(&[("a", "2\n")]));
}
