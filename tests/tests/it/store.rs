//! The store: every behaviour on every engine.

mod assignments;
mod documents;
mod gates;
mod history;
mod leases;
mod migrations;
mod observed;
mod pipelines;
mod schema;
mod tampering;
mod tasks;
mod tokens;
mod waiting;
mod workplans;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use titan_api::{Digest, Kind, Name, Revision, Spec, deployments::OnRemove};
use titan_control_plane::store::{Assignment, Description, Descriptions, Removal, Store, StoreError, Stored, Tx};
use titan_tests::databases::{self, Database};
use uuid::Uuid;

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

pub(crate) const fn at(micros: i64) -> Revision {
    Revision::from_micros(micros)
}

/// Returns an empty store of each engine, with the database under it.
pub(crate) async fn stores() -> Vec<(Database, Store)> {
    let mut stores = Vec::new();
    for database in databases::each() {
        let store = Store::open(&database.url).await.expect("open");
        stores.push((database, store));
    }
    stores
}

pub(crate) async fn write(store: &Store) -> Tx {
    store.write("test").await.expect("begin")
}

pub(crate) async fn read(store: &Store) -> Tx {
    store.read().await.expect("begin")
}

/// Returns a document that was made at `revision`; `workspace` is empty for kinds that live in none.
pub(crate) fn stored(kind: Kind, workspace: &str, text: &str, revision: i64) -> Stored {
    let spec = match kind {
        Kind::Workspace | Kind::Host | Kind::Workload => json!({ "description": format!("{text} at {revision}") }),
        Kind::Template => json!({ "files": { "a": { "content": text } } }),
        Kind::Target => json!({ "matchLabels": { "zone": text } }),
        Kind::WorkPlan => json!({ "description": text, "nodes": { "a": {} } }),
        Kind::Deployment => json!({ "workload": "w", "template": "t", "target": "t" }),
    };
    Stored {
        uid: Uuid::now_v7(),
        kind,
        workspace: (!workspace.is_empty()).then(|| name(workspace)),
        name: name(text),
        generation: 1,
        revision: at(revision),
        created: at(revision),
        deleted: None,
        labels: titan_api::labels::Labels::parse_list("zone=attic,rack=").expect("labels"),
        annotations: titan_api::labels::Annotations::default(),
        spec: Spec::parse(kind, spec).expect("a spec"),
    }
}

/// Returns a present assignment.
pub(crate) fn assignment(deployment: Uuid, host: Uuid, revision: i64) -> Assignment {
    let description = Description {
        deployment,
        workspace: name("default"),
        name: name("prod"),
        release: "prod#1".to_owned(),
        depends_on: vec![name("base").into(), name("net").into()],
        on_remove: OnRemove::Orphan,
        reason: None,
    };
    let bundle = Some(Digest::of(b"bundle"));
    Assignment { deployment, host, description: Arc::new(description), revision: at(revision), bundle }
}

/// Returns the tombstone that follows an assignment.
pub(crate) fn tombstone(of: &Assignment, revision: i64) -> Assignment {
    let reason = Some(titan_api::poll::RemovalReason::AccessWithdrawn);
    let description = Arc::new(Description { reason, ..Description::clone(&of.description) });
    Assignment { description, revision: at(revision), bundle: None, ..of.clone() }
}

/// Writes assignments.
pub(crate) async fn put<'a>(tx: &mut Tx, assignments: impl IntoIterator<Item = &'a Assignment>) {
    tx.put_assignments(assignments, at(1)).await.expect("put");
}

/// Returns the assignments that moved after `seen`.
pub(crate) async fn moved_after(tx: &mut Tx, seen: i64) -> Result<Vec<Assignment>, StoreError> {
    let mut moved = Vec::new();
    tx.assignments_after(&mut Descriptions::default(), at(seen), |assignment| moved.push(assignment)).await?;
    Ok(moved)
}

/// Returns what `host` says when it has removed what a tombstone of `revision` names.
pub(crate) fn removal(of: &Assignment, host: Uuid, revision: i64) -> Removal {
    Removal { host, deployment: of.deployment, assignment: of.id(), revision: at(revision) }
}

/// Waits until a transaction waits for another one. PostgreSQL tells; on SQLite nobody even begins.
pub(crate) async fn until_somebody_waits(database: &Database) {
    const WAITING: &str = "SELECT 'somebody' FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
         WHERE NOT l.granted AND a.datname = current_database()";
    let deadline = Instant::now() + Duration::from_secs(30);
    while !database.is_sqlite() && database.texts(WAITING).await.expect("locks").is_empty() {
        assert!(Instant::now() < deadline, "nobody waits");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// S5-1.
#[tokio::test]
async fn second_process_on_the_same_sqlite_file_is_refused_until_the_first_is_gone() {
    let database = databases::sqlite();
    let first = Store::open(&database.url).await.expect("open");
    let second = Store::open(&database.url).await.expect_err("refused");
    assert!(matches!(second, StoreError::Locked(_)), "{second}");
    assert!(second.to_string().contains("in use by another process"), "{second}");
    // For one short transaction, such as making a token, it is open to others.
    let beside = Store::open_beside(&database.url).await.expect("open");
    let mut tx = write(&beside).await;
    tx.tick(at(5)).await.expect("tick");
    tx.commit().await.expect("commit");
    assert_eq!(read(&first).await.clock().await.expect("clock"), at(5));
    drop(beside);
    // Somebody may not have let go of it yet.
    let kept = first.clone();
    first.close().await;
    let next = Store::open(&database.url).await.expect("the lock is given back");
    assert!(kept.read().await.is_err() && kept.write("request").await.is_err(), "it is closed");
    drop(next);
    Store::open(&database.url).await.expect("the lock is given back without a word, too");
}

/// S5-1.
#[tokio::test]
async fn several_processes_share_a_postgres_database() {
    let Some(database) = databases::postgres() else { return };
    // Both bring the schema up to date at the same time.
    let (first, second) = tokio::join!(Store::open(&database.url), Store::open(&database.url));
    let (first, second) = (first.expect("open"), second.expect("open"));
    let mut tx = write(&first).await;
    let revision = tx.tick(Revision::ZERO).await.expect("tick");
    tx.commit().await.expect("commit");
    assert_eq!(read(&second).await.clock().await.expect("clock"), revision);
}

#[tokio::test]
async fn addresses_that_are_none_are_refused() {
    for bad in ["", "titan.db", "mysql://x/y", "sqlite://", "sqlite::memory:", "sqlite://x?mode=memory"] {
        let error = Store::open(bad).await.expect_err(bad);
        assert!(matches!(error, StoreError::Address(_)), "{bad}: {error}");
    }
    let error = Store::open("postgres://user:secret@:port/x").await.expect_err("malformed");
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
}

/// S3-24.
#[tokio::test]
async fn dropped_transaction_leaves_nothing() {
    for (database, store) in stores().await {
        let document = stored(Kind::Host, "", "h", 1);
        let mut tx = write(&store).await;
        let revision = tx.tick(at(1_000)).await.expect("tick");
        tx.put_document(&document).await.expect("put");
        put(&mut tx, [&assignment(Uuid::now_v7(), document.uid, 1)]).await;
        tx.set_bookmark("planner", revision).await.expect("bookmark");
        tx.queue_facts(document.uid, at(1)).await.expect("queue");
        drop(tx);
        let mut tx = read(&store).await;
        let engine = database.engine;
        assert_eq!(tx.clock().await.expect("clock"), Revision::ZERO, "{engine}");
        assert_eq!(tx.all_documents().await.expect("documents"), [], "{engine}");
        assert_eq!(moved_after(&mut tx, 0).await.expect("assignments"), [], "{engine}");
        assert_eq!(tx.bookmark("planner").await.expect("bookmark"), Revision::ZERO, "{engine}");
        assert_eq!(tx.queued_facts(10).await.expect("queue"), [], "{engine}");
    }
}

#[tokio::test]
async fn reader_keeps_its_snapshot_while_others_commit() {
    for (database, store) in stores().await {
        let mut reader = read(&store).await;
        assert_eq!(reader.clock().await.expect("clock"), Revision::ZERO);
        let mut tx = write(&store).await;
        let revision = tx.tick(at(1_000)).await.expect("tick");
        tx.put_document(&stored(Kind::Host, "", "h", revision.micros())).await.expect("put");
        tx.commit().await.expect("commit");
        assert_eq!(reader.clock().await.expect("clock"), Revision::ZERO, "{}", database.engine);
        assert_eq!(reader.all_documents().await.expect("documents"), [], "{}", database.engine);
        drop(reader);
        assert_eq!(read(&store).await.clock().await.expect("clock"), revision, "{}", database.engine);
    }
}

#[tokio::test]
async fn reader_cannot_write() {
    for (database, store) in stores().await {
        let refused = read(&store).await.put_document(&stored(Kind::Host, "", "h", 1)).await;
        assert!(refused.is_err(), "{}", database.engine);
    }
}
