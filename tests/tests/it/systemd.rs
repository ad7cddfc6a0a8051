//! Ten hosts with a systemd of their own, the agent on each as the unit that is shipped: what is deployed is installed,
//! changed, kept as it is, taken back, started by a boot and removed.

mod busy;
mod handed;
mod left;
mod no_room;
mod offline;
mod watchdog;

use std::{os::unix::process::ExitStatusExt as _, thread, time::Duration};

use serde_json::{Value, json};
use titan_agent::SYSTEMD_FAULT_POINTS;
use titan_api::{Kind, client::WriteOptions, reports::Phase, status::DeploymentStatus};
use titan_tests::{
    manifests::{deployment, host, target, template, workload},
    nspawn::{self, Machine},
    operators::Operator,
    worlds::World,
};

const HOSTS: usize = 10;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(2);
const MANIFEST: &str = "applier: systemd\nhealth: { minReadySeconds: 1, deadline: 6s }\n";
const APP: &str = "[Unit]\nStartLimitBurst=3\nStartLimitIntervalSec=60\n[Service]\nExecStart=/bin/sleep {{ values.seconds }}\n\
                   Restart=on-failure\nRestartSec=50ms\n[Install]\nWantedBy=multi-user.target\n";
const SIDE: &str = "[Service]\nExecStart=/bin/sleep 5000\n[Install]\nWantedBy=multi-user.target\n";
const AGENT: &str = "appliers: { files: { root: /srv/titan }, systemd: { units: ['app.*', 'side.*'] } }\n\
                     polling: { wait: 5s, maxBackoff: 1s }\n";
pub(crate) const DROP_IN: &str = "[Service]\nExecStart=\nExecStart=/usr/local/bin/titan-node agent run\nRestartSec=1\n";
pub(crate) const SERVICE: &str = include_str!("../../../agent/packaging/titan-agent.service");

fn documents(seconds: &str) -> [Value; 4] {
    [
        template("units", &[("template.yaml", MANIFEST), ("app.service.j2", APP), ("side.service", SIDE)]),
        workload("app", "1"),
        target("all", ""),
        deployment("app", "app", "units", "all", &json!({ "values": { "seconds": seconds } })),
    ]
}

fn name(index: usize) -> String {
    format!("h{index}")
}

/// Whether hosts can be had; says so if not, which is a failure where everything has to be shown.
#[expect(clippy::print_stderr, reason = "whoever runs the tests is to know what they did not show")]
fn possible() -> bool {
    let possible = nspawn::possible().and_then(|()| nspawn::base(&nspawn::PLAIN).map(drop));
    if let Err(error) = &possible {
        assert!(std::env::var("CI").is_err(), "hosts with systemd are needed here: {error}");
        eprintln!("left out: hosts with systemd ({error})");
    }
    possible.is_ok()
}

/// Starts the hosts with the agent on them, enrolled.
fn start(world: &World) -> Vec<Machine> {
    let machines = enrolled(world, &world.plane.server, "h", HOSTS);
    serve(&machines);
    machines
}

/// Installs and starts the agent's service.
fn serve(machines: &[Machine]) {
    for machine in machines {
        machine.write("/etc/systemd/system/titan-agent.service", SERVICE).expect("the unit");
        machine.write("/etc/systemd/system/titan-agent.service.d/test.conf", DROP_IN).expect("the program");
        machine.run(&["systemctl", "daemon-reload"]).expect("reload");
        let enabled = machine.run(&["systemctl", "enable", "--now", "titan-agent.service"]).expect("enable");
        assert!(enabled.status.success(), "{enabled:?} {}", machine.say(&["journalctl", "-n", "40"]).expect("journal"));
    }
}

/// Starts hosts whose agent has enrolled with the control plane at `server` and does not run.
fn enrolled(world: &World, server: &str, prefix: &str, count: usize) -> Vec<Machine> {
    let person = Operator::new(crate::NODE).expect("a directory");
    person.login(server, &world.plane.token).expect("logged in");
    // The smallest Debian trusts nobody, and an agent wants to trust somebody before it speaks.
    let binds = [format!("{}:/usr/local/bin/titan-node", crate::NODE), "/etc/ssl/certs:/etc/ssl/certs".to_owned()];
    let name = |index: usize| format!("{prefix}{index}");
    let mut machines: Vec<_> = (0..count).map(|index| Machine::start(&name(index), &binds).expect("a host")).collect();
    for (index, machine) in machines.iter_mut().enumerate() {
        machine.booted().expect("booted");
        machine.write("/etc/titan/agent.yaml", AGENT).expect("configured");
        machine.write("/srv/titan/.keep", "").expect("the root");
        let line = person.titan(&format!("titan host join-command {}", name(index))).expect("a line");
        let mut command = vec!["/usr/local/bin/titan-node", "agent"];
        command.extend(line.split_whitespace().skip(1));
        command.extend(["--state-dir", "/var/lib/titan-agent", "--config", "/etc/titan/agent.yaml"]);
        let enrolled = machine.run(&command).expect("nsenter");
        assert!(enrolled.status.success(), "{enrolled:?}");
    }
    machines
}

async fn status(world: &World) -> DeploymentStatus {
    world.plane.client().deployment_status("default", "app").await.expect("status")
}

/// Waits until the status of the deployment is as wanted.
async fn until(
    world: &World,
    machines: &[Machine],
    what: &str,
    wanted: impl Fn(&DeploymentStatus) -> bool,
) -> DeploymentStatus {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let status = status(world).await;
        if wanted(&status) {
            return status;
        }
        if tokio::time::Instant::now() > deadline {
            let journal = machines[0].say(&["journalctl", "--no-pager", "-n", "40", "-o", "cat"]).expect("journal");
            panic!("{what}: {status:#?}\n{journal}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn properties(machine: &Machine, unit: &str) -> String {
    let said = machine.say(&["systemctl", "show", "-p", "ActiveState", "-p", "MainPID", "--value", unit]);
    said.expect("systemctl").replace('\n', " ")
}

/// Returns the arguments that the main process of a unit runs with.
fn runs(machine: &Machine, unit: &str) -> String {
    let script = "tr '\\0' ' ' < /proc/$(systemctl show -p MainPID --value $0)/cmdline";
    machine.say(&["sh", "-c", script, unit]).expect("inside")
}

fn eventually(what: &str, look: impl Fn() -> bool) {
    nspawn::eventually(what, PATIENCE, || look().then_some(())).expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_hosts_with_systemd_are_kept_as_declared_through_all_of_it() {
    if !possible() {
        return;
    }
    let world = World::start(crate::NODE).await.expect("a control plane");
    world.apply((0..HOSTS).map(|index| host(&name(index), ""))).await.expect("hosts");
    world.apply(documents("1000")).await.expect("written");
    world.settled().await.expect("decided");
    let mut machines = start(&world);

    // Installed, and proven: it starts at boot, and both units run.
    until(&world, &machines, "installed", |status| status.counts.healthy == HOSTS && status.converged()).await;
    for machine in &machines {
        assert_eq!(
            machine.say(&["systemctl", "is-enabled", "app.service", "side.service"]).expect("asked"),
            "enabled\nenabled"
        );
        assert_eq!(runs(machine, "app.service"), "/bin/sleep 1000");
    }

    // A change restarts what changed.
    let sides: Vec<_> = machines.iter().map(|machine| properties(machine, "side.service")).collect();
    world.apply(documents("2000")).await.expect("changed");
    world.settled().await.expect("decided");
    until(&world, &machines, "changed", |status| status.converged()).await;
    for (machine, side) in machines.iter().zip(&sides) {
        assert_eq!(runs(machine, "app.service"), "/bin/sleep 2000");
        assert_eq!(&properties(machine, "side.service"), side);
    }

    // People stop one, disable another, and a third loses its power.
    machines[0].run(&["systemctl", "stop", "app.service"]).expect("stop");
    machines[1].run(&["systemctl", "disable", "--now", "side.service"]).expect("disable");
    machines[2].power_off().expect("off");
    machines[2].power_on().expect("on");
    machines[2].booted().expect("booted");
    assert_eq!(runs(&machines[2], "app.service"), "/bin/sleep 2000", "it is started by the boot itself");
    eventually("what was stopped runs again", || runs(&machines[0], "app.service") == "/bin/sleep 2000");
    eventually("what was disabled is enabled and runs again", || {
        let enabled = machines[1].say(&["systemctl", "is-enabled", "side.service"]).expect("asked");
        enabled == "enabled" && runs(&machines[1], "side.service") == "/bin/sleep 5000"
    });
    let drifted = |status: &DeploymentStatus| {
        let repaired = |row: &titan_api::status::HostDeployment| row.drift.iter().any(|drift| drift.repaired);
        status.hosts.iter().filter(|row| repaired(row)).count() == 2
    };
    until(&world, &machines, "drift is told", drifted).await;

    // A bad release is taken back on every host, with what it said.
    world.apply(documents("forever-and-a-day")).await.expect("changed");
    world.settled().await.expect("decided");
    let back = |status: &DeploymentStatus| status.hosts.iter().all(|row| row.phase == Some(Phase::RolledBack));
    let status = until(&world, &machines, "rolled back", back).await;
    for row in &status.hosts {
        assert!(row.message.contains("forever-and-a-day"), "the journal's last lines are told: {row:#?}");
    }
    for machine in &machines {
        eventually("what was before runs", || runs(machine, "app.service") == "/bin/sleep 2000");
    }
    for (machine, side) in machines.iter().zip(&sides).skip(3) {
        assert_eq!(&properties(machine, "side.service"), side, "what did not change was never touched");
    }

    // Removed: no unit, no link, nothing failed is left.
    world.apply(documents("3000")).await.expect("changed");
    world.settled().await.expect("decided");
    until(&world, &machines, "good again", |status| status.converged()).await;
    let client = world.plane.client();
    client.delete(Kind::Deployment, Some("default"), "app", false, &WriteOptions::default()).await.expect("deleted");
    for machine in &machines {
        eventually("it is removed", || {
            // systemd may remember the name of a unit that is gone until it next looks at its control group.
            let left = "ls -R /etc/systemd/system | grep -E 'app|side'; \
                        systemctl list-units --all --no-legend app.service side.service | grep -v 'not-found inactive'";
            machine.say(&["sh", "-c", left]).expect("looked").is_empty()
        });
    }
    thread::scope(|scope| {
        for machine in machines.drain(..) {
            scope.spawn(move || drop(machine));
        }
    });
}

const OLD: [(&str, &str); 3] =
    [("template.yaml", "applier: systemd\n"), ("app.service", OLD_APP), ("leaves.service", SIDE)];
const NEW: [(&str, &str); 3] =
    [("template.yaml", "applier: systemd\n"), ("app.service", NEW_APP), ("comes.service", SIDE)];
const BAD: [(&str, &str); 3] = [
    ("template.yaml", "applier: systemd\nhealth: { minReadySeconds: 1, deadline: 2s, interval: 500ms }\n"),
    ("app.service", "[Service]\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n"),
    ("comes.service", SIDE),
];
const OLD_APP: &str = "[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=multi-user.target\n";
const NEW_APP: &str = "[Service]\nExecStart=/bin/sleep 2000\n[Install]\nWantedBy=multi-user.target\n";
const ALL: [&str; 3] = ["app.service", "leaves.service", "comes.service"];

/// Runs one round of the agent, which is killed at `fault` if it comes there. Returns whether it did not.
fn once(machine: &Machine, fault: &str) -> bool {
    let fault = format!("TITAN_FAULT={fault}");
    let ended = machine.run(&["env", &fault, "/usr/local/bin/titan-node", "agent", "once"]).expect("nsenter");
    let killed = ended.status.signal().is_some() || ended.status.code().is_some_and(|code| code > 128);
    let said = [ended.stdout, ended.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(ended.status.success() || killed, "{fault}: {} {said:?}", ended.status);
    !killed
}

fn active(machine: &Machine) -> String {
    let [app, leaves, comes] = ALL;
    machine.say(&["systemctl", "is-active", app, leaves, comes]).expect("asked").replace('\n', " ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_units_are_old_or_new_once_the_agent_is_back() {
    if !possible() {
        return;
    }
    let world = World::start(crate::NODE).await.expect("a control plane");
    world.apply([host("k0", "")]).await.expect("host");
    let machines = enrolled(&world, &world.plane.server, "k", 1);
    let machine = &machines[0];
    machine
        .write("/etc/titan/agent.yaml", "appliers: { files: { root: /srv/titan }, systemd: {} }\n")
        .expect("configured");
    let links = "ls /etc/systemd/system /etc/systemd/system/multi-user.target.wants | grep -cE '^(app|leaves|comes)'";
    let links = || machine.say(&["sh", "-c", links]).expect("looked");
    let client = world.plane.client();
    for point in SYSTEMD_FAULT_POINTS {
        for (files, expected, seconds) in
            [(&OLD, "active active inactive", "1000"), (&NEW, "active inactive active", "2000")]
        {
            let documents =
                [template("k", files), workload("k", "1"), target("k", ""), deployment("k", "k", "k", "k", &json!({}))];
            world.apply(documents).await.expect("written");
            world.settled().await.expect("decided");
            if files == &NEW {
                assert!(!once(machine, point), "{point} is never reached");
            }
            assert!(once(machine, "none"), "after {point}");
            assert_eq!(active(machine), expected, "after {point}");
            assert_eq!(runs(machine, "app.service"), format!("/bin/sleep {seconds}"), "after {point}");
            assert_eq!(links(), "4", "after {point}");
        }
        client.delete(Kind::Deployment, Some("default"), "k", false, &WriteOptions::default()).await.expect("deleted");
        world.settled().await.expect("decided");
        let reached = !["units-linked", "unit-asked"].contains(point);
        assert_eq!(once(machine, point), !reached, "{point} of a removal");
        assert!(once(machine, "none"), "after {point}");
        assert_eq!(active(machine), "inactive inactive inactive", "after {point}");
        assert_eq!(links(), "0", "after {point}");
    }

    // On its way back, and on its way out.
    for files in [&OLD, &BAD] {
        let documents =
            [template("k", files), workload("k", "1"), target("k", ""), deployment("k", "k", "k", "k", &json!({}))];
        world.apply(documents).await.expect("written");
        world.settled().await.expect("decided");
        if files == &OLD {
            assert!(once(machine, "none"));
            assert_eq!(active(machine), "active active inactive");
        }
    }
    let fall = ["timeout", "60", "env", "TITAN_FAULT=proved-bad", "/usr/local/bin/titan-node", "agent", "run"];
    let fell = machine.run(&fall).expect("nsenter");
    assert!(!fell.status.success() && fell.status.code() != Some(124), "it is never proved bad: {fell:?}");
    for round in ["it is back", "it is not tried again"] {
        // That a release was taken back is no success.
        let ended = machine.run(&["/usr/local/bin/titan-node", "agent", "once"]).expect("nsenter");
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert_eq!((active(machine).as_str(), links().as_str()), ("active active inactive", "4"), "{round}");
        assert_eq!(runs(machine, "app.service"), "/bin/sleep 1000", "{round}");
    }
    client.delete(Kind::Deployment, Some("default"), "k", false, &WriteOptions::default()).await.expect("deleted");
    world.settled().await.expect("decided");
    assert!(!once(machine, "taken-down"), "it is never taken down");
    assert!(once(machine, "none"));
    assert_eq!((active(machine).as_str(), links().as_str()), ("inactive inactive inactive", "0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_that_runs_from_what_somebody_wrote_is_restarted_and_its_neighbour_is_not() {
    if !possible() {
        return;
    }
    let world = World::start(crate::NODE).await.expect("a control plane");
    world.apply([host("e0", "")]).await.expect("host");
    let machines = enrolled(&world, &world.plane.server, "e", 1);
    let machine = &machines[0];
    machine
        .write("/etc/titan/agent.yaml", "appliers: { files: { root: /srv/titan }, systemd: {} }\n")
        .expect("configured");
    let documents =
        [template("e", &OLD), workload("e", "1"), target("e", ""), deployment("e", "e", "e", "e", &json!({}))];
    world.apply(documents).await.expect("written");
    world.settled().await.expect("decided");
    assert!(once(machine, "none"));
    let [app, side, _] = ALL;
    let (before, neighbour) = (properties(machine, app), properties(machine, side));
    let edit = |then: &str| {
        let script = format!("sed -i s/1000/7777/ /srv/titan/default/e/app.service && {then}");
        assert!(machine.run(&["sh", "-c", &script]).expect("edited").status.success());
    };
    // Nobody has read it, or only systemd has.
    for then in ["true", "systemctl daemon-reload"] {
        edit(then);
        assert!(once(machine, "none"), "{then}");
        assert_eq!(properties(machine, app), before, "{then}");
        let says = machine.say(&["systemctl", "show", "-p", "ExecStart", "--value", app]).expect("asked");
        assert!(says.contains("sleep 1000"), "{then}: {says}");
    }
    // The unit has taken it in, and the agent is cut off at any point of mending that.
    for point in ["none", "ledger-saved", "journal-switching", "files-applied", "units-reloaded", "beside-applied"] {
        edit("systemctl daemon-reload && systemctl restart app.service");
        assert_eq!(runs(machine, app), "/bin/sleep 7777");
        assert_eq!(once(machine, point), point == "none", "{point} is never reached");
        assert!(once(machine, "none"), "after {point}");
        assert_eq!(runs(machine, app), "/bin/sleep 1000", "after {point}");
        assert_eq!(properties(machine, side), neighbour, "after {point}");
    }
}
