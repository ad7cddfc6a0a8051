//! Databases of an older schema are brought up to date with everything in them.

use std::path::Path;

use sqlx::{Connection as _, PgConnection, SqliteConnection, migrate::Migrator};
use titan_api::{Digest, poll::RemovalReason};
use titan_control_plane::store::Store;
use titan_tests::databases::{self, Database};
use uuid::Uuid;

use super::{moved_after, read};

/// Makes the schema of `version` in an empty database.
async fn migrate_to(database: &Database, version: i64) {
    let engine = if database.is_sqlite() { "sqlite" } else { "postgres" };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../control-plane/migrations").join(engine);
    let migrator = Migrator::new(folder).await.expect("migrations");
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
