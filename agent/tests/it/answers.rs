//! Law 5: whatever answers, nothing is removed because it was missing.

use std::{fs, os::unix::fs::MetadataExt as _};

use serde_json::json;
use titan_api::{Code, Digest, Problem};

use crate::{
    host::{Host, map},
    plane::{self, Misbehaviour, Plane, Row, id_of},
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
fn the_same_documents_under_another_id_take_the_files_over() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("prod", &[("a", "1"), ("b", "1"), ("@etc/prod", "1")]);
    host.settle();
    let inode = |path: &str| fs::metadata(host.root().join(path)).unwrap().ino();
    let before = (inode("default/prod/a"), inode("etc/prod"));
    let commit = plane.reported("prod")["commit"].clone();
    // Another database, empty for now.
    let row = std::mem::take(&mut plane.table().rows).into_values().next().unwrap();
    fs::remove_file(host.state().join("desired.json")).unwrap();
    assert!(host.settle().contains("orphan     default/prod"));
    assert_eq!(inode("etc/prod"), before.1);
    // The same documents again: the same bundle, another id.
    plane.table().clock += 10;
    let (id, revision) = (id_of("another"), plane.table().clock);
    plane.table().rows.insert(id, Row { revision, ..row });
    let out = host.settle();
    assert!(out.contains("unchanged  default/prod") && !out.contains("orphan"), "{out}");
    assert_eq!((inode("default/prod/a"), inode("etc/prod")), before, "the very files");
    let report = plane.reported("another");
    assert_eq!((&report["phase"], &report["commit"]), (&json!("healthy"), &commit));
    assert_eq!(plane.table().reports.last().unwrap()["orphans"], json!([]));
    let ledger = host.ledger();
    assert!(ledger.entries.keys().eq([&id]) && ledger.inherited.is_empty(), "{ledger:?}");
    // Once more, with other content and less of it, and the files' owner known from the ledger alone.
    let row = std::mem::take(&mut plane.table().rows).into_values().next().unwrap();
    fs::remove_file(host.state().join("desired.json")).unwrap();
    plane.table().clock += 10;
    let (id, revision) = (id_of("a third"), plane.table().clock);
    let bundle = Some(plane::bundle(&[("a", "2"), ("@etc/prod", "1")]));
    plane.table().rows.insert(id, Row { revision, bundle, ..row });
    host.settle();
    assert_eq!(host.files(), map(&[("default/prod/a", "2"), ("etc/prod", "1")]));
    assert_eq!(inode("etc/prod"), before.1);
    assert_eq!(plane.reported("a third")["phase"], "healthy");
    assert_eq!(plane.table().reports.last().unwrap()["orphans"], json!([]));
}

#[test]
fn a_deployment_that_was_deleted_and_made_again_takes_the_files_over() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("prod", &[("a", "1"), ("b", "1"), ("@etc/prod", "1")]);
    host.settle();
    let inode = |path: &str| fs::metadata(host.root().join(path)).unwrap().ino();
    let before = inode("etc/prod");
    let row = plane.table().rows[&id_of("prod")].clone();
    plane.delete("prod");
    let revision = plane.table().clock + 10;
    plane.table().clock = revision;
    let bundle = Some(plane::bundle(&[("a", "2"), ("c", "2"), ("@etc/prod", "1")]));
    plane.table().rows.insert(id_of("another"), Row { revision, bundle, ..row });
    // Between the two nothing is missing: the old one is there as long as the new one is not.
    let ended = host.agent(&["once"], &[("TITAN_FAULT", "removal-settled")]);
    assert!(ended.killed, "{ended:?}");
    assert_eq!(host.files_of("prod"), map(&[("a", "1"), ("b", "1")]));
    host.settle();
    assert_eq!(host.files(), map(&[("default/prod/a", "2"), ("default/prod/c", "2"), ("etc/prod", "1")]));
    assert_eq!(inode("etc/prod"), before);
    let phase = |name: &str| plane.reported(name)["phase"].as_str().unwrap().to_owned();
    assert_eq!((phase("prod"), phase("another")), ("removed".into(), "healthy".into()));
    let repo = git2::Repository::open(host.state().join("git")).unwrap();
    let wanted = ["default/prod/_rooted/etc/prod", "default/prod/a", "default/prod/c"];
    assert_eq!(crate::git::paths(&repo, "main"), wanted);
}

#[test]
fn killed_while_files_are_taken_over_the_agent_goes_on_from_there() {
    for point in ["ledger-saved:1", "desired-saved:2", "ledger-saved:2", "switch-step", "journal-removed"] {
        let plane = Plane::start();
        let host = Host::new(&plane);
        plane.deploy("prod", &[("a", "1"), ("b", "1")]);
        host.settle();
        let row = std::mem::take(&mut plane.table().rows).into_values().next().unwrap();
        plane.table().spoil_digest = true;
        host.once();
        plane.table().spoil_digest = false;
        plane.table().clock += 10;
        let revision = plane.table().clock;
        let bundle = Some(plane::bundle(&[("a", "2"), ("c", "2")]));
        plane.table().rows.insert(id_of("another"), Row { revision, bundle, ..row });
        let ended = host.agent(&["once"], &[("TITAN_FAULT", point)]);
        assert!(ended.killed, "{point}: {ended:?}");
        let files = host.files_of("prod");
        assert!(
            files == map(&[("a", "1"), ("b", "1")]) || files == map(&[("a", "2"), ("c", "2")]),
            "{point}: {files:?}"
        );
        let out = host.settle();
        assert!(!out.contains("orphan"), "{point}: {out}");
        assert_eq!(host.files_of("prod"), map(&[("a", "2"), ("c", "2")]), "{point}");
        assert_eq!(host.ledger().entries.len(), 1, "{point}");
    }
}

#[test]
fn an_orphan_whose_successor_cannot_be_had_keeps_its_files() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("prod", &[("a", "1")]);
    host.settle();
    let row = std::mem::take(&mut plane.table().rows).into_values().next().unwrap();
    fs::remove_file(host.state().join("desired.json")).unwrap();
    let bundle = Some(plane::bundle(&[("a", "2")]));
    plane.table().clock += 10;
    let revision = plane.table().clock;
    plane.table().rows.insert(id_of("another"), Row { revision, bundle, inline: false, ..row });
    plane.table().spoil_bundles = true;
    assert_eq!(host.once().code, Some(1));
    assert_eq!(host.files_of("prod"), map(&[("a", "1")]));
    assert_eq!(plane.reported("another")["phase"], "pending");
    plane.table().spoil_bundles = false;
    host.settle();
    assert_eq!(host.files_of("prod"), map(&[("a", "2")]));
}

#[test]
fn nothing_is_given_up_while_whoever_may_take_it_over_lacks_its_bundle() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("giver", &[("a", "1"), ("@etc/x", "shared")]);
    plane.deploy("gone", &[("@etc/y", "shared")]);
    host.settle();
    let inode = |path: &str| fs::metadata(host.root().join(path)).unwrap().ino();
    let before = (inode("etc/x"), inode("etc/y"));
    plane.deploy("giver", &[("a", "2")]);
    plane.delete("gone");
    plane.deploy_with("taker", &[("@etc/x", "shared"), ("@etc/y", "shared")], |row| row.inline = false);
    plane.deploy("other", &[("a", "1")]);
    plane.table().spoil_bundles = true;
    // Only what comes by digest is spoilt.
    let text = plane::bundle(&[("a", "2")]);
    fs::write(host.state().join("bundles").join(Digest::of(text.as_bytes()).to_string()), text).unwrap();
    let text = plane::bundle(&[("a", "1")]);
    fs::write(host.state().join("bundles").join(Digest::of(text.as_bytes()).to_string()), text).unwrap();
    let ended = host.once();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!((inode("etc/x"), inode("etc/y")), before);
    let phase = |name: &str| plane.reported(name)["phase"].as_str().unwrap().to_owned();
    assert_eq!((phase("giver"), phase("taker")), ("pending".into(), "pending".into()), "{ended:?}");
    assert_eq!((phase("gone"), phase("other")), ("removing".into(), "healthy".into()), "{ended:?}");
    assert!(plane.reported("gone")["message"].as_str().unwrap().contains("default/taker"));
    plane.table().spoil_bundles = false;
    host.settle();
    assert_eq!((inode("etc/x"), inode("etc/y")), before, "the very files");
    assert_eq!((phase("giver"), phase("taker"), phase("gone")), ("healthy".into(), "healthy".into(), "removed".into()));
}

#[test]
fn an_agent_from_an_older_backup_goes_on_counting_where_the_control_plane_is() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("one", &[("a", "1")]);
    host.settle();
    plane.table().newest_report = Some(54_321);
    plane.deploy("one", &[("a", "2")]);
    host.settle();
    let report = plane.table().reports.last().cloned().unwrap();
    assert!(report["seq"].as_u64().unwrap() > 54_321, "{report}");
    assert_eq!(plane.reported("one")["release"], "one#2");
    let newest = plane.table().newest_report;
    plane.deploy("one", &[("a", "3")]);
    host.settle();
    assert!(plane.table().newest_report > newest);
    assert_eq!(plane.table().refused_reports, 1, "it was written down");
    plane.table().newest_report = Some(u64::MAX);
    plane.deploy("one", &[("a", "4")]);
    assert_eq!(host.once().code, Some(4), "no number is left, and that is said");
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
