//! Many at once: writers whose transactions overlap, agents that all begin again.

use std::time::{Duration, Instant};

use sqlx::{Connection as _, Executor as _, PgConnection};
use titan_tests::{
    databases::{self, Database},
    manifests::target,
    simulator::{
        fleet::Fleet,
        runs,
        script::{Carrier, Script},
        tally::Evenness,
    },
    worlds::World,
};

use super::{versioned, versions};

/// Agents that begin again at once.
const AGENTS: usize = 10_000;
/// How much more uneven they may be than by chance: what is told apart is lockstep, which is ten times that.
const UNEVEN: f64 = 2.0;
/// How late nearly every poll may be begun on a machine that keeps up with so many agents.
const KEEPS_UP: Duration = Duration::from_millis(100);

/// Waits until that many sessions wait for others.
async fn waiting(database: &Database, count: usize) {
    const WAITING: &str = "SELECT DISTINCT l.pid::text FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
         WHERE NOT l.granted AND a.datname = current_database()";
    let deadline = Instant::now() + Duration::from_secs(30);
    while database.texts(WAITING).await.expect("locks").len() < count {
        assert!(Instant::now() < deadline, "{count} do not wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The host sees both changes, the one that got its revision first and was committed late among them. On SQLite nobody
/// begins to write before the other has committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_long_transaction_commits_late() {
    let Some(database) = databases::postgres() else { return };
    let world = World::over(database, crate::NODE).await.expect("a control plane");
    let documents = [target("all", ""), versions()].into_iter().chain(versioned("slow", "1"));
    world.apply(documents.chain(versioned("quick", "1"))).await.expect("written");
    let mut host = world.host("pi", "").await.expect("a host");
    host.catch_up(world.settled().await.expect("decided")).await.expect("told");
    let before = host.cursor.expect("a cursor");

    // The first has its revision, and cannot write on: its transaction stays open.
    let mut holder = PgConnection::connect(&world.database.url).await.expect("connect");
    let mut hold = holder.begin().await.expect("begin");
    hold.execute("LOCK TABLE changes IN EXCLUSIVE MODE").await.expect("lock");
    let write = |name: &'static str| {
        let admin = world.plane.client();
        tokio::spawn(async move {
            let resources = versioned(name, "2").into();
            let request = titan_api::changes::ApplyRequest { resources, ..Default::default() };
            admin.apply(&request, &Default::default()).await.expect("written")
        })
    };
    let slow = write("slow");
    waiting(&world.database, 1).await;
    let quick = write("quick");
    waiting(&world.database, 2).await;
    for _ in 0..3 {
        assert!(host.poll(0).await.expect("polled").is_none(), "nothing is committed");
    }
    assert!(!slow.is_finished() && !quick.is_finished());
    hold.rollback().await.expect("let go");
    let (slow, quick) = (slow.await.expect("slow").revision, quick.await.expect("quick").revision);
    let (slow, quick) = (slow.expect("a revision"), quick.expect("a revision"));
    assert!(before <= slow && slow < quick, "in the order in which they were committed: {before}, {slow}, {quick}");
    let news = host.catch_up(world.settled().await.expect("decided")).await.expect("told");
    assert!(!news.full, "from where it was");
    for name in ["default/slow", "default/quick"] {
        assert!(news.moved.contains(name), "{news:?}");
        assert_eq!(host.held[name].files["version"], "2\n");
    }
}

/// Everybody ends with what it should have, and after two intervals nothing is left of the lockstep. A machine that is too
/// slow for so many agents shows the first alone; `fleet-sim measure storm` takes the figures, how long answers take among
/// them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_agents_restart_together() {
    const CADENCE: Duration = Duration::from_secs(8);
    let mut stage = crate::simulator::stage(AGENTS).await;
    let interval = CADENCE.as_secs_f64();
    let script = Script {
        seconds: 2.8 * interval,
        carrier: Carrier::Mux,
        connections: 100,
        cadence: Some(interval),
        ramp: Some(interval),
        longest_backoff: interval,
        // Once, by hand.
        storm_every: 3600.0,
        ..Script::default()
    };
    let fleet = Fleet::new(&stage.server.place, script.clone(), stage.credentials.clone(), AGENTS).expect("a fleet");
    fleet.start(script.ramp());
    let all = AGENTS as u64;
    let told = |fleet: &Fleet| fleet.tally.fulls.get() >= all;
    fleet.until("every first answer", Duration::from_mins(2), told).await.expect("answers");
    fleet.tally.answered.clear();
    let begun = fleet.tally.elapsed();
    fleet.storm().await;
    let outcome = runs::played(&mut stage.server, &fleet, &script).await.expect("played");
    let told = outcome.text();
    assert!(outcome.verdict.is_equal() && fleet.tally.mismatches.get() == 0, "{told}");
    let (p99, late) = (fleet.tally.answered.quantile(0.99), fleet.tally.late.quantile(0.99));
    let after = Evenness::of(&fleet.tally.arrivals(begun + 2 * CADENCE, outcome.ended));
    eprintln!("{AGENTS} agents at once: p99 {p99:?}, after two intervals {after:?}, {late:?} late");
    // Agents that the machine itself keeps waiting say nothing about what they were told.
    if late < KEEPS_UP {
        assert!(after.peak_to_mean > 0.0 && after.peak_to_mean <= UNEVEN * after.by_chance, "{after:?}: {told}");
    }
    stage.server.stop().await.expect("stopped");
}
