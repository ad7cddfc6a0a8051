//! Law 5: whatever answers, nothing is removed because it was missing.

use std::fs;

use serde_json::json;
use titan_api::{Code, Problem};

use crate::{
    host::{Host, map},
    plane::{Misbehaviour, Plane, id_of},
};

#[test]
fn whatever_is_answered_files_stay_and_the_agent_says_why() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("one", &[("a", "1"), ("b/c", "2")]);
    host.settle();
    let before = host.files();
    let problem = |code| {
        Misbehaviour::Whole(
            "503 X",
            "application/problem+json",
            serde_json::to_vec(&Problem::new(code, "told why")).unwrap(),
        )
    };
    let whole = |status, media, body: &str| Misbehaviour::Whole(status, media, body.as_bytes().to_vec());
    let table = [
        (problem(Code::Unauthorized), 4, "told why"),
        (problem(Code::Forbidden), 4, "told why"),
        (problem(Code::NotFound), 3, "told why"),
        (problem(Code::Internal), 1, "told why"),
        (problem(Code::Unavailable), 5, "told why"),
        (whole("401 Unauthorized", "text/html", "<html>log in</html>"), 5, "not a Titan control plane"),
        (whole("404 Not Found", "text/html", "<html>"), 5, "404"),
        (whole("500 Oops", "text/plain", ""), 5, "500"),
        (whole("200 OK", "text/html", "<html>welcome to the hotel</html>"), 5, "text/html"),
        (whole("200 OK", "application/json", ""), 5, "does not fit"),
        (whole("200 OK", "application/json", "{}"), 5, "does not fit"),
        (whole("200 OK", "application/json", "{\"cursor\":\"2026-"), 5, "does not fit"),
        (whole("204 No Content", "text/plain", ""), 5, "no cursor"),
        (whole("302 Found", "text/html", ""), 5, "302"),
        (Misbehaviour::Truncated, 5, "cannot be reached"),
        (Misbehaviour::Endless(100 << 20), 5, "more than"),
    ];
    for (misbehaviour, code, word) in table {
        let what = format!("{misbehaviour:?}").chars().take(80).collect::<String>();
        plane.misbehave(Some(misbehaviour));
        let ended = host.once();
        assert_eq!(ended.code, Some(code), "{what}: {ended:?}");
        assert!(ended.err.contains(word), "{what}: {ended:?}");
        assert_eq!(host.files(), before, "{what}");
        let status = host.agent(&["status", "-o", "json"], &[]);
        let status: serde_json::Value = serde_json::from_str(&status.out).unwrap();
        assert!(status["trouble"].as_str().is_some_and(|text| text.contains(word)), "{what}: {status}");
    }
    plane.misbehave(None);
    host.settle();
    assert!(host.agent(&["status"], &[]).out.contains("contact  well since"));
}

#[test]
fn an_empty_database_makes_orphans_and_only_prune_removes_them() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("one", &[("a", "1")]);
    host.settle();
    let rows = std::mem::take(&mut plane.table().rows);
    plane.table().spoil_digest = true;
    host.settle();
    plane.table().spoil_digest = false;
    fs::remove_file(host.state().join("desired.json")).unwrap();
    let out = host.settle();
    assert!(out.contains("orphan     default/one"), "{out}");
    assert_eq!(host.files_of("one"), map(&[("a", "1")]));
    let report = plane.table().reports.last().cloned().unwrap();
    assert_eq!(report["orphans"][0]["id"], json!(id_of("one")));
    // The right database is back: it is no orphan any more, and it cannot be pruned.
    plane.table().rows = rows;
    plane.table().clock += 10;
    fs::remove_file(host.state().join("desired.json")).unwrap();
    host.settle();
    let id = id_of("one").to_string();
    assert_eq!(host.agent(&["prune", &id], &[]).code, Some(3));
    plane.table().rows.clear();
    fs::remove_file(host.state().join("desired.json")).unwrap();
    host.settle();
    let ended = host.agent(&["prune", &id], &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(host.files().is_empty() && host.ledger().entries.is_empty());
    host.settle();
    assert_eq!(plane.reported("one")["phase"], "removed");
}

#[test]
fn a_set_that_does_not_match_is_asked_for_in_full_once() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("one", &[("a", "1")]);
    host.settle();
    plane.table().polls.clear();
    plane.table().spoil_digest = true;
    plane.deploy("two", &[("a", "2")]);
    host.settle();
    let polls = plane.table().polls.clone();
    assert_eq!(polls.len(), 2, "{polls:?}");
    assert!(polls[0].contains("since=") && !polls[1].contains("since="), "{polls:?}");
}

#[test]
fn a_cursor_ahead_of_the_clock_is_forgotten() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("one", &[("a", "1")]);
    host.settle();
    let problem = serde_json::to_vec(&Problem::new(Code::CursorAhead, "ahead")).unwrap();
    plane.misbehave(Some(Misbehaviour::Whole("409 Conflict", "application/problem+json", problem)));
    host.once();
    plane.misbehave(None);
    plane.table().polls.clear();
    // The clock was turned back: the full answer is older than what was accepted, and is accepted.
    for row in plane.table().rows.values_mut() {
        row.revision = 500;
    }
    plane.table().clock = 1000;
    host.settle();
    assert!(!plane.table().polls[0].contains("since="));
    assert_eq!(host.files_of("one"), map(&[("a", "1")]));
}

#[test]
fn bytes_that_do_not_fit_their_digest_are_not_applied() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("one", &[("a", "1")]);
    host.settle();
    plane.table().spoil_bundles = true;
    plane.deploy("one", &[("a", "2")]);
    let ended = host.once();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(host.files_of("one"), map(&[("a", "1")]));
    let report = plane.reported("one");
    assert_eq!(report["phase"], "pending");
    assert!(report["message"].as_str().unwrap().contains("digest"), "{report}");
    plane.table().spoil_bundles = false;
    host.settle();
    assert_eq!(host.files_of("one"), map(&[("a", "2")]));
}

#[test]
fn large_bundles_are_fetched_by_digest_and_removals_are_acknowledged() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy_with("one", &[("a", "1")], |row| row.inline = false);
    let out = host.settle();
    assert!(out.contains("applied    default/one  one#1  commit "), "{out}");
    let report = plane.reported("one");
    assert_eq!((&report["phase"], &report["release"]), (&json!("healthy"), &json!("one#1")));
    assert_eq!(report["commit"].as_str().map(str::len), Some(40));
    let first = plane.table().reports[0].clone();
    assert!(first["facts"]["agentVersion"].is_string() && first["ackedCursor"].is_string());
    plane.delete("one");
    let revision = plane.table().clock;
    host.settle();
    let report = plane.reported("one");
    assert_eq!(report["phase"], "removed");
    assert_eq!(report["revision"], json!(titan_api::Revision::from_micros(revision)));
    assert!(host.files().is_empty());
    let count = plane.table().reports.len();
    host.settle();
    let last = plane.table().reports[count].clone();
    assert_eq!(last.get("deployments"), None, "the removal was accepted and is not told again");
}
