//! The applier `files` on a real directory.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
};

use crate::{
    host::{Host, map},
    plane::Plane,
};

#[test]
fn the_same_bundle_again_writes_nothing() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("one", &[("a", "1"), ("run*", "#!/bin/sh")]);
    host.settle();
    let look = || {
        let meta = fs::metadata(host.home("one").join("run")).unwrap();
        let ledger = fs::metadata(host.state().join("ledger.json")).unwrap();
        (meta.ino(), meta.ctime_nsec(), meta.permissions().mode() & 0o777, ledger.ino(), ledger.mtime_nsec())
    };
    let before = look();
    assert_eq!(before.2, 0o755);
    for _ in 0..3 {
        assert!(host.settle().contains("unchanged  default/one"));
    }
    assert_eq!(look(), before);
    // Moved, with the same bundle: nothing on disk but the ledger.
    plane.deploy("one", &[("a", "1"), ("run*", "#!/bin/sh")]);
    let commit = plane.reported("one")["commit"].clone();
    host.settle();
    assert_eq!(look().0, before.0);
    let report = plane.reported("one");
    assert_eq!((&report["release"], &report["commit"]), (&"one#2".into(), &commit));
}

#[test]
fn drift_is_restored_and_reported() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("one", &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]);
    host.settle();
    let home = host.home("one");
    fs::write(home.join("a"), "tampered").unwrap();
    fs::remove_file(home.join("b")).unwrap();
    fs::set_permissions(home.join("c"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(home.join("d")).unwrap();
    symlink("/etc/passwd", home.join("d")).unwrap();
    let out = host.settle();
    assert!(out.contains("repaired"), "{out}");
    assert_eq!(host.files_of("one"), map(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]));
    assert_eq!(fs::metadata(home.join("c")).unwrap().permissions().mode() & 0o777, 0o644);
    let message = plane.reported("one")["message"].as_str().unwrap().to_owned();
    for word in ["a (content)", "b (missing)", "c (mode)", "d (a symbolic link"] {
        assert!(message.contains(word), "{message}");
    }
    assert!(fs::read_to_string("/etc/passwd").unwrap().contains("root"));
}

#[test]
fn an_operators_own_files_are_left_alone() {
    let plane = Plane::start();
    for config in ["", "appliers: { files: { switch: file } }"] {
        let host = Host::with(&plane, config);
        plane.deploy("one", &[("a", "1"), ("b", "1"), ("sub/c", "1")]);
        host.settle();
        let home = host.home("one");
        fs::write(home.join("own"), "mine").unwrap();
        fs::create_dir(home.join("dir")).unwrap();
        fs::write(home.join("dir/own"), "mine too").unwrap();
        let inode = fs::metadata(home.join("own")).unwrap().ino();
        plane.deploy("one", &[("a", "2"), ("b", "2"), ("sub/d", "2")]);
        host.settle();
        let both = [("own", "mine"), ("dir/own", "mine too")];
        assert_eq!(host.files_of("one"), map(&[&[("a", "2"), ("b", "2"), ("sub/d", "2")], &both[..]].concat()));
        fs::remove_dir_all(home.join("dir")).unwrap();
        plane.deploy("one", &[("a", "3"), ("b", "3")]);
        host.settle();
        assert_eq!(host.files_of("one"), map(&[("a", "3"), ("b", "3"), ("own", "mine")]));
        assert_eq!(fs::metadata(home.join("own")).unwrap().ino(), inode, "the very file");
        plane.delete("one");
        host.settle();
        assert_eq!(host.files_of("one"), map(&[("own", "mine")]));
        assert!(!host.root().join(".titan").exists());
    }
}

#[test]
fn a_directory_without_foreign_files_is_exchanged_in_one_step() {
    let plane = Plane::start();
    let (host, by_file) = (Host::new(&plane), Host::with(&plane, "appliers: { files: { switch: file } }"));
    plane.deploy("one", &[("a", "1"), ("b", "1")]);
    let inode = |host: &Host| fs::metadata(host.home("one")).unwrap().ino();
    host.settle();
    by_file.settle();
    let before = (inode(&host), inode(&by_file));
    fs::write(host.home("one").join("own"), "mine").unwrap();
    plane.deploy("one", &[("a", "2"), ("b", "2")]);
    host.settle();
    by_file.settle();
    assert_ne!(inode(&host), before.0);
    assert_eq!(inode(&by_file), before.1);
    assert_eq!(host.files_of("one"), map(&[("a", "2"), ("b", "2"), ("own", "mine")]));
    assert_eq!(by_file.files_of("one"), map(&[("a", "2"), ("b", "2")]));
}

#[test]
fn foreign_files_are_adopted_refused_or_overwritten() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    let home = host.home("one");
    fs::create_dir_all(&home).unwrap();
    fs::write(home.join("a"), "1").unwrap();
    fs::write(home.join("b"), "other").unwrap();
    plane.deploy("one", &[("a", "1"), ("b", "1")]);
    plane.deploy("two", &[("x", "1")]);
    let ended = host.once();
    assert_eq!(ended.code, Some(1));
    assert!(ended.out.contains("was not put there by the agent"), "{ended:?}");
    assert_eq!(host.files(), map(&[("default/one/a", "1"), ("default/one/b", "other"), ("default/two/x", "1")]));
    assert_eq!(plane.reported("one")["phase"], "failed");
    assert_eq!(plane.reported("two")["phase"], "healthy", "one failure stays one failure");
    host.configure("appliers: { files: { overwrite: true } }");
    host.settle();
    assert_eq!(host.files_of("one"), map(&[("a", "1"), ("b", "1")]));
    plane.delete("one");
    host.settle();
    assert!(host.files_of("one").is_empty());
}

#[test]
fn two_deployments_cannot_own_one_path_and_a_hand_over_never_deletes() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("one", &[("@etc/x", "shared"), ("a", "1")]);
    host.settle();
    plane.deploy("two", &[("@etc/x", "shared")]);
    let ended = host.once();
    assert!(ended.out.contains("belongs to the deployment default/one"), "{ended:?}");
    assert_eq!(plane.reported("two")["phase"], "failed");
    plane.deploy("three", &[("@etc/x/y", "below")]);
    assert!(host.once().out.contains("\"etc/x/y\" belongs to the deployment default/one"));
    plane.delete("three");
    // One gives it up in the same answer in which two still wants it: the very file stays.
    let inode = || fs::metadata(host.root().join("etc/x")).unwrap().ino();
    let before = inode();
    plane.deploy("one", &[("a", "2")]);
    host.settle();
    assert_eq!(inode(), before);
    assert_eq!(plane.reported("two")["phase"], "healthy");
    // And by a removal.
    plane.delete("two");
    plane.deploy("four", &[("@etc/x", "shared")]);
    host.settle();
    assert_eq!(inode(), before);
    assert_eq!(host.files(), map(&[("default/one/a", "2"), ("etc/x", "shared")]));
    assert!(host.ledger().inherited.is_empty());
    plane.delete("four");
    host.settle();
    assert!(!host.root().join("etc").exists(), "directories that the agent made go with the last file");
}

#[test]
fn links_are_not_followed_and_paths_do_not_leave_the_root() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    let outside = host.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir_all(host.root().join("default")).unwrap();
    symlink(&outside, host.home("one")).unwrap();
    symlink(&outside, host.root().join("etc")).unwrap();
    plane.deploy("one", &[("a", "1")]);
    plane.deploy("two", &[("@etc/a", "1")]);
    for (name, path) in
        [("three", "../../x"), ("four", "/etc/x"), ("five", "@../x"), ("six", ".titan/x"), ("seven", "a//b")]
    {
        plane.deploy(name, &[(path, "1")]);
    }
    plane.deploy("good", &[("a", "1")]);
    let ended = host.once();
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.out.matches("failed  ").count(), 7, "{ended:?}");
    assert_eq!(ended.out.matches("is a symbolic link").count(), 2, "{ended:?}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(host.files_of("good"), map(&[("a", "1")]));
    assert_eq!(host.ledger().entries.len(), 1);
}

#[test]
fn a_file_becomes_a_directory_and_a_directory_a_file() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("one", &[("a", "1"), ("b/c", "1"), ("b/d", "1")]);
    host.settle();
    plane.deploy("one", &[("a/x", "2"), ("b", "2")]);
    host.settle();
    assert_eq!(host.files_of("one"), map(&[("a/x", "2"), ("b", "2")]));
    plane.deploy("one", &[("a", "3"), ("b/c", "3")]);
    host.settle();
    assert_eq!(host.files_of("one"), map(&[("a", "3"), ("b/c", "3")]));
}

#[test]
fn orphaning_keeps_the_files_and_forgets_them() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy_with("one", &[("a", "1")], |row| row.on_remove = "orphan");
    host.settle();
    plane.delete("one");
    assert!(host.settle().contains("released   default/one"));
    assert_eq!(host.files_of("one"), map(&[("a", "1")]));
    assert!(host.ledger().entries.is_empty());
    assert_eq!(plane.reported("one")["phase"], "removed");
}

#[test]
fn a_bundle_that_goes_beyond_the_allowed_paths_is_refused_whole() {
    let plane = Plane::start();
    let host = Host::with(&plane, "appliers: { files: { paths: [etc/app, /srv/www/] } }");
    plane.deploy("good", &[("a", "1"), ("@etc/app/x/y", "1"), ("@srv/www/z", "1")]);
    host.settle();
    let allowed = host.files();
    assert_eq!(allowed, map(&[("default/good/a", "1"), ("etc/app/x/y", "1"), ("srv/www/z", "1")]));
    // Beside what is allowed, above it, called almost like it, and elsewhere.
    let beyond = [("one", "etc/other"), ("two", "srv"), ("three", "etc/application/x"), ("four", "usr/bin/tool")];
    for (name, path) in beyond {
        let (inside, outside) = (format!("@etc/app/{name}"), format!("@{path}"));
        plane.deploy(name, &[("a", "1"), (inside.as_str(), "1"), (outside.as_str(), "1")]);
    }
    let ended = host.once();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for (name, path) in beyond {
        let report = plane.reported(name);
        let why =
            format!("the path {path:?} is not allowed on this host; appliers.files.paths in agent.yaml says what is");
        assert_eq!((report["phase"].as_str(), report["message"].as_str()), (Some("failed"), Some(why.as_str())));
    }
    assert_eq!((host.files(), host.ledger().entries.len()), (allowed.clone(), 1), "nothing is written or owned");
    // A new release of what is in place is refused as well, and that stays as it was.
    plane.deploy("good", &[("a", "2"), ("@etc/app/x/y", "2"), ("@etc/passwd", "2")]);
    let ended = host.once();
    assert!(ended.out.contains("the path \"etc/passwd\" is not allowed on this host"), "{ended:?}");
    assert_eq!((host.files(), plane.reported("good")["phase"].as_str()), (allowed, Some("failed")));
    // The owner may allow it.
    beyond.iter().for_each(|(name, _)| plane.delete(name));
    host.configure("");
    host.settle();
    assert_eq!(host.files(), map(&[("default/good/a", "2"), ("etc/app/x/y", "2"), ("etc/passwd", "2")]));
}

#[test]
fn unknown_owners_and_forbidden_appliers_are_said() {
    let plane = Plane::start();
    let host = Host::with(&plane, "appliers: {}");
    plane.deploy("one", &[("a", "1")]);
    assert!(host.once().out.contains("does not allow the applier"), "forbidden");
    host.configure("");
    host.settle();
    plane.deploy_with("two", &[("a", "1")], |row| {
        row.bundle =
            row.bundle.take().map(|text| text.replace("\"mode\"", "\"owner\":\"nobody-of-this-name\",\"mode\""));
    });
    let ended = host.once();
    assert!(ended.out.contains("there is no user \"nobody-of-this-name\""), "{ended:?}");
    let elsewhere = host.path().join("elsewhere");
    host.configure(&format!("appliers: {{ files: {{ root: {} }} }}", elsewhere.display()));
    let ended = host.once();
    assert!(!elsewhere.exists());
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.err.contains("the ledger speaks of files below"), "{ended:?}");
}
