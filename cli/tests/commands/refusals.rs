//! What is refused before anything is written.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;

use crate::scenes::{Scene, TITAN, said};

#[test]
fn bad_documents_are_refused_with_file_and_pointer_and_nothing_is_written() {
    let scene = Scene::logged_in();
    let good = "apiVersion: titan/v1\nkind: Host\nmetadata: {name: good}\n---\n";
    for (text, pointer) in [
        ("apiVersion: titan/v1\nkind: Host\nmetadata: {name: a}\nspec: {cordonned: true}\n", "/spec/cordonned"),
        ("apiVersion: titan/v1\nkind: Host\nmetadata: {name: a}\nspec: {cordoned: maybe}\n", "/spec/cordoned"),
        ("apiVersion: titan/v1\nkind: Host\nmetadata: {name: a, labels: {'x y': z}}\n", "/metadata/labels"),
        (
            "apiVersion: titan/v1\nkind: Host\nmetadata: {name: a}\nspec: {kind: devcie}\n",
            "/spec/kind: unknown value \"devcie\", did you mean \"device\"? known are device, cluster",
        ),
        ("apiVersion: titan/v9\nkind: Host\nmetadata: {name: a}\n", "/apiVersion"),
        (
            "apiVersion: titan/v1\nkind: Template\nmetadata: {name: t}\nspec: {files: {../x: {content: ''}}}\n",
            "/spec/files/..~1x",
        ),
        (
            "apiVersion: titan/v1\nkind: Template\nmetadata: {name: t}\nspec: {files: {/x: {content: ''}}}\n",
            "/spec/files/~1x",
        ),
    ] {
        scene.write("bad.yaml", &format!("{good}{text}"));
        let said = scene.titan(&["apply", "-f", "bad.yaml"]);
        assert_eq!(said.code, 4, "{text}: {}", said.err);
        assert!(said.err.contains("  bad.yaml#2 (") && said.err.contains(pointer), "{text}: {}", said.err);
        let json = scene.titan(&["apply", "-f", "bad.yaml", "-o", "json"]);
        let problem: Value = serde_json::from_str(&json.err).expect("a problem");
        let first = problem["errors"][0]["pointer"].as_str().expect("pointer");
        assert!(first.starts_with("/resources/1"), "{first}");
    }
    assert_eq!(scene.done(&["get", "hosts", "-o", "name"]), "");
}

#[test]
fn template_directories_with_links_or_too_much_in_them_are_refused() {
    let scene = Scene::logged_in();
    scene.write("linked/a", "x");
    std::os::unix::fs::symlink("/etc/passwd", scene.path("linked/b")).expect("symlink");
    let said = scene.titan(&["create", "template", "t", "-f", "linked"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("linked/b is a symbolic link"), "{}", said.err);
    scene.write("large/a", &"x".repeat(10 << 20));
    let said = scene.titan(&["create", "template", "t", "-f", "large"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("too large"), "{}", said.err);
    scene.write("broken/a.j2", "fine\n{{ values.port");
    for args in [&["create", "template", "t", "-f", "broken"][..], &["template", "lint", "-f", "broken"]] {
        let said = scene.titan(args);
        assert_eq!(said.code, 4, "{}", said.err);
        assert!(said.err.contains("a.j2 line 2"), "{}", said.err);
    }
    assert_eq!(scene.done(&["get", "templates", "-o", "name"]), "");
}

#[test]
fn what_holds_no_token_is_refused_before_anything_is_sent() {
    let scene = Scene::new();
    scene.write("letter", "Dear Ann,\nthe token is in the other file.\n");
    scene.write("empty", "\n");
    scene.write("control", "tok\u{1}en\n");
    scene.write("long", &"x".repeat(20_000));
    fs::write(scene.path("bytes"), [0xff, 0xfe, 0]).expect("write");
    // Nothing listens there: whoever asked it would end with 5.
    let nowhere = ["--server", "http://127.0.0.1:1"];
    for file in ["letter", "empty", "control", "long", "bytes"] {
        let said = scene.titan(&[&["login", "--token-file", file], &nowhere[..]].concat());
        assert_eq!(said.code, 2, "{file}: {}", said.err);
        assert!(said.err.contains(&format!("error: {file} does not hold a token\nhint: ")), "{}", said.err);
    }
    for command in [&["login"][..], &["get", "hosts"]] {
        let said = scene.titan(&[command, &["--token", "a b"], &nowhere[..]].concat());
        assert_eq!(said.code, 2, "{}", said.err);
        assert!(said.err.contains("--token or TITAN_TOKEN does not hold a token"), "{}", said.err);
    }
    let doctor = scene.titan(&["doctor", "--server", &scene.server, "--token", "a b"]);
    assert_eq!(doctor.code, 2, "{}", doctor.out);
    scene.write("config.yaml", "server: http://127.0.0.1:1\ntoken: a b\n");
    let said = scene.titan(&["get", "hosts"]);
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("config.yaml does not hold a token"), "{}", said.err);
}

#[test]
fn an_edit_is_refused_when_somebody_else_was_faster() {
    let scene = Scene::logged_in();
    scene.done(&["create", "host", "a", "--description", "old"]);
    let edit = |script: &str| {
        scene.write("editor", &format!("#!/bin/sh\nset -e\n{script}\nsed -i s/old/new/ \"$1\"\n"));
        fs::set_permissions(scene.path("editor"), fs::Permissions::from_mode(0o755)).expect("chmod");
        said(scene.command(&["edit", "host", "a"]).env("EDITOR", scene.path("editor")).output())
    };
    let raced = edit(&format!("{TITAN} host cordon a"));
    assert_eq!(raced.code, 4, "{}", raced.err);
    assert!(raced.err.contains("your version is kept in "), "{}", raced.err);
    let kept = raced.err.split("kept in ").nth(1).and_then(|rest| rest.lines().next()).expect("a path");
    assert!(fs::read_to_string(kept).expect("kept").contains("new"));
    fs::remove_file(kept).expect("remove");
    assert_eq!(edit("true").code, 0);
    let host: Value = serde_json::from_str(&scene.done(&["get", "host", "a", "-o", "json"])).expect("json");
    assert_eq!((host["spec"]["description"].as_str(), host["spec"]["cordoned"].as_bool()), (Some("new"), Some(true)));
    let nowhere = said(scene.command(&["edit", "host", "a"]).stdin(std::process::Stdio::null()).output());
    assert_eq!(nowhere.code, 2, "without a terminal nobody can edit: {}", nowhere.err);
}
