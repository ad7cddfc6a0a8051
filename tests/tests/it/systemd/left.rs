//! A unit whose deployment goes and leaves what it made.

use serde_json::{Value, json};
use titan_api::{Kind, client::WriteOptions};
use titan_tests::{
    manifests::{deployment, host, target, template, workload},
    worlds::World,
};

const APP: &str = "[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=multi-user.target\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_to_be_left_runs_on_and_nobody_looks_after_it() {
    if !super::possible() {
        return;
    }
    let world = World::start(crate::NODE).await.expect("a control plane");
    world.apply([host("l0", "")]).await.expect("host");
    let mut machines = super::enrolled(&world, &world.plane.server, "l", 1);
    let machine = &machines[0];
    let allowed = "appliers: { files: { root: /srv/titan }, systemd: {} }\n";
    machine.write("/etc/titan/agent.yaml", allowed).expect("configured");
    let files = [("template.yaml", "applier: systemd\n"), ("app.service", APP)];
    let declared = deployment("app", "app", "app", "l", &json!({ "onRemove": "orphan" }));
    world.apply([template("app", &files), workload("app", "1"), target("l", ""), declared]).await.expect("written");
    world.settled().await.expect("decided");
    assert!(super::once(machine, "none"));
    let before = super::properties(machine, "app.service");
    assert!(before.ends_with(" active"), "{before}");

    let options = WriteOptions::default();
    world.plane.client().delete(Kind::Deployment, Some("default"), "app", false, &options).await.expect("deleted");
    world.settled().await.expect("decided");
    for _ in 0..2 {
        assert!(super::once(machine, "none"));
        assert_eq!(super::properties(machine, "app.service"), before, "it was not touched");
    }
    assert_eq!(machine.say(&["cat", "/etc/systemd/system/app.service"]).expect("inside"), APP.trim_end());
    assert_eq!(machine.say(&["systemctl", "is-enabled", "app.service"]).expect("inside"), "enabled");
    let told = machine.say(&["/usr/local/bin/titan-node", "agent", "status", "-o", "json"]).expect("inside");
    let told: Value = serde_json::from_str(&told).expect("json");
    assert_eq!(told["deployments"], json!([]), "{told}");
    assert!(world.plane.client().deployment_status("default", "app").await.is_err(), "it is gone");

    // It is the host's: it comes with a boot, and nobody starts it again.
    let machine = &mut machines[0];
    machine.power_off().expect("off");
    machine.power_on().expect("on");
    machine.booted().expect("booted");
    assert_eq!(super::runs(machine, "app.service"), "/bin/sleep 1000");
    assert!(machine.run(&["systemctl", "stop", "app.service"]).expect("inside").status.success());
    assert!(super::once(machine, "none"));
    assert!(super::properties(machine, "app.service").ends_with(" inactive"));
}
