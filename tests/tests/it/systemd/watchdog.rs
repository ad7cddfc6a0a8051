//! An agent that hangs: systemd ends it, and the next one goes on where it was.

use titan_tests::{manifests::host, worlds::World};

/// The unit's watchdog, with less patience.
const IMPATIENT: &str = "[Service]\nWatchdogSec=10\nTimeoutAbortSec=2\nRestartSec=1\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_hangs_is_replaced_and_what_it_keeps_goes_on() {
    if !super::possible() {
        return;
    }
    let world = World::start(crate::NODE).await.expect("a control plane");
    world.apply([host("w0", "")]).await.expect("host");
    world.apply(super::documents("1000")).await.expect("written");
    world.settled().await.expect("decided");
    let machines = super::enrolled(&world, &world.plane.server, "w", 1);
    let machine = &machines[0];
    machine.write("/etc/systemd/system/titan-agent.service.d/watchdog.conf", IMPATIENT).expect("the watchdog");
    super::serve(&machines);
    super::until(&world, &machines, "installed", |status| status.converged()).await;
    let app = super::properties(machine, "app.service");
    let show = |property: &str| {
        machine.say(&["systemctl", "show", "-p", property, "--value", "titan-agent.service"]).expect("asked")
    };
    let (hangs, restarts) = (show("MainPID"), show("NRestarts"));
    let restarts: u32 = restarts.parse().expect("a count");
    assert!(machine.run(&["kill", "-STOP", &hangs]).expect("stopped").status.success());
    super::eventually("another agent runs", || {
        show("ActiveState") == "active" && !["0", hangs.as_str()].contains(&show("MainPID").as_str())
    });
    assert_eq!(show("NRestarts"), (restarts + 1).to_string());
    let journal = machine.say(&["journalctl", "-o", "cat", "-u", "titan-agent.service"]).expect("the journal");
    assert!(journal.to_lowercase().contains("watchdog timeout"), "{journal}");
    assert_eq!(super::properties(machine, "app.service"), app, "what it keeps was never touched");
    world.apply(super::documents("2000")).await.expect("changed");
    super::eventually("the next agent goes on", || super::runs(machine, "app.service") == "/bin/sleep 2000");
}
