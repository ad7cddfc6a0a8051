//! The append-only history.

use titan_api::{
    Document, Kind, Revision,
    changes::{Change, Operation},
};
use titan_control_plane::store::{ChangeFilter, Stored, Tx, Written};

use super::{at, read, stored, stores, write};

async fn add(tx: &mut Tx, revision: i64, ordinal: usize, operation: Operation, document: &Document) {
    let written = Written {
        operation,
        before: (operation != Operation::Create).then_some(document),
        after: (operation != Operation::Delete).then_some(document),
        actor: "somebody",
        reason: Some("because"),
        request_id: "r1",
    };
    tx.add_change(at(revision), ordinal, document, &written).await.expect("add");
}

/// S2-20, law 10.
#[tokio::test]
async fn history_refuses_to_be_rewritten() {
    for (database, store) in stores().await {
        let mut tx = write(&store).await;
        add(&mut tx, 1, 0, Operation::Create, &stored(Kind::Host, "", "h", 1).document()).await;
        tx.commit().await.expect("commit");
        for bad in
            ["UPDATE changes SET actor = 'nobody'", "DELETE FROM changes", "DELETE FROM changes WHERE revision = 1"]
        {
            let error = database.execute(bad).await.expect_err(bad).to_string();
            assert!(error.contains("append-only"), "{}: {bad}: {error}", database.engine);
        }
        let changes = read(&store).await.changes(Revision::ZERO, &ChangeFilter::default(), 10).await.expect("changes");
        assert_eq!((changes.len(), changes[0].actor.as_str()), (1, "somebody"), "{}", database.engine);
    }
}

#[tokio::test]
async fn one_place_in_the_history_is_taken_once() {
    for (database, store) in stores().await {
        let document = stored(Kind::Host, "", "h", 1).document();
        let mut tx = write(&store).await;
        add(&mut tx, 1, 0, Operation::Create, &document).await;
        let written = Written {
            operation: Operation::Update,
            before: None,
            after: Some(&document),
            actor: "",
            reason: None,
            request_id: "",
        };
        assert!(tx.add_change(at(1), 0, &document, &written).await.is_err(), "{}", database.engine);
    }
}

#[tokio::test]
async fn changes_are_read_back_with_before_after_actor_reason_and_request() {
    for (database, store) in stores().await {
        let document = stored(Kind::Workload, "iot", "w", 1).document();
        let mut tx = write(&store).await;
        add(&mut tx, 1, 3, Operation::Update, &document).await;
        tx.commit().await.expect("commit");
        let changes = read(&store).await.changes(Revision::ZERO, &ChangeFilter::default(), 10).await.expect("changes");
        let expected = Change {
            revision: at(1),
            ordinal: 3,
            operation: Operation::Update,
            kind: Kind::Workload,
            workspace: Some(super::name("iot")),
            name: super::name("w"),
            uid: document.metadata.uid.expect("uid"),
            before: Some(document.clone()),
            after: Some(document),
            actor: "somebody".to_owned(),
            reason: Some("because".to_owned()),
            request_id: "r1".to_owned(),
        };
        assert_eq!(changes, [expected], "{}", database.engine);
    }
}

#[tokio::test]
async fn page_of_changes_never_cuts_a_revision_in_two() {
    for (database, store) in stores().await {
        let mut tx = write(&store).await;
        // Commits of 1 to 4 changes; every third change is of another kind.
        let sizes = [1, 4, 2, 1, 3, 4, 1];
        let mut all = Vec::new();
        for (index, size) in sizes.into_iter().enumerate() {
            let revision = 10 * (index as i64 + 1);
            for ordinal in 0..size {
                let kind = if all.len() % 3 == 2 { Kind::Workload } else { Kind::Host };
                let workspace = if kind == Kind::Host { "" } else { "iot" };
                let document = stored(kind, workspace, &format!("d{}", all.len()), revision).document();
                add(&mut tx, revision, ordinal, Operation::Create, &document).await;
                all.push((revision, ordinal as u32, kind));
            }
        }
        tx.commit().await.expect("commit");
        let mut tx = read(&store).await;
        let hosts = ChangeFilter { kind: Some(Kind::Host), ..ChangeFilter::default() };
        let workloads = ChangeFilter { workspace: Some("iot"), ..ChangeFilter::default() };
        for (filter, kind) in
            [(ChangeFilter::default(), None), (hosts, Some(Kind::Host)), (workloads, Some(Kind::Workload))]
        {
            let expected: Vec<_> =
                all.iter().filter(|change| kind.is_none_or(|kind| change.2 == kind)).copied().collect();
            for limit in 1..=all.len() + 1 {
                let mut found = Vec::new();
                let mut since = Revision::ZERO;
                loop {
                    let page = tx.changes(since, &filter, limit).await.expect("page");
                    let Some(last) = page.last() else { break };
                    // More than the limit only to finish the last commit.
                    let whole = page.iter().filter(|change| change.revision < last.revision).count();
                    assert!(
                        whole < limit,
                        "{}: {whole} changes before the last commit, limit {limit}",
                        database.engine
                    );
                    since = last.revision.next();
                    found.extend(page.iter().map(|change| (change.revision.micros(), change.ordinal, change.kind)));
                }
                assert_eq!(found, expected, "{} by {limit} of {kind:?}", database.engine);
            }
        }
        let one = ChangeFilter { name: Some("d4"), ..ChangeFilter::default() };
        assert_eq!(tx.changes(Revision::ZERO, &one, 10).await.expect("page").len(), 1, "{}", database.engine);
        // "At or after".
        assert_eq!(tx.changes(at(70), &ChangeFilter::default(), 10).await.expect("page").len(), 1);
        assert_eq!(tx.changes(at(71), &ChangeFilter::default(), 10).await.expect("page"), []);
    }
}

#[tokio::test]
async fn history_of_a_document_is_newest_first_over_its_recreations() {
    for (database, store) in stores().await {
        let (first, second) = (stored(Kind::Target, "iot", "t", 1), stored(Kind::Target, "iot", "t", 4));
        let mut tx = write(&store).await;
        add(&mut tx, 1, 0, Operation::Create, &first.document()).await;
        add(&mut tx, 2, 5, Operation::Update, &first.document()).await;
        add(&mut tx, 3, 0, Operation::Delete, &first.document()).await;
        add(&mut tx, 4, 0, Operation::Create, &second.document()).await;
        add(&mut tx, 4, 1, Operation::Create, &stored(Kind::Target, "iot", "other", 4).document()).await;
        tx.commit().await.expect("commit");
        let mut tx = read(&store).await;
        let history = tx.history(Kind::Target, "iot", "t", 10).await.expect("history");
        let found: Vec<_> = history.iter().map(|change| (change.revision.micros(), change.operation)).collect();
        let expected = [(4, Operation::Create), (3, Operation::Delete), (2, Operation::Update), (1, Operation::Create)];
        assert_eq!(found, expected, "{}", database.engine);
        assert_eq!(tx.history(Kind::Target, "iot", "t", 2).await.expect("history").len(), 2);
        let older = async |tx: &mut Tx, before| {
            let found = tx.history_before((Kind::Target, "iot", "t"), before, 10).await.expect("history");
            found.iter().map(|change| change.revision.micros()).collect::<Vec<_>>()
        };
        assert_eq!(older(&mut tx, (at(3), 0)).await, [2, 1], "{}", database.engine);
        assert_eq!(older(&mut tx, (at(2), 6)).await, [2, 1], "{}: the same commit", database.engine);
        assert_eq!(older(&mut tx, (at(2), 5)).await, [1], "{}", database.engine);
        assert_eq!(older(&mut tx, (at(1), 0)).await, [0; 0], "{}", database.engine);
        assert_eq!(tx.history(Kind::Target, "default", "t", 2).await.expect("history"), []);
    }
}

/// Law 10: `?at=` answers what was desired at any past revision.
#[tokio::test]
async fn documents_of_a_past_revision_are_those_that_were_there_then() {
    for (database, store) in stores().await {
        let first = stored(Kind::Target, "iot", "t", 10);
        let edited = Stored { generation: 2, revision: at(20), ..first.clone() };
        let again = stored(Kind::Target, "iot", "t", 40);
        let twice = Stored { generation: 2, ..again.clone() };
        let other = stored(Kind::Target, "default", "t", 20);
        let mut tx = write(&store).await;
        add(&mut tx, 10, 0, Operation::Create, &first.document()).await;
        add(&mut tx, 20, 0, Operation::Update, &edited.document()).await;
        add(&mut tx, 20, 1, Operation::Create, &other.document()).await;
        add(&mut tx, 30, 0, Operation::Delete, &edited.document()).await;
        // Made again and changed in one commit: the later place counts.
        add(&mut tx, 40, 0, Operation::Create, &again.document()).await;
        add(&mut tx, 40, 1, Operation::Update, &twice.document()).await;
        tx.commit().await.expect("commit");
        let mut tx = read(&store).await;
        let (first, edited, other, twice) = (first.document(), edited.document(), other.document(), twice.document());
        for (when, expected) in [
            (9, vec![]),
            (10, vec![&first]),
            (19, vec![&first]),
            (20, vec![&other, &edited]),
            (29, vec![&other, &edited]),
            (30, vec![&other]),
            (39, vec![&other]),
            (40, vec![&other, &twice]),
            (1_000, vec![&other, &twice]),
        ] {
            let found = tx.documents_at(Kind::Target, "", "", at(when)).await.expect("documents");
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{} at {when}", database.engine);
            let one = tx.documents_at(Kind::Target, "iot", "t", at(when)).await.expect("documents");
            let of_iot: Vec<_> = expected
                .into_iter()
                .filter(|document| document.metadata.workspace == first.metadata.workspace)
                .collect();
            assert_eq!(one.iter().collect::<Vec<_>>(), of_iot, "{} at {when}", database.engine);
        }
    }
}

/// That the clock was moved past a restored database is in the history and yet changes no document.
#[tokio::test]
async fn moved_clock_is_in_the_history_and_hides_no_document() {
    for (database, store) in stores().await {
        let workspace = stored(Kind::Workspace, "", "default", 10);
        let mut tx = write(&store).await;
        add(&mut tx, 10, 0, Operation::Create, &workspace.document()).await;
        let revision = tx.tick_past(at(20), at(5_000_000_000_000_000)).await.expect("tick");
        assert!(revision >= at(5_000_000_000_000_000), "{}", database.engine);
        tx.add_clock_change(revision, at(5_000_000_000_000_000)).await.expect("add");
        tx.commit().await.expect("commit");
        let mut tx = read(&store).await;
        let changes = tx.changes(revision, &ChangeFilter::default(), 10).await.expect("changes");
        assert_eq!(changes[0].operation, Operation::ClockMoved, "{}", database.engine);
        let found = tx.documents_at(Kind::Workspace, "", "", revision).await.expect("documents");
        assert_eq!(found, [workspace.document()], "{}", database.engine);
    }
}

/// PostgreSQL holds every character of a text but one.
///
/// S4-31.
#[tokio::test]
async fn reason_with_any_character_is_kept() {
    for (database, store) in stores().await {
        let document = stored(Kind::Host, "", "h", 1).document();
        let reason = "one\0two \u{1f980}\n'; DROP TABLE changes; --";
        let written = Written {
            operation: Operation::Create,
            before: None,
            after: Some(&document),
            actor: "ann",
            reason: Some(reason),
            request_id: "r",
        };
        let mut tx = write(&store).await;
        tx.add_change(at(1), 0, &document, &written).await.expect("add");
        let found = tx.changes(Revision::ZERO, &ChangeFilter::default(), 1).await.expect("changes");
        let expected = reason.replace('\0', "\u{fffd}");
        assert_eq!(found[0].reason, Some(expected), "{}", database.engine);
    }
}
