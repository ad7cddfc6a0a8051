//! A host that loses its network once it has fetched a bad release.

use serde_json::{Value, json};
use titan_api::reports::Phase;
use titan_tests::{
    manifests::{deployment, host, target, template, workload},
    nspawn::Machine,
    relays::{Relay, Weather},
    worlds::{World, until},
};

const DEADLINE: u64 = 15;
const MANIFEST: &str = "applier: systemd\nhealth:\n  interval: 500ms\n  minReadySeconds: 1\n  deadline: 15s\n  probes:\n    \
                        - tcp: { address: \"{{ values.address }}\" }\n";
const APP: &str = "[Service]\nExecStart=/bin/sleep {{ values.seconds }}\n[Install]\nWantedBy=multi-user.target\n";
/// Nobody listens there.
const NOBODY: &str = "127.0.0.1:1";

fn documents(seconds: &str, address: &str) -> [Value; 4] {
    [
        template("units", &[("template.yaml", MANIFEST), ("app.service.j2", APP), ("side.service", super::SIDE)]),
        workload("app", "1"),
        target("all", ""),
        deployment("app", "app", "units", "all", &json!({ "values": { "seconds": seconds, "address": address } })),
    ]
}

/// Returns when a unit became active, in microseconds of the host's clock since it booted.
fn active_since(machine: &Machine, unit: &str) -> u64 {
    let said = machine.say(&["systemctl", "show", "-p", "ActiveEnterTimestampMonotonic", "--value", unit]);
    said.expect("systemctl").parse().expect("a time")
}

/// Returns a counter of the control plane, whatever its labels.
async fn counted(world: &World, name: &str) -> u64 {
    let text = world.admin_call(reqwest::Method::GET, "/metrics", "").await.expect("answered").text;
    let counts = text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.split(' ').next_back());
    counts.map(|count| count.parse::<u64>().expect("a count")).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_release_is_taken_back_by_its_deadline_and_told_once_when_the_network_returns() {
    if !super::possible() {
        return;
    }
    let world = World::start(crate::NODE).await.expect("a control plane");
    let relay = Relay::start(world.plane.address()).await.expect("a relay");
    world.apply([host("o0", "")]).await.expect("host");
    world.apply(documents("1000", "")).await.expect("written");
    world.settled().await.expect("decided");
    let machines = super::enrolled(&world, &relay.server, "o", 1);
    // No beats: what is reported is news.
    let allowed = "appliers: { files: { root: /srv/titan }, systemd: {} }\npolling: { wait: 5s, maxBackoff: 1s }\n";
    machines[0].write("/etc/titan/agent.yaml", allowed).expect("configured");
    super::serve(&machines);
    super::until(&world, &machines, "installed", |status| status.converged()).await;
    let machine = &machines[0];
    let side = super::properties(machine, "side.service");

    // It runs, but nobody can reach it.
    world.apply(documents("2000", NOBODY)).await.expect("changed");
    super::eventually("the bad release runs", || super::runs(machine, "app.service") == "/bin/sleep 2000");
    relay.set(Weather::Cut);
    let bad_since = active_since(machine, "app.service");
    super::eventually("the release before runs", || super::runs(machine, "app.service") == "/bin/sleep 1000");
    let bad_for = active_since(machine, "app.service") - bad_since;
    // The deadline counts from the switch, which a unit's start comes after; then units are stopped and started.
    assert!((DEADLINE / 2 * 1_000_000..DEADLINE * 2 * 1_000_000).contains(&bad_for), "for {bad_for} us");
    super::eventually("the release before is proven again", || {
        let ledger = std::fs::read(machine.path("/var/lib/titan-agent/ledger.json")).unwrap_or_default();
        let ledger: Value = serde_json::from_slice(&ledger).unwrap_or_default();
        let entries = ledger["entries"].as_object().into_iter().flatten();
        entries.into_iter().any(|(_, entry)| entry["trial"].is_null() && entry["healthySince"].is_string())
    });
    assert_eq!(super::properties(machine, "side.service"), side, "what the bad release did not change");
    assert_ne!(super::status(&world).await.hosts[0].phase, Some(Phase::RolledBack), "nobody can know");

    // By now all has come in that was on its way when the network went.
    let told = counted(&world, "titan_reports_total").await;
    relay.set(Weather::Fair);
    let back = |status: &titan_api::status::DeploymentStatus| status.hosts[0].phase == Some(Phase::RolledBack);
    let status = super::until(&world, &machines, "told", back).await;
    assert!(status.hosts[0].message.contains(NOBODY), "{status:#?}");
    let polls = counted(&world, "titan_polls_total").await;
    until(
        "polls after the report",
        async || Ok((counted(&world, "titan_polls_total").await > polls + 2).then_some(())),
    )
    .await
    .expect("it polls");
    assert_eq!(counted(&world, "titan_reports_total").await, told + 1, "it is told once");
    assert_eq!(super::runs(machine, "app.service"), "/bin/sleep 1000", "and not tried again");
}
