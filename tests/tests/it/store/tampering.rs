//! Rows that somebody changed by hand: an error that says where, never a panic.

use titan_api::{Code, Digest, Kind, Problem, Revision, tasks::Task};
use titan_control_plane::store::{
    ChangeFilter, ObservedHost, Release, Result, Store, StoreError, TokenKind, TokenRow, Tx,
};
use titan_tests::databases::Database;
use uuid::Uuid;

use super::{assignment, at, name, read, stored, stores, write};

/// Sees to it that `found` is the error that names the place.
fn names<T: std::fmt::Debug>(found: Result<T>, table: &str, column: &str, id: &str) {
    match found {
        Err(error @ StoreError::Corrupt { .. }) => {
            let text = error.to_string();
            let place = format!("column {column} of {table} {id} cannot be read: ");
            assert!(text.starts_with(&place) && text.len() > place.len(), "{text:?} does not begin {place:?}");
        }
        other => panic!("{table}.{column}: {other:?}"),
    }
}

/// Sets a column of every row, reads, and sets it back.
async fn tampered<T: std::fmt::Debug>(
    database: &Database,
    store: &Store,
    (table, column, id): (&str, &str, &str),
    bad: &str,
    read_back: impl AsyncFn(&mut Tx) -> Result<T>,
) {
    tampered_by(database, store, (table, column, id), &format!("{column} = {bad}"), read_back).await;
}

/// Sets what `set` says in every row, reads, which is to name the column, and sets it back.
async fn tampered_by<T: std::fmt::Debug>(
    database: &Database,
    store: &Store,
    (table, column, id): (&str, &str, &str),
    set: &str,
    read_back: impl AsyncFn(&mut Tx) -> Result<T>,
) {
    let changed = set.split(' ').next().unwrap_or_default();
    let keep = format!("CREATE TABLE kept AS SELECT * FROM {table}");
    database.execute(&keep).await.expect("keep");
    database.execute(&format!("UPDATE {table} SET {set}")).await.expect("tamper");
    names(read_back(&mut read(store).await).await, table, column, id);
    database.execute(&format!("UPDATE {table} SET {changed} = (SELECT {changed} FROM kept)")).await.expect("restore");
    database.execute("DROP TABLE kept").await.expect("drop");
    read_back(&mut read(store).await).await.expect("as it was");
}

#[tokio::test]
async fn unreadable_documents_and_assignments_name_table_column_and_id() {
    for (database, store) in stores().await {
        let document = stored(Kind::Target, "iot", "t", 1);
        let assigned = assignment(Uuid::now_v7(), Uuid::now_v7(), 1);
        let mut tx = write(&store).await;
        tx.put_document(&document).await.expect("put");
        super::put(&mut tx, [&assigned]).await;
        tx.commit().await.expect("commit");
        let uid = document.uid.to_string();
        for (column, bad) in [
            ("kind", "'Nope'"),
            ("workspace", "'Not A Name'"),
            ("name", "'../x'"),
            ("labels", "'{\"a b\": \"c\"}'"),
            ("annotations", "'['"),
            ("spec", "'{\"matchLabel\": {}}'"),
            ("spec", "'{}'"),
            ("spec", "''"),
        ] {
            let place = ("resources", column, uid.as_str());
            tampered(&database, &store, place, bad, async |tx| tx.document_by_uid(document.uid).await).await;
        }
        let short = if database.is_sqlite() { "X'00'" } else { "'\\x00'" };
        let (host, bundle) = (assigned.host.simple(), Digest::of(b"bundle"));
        for (column, both) in [("host", format!("00{bundle}")), ("bundle", format!("{host}00"))] {
            let set = format!("{column} = {short}");
            let place = ("assignments", "host, bundle", both.as_str());
            tampered_by(&database, &store, place, &set, async |tx| super::moved_after(tx, 0).await).await;
        }
        let place = ("assignments", "description", "7");
        tampered(&database, &store, place, "7", async |tx| super::moved_after(tx, 0).await).await;
        let description = assigned.description.id().to_string();
        for (column, bad) in [
            ("deployment", short),
            ("workspace", "''"),
            ("name", "'A'"),
            ("depends_on", "'{}'"),
            ("on_remove", "'burn'"),
        ] {
            let place = ("descriptions", column, description.as_str());
            tampered(&database, &store, place, bad, async |tx| super::moved_after(tx, 0).await).await;
        }
    }
}

#[tokio::test]
async fn unreadable_rows_of_every_other_table_name_their_place() {
    for (database, store) in stores().await {
        let uid = Uuid::now_v7();
        let id = uid.to_string();
        let short = if database.is_sqlite() { "X'00'" } else { "'\\x00'" };
        let mut tx = write(&store).await;
        let release = Release {
            id: uid,
            deployment: uid,
            number: 1,
            revision: at(1),
            inputs_digest: Digest::of(b""),
            inputs: String::new(),
        };
        tx.add_release(&release).await.expect("add");
        tx.put_observed_host(&ObservedHost { uid, ..ObservedHost::default() }).await.expect("put");
        tx.queue_facts(uid, at(1)).await.expect("queue");
        let problem = Some(Problem::new(Code::Invalid, "x"));
        tx.set_render_problems(&[(uid, uid, problem)], at(1)).await.expect("set");
        let task = Task::new(uid, "k", String::new(), serde_json::json!({}), at(1));
        tx.add_task(&task).await.expect("add");
        let token = TokenRow {
            id: uid,
            kind: TokenKind::Host,
            name: name("h"),
            host: Some(uid),
            created_at: at(1),
            expires_at: None,
            used_by: None,
        };
        tx.add_token(&token, &Digest::of(b"secret")).await.expect("add");
        tx.keep_answer("ann", "key", &Digest::of(b""), "{}", at(1)).await.expect("keep");
        tx.commit().await.expect("commit");

        let at_place = |table, column| (table, column, id.as_str());
        let (database, store) = (&database, &store);
        tampered(database, store, at_place("releases", "inputs_digest"), short, async |tx| {
            tx.newest_release(uid).await
        })
        .await;
        tampered(database, store, at_place("releases", "id"), "'x'", async |tx| {
            tx.newest_release(uid).await.map_err(|error| renamed(error, &id))
        })
        .await;
        for (column, bad) in [("facts", "'[]'"), ("orphans", "'{}'")] {
            tampered(database, store, at_place("host_status", column), bad, async |tx| tx.observed_hosts().await).await;
        }
        tampered(database, store, at_place("render_problems", "problem"), "'{}'", async |tx| {
            tx.render_problems(uid).await
        })
        .await;
        for (column, bad) in
            [("payload", "'{'"), ("result", "'{'"), ("workspace", "'A B'"), ("parent", "'x'"), ("attempts", "-1")]
        {
            tampered(database, store, at_place("tasks", column), bad, async |tx| tx.task(uid).await).await;
        }
        for (column, bad) in [("name", "'A B'"), ("host_uid", "'h'")] {
            tampered(database, store, at_place("tokens", column), bad, async |tx| {
                tx.token_by_hash(&Digest::of(b"secret")).await
            })
            .await;
        }
        tampered(database, store, ("fact_queue", "host_uid", "h"), "'h'", async |tx| tx.queued_facts(10).await).await;
        tampered(database, store, ("idempotency_keys", "request_digest", "key"), short, async |tx| {
            tx.keyed_answer("ann", "key").await
        })
        .await;
    }
}

/// A row whose id is what cannot be read is named by that id.
fn renamed(error: StoreError, id: &str) -> StoreError {
    match error {
        StoreError::Corrupt { table, column, detail, .. } => {
            StoreError::Corrupt { table, column, id: id.to_owned(), detail }
        }
        other => other,
    }
}

#[tokio::test]
async fn unreadable_reports_and_changes_name_their_place() {
    for (database, store) in stores().await {
        let assigned = assignment(Uuid::now_v7(), Uuid::now_v7(), 1);
        let mut tx = write(&store).await;
        super::put(&mut tx, [&assigned]).await;
        tx.commit().await.expect("commit");
        let id = assigned.id().to_string();
        let hexadecimal = assigned.deployment.simple();
        let literal = if database.is_sqlite() { format!("X'{hexadecimal}'") } else { format!("'\\x{hexadecimal}'") };
        database
            .execute(&format!(
                "INSERT INTO reports (host_uid, assignment_id, release_name, revision, phase, message, reported_at, deployment) \
                 VALUES ('{}', '{id}', 'prod#1', 1, 'dancing', '', 1, {})",
                assigned.host,
                literal
            ))
            .await
            .expect("insert");
        let found = read(&store).await.reports_of_deployment(assigned.deployment).await;
        names(found, "reports", "phase", &id);
        let drift =
            "phase = 'healthy', drift = '[{\"what\": \"a\", \"how\": \"mode\"}]', drift_details = '[[\"\", null]]'";
        database.execute(&format!("UPDATE reports SET {drift}")).await.expect("drift");
        for bad in ["'['", "'{}'", "'[{\"what\": \"a\"}]'", "''"] {
            let place = ("reports", "drift", id.as_str());
            tampered(&database, &store, place, bad, async |tx| tx.reports_of_deployment(assigned.deployment).await)
                .await;
            tampered(&database, &store, place, bad, async |tx| tx.drifted_on_host(assigned.host).await).await;
        }
        for bad in ["'['", "'[]'", "'[[1, null]]'", "'[[\"\", null], [\"\", null]]'"] {
            let place = ("reports", "drift_details", id.as_str());
            tampered(&database, &store, place, bad, async |tx| tx.drift_of_host(assigned.host).await).await;
        }
        // Changes cannot be altered, but somebody could add to them.
        let insert = |revision: i64, kind: &str, after: &str| {
            format!(
                "INSERT INTO changes (revision, ordinal, operation, kind, workspace, name, uid, after_document, actor, \
                 request_id) VALUES ({revision}, 2, 'create', '{kind}', '', 'h', '{id}', {after}, '', '')"
            )
        };
        for (revision, kind, after) in [(7, "Host", "'nothing'"), (8, "Hots", "NULL"), (9, "Host", "NULL")] {
            database.execute(&insert(revision, kind, after)).await.expect("insert");
        }
        let mut tx = read(&store).await;
        names(tx.history(Kind::Host, "", "h", 10).await, "changes", "after_document", "7/2");
        names(tx.documents_at(Kind::Host, "", "h", at(7)).await, "changes", "after_document", "7/2");
        // The feed goes on without them: one that cannot be read holds up nobody.
        let feed = tx.changes(Revision::ZERO, &ChangeFilter::default(), 10).await.expect("changes");
        let revisions: Vec<_> = feed.iter().map(|change| change.revision).collect();
        assert_eq!(revisions, [at(9)], "{}", database.engine);
    }
}

/// Law 8.
#[tokio::test]
async fn document_that_cannot_be_read_holds_up_no_other() {
    for (database, store) in stores().await {
        let (good, bad) = (stored(Kind::Host, "", "good", 1), stored(Kind::Host, "", "bad", 1));
        let mut tx = write(&store).await;
        tx.put_document(&good).await.expect("put");
        tx.put_document(&bad).await.expect("put");
        tx.commit().await.expect("commit");
        database.execute("UPDATE resources SET spec = '{\"colour\": 1}' WHERE name = 'bad'").await.expect("tamper");
        let mut tx = read(&store).await;
        assert_eq!(tx.all_documents().await.expect("all"), [good], "{}", database.engine);
        names(tx.document(Kind::Host, "", "bad").await, "resources", "spec", &bad.uid.to_string());
    }
}
