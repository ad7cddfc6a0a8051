//! A host whose directory of units has no room for what is to come.

use serde_json::{Value, json};
use titan_api::{reports::Phase, status::HostDeployment};
use titan_tests::{
    manifests::{deployment, host, target, template, workload},
    nspawn::Machine,
    worlds::World,
};

const MANIFEST: &str = "applier: systemd\nhealth: { interval: 500ms, deadline: 8s }\n";
const APP: &str = "[Service]\nExecStart=/bin/sleep {{ workload.version }}\n[Install]\nWantedBy=multi-user.target\n";
const UNITS: &str = "/etc/systemd/system";

/// One unit, and from version 2000 on a second one.
fn documents(version: u32) -> Vec<Value> {
    let mut files = vec![("template.yaml", MANIFEST), ("app.service.j2", APP)];
    if version >= 2000 {
        files.push(("more.service", super::SIDE));
    }
    let version = version.to_string();
    vec![template("d", &files), workload("d", &version), target("d", ""), deployment("d", "d", "d", "d", &json!({}))]
}

/// Leaves so many names of files in the directory of units.
fn fill(machine: &Machine, left: usize) {
    let script = format!(
        "cd {UNITS} && mkdir -p ballast && i=0 && while touch ballast/$i 2>/dev/null; do i=$((i+1)); done; \
         for n in $(seq 1 {left}); do rm ballast/$((i-n)); done"
    );
    machine.run(&["sh", "-c", &script]).expect("filled");
}

fn empty(machine: &Machine) {
    assert!(machine.run(&["rm", "-r", &format!("{UNITS}/ballast")]).expect("emptied").status.success());
}

/// Runs one round of the agent. Returns whether all went well.
fn once(machine: &Machine, env: &str) -> bool {
    machine.run(&["env", env, "/usr/local/bin/titan-node", "agent", "once"]).expect("nsenter").status.success()
}

fn sleeps(seconds: usize) -> String {
    format!("/bin/sleep {seconds}")
}

fn states(machine: &Machine) -> String {
    machine.say(&["systemctl", "is-active", "app.service", "more.service"]).expect("asked").replace('\n', " ")
}

async fn told(world: &World) -> HostDeployment {
    let status = world.plane.client().deployment_status("default", "d").await.expect("status");
    status.hosts.into_iter().next().expect("the host")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_for_which_there_is_no_room_are_refused_or_taken_back() {
    if !super::possible() {
        return;
    }
    let world = World::start(crate::NODE).await.expect("a control plane");
    world.apply([host("d0", "")]).await.expect("host");
    let machines = super::enrolled(&world, &world.plane.server, "d", 1);
    let machine = &machines[0];
    let allowed = "appliers: { files: { root: /srv/titan }, systemd: {} }\nlimits: { reserveBytes: 0 }\n";
    machine.write("/etc/titan/agent.yaml", allowed).expect("configured");
    let mounted = machine.run(&["mount", "-t", "tmpfs", "-o", "nr_inodes=40", "titan-test", UNITS]).expect("nsenter");
    assert!(mounted.status.success(), "{mounted:?}");
    // What is seen before the switch, and what somebody takes after the agent looked.
    for env in ["TITAN_FAIL=none", "TITAN_FAIL=room-unseen:1+"] {
        let (mut left, mut refused) = (0, 0);
        loop {
            world.apply(documents(1000)).await.expect("written");
            world.settled().await.expect("decided");
            assert!(once(machine, "TITAN_FAIL=none"), "{env} {left}");
            assert_eq!(states(machine), "active inactive", "{env} {left}");
            fill(machine, left);
            world.apply(documents(2000 + left as u32)).await.expect("written");
            world.settled().await.expect("decided");
            let well = once(machine, env);
            let (found, runs) = (states(machine), super::runs(machine, "app.service"));
            let row = told(&world).await;
            empty(machine);
            if well {
                assert_eq!((found.as_str(), runs), ("active active", sleeps(2000 + left)), "{env} {left}");
                break;
            }
            assert_eq!((found.as_str(), runs.as_str()), ("active inactive", "/bin/sleep 1000"), "{env} {left}");
            let (why, phase) = if env.ends_with("none") {
                ("more files and the bundle needs", Phase::Failed)
            } else {
                ("No space left on device", Phase::RolledBack)
            };
            assert!(row.message.contains(why) && row.message.contains(UNITS), "{env} {left}: {row:#?}");
            assert_eq!(row.phase, Some(phase), "{env} {left}: {row:#?}");
            if phase == Phase::Failed {
                assert!(once(machine, "TITAN_FAIL=none"), "{env} {left}, mended");
                assert_eq!(states(machine), "active active", "{env} {left}, mended");
                assert_eq!(super::runs(machine, "app.service"), sleeps(2000 + left), "{env} {left}, mended");
            }
            (left, refused) = (left + 1, refused + 1);
            assert!(left < 20, "{env}: never enough");
        }
        assert!(refused > 1, "{env}: there was always room");
    }
}
