//! A unit that goes from one deployment to another.

use serde_json::{Value, json};
use titan_api::{Kind, client::WriteOptions};
use titan_tests::{
    manifests::{deployment, host, target, template, workload},
    nspawn::Machine,
    worlds::World,
};

const MANIFEST: (&str, &str) = ("template.yaml", "applier: systemd\nhealth: { minReadySeconds: 0 }\n");
const HOOKED: &str = "applier: systemd\nhealth: { minReadySeconds: 0 }\n\
                      hooks: { preApply: { command: [/bin/sh, -c, 'test -e /srv/gate'] } }\n";
const OLD: &str = "[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=multi-user.target\n";
const NEW: &str = "[Service]\nExecStart=/bin/sleep 2000\n[Install]\nWantedBy=multi-user.target\n";

fn giver(files: &[(&str, &str)]) -> [Value; 2] {
    let files: Vec<_> = [MANIFEST].iter().chain(files).copied().collect();
    [template("giver", &files), deployment("giver", "w", "giver", "g", &json!({}))]
}

fn taker() -> [Value; 2] {
    let files = [("template.yaml", HOOKED), ("app.service", NEW)];
    [template("taker", &files), deployment("taker", "w", "taker", "g", &json!({}))]
}

fn once(machine: &Machine) -> bool {
    machine.run(&["/usr/local/bin/titan-node", "agent", "once"]).expect("nsenter").status.success()
}

/// What the unit's link leads to, and what the unit runs.
fn stands(machine: &Machine) -> (String, String) {
    let link = machine.say(&["readlink", "-e", "/etc/systemd/system/app.service"]).expect("inside");
    (link, super::runs(machine, "app.service"))
}

/// Whoever gives it up does so before the other one can have it; it runs and is whole all the time, over a boot as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_is_handed_over_without_a_gap() {
    if !super::possible() {
        return;
    }
    let world = World::start(crate::NODE).await.expect("a control plane");
    world.apply([host("g0", ""), workload("w", "1"), target("g", "")]).await.expect("written");
    let mut machines = super::enrolled(&world, &world.plane.server, "g", 1);
    let machine = &mut machines[0];
    let allowed = "appliers: { files: { root: /srv/titan }, systemd: {}, exec: { commands: [/bin/sh] } }\n";
    machine.write("/etc/titan/agent.yaml", allowed).expect("configured");
    let declare = async |documents: Vec<Value>| {
        world.apply(documents).await.expect("written");
        world.settled().await.expect("decided");
    };
    let side = ("side.service", super::SIDE);
    declare(giver(&[("app.service", OLD), side]).to_vec()).await;
    assert!(once(machine));
    let before = super::properties(machine, "app.service");

    declare(giver(&[side]).into_iter().chain(taker()).collect()).await;
    assert!(!once(machine), "its hook fails");
    let old = || ("/srv/titan/default/giver/app.service".to_owned(), "/bin/sleep 1000".to_owned());
    assert_eq!((stands(machine), super::properties(machine, "app.service")), (old(), before));
    machine.power_off().expect("off");
    machine.power_on().expect("on");
    machine.booted().expect("booted");
    assert_eq!(stands(machine), old(), "the boot itself starts it");

    machine.write("/srv/gate", "").expect("the gate");
    assert!(once(machine));
    assert_eq!(stands(machine), ("/srv/titan/default/taker/app.service".to_owned(), "/bin/sleep 2000".to_owned()));
    assert_eq!(machine.say(&["ls", "/srv/titan/default/giver"]).expect("inside"), "side.service");
    let options = WriteOptions::default();
    for name in ["taker", "giver"] {
        world.plane.client().delete(Kind::Deployment, Some("default"), name, false, &options).await.expect("deleted");
    }
    world.settled().await.expect("decided");
    assert!(once(machine));
    let left = machine.say(&["sh", "-c", "ls /etc/systemd/system | grep -E '^(app|side)'; ls /srv/titan"]);
    assert_eq!(left.expect("inside"), "");
}
