//! A unit that systemd does not let go.

use serde_json::{Value, json};
use titan_api::{Kind, client::WriteOptions, reports::Phase, status::HostDeployment};
use titan_tests::{
    manifests::{deployment, host, target, template, workload},
    nspawn::{self, Machine},
    worlds::World,
};

const MANIFEST: &str = "applier: systemd\nhealth: { minReadySeconds: 1, interval: 500ms, deadline: 3s }\n";
const APP: &str = "[Service]\nExecStart=/bin/sleep {{ workload.version }}\n[Install]\nWantedBy=multi-user.target\n";
/// What makes systemd refuse, written by somebody else.
const BUSY: &str = "/run/systemd/system/app.service.d/busy.conf";
const REFUSED: &str = "it is configured to refuse manual start/stop";

/// The deployment `app` of one unit, and `web` of one file.
fn documents(app: &str, web: &str) -> Vec<Value> {
    vec![
        template("app", &[("template.yaml", MANIFEST), ("app.service.j2", APP)]),
        template("web", &[("version.j2", "{{ workload.version }}\n")]),
        workload("app", app),
        workload("web", web),
        target("b", ""),
        deployment("app", "app", "app", "b", &json!({})),
        deployment("web", "web", "web", "b", &json!({})),
    ]
}

/// Runs one round of the agent. Returns whether all went well, and what it said.
fn once(machine: &Machine) -> (bool, String) {
    let command = ["timeout", "90", "/usr/local/bin/titan-node", "agent", "once"];
    let ended = machine.run(&command).expect("nsenter");
    assert_ne!(ended.status.code(), Some(124), "it does not come to an end");
    (ended.status.success(), String::from_utf8_lossy(&ended.stdout).into_owned())
}

/// Makes systemd refuse to stop the unit, or allow it again.
fn refuse(machine: &Machine, refused: bool) {
    let [path, text] = [BUSY, "[Unit]\\nRefuseManualStop=yes\\n"];
    let make = format!("mkdir -p ${{1%/*}} && printf '{text}' > $1");
    let script = if refused { make } else { "rm $1".to_owned() };
    let script = format!("{script} && systemctl daemon-reload");
    let ended = machine.run(&["sh", "-c", &script, "sh", path]).expect("inside");
    assert!(ended.status.success(), "{ended:?}");
}

async fn told(world: &World) -> Option<HostDeployment> {
    let status = world.plane.client().deployment_status("default", "app").await.ok()?;
    status.hosts.into_iter().next()
}

/// Others go on, it is whole, and says why it is still there; then it goes. A change of it is not told as done either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_fails_because_a_unit_is_busy() {
    if !super::possible() {
        return;
    }
    let world = World::start(crate::NODE).await.expect("a control plane");
    world.apply([host("b0", "")]).await.expect("host");
    let machines = super::enrolled(&world, &world.plane.server, "b", 1);
    let machine = &machines[0];
    let allowed = "appliers: { files: { root: /srv/titan }, systemd: {} }\n";
    machine.write("/etc/titan/agent.yaml", allowed).expect("configured");
    let declare = async |app: &str, web: &str| {
        world.apply(documents(app, web)).await.expect("written");
        world.settled().await.expect("decided");
    };
    let web = || machine.say(&["cat", "/srv/titan/default/web/version"]).expect("inside");
    declare("1000", "1").await;
    assert!(once(machine).0);
    let before = super::properties(machine, "app.service");
    assert!(before.ends_with(" active"), "{before}");

    // A change of it goes back, though nothing is restarted: nobody tells that what runs is something else than it is.
    refuse(machine, true);
    declare("2000", "2").await;
    let (well, said) = once(machine);
    assert!(!well && said.contains(REFUSED), "{said}");
    assert_eq!((super::properties(machine, "app.service").as_str(), web().as_str()), (before.as_str(), "2"));
    let row = told(&world).await.expect("told");
    assert!(row.phase == Some(Phase::RolledBack) && row.message.contains(REFUSED), "{row:#?}");
    let file = machine.say(&["cat", "/etc/systemd/system/app.service"]).expect("inside");
    assert!(file.contains("sleep 1000"), "{file}");

    let options = WriteOptions::default();
    world.plane.client().delete(Kind::Deployment, Some("default"), "app", false, &options).await.expect("deleted");
    for version in ["3", "4"] {
        world.apply([workload("web", version)]).await.expect("written");
        world.settled().await.expect("decided");
        let (well, said) = once(machine);
        assert!(!well && said.contains(REFUSED), "{said}");
        assert_eq!(web(), version, "others go on");
        assert_eq!(super::properties(machine, "app.service"), before, "it runs");
        let links =
            "cat /etc/systemd/system/app.service && test -e /etc/systemd/system/multi-user.target.wants/app.service";
        assert!(machine.run(&["sh", "-c", links]).expect("inside").status.success(), "it is whole");
    }
    let row = told(&world).await.expect("told");
    assert!(row.phase == Some(Phase::Removing) && row.message.contains(REFUSED), "{row:#?}");

    refuse(machine, false);
    let (well, said) = once(machine);
    assert!(well, "{said}");
    assert_eq!(machine.say(&["ls", "/srv/titan/default"]).expect("inside"), "web");
    nspawn::eventually("the unit to be gone", super::PATIENCE, || {
        let state = machine.say(&["systemctl", "show", "-p", "LoadState", "--value", "app.service"]).ok()?;
        (state == "not-found").then_some(())
    })
    .expect("gone");
    assert!(told(&world).await.is_none());
}
