//! Databases of an older schema are brought up to date with everything in them.

use std::path::Path;

use sqlx::{Connection as _, PgConnection, SqliteConnection, migrate::Migrator};
use titan_api::{Digest, Kind, Revision, poll::RemovalReason};
use titan_control_plane::store::Store;
use titan_tests::{
    databases::{self, Database},
    worlds::World,
};
use uuid::Uuid;

use super::{moved_after, read, schema::description, stored, write};

async fn migrator(database: &Database) -> Migrator {
    let engine = if database.is_sqlite() { "sqlite" } else { "postgres" };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../control-plane/migrations").join(engine);
    Migrator::new(folder).await.expect("migrations")
}

/// Makes the schema of `version` in an empty database.
async fn migrate_to(database: &Database, version: i64) {
    let migrator = migrator(database).await;
    if database.is_sqlite() {
        let url = format!("{}?mode=rwc", database.url);
        let mut connection = SqliteConnection::connect(&url).await.expect("connect");
        migrator.run_to(version, &mut connection).await.expect("migrate");
    } else {
        let mut connection = PgConnection::connect(&database.url).await.expect("connect");
        migrator.run_to(version, &mut connection).await.expect("migrate");
    }
}

#[tokio::test]
async fn assignments_of_the_first_schema_are_all_there_in_the_narrow_one() {
    for database in databases::each() {
        let engine = database.engine;
        migrate_to(&database, 1).await;
        let (deployment, orphan) = (Uuid::now_v7(), Uuid::now_v7());
        let hosts = [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()];
        let digest = |text: &str| {
            let hexadecimal = Digest::of(text.as_bytes());
            if database.is_sqlite() { format!("X'{hexadecimal}'") } else { format!("'\\x{hexadecimal}'") }
        };
        let row = |id: Uuid, deployment: Uuid, host: Uuid, rest: &str| {
            format!(
                "INSERT INTO assignments (id, deployment_uid, host_uid, workspace, deployment, release_name, revision, \
                 present, outcome, bundle, depends_on, on_remove, reason) \
                 VALUES ('{id}', '{deployment}', '{host}', 'iot', 'web', {rest})"
            )
        };
        let id = titan_control_plane::store::assignment_id;
        let present = format!("'web#2', 7, true, {}, {}, '[\"db\"]', 'delete', NULL", digest("key"), digest("bundle"));
        let leaving = "'web#1', 8, false, NULL, NULL, '[]', 'orphan', 'unmatched'";
        let pruned = "'', 9, false, NULL, NULL, '[]', 'delete', 'pruned'";
        for (id, deployment, host, rest) in [
            (id(deployment, hosts[0]), deployment, hosts[0], present.as_str()),
            (id(deployment, hosts[1]), deployment, hosts[1], leaving),
            (orphan, orphan, hosts[2], pruned),
        ] {
            database.execute(&row(id, deployment, host, rest)).await.expect("insert");
        }
        let reports = format!(
            "INSERT INTO reports (host_uid, assignment_id, release_name, revision, phase, message, reported_at) \
             VALUES ('{}', '{}', 'web#2', 7, 'healthy', '', 1)",
            hosts[0],
            id(deployment, hosts[0])
        );
        database.execute(&reports).await.expect("insert");

        let store = Store::open(&database.url).await.expect("open");
        let mut tx = read(&store).await;
        let mut moved = moved_after(&mut tx, 0).await.expect("read");
        moved.sort_by_key(|assignment| assignment.revision);
        let told: Vec<_> = moved.iter().map(|it| (it.host, it.id(), it.description.release.as_str())).collect();
        let expected = [
            (hosts[0], id(deployment, hosts[0]), "web#2"),
            (hosts[1], id(deployment, hosts[1]), "web#1"),
            (hosts[2], orphan, ""),
        ];
        assert_eq!(told, expected, "{engine}");
        assert_eq!(moved[0].bundle, Some(Digest::of(b"bundle")), "{engine}");
        assert_eq!(moved[0].description.depends_on, [super::name("db").into()], "{engine}");
        let reasons: Vec<_> = moved.iter().map(|it| it.description.reason).collect();
        assert_eq!(reasons, [None, Some(RemovalReason::Unmatched), Some(RemovalReason::Pruned)], "{engine}");
        let known = tx.renderings(&[Digest::of(b"key")]).await.expect("read");
        assert_eq!(known.get(&Digest::of(b"key")), Some(&Digest::of(b"bundle")), "{engine}");
        let reports = tx.reports_of_deployment(deployment).await.expect("read");
        assert_eq!(reports.iter().map(|report| report.host).collect::<Vec<_>>(), [hosts[0]], "{engine}");
    }
}

/// Returns everything that the schema of a database says.
async fn described(database: &Database) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for query in description(database.is_sqlite()) {
        let mut lines = database.texts(query).await.expect("a description");
        lines.sort();
        all.push(lines);
    }
    all
}

/// S3-26: whatever schema a database has, starting makes it the newest one, the same as in a new database, with everything
/// in it; and a control plane serves from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_of_every_older_schema_are_served_with_what_is_in_them() {
    let versions: Vec<_> = migrator(&databases::sqlite()).await.iter().map(|migration| migration.version).collect();
    assert_eq!(versions, (1..=versions.len() as i64).collect::<Vec<_>>(), "one after the other, without a gap");
    let mut newest = std::collections::BTreeMap::new();
    for database in databases::each() {
        drop(Store::open(&database.url).await.expect("open"));
        newest.insert(database.engine, described(&database).await);
    }
    for version in versions {
        for database in databases::each() {
            let engine = database.engine;
            migrate_to(&database, version).await;
            let uid = Uuid::now_v7();
            for row in [
                "UPDATE clock SET revision = 5".to_owned(),
                format!(
                    "INSERT INTO resources (uid, kind, workspace, name, generation, revision, created_revision, labels, \
                     annotations, spec) VALUES ('{uid}', 'Workload', 'default', 'web', 1, 5, 5, '{{}}', '{{}}', \
                     '{{\"version\": \"1\"}}')"
                ),
                format!(
                    "INSERT INTO changes (revision, ordinal, operation, kind, workspace, name, uid, actor, request_id) \
                     VALUES (5, 0, 'create', 'Workload', 'default', 'web', '{uid}', 'token:ann', 'r')"
                ),
                format!(
                    "INSERT INTO tasks (id, kind, state, subject, payload, created_at, updated_at) \
                     VALUES ('{}', 'enrolment', 'pending', 'Host pi', '{{}}', 1, 1)",
                    Uuid::now_v7()
                ),
            ] {
                database.execute(&row).await.unwrap_or_else(|error| panic!("{engine} at {version}: {error}: {row}"));
            }
            let world = World::over(database, crate::NODE).await.expect("it serves");
            assert_eq!(described(&world.database).await, newest[engine], "{engine} from {version}");
            let web = world.admin.get(Kind::Workload, Some("default"), "web", None).await.expect("what was declared");
            assert_eq!((web.metadata.uid, &web.spec["version"]), (Some(uid), &"1".into()), "{engine} from {version}");
            let changes = world.admin.changes(Some(Revision::ZERO), 0).await.expect("changes").items;
            assert!(changes.iter().any(|change| change.uid == uid && change.actor == "token:ann"), "{changes:?}");
            let states =
                world.database.texts("SELECT state FROM tasks WHERE subject = 'Host pi'").await.expect("tasks");
            assert_eq!(states, ["pending"], "{engine} from {version}");
        }
    }
}

/// S3-26: going back is starting the version before, so what does not know the newest migrations leaves them alone; one
/// that differs from what it knows is no schema of ours.
#[tokio::test]
async fn a_newer_schema_is_left_alone_and_another_one_refused() {
    for database in databases::each() {
        let engine = database.engine;
        let store = Store::open(&database.url).await.expect("open");
        let mut tx = write(&store).await;
        tx.put_document(&stored(Kind::Workload, "default", "web", 5)).await.expect("written");
        tx.commit().await.expect("commit");
        drop(store);
        let (yes, blob) = if database.is_sqlite() { ("1", "X'00'") } else { ("true", "'\\x00'") };
        let from_the_future = format!(
            "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time) \
             VALUES (9999, 'from the future', '2027-01-01 00:00:00', {yes}, {blob}, 1)"
        );
        for later in ["ALTER TABLE tokens ADD COLUMN colour TEXT", "CREATE TABLE colours (name TEXT)", &from_the_future]
        {
            database.execute(later).await.expect("a later version");
        }
        let store = Store::open(&database.url).await.unwrap_or_else(|error| panic!("{engine}: {error}"));
        let found = read(&store).await.document(Kind::Workload, "default", "web").await.expect("read");
        assert!(found.is_some(), "{engine}");
        drop(store);
        let other = format!("UPDATE _sqlx_migrations SET checksum = {blob} WHERE version = 1");
        database.execute(&other).await.expect("another first schema");
        assert!(Store::open(&database.url).await.is_err(), "{engine}");
    }
}
