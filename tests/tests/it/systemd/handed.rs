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

async fn declare(world: &World, documents: Vec<Value>) {
    world.apply(documents).await.expect("written");
    world.settled().await.expect("decided");
}

async fn withdraw(world: &World, names: &[&str]) {
    let options = WriteOptions::default();
    for name in names {
        world.plane.client().delete(Kind::Deployment, Some("default"), name, false, &options).await.expect("deleted");
    }
    world.settled().await.expect("decided");
}

/// Returns a control plane and a host of its own, on which the unit runs.
async fn scene(files: &[(&str, &str)]) -> (World, Machine) {
    let world = World::start(crate::NODE).await.expect("a control plane");
    world.apply([host("g0", ""), workload("w", "1"), target("g", "")]).await.expect("written");
    let machine = super::enrolled(&world, &world.plane.server, "g", 1).remove(0);
    let allowed = "appliers: { files: { root: /srv/titan }, systemd: {}, exec: { commands: [/bin/sh] } }\n";
    machine.write("/etc/titan/agent.yaml", allowed).expect("configured");
    let files: Vec<_> = [("app.service", OLD)].iter().chain(files).copied().collect();
    declare(&world, giver(&files).to_vec()).await;
    assert!(once(&machine));
    (world, machine)
}

/// What is left of both deployments on the host.
fn left(machine: &Machine) -> String {
    machine.say(&["sh", "-c", "ls /etc/systemd/system | grep -E '^(app|side)'; ls /srv/titan"]).expect("inside")
}

/// Whoever gives it up does so before the other one can have it; it runs and is whole all the time, over a boot as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_is_handed_over_without_a_gap() {
    if !super::possible() {
        return;
    }
    let side = ("side.service", super::SIDE);
    let (world, mut machine) = scene(&[side]).await;
    let machine = &mut machine;
    let before = super::properties(machine, "app.service");

    declare(&world, giver(&[side]).into_iter().chain(taker()).collect()).await;
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
    withdraw(&world, &["taker", "giver"]).await;
    assert!(once(machine));
    assert_eq!(left(machine), "");
}

/// Whoever it was left to never had it and goes as well: it is taken down, and nothing of it stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_that_was_left_to_whoever_is_withdrawn_is_taken_down() {
    if !super::possible() {
        return;
    }
    let (world, machine) = scene(&[]).await;
    declare(&world, taker().to_vec()).await;
    withdraw(&world, &["giver"]).await;
    assert!(!once(&machine), "the hook of whoever is to have it fails");
    let old = ("/srv/titan/default/giver/app.service".to_owned(), "/bin/sleep 1000".to_owned());
    assert_eq!(stands(&machine), old, "it runs on");
    withdraw(&world, &["taker"]).await;
    assert!(once(&machine));
    assert_eq!(left(&machine), "");
    let state = machine.run(&["systemctl", "is-active", "app.service"]).expect("nsenter");
    assert!(!state.status.success(), "{}", String::from_utf8_lossy(&state.stdout));
}
