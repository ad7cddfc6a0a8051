//! A hot standby of PostgreSQL: what is read there, and what happens when it is behind or gone.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::ensure;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use titan_api::{
    Document, Kind,
    client::{ListOptions, WriteOptions},
    workplans::WriteNodes,
};
use titan_control_plane::{
    clock::Clock,
    store::{Store, StoreError},
};
use titan_tests::{
    databases::{self, Database},
    manifests,
    planes::Plane,
    postgres::{Standby, at},
    relays::{Relay, Weather},
    worlds::{World, until},
};
use tokio::time::Instant;
use uuid::Uuid;

/// A control plane that reads lists from `replica`.
async fn beside(database: Database, replica: &str) -> World {
    let url = replica.to_owned();
    let plane = Plane::start_with(&database, crate::NODE, "", |config| config.replica_url = Some(url)).await;
    let plane = plane.expect("a control plane");
    World { admin: plane.client(), plane, database }
}

/// Returns a counter's value, 0 if nothing was counted yet.
async fn counted(world: &World, name: &str) -> anyhow::Result<u64> {
    let told = world.admin_call(Method::GET, "/metrics", "").await?.text;
    let value = told.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    Ok(value.trim().parse()?)
}

const STANDBY: &str = "titan_list_reads_total{server=\"Standby\"}";
const PRIMARY: &str = "titan_list_reads_total{server=\"Primary\"}";

async fn fallbacks(world: &World, reason: &str) -> u64 {
    let name = format!("titan_standby_fallbacks_total{{reason=\"{reason}\"}}");
    counted(world, &name).await.expect("metrics")
}

/// Asks until it was answered from the standby; how far that is behind is up to the machine. Returns the answer.
async fn from_the_standby(world: &World, path: &str) -> Value {
    let asked = until(path, async || {
        let before = counted(world, STANDBY).await?;
        let answer = world.admin_call(Method::GET, path, "").await?;
        ensure!(answer.status == StatusCode::OK, "{path}: {}", answer.text);
        Ok((counted(world, STANDBY).await? == before + 1).then_some(answer.body))
    });
    asked.await.expect("read from the standby")
}

/// Stops the replay, once everything was replayed.
async fn paused(world: &World, standby: &Standby) {
    from_the_standby(world, "/v1/hosts").await;
    standby.execute("SELECT pg_wal_replay_pause()").expect("paused");
    let state = Database::at(&standby.url(&world.database));
    until("the replay to stand still", async || {
        let state = state.texts("SELECT pg_get_wal_replay_pause_state()").await?;
        Ok((state == ["paused"]).then_some(()))
    })
    .await
    .expect("paused");
}

async fn host_names(world: &World) -> Vec<String> {
    let hosts = world.admin.list(Kind::Host, None, &ListOptions::default()).await.expect("hosts").items;
    hosts.iter().map(|host| host.metadata.name.to_string()).collect()
}

fn plan(name: &str) -> Value {
    let gate = json!({ "kind": "check", "run": { "approval": {} } });
    manifests::document("WorkPlan", Some("default"), name, &json!({ "nodes": { "asked": gate } }))
}

/// Returns the id of the plan `p` of a world.
async fn plan_id(world: &World) -> Uuid {
    let plans = world.admin.plans(None, 10).await.expect("plans");
    plans.items.into_iter().find(|plan| plan.name == "p").expect("the plan").id
}

/// S4-36.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_and_histories_are_read_from_the_standby_and_polls_never_are() {
    let Some(database) = databases::postgres() else { return };
    let standby = Standby::of(&database, &["log_statement=all"]).expect("a standby");
    let url = standby.url(&database);
    let world = beside(database, &url).await;
    let mut host = world.host("pi", "site=here").await.expect("a host");
    let documents = [
        manifests::workload("w", "v1"),
        manifests::template("t", &[("app.conf", "port=1\n")]),
        manifests::target("all", "site=here"),
        manifests::deployment("prod", "w", "t", "all", &json!({})),
        plan("p"),
    ];
    world.apply(documents).await.expect("applied");
    until("the deployment", async || {
        host.poll(0).await?;
        Ok(host.held.contains_key("default/prod").then_some(()))
    })
    .await
    .expect("polled");
    let plan = plan_id(&world).await;

    let documents = "/v1/workspaces/default";
    for (path, listed) in [
        ("/v1/hosts".to_owned(), Some("pi")),
        ("/v1/hosts?labelSelector=site=here".to_owned(), Some("pi")),
        ("/v1/hosts/pi/history".to_owned(), Some("pi")),
        (format!("{documents}/deployments"), Some("prod")),
        (format!("{documents}/deployments?at={}", world.clock().await.expect("the clock")), Some("prod")),
        (format!("{documents}/deployments/prod/history"), Some("prod")),
        ("/v1/workspaces/-/workplans".to_owned(), Some("p")),
        ("/v1/workloads".to_owned(), Some("w")),
        ("/v1/changes".to_owned(), Some("pi")),
        ("/v1/tasks".to_owned(), None),
        ("/v1/workplans".to_owned(), Some("p")),
        (format!("/v1/workplans/{plan}/nodes"), Some("asked")),
        (format!("/v1/workplans/{plan}/events"), None),
    ] {
        let answer = from_the_standby(&world, &path).await;
        let items = answer["items"].as_array().unwrap_or_else(|| panic!("{path}: {answer}"));
        assert!(!items.is_empty(), "{path}");
        let named = |item: &Value| item["metadata"]["name"].as_str().or(item["name"].as_str()).map(str::to_owned);
        let names: Vec<_> = items.iter().filter_map(named).collect();
        assert!(listed.is_none_or(|listed| names.iter().any(|name| name == listed)), "{path}: {names:?}");
    }

    // What a host asks for and tells, single documents and how far they are: none of it is even tried there.
    let reads = async || Ok::<_, anyhow::Error>((counted(&world, STANDBY).await?, counted(&world, PRIMARY).await?));
    let before = reads().await.expect("metrics");
    host.cursor = None;
    let news = host.poll(0).await.expect("answered").expect("a full answer");
    host.report(&news).await.expect("reported");
    host.poll(0).await.expect("unchanged");
    for path in ["/v1/hosts/pi", "/v1/workspaces/default/deployments/prod/status", "/readyz", "/v1/tokens"] {
        let answer = world.admin_call(Method::GET, path, "").await.expect("answered");
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
    }
    assert_eq!(reads().await.expect("metrics"), before);
    let statements = standby.log().expect("a log");
    assert!(statements.contains("FROM changes"), "{statements}");
    for table in ["assignments", "tokens", "bundles", "bookmarks", "leases", "gates"] {
        assert!(!statements.contains(table), "{table} was read on the standby: {statements}");
    }
    world.plane.stop().await.expect("stopped");
}

/// S4-36. One reads one's own writes, whether they move the clock or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_shows_what_was_just_written_while_the_standby_is_behind() {
    let Some(database) = databases::postgres() else { return };
    let standby = Standby::of(&database, &[]).expect("a standby");
    let url = standby.url(&database);
    let world = beside(database, &url).await;
    world.apply([manifests::host("before", ""), plan("p")]).await.expect("applied");
    let plan = plan_id(&world).await;
    paused(&world, &standby).await;

    // A plan's nodes do not move the clock.
    let nodes: WriteNodes =
        serde_json::from_value(json!({ "nodes": { "added": { "kind": "check", "run": { "approval": {} } } } }))
            .expect("nodes");
    world.admin.write_nodes(plan, &nodes, None).await.expect("written");
    let nodes = world.admin.plan_nodes(plan, None, None).await.expect("nodes");
    assert!(nodes.iter().any(|node| node.name.as_str() == "added"), "{nodes:?}");
    assert!(fallbacks(&world, "Behind").await > 0);
    standby.execute("SELECT pg_wal_replay_resume()").expect("resumed");
    paused(&world, &standby).await;

    let before = counted(&world, PRIMARY).await.expect("metrics");
    world.apply([manifests::host("written", "")]).await.expect("applied");
    assert_eq!(host_names(&world).await, ["before", "written"]);
    assert_eq!(counted(&world, PRIMARY).await.expect("metrics"), before + 1);
    let history = world.admin.history(Kind::Host, None, "written").await.expect("a history");
    assert_eq!(history.items.len(), 1);

    // What another one wrote is shown from when it was seen on.
    standby.execute("SELECT pg_wal_replay_resume()").expect("resumed");
    paused(&world, &standby).await;
    let other = Plane::start(&world.database, crate::NODE, &world.plane.token).await.expect("another one");
    let by_another: Document = manifests::typed(manifests::host("by-another", ""));
    other.client().create(&by_another, &WriteOptions::default()).await.expect("created");
    until("what the other wrote", async || {
        Ok((host_names(&world).await == ["before", "by-another", "written"]).then_some(()))
    })
    .await
    .expect("seen");
    standby.execute("SELECT pg_wal_replay_resume()").expect("resumed");
    let hosts = from_the_standby(&world, "/v1/hosts").await;
    assert_eq!(hosts["items"].as_array().map(Vec::len), Some(3), "{hosts}");
    other.stop().await.expect("stopped");
    world.plane.stop().await.expect("stopped");
}

/// S4-36. A standby that is cut off or stopped costs no error, and not every list a timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_come_from_the_primary_while_the_standby_is_gone() {
    let Some(database) = databases::postgres() else { return };
    let mut standby = Standby::of(&database, &[]).expect("a standby");
    let relay = Relay::start(&standby.address()).await.expect("a relay");
    let url = at(&database, relay.server.trim_start_matches("http://"));
    let world = beside(database, &url).await;
    world.apply([manifests::host("pi", "")]).await.expect("applied");
    from_the_standby(&world, "/v1/hosts").await;

    relay.set(Weather::Cut);
    let begun = Instant::now();
    for _ in 0..50 {
        assert_eq!(host_names(&world).await, ["pi"]);
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "each list waited: {:?}", begun.elapsed());
    assert_eq!(fallbacks(&world, "Unreachable").await, 50);
    let ready = world.admin_call(Method::GET, "/readyz", "").await.expect("answered");
    assert_eq!(ready.status, StatusCode::OK, "{}", ready.text);
    relay.set(Weather::Fair);
    from_the_standby(&world, "/v1/hosts").await;

    standby.stop().expect("stopped");
    for _ in 0..10 {
        assert_eq!(host_names(&world).await, ["pi"]);
        world.apply([manifests::host("pi", "written=still")]).await.expect("applied");
    }
    // It need not be there at the start either.
    let (database, token) = (world.database, world.plane.token.clone());
    world.plane.stop().await.expect("stopped");
    let plane = Plane::start_with(&database, crate::NODE, &token, |config| config.replica_url = Some(url)).await;
    let plane = plane.expect("a control plane");
    let world = World { admin: plane.client(), plane, database };
    assert_eq!(host_names(&world).await, ["pi"]);
    world.plane.stop().await.expect("stopped");
}

/// S4-36. Another database is not taken for a standby, nor is one that takes writes itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_standby_of_the_database_is_not_read() {
    let (Some(database), Some(other)) = (databases::postgres(), databases::postgres()) else { return };
    drop(Store::open(&other.url).await.expect("open"));
    let standby = Standby::of(&database, &[]).expect("a standby");
    for url in [other.url.clone(), standby.url(&other)] {
        let store = Store::open(&database.url).await.expect("open");
        let store = store.with_standby(&url).await.expect("with a standby");
        let mut tx = store.write("test").await.expect("begin");
        let revision = tx.tick(Clock::system().now()).await.expect("tick");
        tx.commit().await.expect("commit");
        let clock = store.read_aside(|mut tx| async move { tx.clock().await }).await.expect("read");
        assert_eq!(clock, revision, "{url}");
    }
    let sqlite = Store::open(&databases::sqlite().url).await.expect("open");
    let error = sqlite.with_standby(&standby.url(&database)).await.expect_err("SQLite has none").to_string();
    assert!(error.contains("PostgreSQL"), "{error}");
}

/// S4-36. What the standby replays may stand against what is read there; then the read begins anew on the primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_that_the_standby_ends_begins_anew_on_the_primary() {
    let Some(database) = databases::postgres() else { return };
    let store = Store::open(&database.url).await.expect("open");
    database.execute("CREATE TABLE passing AS SELECT generate_series(1, 1000) AS number").await.expect("made");
    let standby = Standby::of(&database, &["max_standby_streaming_delay=0"]).expect("a standby");
    let store = store.with_standby(&standby.url(&database)).await.expect("with a standby");
    let begun = AtomicUsize::new(0);
    // Nothing can be notified of on a standby: it was asked if this began twice.
    until("the standby", async || {
        begun.store(0, Ordering::SeqCst);
        let read = store.read_aside(|mut tx| {
            begun.fetch_add(1, Ordering::SeqCst);
            async move { tx.notify().await }
        });
        read.await?;
        Ok((begun.load(Ordering::SeqCst) == 2).then_some(()))
    })
    .await
    .expect("it is there");

    begun.store(0, Ordering::SeqCst);
    let database = &database;
    let read = store.read_aside(|mut tx| {
        let first = begun.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            let mut clock = tx.clock().await?;
            if first {
                for sql in ["DELETE FROM passing", "VACUUM passing"] {
                    database.execute(sql).await.map_err(StoreError::from)?;
                }
                let deadline = Instant::now() + Duration::from_secs(9);
                while Instant::now() < deadline {
                    clock = tx.clock().await?;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            Ok::<_, StoreError>(clock)
        }
    });
    read.await.expect("no error");
    assert_eq!(begun.load(Ordering::SeqCst), 2, "it was not ended on the standby");
}
