//! Law 1: revision order is commit order, however many write, wait, roll back and restart. Law 10: the history replayed
//! from empty gives the same documents.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use titan_api::{Document, Kind, Revision, changes::Operation};
use titan_control_plane::store::{Assignment, ChangeFilter, Store, Written};
use titan_tests::{
    databases::{self, Database},
    dice::Dice,
    fleets::{Fleet, document},
};
use uuid::Uuid;

use crate::store::{assignment, at, read, stored, tombstone, write};

const WRITERS: u64 = 8;
const POLLERS: usize = 4;
/// Hosts whose assignments the writers move; few, so that they move the same ones.
const PAIRS: usize = 24;

/// What the writers share.
struct Race {
    store: Store,
    /// Another replica's connections, where there can be another replica.
    replica: Store,
    pairs: Vec<(Uuid, Uuid)>,
    /// Commits that are still to be made.
    left: AtomicUsize,
    over: AtomicBool,
}

impl Race {
    /// Takes the place of one commit, if one is left.
    fn claim(&self) -> bool {
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

async fn dawdle(dice: &mut Dice) {
    match dice.roll(60) {
        0 => tokio::time::sleep(Duration::from_micros(dice.roll(400))).await,
        1..=5 => tokio::task::yield_now().await,
        _ => {}
    }
}

/// Writes until nothing is left, with a wall clock that jumps to and fro; returns what was committed, in its own order.
async fn writer(race: Arc<Race>, seed: u64) -> Vec<(Revision, Uuid)> {
    let mut dice = Dice::new(seed);
    let store = if seed.is_multiple_of(2) { race.store.clone() } else { race.replica.clone() };
    let mut committed = Vec::new();
    while race.claim() {
        loop {
            dawdle(&mut dice).await;
            let mut tx = store.write("test").await.expect("begin");
            let wall = at(1_700_000_000_000_000 + i64::try_from(dice.roll(10_000_000)).expect("small"));
            let revision = tx.tick(wall).await.expect("tick");
            dawdle(&mut dice).await;
            let (deployment, host) = race.pairs[dice.pick(PAIRS)];
            let mut moved = assignment(deployment, host, revision.micros());
            if dice.roll(4) == 0 {
                moved = tombstone(&moved, revision.micros());
            }
            crate::store::put(&mut tx, [&moved]).await;
            dawdle(&mut dice).await;
            let document = stored(Kind::Host, "", "h", revision.micros()).document();
            let written = Written {
                operation: Operation::Create,
                before: None,
                after: Some(&document),
                actor: "writer",
                reason: None,
                request_id: "",
            };
            for ordinal in 0..dice.pick(2) + 1 {
                tx.add_change(revision, ordinal, &document, &written).await.expect("add");
            }
            dawdle(&mut dice).await;
            // Rolled back: as if it had never been.
            if dice.roll(10) == 0 {
                drop(tx);
                continue;
            }
            tx.commit().await.expect("commit");
            committed.push((revision, moved.id()));
            break;
        }
    }
    committed
}

/// What a poller has seen.
#[derive(Default)]
struct Seen {
    clock: Revision,
    /// The places in the history, in the order in which they came.
    places: Vec<(Revision, u32)>,
    /// The assignments, folded.
    folded: BTreeMap<Uuid, Assignment>,
}

/// Follows as the view and the planner do: the clock first, then what came after the last one.
async fn poller(race: Arc<Race>, seed: u64) -> Seen {
    let mut dice = Dice::new(seed);
    let store = if seed.is_multiple_of(2) { race.store.clone() } else { race.replica.clone() };
    let mut seen = Seen::default();
    loop {
        let last_round = race.over.load(Ordering::SeqCst);
        let mut tx = store.read().await.expect("begin");
        let clock = tx.clock().await.expect("clock");
        assert!(clock >= seen.clock, "the clock went back from {} to {clock}", seen.clock);
        dawdle(&mut dice).await;
        for moved in crate::store::moved_after(&mut tx, seen.clock.micros()).await.expect("assignments") {
            assert!(moved.revision <= clock, "{} was committed after the clock said {clock}", moved.revision);
            seen.folded.insert(moved.id(), moved);
        }
        let limit = dice.pick(50) + 1;
        let mut since = seen.clock.next();
        loop {
            let page = tx.changes(since, &ChangeFilter::default(), limit).await.expect("changes");
            let Some(last) = page.last() else { break };
            since = last.revision.next();
            seen.places.extend(page.iter().map(|change| (change.revision, change.ordinal)));
        }
        assert!(since <= clock.next(), "a change came after the clock");
        drop(tx);
        seen.clock = clock;
        if last_round {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(dice.roll(8))).await;
    }
}

async fn race(database: &Database, writes: usize) {
    let engine = database.engine;
    let store = Store::open(&database.url).await.expect("open");
    let replica = if database.is_sqlite() { store.clone() } else { Store::open(&database.url).await.expect("open") };
    let pairs = (0..PAIRS).map(|_| (Uuid::now_v7(), Uuid::now_v7())).collect();
    let race = Arc::new(Race { store, replica, pairs, left: AtomicUsize::new(writes), over: AtomicBool::new(false) });
    let writers: Vec<_> = (0..WRITERS).map(|seed| tokio::spawn(writer(Arc::clone(&race), seed))).collect();
    let pollers: Vec<_> = (0..POLLERS as u64).map(|seed| tokio::spawn(poller(Arc::clone(&race), 100 + seed))).collect();
    let mut committed = BTreeMap::new();
    for writer in writers {
        let mine = writer.await.expect("a writer");
        assert!(mine.is_sorted_by(|one, two| one.0 < two.0), "{engine}: a later commit got a smaller revision");
        for (revision, id) in mine {
            assert_eq!(committed.insert(revision, id), None, "{engine}: {revision} was given out twice");
        }
    }
    race.over.store(true, Ordering::SeqCst);
    assert_eq!(committed.len(), writes, "{engine}");
    let mut tx = race.store.read().await.expect("begin");
    let clock = tx.clock().await.expect("clock");
    assert_eq!(committed.keys().next_back(), Some(&clock), "{engine}: the clock is the newest commit's");
    let history = tx.changes(Revision::ZERO, &ChangeFilter::default(), usize::MAX).await.expect("changes");
    let history: Vec<_> = history.iter().map(|change| (change.revision, change.ordinal)).collect();
    let revisions: BTreeSet<_> = history.iter().map(|place| place.0).collect();
    assert!(revisions.iter().eq(committed.keys()), "{engine}: the history is not what was committed");
    let mut newest = BTreeMap::new();
    for (revision, id) in &committed {
        newest.insert(*id, *revision);
    }
    let assigned: BTreeMap<_, _> = crate::store::moved_after(&mut tx, 0)
        .await
        .expect("read")
        .into_iter()
        .map(|moved| (moved.id(), moved))
        .collect();
    let standing: BTreeMap<_, _> = assigned.iter().map(|(id, moved)| (*id, moved.revision)).collect();
    assert_eq!(standing, newest, "{engine}: an older write stands over a newer one");
    for poller in pollers {
        let seen = poller.await.expect("a poller");
        // Strictly in order, none repeated, none missed.
        assert_eq!(seen.places, history, "{engine}");
        assert_eq!(seen.folded, assigned, "{engine}");
        assert_eq!(seen.clock, clock, "{engine}");
    }
}

/// Law 1, S4-35.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_poller_misses_a_change_of_ten_thousand_concurrent_writes_on_postgres() {
    if let Some(database) = databases::postgres() {
        race(&database, 10_000).await;
    }
}

/// Law 1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_poller_misses_a_change_of_two_thousand_concurrent_writes_on_sqlite() {
    race(&databases::sqlite(), 2_000).await;
}

/// Law 1.
#[tokio::test]
async fn revisions_grow_strictly_while_the_wall_clock_steps_back() {
    for database in databases::each() {
        let store = Store::open(&database.url).await.expect("open");
        // By the wall while that is ahead; by one while it is not. PostgreSQL goes by its own clock.
        let (walls, expected) =
            ([1_000, 999, 500, 0, 1_001, 5_000, 1], [1_000, 1_001, 1_002, 1_003, 1_004, 5_000, 5_001]);
        let mut before = Revision::ZERO;
        for (wall, expected) in walls.into_iter().zip(expected) {
            let mut tx = write(&store).await;
            let revision = tx.tick(at(wall)).await.expect("tick");
            assert_eq!(tx.clock().await.expect("clock"), revision, "{}", database.engine);
            tx.commit().await.expect("commit");
            assert!(revision > before, "{}: {revision} after {before}", database.engine);
            if database.is_sqlite() {
                assert_eq!(revision, at(expected));
            }
            before = revision;
        }
        // Past a cursor from the future, and on from there.
        let far = at(9_000_000_000_000_000);
        let mut tx = write(&store).await;
        assert_eq!(tx.tick_past(at(1), far).await.expect("tick"), far, "{}", database.engine);
        assert_eq!(tx.tick_past(at(1), far).await.expect("tick"), far.next(), "{}", database.engine);
        assert_eq!(tx.tick(at(1)).await.expect("tick"), far.next().next(), "{}", database.engine);
        // A revision that is rolled back was never given out.
        drop(tx);
        assert_eq!(read(&store).await.clock().await.expect("clock"), before, "{}", database.engine);
    }
}

/// Documents by place.
type Documents = BTreeMap<(Kind, Option<String>, String), Document>;

fn key(document: &Document) -> (Kind, Option<String>, String) {
    let metadata = &document.metadata;
    (document.kind, metadata.workspace.as_ref().map(ToString::to_string), metadata.name.to_string())
}

/// Returns a random document, some of which cannot be written where they are.
fn random_document(dice: &mut Dice) -> Value {
    let workspace = ["default", "iot"][dice.pick(2)];
    let number = dice.roll(4);
    let value = dice.roll(3);
    let name = format!("n{number}");
    let mut made = match dice.roll(6) {
        0 => document("Workspace", None, ["iot", "lab"][dice.pick(2)], &json!({ "owner": format!("o{value}") })),
        1 => document("Host", None, &name, &json!({ "values": { "port": value } })),
        2 => {
            let files = json!({ "files": { "f.j2": { "content": format!("{value} {{{{ values.port }}}}") } } });
            document("Template", Some(workspace), &name, &files)
        }
        3 => document("Workload", Some(workspace), &name, &json!({ "version": format!("v{value}") })),
        4 => document("Target", Some(workspace), &name, &json!({ "matchLabels": { "zone": format!("z{value}") } })),
        _ => {
            let spec = json!({ "workload": format!("n{}", dice.roll(2)), "template": format!("n{value}"), "target": "n0",
                "values": { "port": value } });
            document("Deployment", Some(workspace), &name, &spec)
        }
    };
    made["metadata"]["labels"] = json!({ "zone": format!("z{}", dice.roll(3)) });
    made
}

/// Law 10, S5-42. What the history says of every past revision is what was there then, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_replayed_from_empty_gives_the_same_documents() {
    for database in databases::each() {
        let engine = database.engine;
        let fleet = Fleet::open(&database.url, crate::NODE).await.expect("open");
        let mut dice = Dice::new(7);
        let mut live: BTreeMap<Revision, Documents> = BTreeMap::new();
        let (mut written, mut refused) = (0, 0);
        for _ in 0..400 {
            let made: Vec<_> = (0..dice.pick(3) + 1).map(|_| random_document(&mut dice)).collect();
            let sent = if dice.roll(4) == 0 {
                let kind: Kind = made[0]["kind"].as_str().expect("a kind").parse().expect("a kind");
                let path = kind.path(made[0]["metadata"]["workspace"].as_str(), made[0]["metadata"]["name"].as_str());
                fleet.admin(axum::http::Method::DELETE, &path, &Value::Null).await
            } else {
                fleet.apply(&made).await
            };
            if sent.is_ok() {
                written += 1
            } else {
                refused += 1
            }
            if dice.roll(20) == 0 {
                // A restored database further on, as far as hosts can tell.
                let mut tx = write(&fleet.state.store).await;
                let least = tx.clock().await.expect("clock").next().next();
                let revision = tx.tick_past(Revision::ZERO, least).await.expect("tick");
                tx.add_clock_change(revision, least).await.expect("add");
                tx.commit().await.expect("commit");
            }
            if dice.roll(10) == 0 {
                let mut tx = read(&fleet.state.store).await;
                let clock = tx.clock().await.expect("clock");
                live.insert(clock, documents(&fleet.state.store).await);
            }
        }
        assert!(written > 100 && refused > 20, "{engine}: {written} written, {refused} refused");
        let mut tx = read(&fleet.state.store).await;
        live.insert(tx.clock().await.expect("clock"), documents(&fleet.state.store).await);
        let mut replayed = Documents::new();
        let mut changes = tx.changes(Revision::ZERO, &ChangeFilter::default(), usize::MAX).await.expect("changes");
        changes.reverse();
        for (revision, expected) in &live {
            while let Some(change) = changes.pop_if(|change| change.revision <= *revision) {
                // Each change begins where the one before ended.
                match (change.operation, change.before, change.after) {
                    (Operation::Create, None, Some(after)) => assert_eq!(replayed.insert(key(&after), after), None),
                    (Operation::Update, Some(before), Some(after)) => {
                        assert_eq!(replayed.insert(key(&after), after), Some(before), "{engine}");
                    }
                    (Operation::Delete, Some(before), None) => {
                        assert_eq!(replayed.remove(&key(&before)), Some(before), "{engine}");
                    }
                    (Operation::ClockMoved, None, None) => {}
                    (operation, before, after) => panic!("{engine}: {operation:?} of {before:?} to {after:?}"),
                }
            }
            assert_eq!(&replayed, expected, "{engine} at {revision}");
            let mut asked = Documents::new();
            for kind in Kind::ALL {
                let found = tx.documents_at(kind, "", "", *revision).await.expect("documents");
                asked.extend(found.into_iter().map(|document| (key(&document), document)));
            }
            assert_eq!(&asked, expected, "{engine}: ?at={revision}");
        }
        assert!(changes.is_empty(), "{engine}");
    }
}

/// Returns every live document.
async fn documents(store: &Store) -> Documents {
    let all = read(store).await.all_documents().await.expect("documents");
    let live = all.iter().filter(|stored| stored.deleted.is_none()).map(|stored| stored.document());
    live.map(|document| (key(&document), document)).collect()
}
