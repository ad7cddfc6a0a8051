//! Changes that are cut short, are bad, or cannot be done.

use std::{fs, os::unix::process::ExitStatusExt as _};

use serde_json::json;
use titan_agent::FAULT_POINTS;
use titan_api::{Kind, client::WriteOptions};
use titan_tests::{
    manifests::{deployment, template, workload},
    nodes,
    relays::{Relay, Weather},
    worlds::until,
};

use super::{Scene, versioned, versions};

/// The journal is finished or undone; nothing is owned by nobody, and nothing is lost from the ledger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_killed_between_fetched_and_owned() {
    let place = |name: &str| FAULT_POINTS.iter().position(|point| *point == name).expect("a fault point");
    let scene = Scene::new([versions()].into_iter().chain(versioned("web", "0"))).await;
    scene.agent.settle().expect("applied");
    let mut names = vec!["web".to_owned()];
    for (index, point) in FAULT_POINTS[place("bundle-cached")..=place("ledger-saved")].iter().enumerate() {
        let (version, fresh) = ((index + 1).to_string(), format!("web{index}"));
        scene.apply(versioned("web", &version).into_iter().chain(versioned(&fresh, &version))).await;
        let mut once = scene.agent.command(&["once"]);
        let killed = nodes::output(once.env("TITAN_FAULT", point)).expect("run");
        assert_eq!(killed.status.signal(), Some(9), "{point} is not reached: {killed:?}");
        let own = scene.file("default/web/version").expect("a version").trim().to_owned();
        assert!(own == version || own == index.to_string(), "{point}: {own}");
        names.push(fresh);
        let said = scene.agent.settle().expect("settled");
        assert!(!said.contains("orphan"), "{point}: {said}");
        assert_eq!(scene.file("default/web/version"), Some(format!("{version}\n")), "{point}");
        let ledger: serde_json::Value =
            serde_json::from_slice(&fs::read(scene.agent.state().join("ledger.json")).expect("read"))
                .expect("a ledger");
        let entries = ledger["entries"].as_object().expect("entries").values();
        let mut owned: Vec<String> =
            entries.flat_map(|entry| entry["files"].as_object().expect("files").keys().cloned()).collect();
        owned.sort();
        assert_eq!(owned, scene.agent.files().expect("files").into_keys().collect::<Vec<_>>(), "{point}");
        assert_eq!(owned.len(), 2 * names.len(), "{point}");
        for left in [scene.agent.state().join("journal.json"), scene.agent.root().join(".titan")] {
            assert!(!left.exists(), "{point}: {} is left", left.display());
        }
    }
}

/// The host loses the control plane by the change itself: by the deadline the previous bundle is back, what depends on
/// it is restarted, all without a network; then it says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_network_config_applied() {
    let folder = tempfile::tempdir().expect("a folder");
    let (active, log) = (folder.path().join("active"), folder.path().join("log"));
    // The network is what was activated last, not what is configured: who only puts the file back is still cut off.
    let manifest = "health:
  interval: 100ms
  timeout: 1s
  deadline: 3s
  probes: [{ controlPlane: {} }]
hooks:
  postApply:
    command: [/bin/sh, -c, 'cp link {{ values.active }} && cat link >>{{ values.log }}']
";
    let network = |link: &str| {
        let values = json!({ "values": { "link": link, "active": active, "log": log } });
        deployment("network", "network", "network", "all", &values)
    };
    let files = [("template.yaml", manifest), ("link.j2", "{{ values.link }}\n")];
    let documents = [template("network", &files), workload("network", "1"), network("up")];
    let scene = Scene::new(documents).await;
    let relay = Relay::start(scene.world.plane.address()).await.expect("a relay");
    scene.configure(&relay.server, "exec: {}");
    let (weather, link) = (relay.weather(), active.clone());
    let follows = tokio::spawn(async move {
        loop {
            let is = match fs::read_to_string(&link).unwrap_or_default().as_str() {
                "down\n" => Weather::Cut,
                _ => Weather::Fair,
            };
            weather.send_if_modified(|was| std::mem::replace(was, is) != is);
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    let mut running = scene.agent.run().expect("running");
    let phase = async |wanted: &str| {
        let told = scene.told("network").await;
        Ok(told.filter(|(phase, _)| phase == wanted).map(|(_, message)| message))
    };
    until("the good configuration", async || phase("healthy").await).await.expect("healthy");
    scene.apply([network("down")]).await;
    until("the cut", async || Ok((fs::read_to_string(&active)? == "down\n").then_some(()))).await.expect("cut off");
    let message = until("the way back", async || phase("rolledBack").await).await;
    let message = message.unwrap_or_else(|error| {
        panic!("{error}: {:?} {:?} {:?}", scene.agent.status(), fs::read_to_string(&log), scene.agent.files())
    });
    assert!(message.contains("controlPlane") && message.contains("not healthy within 3s"), "{message}");
    assert_eq!(scene.file("default/network/link").as_deref(), Some("up\n"));
    assert_eq!(fs::read_to_string(&log).expect("read"), "up\ndown\nup\n", "each activated once, the good one again");
    assert!(running.is_running());
    follows.abort();
}

/// Other changes are applied, the removal is tried again, and everybody can see why it waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_fails_because_a_hook_does() {
    let busy = tempfile::NamedTempFile::new().expect("a file");
    let script = "if test -e {{ values.busy }}; then echo the pump is busy; exit 1; fi";
    let manifest = format!("hooks: {{ onRemove: {{ command: [/bin/sh, -c, '{script}'] }} }}\n");
    let files = [("template.yaml", manifest.as_str()), ("a", "1")];
    let stubborn = deployment("stubborn", "stubborn", "stubborn", "all", &json!({ "values": { "busy": busy.path() } }));
    let documents = [template("stubborn", &files), workload("stubborn", "1"), stubborn, versions()];
    let scene = Scene::new(documents.into_iter().chain(versioned("web", "1"))).await;
    scene.configure(&scene.world.plane.server, "exec: {}");
    scene.agent.settle().expect("applied");
    let options = WriteOptions::default();
    scene.world.admin.delete(Kind::Deployment, Some("default"), "stubborn", false, &options).await.expect("deleted");
    scene.apply([workload("web", "2")]).await;
    for _ in 0..2 {
        let output = scene.agent.once().expect("run");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success() && said.contains("the pump is busy"), "{output:?}");
        assert_eq!(scene.file("default/web/version").as_deref(), Some("2\n"), "others go on");
        assert_eq!(scene.file("default/stubborn/a").as_deref(), Some("1"), "whole");
    }
    let (phase, message) = scene.told("stubborn").await.expect("told");
    assert!(phase == "removing" && message.contains("the pump is busy"), "{phase}: {message}");
    busy.close().expect("removed");
    scene.agent.settle().expect("removed");
    assert_eq!(scene.file("default/stubborn/a"), None);
    until("the deployment to be gone", async || Ok(scene.told("stubborn").await.is_none().then_some(())))
        .await
        .expect("gone");
}
