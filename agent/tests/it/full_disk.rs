//! A disk that is full at every write in turn: refused clearly, told to the control plane, and never a mixture.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use titan_api::Digest;

use crate::{
    host::{Host, map},
    plane::{Plane, id_of},
};

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scarce {
    /// Blocks of 4 KiB.
    Room,
    /// Names of files.
    Names,
}

/// A small file system in memory, and what it is full of.
struct Disk(PathBuf);

impl Disk {
    /// Mounts one, if this machine can; one that runs everything must be able to.
    fn mount(path: &Path) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m,nr_inodes=3000,mode=0700", "titan-test"]).arg(path);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        let needed = std::env::var("CI").as_deref() == Ok("true") && rustix::process::geteuid().is_root();
        assert!(mounted || !needed, "no file system can be mounted here");
        if !mounted {
            println!("skipped: no file system can be mounted here");
        }
        mounted.then(|| Self(path.to_owned()))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Leaves room for so many blocks or names and no more.
    fn fill(&self, scarce: Scarce, left: usize) {
        let dir = self.ballast();
        fs::create_dir(&dir).unwrap();
        if scarce == Scarce::Room {
            let path = dir.join("blocks");
            let mut file = File::create(&path).unwrap();
            while file.write_all(&[0; 4096]).is_ok() {}
            let blocks = file.metadata().unwrap().len() / 4096;
            file.set_len(blocks.saturating_sub(left as u64) * 4096).unwrap();
        } else {
            let made = (0..).take_while(|number| File::create(dir.join(number.to_string())).is_ok()).count();
            (0..made.min(left)).for_each(|number| fs::remove_file(dir.join(number.to_string())).unwrap());
        }
    }

    fn empty(&self) {
        fs::remove_dir_all(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Which directories are on the small disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Small {
    State,
    Root,
    Both,
}

fn files(number: usize) -> Vec<(&'static str, String)> {
    let text = |name: &str| format!("{name} of {number}");
    // More than one block of some, and another set of names each time.
    let mut files = vec![("a", text("a")), ("b", text("b").repeat(700)), ("@etc/one", text("one"))];
    let odd = [("sub/c/c", text("c")), ("@etc/made/too/two", text("two"))];
    let even = [("d", text("d")), ("@etc/three", text("three"))];
    files.extend(if number.is_multiple_of(2) { even } else { odd });
    files
}

fn deploy(plane: &Plane, number: usize) {
    let files = files(number);
    let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    plane.deploy("one", &files);
    plane.deploy("other", &[("x", &format!("x of {number}"))]);
    // One that comes and goes.
    if number.is_multiple_of(2) { plane.deploy("guest", &[("g", "here")]) } else { plane.delete("guest") }
}

/// What is in place of `one`, by path below the root.
fn in_place(host: &Host) -> std::collections::BTreeMap<String, String> {
    host.files().into_iter().filter(|(path, _)| path.starts_with("default/one/") || path.starts_with("etc/")).collect()
}

fn wanted(number: usize) -> std::collections::BTreeMap<String, String> {
    let files = files(number);
    let placed: Vec<_> = files
        .iter()
        .map(|(path, text)| match path.strip_prefix('@') {
            Some(path) => (path.to_owned(), text.as_str()),
            None => (format!("default/one/{path}"), text.as_str()),
        })
        .collect();
    map(&placed.iter().map(|(path, text)| (path.as_str(), *text)).collect::<Vec<_>>())
}

/// Fails unless the ledger says exactly what is there.
fn check(host: &Host, when: &str) {
    let (ledger, files) = (host.ledger(), host.files());
    let owned = ledger.entries.values().flat_map(|entry| &entry.files);
    let owned: std::collections::BTreeMap<_, _> = owned.map(|(path, file)| (path.clone(), file.sha256)).collect();
    let there: std::collections::BTreeMap<_, _> =
        files.iter().map(|(path, text)| (path.clone(), Digest::of(text.as_bytes()))).collect();
    assert_eq!(owned, there, "{when}");
    for left in [host.state().join("journal.json"), host.root().join(".titan")] {
        assert!(!left.exists(), "{when}: {}", left.display());
    }
    let new = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "new");
    let left: Vec<_> = fs::read_dir(host.state()).unwrap().flatten().map(|entry| entry.path()).filter(new).collect();
    assert!(left.is_empty(), "{when}: {left:?}");
}

/// Whether a message says that there is no room, as it was seen before or as the system said.
fn is_full(message: &str) -> bool {
    ["No space left on device", "make room there", "remove some there"].iter().any(|sign| message.contains(sign))
}

fn run(small: Small, scarce: Scarce, switch: &str, env: &[(&str, &str)]) {
    let plane = Plane::start();
    plane.table().newest_report = Some(0);
    let host = Host::new(&plane);
    let (state, root) = (host.state(), host.path().join("root"));
    let disk = match small {
        Small::State => Disk::mount(&state),
        Small::Root => Disk::mount(&root),
        Small::Both => Disk::mount(&state),
    };
    let Some(disk) = disk else { return };
    let root = if small == Small::Both { state.join("root") } else { root };
    let host = host.at(&root);
    // Nothing is set aside: every write is to be the one that fails.
    let limits = "limits: { reserveBytes: 0 }";
    host.configure(&format!("appliers: {{ files: {{ root: {}, switch: {switch} }} }}\n{limits}\n", root.display()));
    host.enrol(&plane);
    deploy(&plane, 2);
    host.settle();
    let (mut left, mut well, mut number, mut refused) = (0, 0, 2, 0);
    while well < 3 {
        let when = format!("{small:?} {scarce:?} {switch}: room for {left}");
        assert!(left < 150, "{when}: never enough");
        let old = number;
        number += 1;
        deploy(&plane, number);
        let reports = plane.table().reports.len();
        disk.fill(scarce, left);
        let ended = host.agent(&["once"], env);
        let found = in_place(&host);
        let is_new = found == wanted(number);
        assert!(is_new || found == wanted(old), "{when}: {found:?}\n{ended:?}");
        let told: Vec<Value> = plane.table().reports[reports..].to_vec();
        assert!(!told.is_empty(), "{when}: nothing was reported: {ended:?}");
        let report = plane.reported("one");
        let phase = report["phase"].as_str().unwrap();
        if ended.code == Some(0) {
            assert!(is_new && phase == "healthy", "{when}: {report} {ended:?}");
            well += 1;
        } else {
            (well, refused) = (0, refused + 1);
            let said = format!("{} {}", ended.out, ended.err);
            assert!(is_full(&said) || is_new, "{when}: {ended:?}");
            assert!(is_new || matches!(phase, "pending" | "failed"), "{when}: {report}");
            assert!(is_new || is_full(report["message"].as_str().unwrap()), "{when}: {report}");
        }
        // Again, cut off from the control plane: it stays as it is, or gets there.
        plane.misbehave(Some(crate::plane::Misbehaviour::Whole("500 X", "text/plain", vec![])));
        host.agent(&["once"], env);
        let found = in_place(&host);
        assert!(found == wanted(number) || (!is_new && found == wanted(old)), "{when}, again: {found:?}");
        plane.misbehave(None);
        disk.empty();
        let ended = host.once();
        assert_eq!(ended.code, Some(0), "{when}, mended: {ended:?}");
        assert_eq!(in_place(&host), wanted(number), "{when}, mended");
        check(&host, &when);
        assert_eq!(plane.reported("one")["phase"], "healthy", "{when}, mended");
        assert!(plane.reported("one")["commit"].is_string(), "{when}, mended");
        let guest = if number.is_multiple_of(2) { "healthy" } else { "removed" };
        assert_eq!(plane.reported("guest")["phase"], guest, "{when}, mended");
        let ledger = host.ledger();
        assert!(ledger.uncommitted.is_empty() && ledger.entries[&id_of("one")].committed.is_some(), "{when}");
        left += 1;
    }
    assert!(refused > 1, "{small:?} {scarce:?} {switch}: the disk was never full: {refused}");
}

/// As if somebody took the room after the agent looked how much there is.
const TAKEN: &[(&str, &str)] = &[("TITAN_FAIL", "room-unseen:1+")];

#[test]
fn a_state_directory_without_room_leaves_old_or_new_and_is_reported() {
    run(Small::State, Scarce::Room, "directory", TAKEN);
    run(Small::State, Scarce::Names, "file", TAKEN);
}

#[test]
fn a_root_without_room_leaves_old_or_new_and_is_reported() {
    run(Small::Root, Scarce::Room, "directory", TAKEN);
    run(Small::Root, Scarce::Names, "file", TAKEN);
}

#[test]
fn a_disk_without_room_for_state_and_files_leaves_old_or_new_and_is_reported() {
    run(Small::Both, Scarce::Room, "file", TAKEN);
    run(Small::Both, Scarce::Names, "directory", TAKEN);
    run(Small::Both, Scarce::Names, "file", TAKEN);
}

#[test]
fn a_disk_that_is_seen_to_have_no_room_leaves_old_or_new_and_is_reported() {
    run(Small::Both, Scarce::Room, "directory", &[]);
    run(Small::Root, Scarce::Names, "file", &[]);
}

#[test]
fn a_bundle_that_nobody_wants_any_more_makes_room_for_the_one_that_is_wanted() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    let Some(disk) = Disk::mount(&host.state()) else { return };
    let root = host.path().join("root");
    let host = host.at(&root);
    let others = "git: { enabled: false }\nlimits: { reserveBytes: 0 }";
    host.configure(&format!("appliers: {{ files: {{ root: {} }} }}\n{others}\n", root.display()));
    host.enrol(&plane);
    plane.deploy("one", &[("a", "1")]);
    host.settle();
    let large = "large ".repeat(500_000);
    plane.deploy("one", &[("../refused", &large)]);
    assert!(host.once().out.contains("is refused"));
    plane.deploy_with("one", &[("a", &large)], |row| row.inline = false);
    disk.fill(Scarce::Room, 256);
    let ended = host.once();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let report = plane.reported("one");
    assert!(is_full(report["message"].as_str().unwrap()), "{report}");
    assert_eq!(host.files_of("one"), map(&[("a", "1")]));
    host.settle();
    assert_eq!(host.files_of("one"), map(&[("a", &large)]));
}
