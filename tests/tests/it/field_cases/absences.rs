//! Hosts that were away, and clocks that are.

use std::{fs, process::Command};

use serde_json::json;
use titan_api::{Kind, client::WriteOptions};
use titan_control_plane::config::TlsConfig;
use titan_tests::{
    clocks,
    manifests::{deployment, template, workload},
    nodes::{self, PlaneNode, Running},
    planes::Plane,
    worlds::{World, until},
};

use super::{Scene, versioned, versions};

/// All ten are removed at the first poll, and their hooks run in order: whoever depends on another goes first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_off_for_400_days_with_10_workloads_deleted_meanwhile() {
    if !clocks::believe(&mut Command::new("true"), "+400d") {
        return;
    }
    let log = tempfile::NamedTempFile::new().expect("a file");
    let hook = "hooks: { onRemove: { command: [/bin/sh, -c, 'echo {{ deployment.name }} >>{{ values.log }}'] } }\n";
    let files = [("template.yaml", hook), ("name.j2", "{{ deployment.name }}\n")];
    let names: Vec<_> = (0..10).map(|index| format!("d{index}")).collect();
    let chained = |(index, name): (usize, &String)| {
        let before = index.checked_sub(1).map(|before| names[before].clone());
        let more = json!({ "values": { "log": log.path() }, "dependsOn": before.into_iter().collect::<Vec<_>>() });
        deployment(name, "app", "chained", "all", &more)
    };
    let documents = [template("chained", &files), workload("app", "1"), versions()];
    let documents = documents.into_iter().chain(versioned("stays", "1"));
    let scene = Scene::new(documents.chain(names.iter().enumerate().map(chained))).await;
    scene.configure(&scene.world.plane.server, "exec: {}");
    scene.agent.settle().expect("applied");
    assert_eq!(scene.agent.files().expect("files").len(), 12);
    for name in names.iter().rev() {
        let options = WriteOptions::default();
        scene.world.admin.delete(Kind::Deployment, Some("default"), name, false, &options).await.expect("deleted");
    }
    scene.world.settled().await.expect("decided");

    let Scene { world, agent } = scene;
    let (database, token) = (world.database, world.plane.token.clone());
    world.plane.stop().await.expect("stopped");
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("token"), token).expect("written");
    let mut later = PlaneNode::start_with(crate::NODE, folder.path(), &database.url, |command| {
        clocks::believe(command, "+400d");
    })
    .expect("started");
    assert!(later.ready().await.expect("ready"));
    agent.configure_with(&later.server, "exec: {}", "").expect("configured");
    let mut once = agent.command(&["once"]);
    clocks::believe(&mut once, "+400d");
    let said = nodes::succeed(&mut once).expect("settled");
    assert_eq!(agent.files().expect("files").len(), 2, "{said}");
    let ran = fs::read_to_string(log.path()).expect("read");
    let reverse: Vec<_> = names.iter().rev().map(String::as_str).collect();
    assert_eq!(ran.lines().collect::<Vec<_>>(), reverse, "{said}");
    let said = nodes::succeed(&mut agent.command(&["once"])).expect("settled");
    assert!(!said.contains("removed"), "nothing is left to do: {said}");
}

/// The host enrols, polls and applies whatever its clock says, boots from its disk, and goes on when the clock is set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clock_is_1970_at_boot_then_jumps_50_years() {
    let time = tempfile::NamedTempFile::new().expect("a file");
    let believes = |command: &mut Command, file: bool| {
        let known = clocks::believe(command, "@1970-01-02 00:00:10");
        if file {
            command.env_remove("FAKETIME").env("FAKETIME_NO_CACHE", "1").env("FAKETIME_TIMESTAMP_FILE", time.path());
        }
        known
    };
    if !believes(&mut Command::new("true"), false) {
        return;
    }
    let scene = Scene::new([versions()].into_iter().chain(versioned("web", "1"))).await;
    // It was joined by the true clock; it is joined again by the wrong one.
    fs::remove_dir_all(scene.agent.state()).expect("removed");
    let person = titan_tests::operators::Operator::new(crate::NODE).expect("a directory");
    person.login(&scene.world.plane.server, &scene.world.plane.token).expect("logged in");
    let line = person.titan("titan host join-command pi").expect("a line");
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    let mut join = scene.agent.command(&words);
    believes(&mut join, false);
    nodes::succeed(&mut join).expect("enrolled");
    scene.configure(&scene.world.plane.server, "");
    let once = || {
        let mut once = scene.agent.command(&["once"]);
        believes(&mut once, false);
        nodes::output(&mut once).expect("run")
    };
    let output = once();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(scene.file("default/web/version").as_deref(), Some("1\n"));
    assert_eq!(scene.told("web").await.map(|(phase, _)| phase).as_deref(), Some("healthy"));

    // Without a network it is right again from its disk.
    fs::write(scene.agent.root().join("default/web/version"), "somebody's").expect("written");
    scene.configure("http://127.0.0.1:1", "");
    assert!(!once().status.success());
    assert_eq!(scene.file("default/web/version").as_deref(), Some("1\n"));

    // The clock is set under the running agent.
    fs::write(time.path(), "@1970-01-02 00:01:00").expect("written");
    scene.configure(&scene.world.plane.server, "");
    let mut run = scene.agent.command(&["run"]);
    believes(&mut run, true);
    let mut running = Running::start(&mut run).expect("running");
    scene.apply([workload("web", "2")]).await;
    let arrived = |version: &'static str| {
        let scene = &scene;
        async move { Ok((scene.file("default/web/version").as_deref() == Some(version)).then_some(())) }
    };
    until("a change in 1970", async || arrived("2\n").await).await.expect("applied");
    fs::write(time.path(), "@2026-11-21 12:00:00").expect("written");
    scene.apply([workload("web", "3")]).await;
    until("a change after the jump", async || arrived("3\n").await).await.expect("applied");
    until("the report", async || {
        let healthy = scene.told("web").await.is_some_and(|(phase, _)| phase == "healthy");
        Ok(healthy.then_some(()))
    })
    .await
    .expect("reported");
    assert!(running.is_running());
    drop(running);

    // Over TLS: a certificate that begins later than the clock says is good, one that has surely expired is not.
    let Scene { world, agent } = scene;
    let World { plane, database, .. } = world;
    let token = plane.token.clone();
    plane.stop().await.expect("stopped");
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    for (years, good) in [((2026, 2100), true), ((2020, 2025), false)] {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("parameters");
        params.not_before = rcgen::date_time_ymd(years.0, 11, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let pair = rcgen::KeyPair::generate().expect("a key");
        fs::write(&certificate, params.self_signed(&pair).expect("a certificate").pem()).expect("written");
        fs::write(&key, pair.serialize_pem()).expect("written");
        let tls = TlsConfig { certificate: certificate.clone(), key: key.clone() };
        let plane = Plane::start_with(&database, crate::NODE, &token, |config| config.tls = Some(tls)).await;
        let plane = plane.expect("a control plane");
        let port = plane.address().rsplit(':').next().expect("a port");
        agent.configure_with(&format!("https://localhost:{port}"), "", "").expect("configured");
        let mut once = agent.command(&["once"]);
        believes(&mut once, false);
        once.env("SSL_CERT_FILE", &certificate).env_remove("SSL_CERT_DIR");
        let output = nodes::output(&mut once).expect("run");
        assert_eq!(output.status.success(), good, "{years:?}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(good || said.contains("expired"), "{said}");
        once.env("SSL_CERT_FILE", folder.path().join("nowhere"));
        let output = nodes::output(&mut once).expect("run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("install the package ca-certificates"), "{said}");
        plane.stop().await.expect("stopped");
    }
}
