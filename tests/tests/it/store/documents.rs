//! Documents as they are declared now.

use titan_api::Kind;
use titan_control_plane::store::{Listing, ObservedHost, Stored};
use uuid::Uuid;

use super::{at, read, stored, stores, write};

#[tokio::test]
async fn documents_of_every_kind_are_read_back_as_they_were_put() {
    for (database, store) in stores().await {
        let mut tx = write(&store).await;
        let mut put = Vec::new();
        for kind in Kind::ALL {
            let document = stored(kind, if kind.in_workspace() { "iot" } else { "" }, "one", 7);
            tx.put_document(&document).await.expect("put");
            put.push(document);
        }
        tx.commit().await.expect("commit");
        let mut tx = read(&store).await;
        for document in put {
            let workspace = document.workspace.as_deref().unwrap_or_default();
            let found = tx.document(document.kind, workspace, "one").await.expect("read");
            assert_eq!(found.as_ref(), Some(&document), "{}", database.engine);
            assert_eq!(tx.document_by_uid(document.uid).await.expect("read"), found);
            assert_eq!(tx.document(document.kind, "elsewhere", "one").await.expect("read"), None);
        }
    }
}

#[tokio::test]
async fn pages_follow_each_other_in_order_of_workspace_and_name() {
    for (database, store) in stores().await {
        let mut tx = write(&store).await;
        let names = ["b", "a", "a-b", "a0", "ab", "z9"];
        for workspace in ["two", "one"] {
            for name in names {
                tx.put_document(&stored(Kind::Workload, workspace, name, 1)).await.expect("put");
            }
            tx.put_document(&stored(Kind::Target, workspace, "other-kind", 1)).await.expect("put");
        }
        let gone = Stored { deleted: Some(at(2)), ..stored(Kind::Workload, "one", "deleted", 1) };
        tx.put_document(&gone).await.expect("put");
        tx.commit().await.expect("commit");
        let mut sorted = names.to_vec();
        sorted.sort_unstable();
        let mut tx = read(&store).await;
        for (workspace, expected) in [(None, vec!["one", "two"]), (Some("two"), vec!["two"])] {
            let expected: Vec<_> = expected
                .iter()
                .flat_map(|workspace| sorted.iter().map(move |name| format!("{workspace}/{name}")))
                .collect();
            for limit in [1, 2, 5, 100] {
                let mut found = Vec::<String>::new();
                let mut after = (String::new(), String::new());
                loop {
                    let listing = Listing { kind: Kind::Workload, workspace, after: (&after.0, &after.1), limit };
                    let page = tx.documents(&listing).await.expect("page");
                    assert!(page.len() <= limit);
                    let Some(last) = page.last() else { break };
                    after = (last.workspace.as_deref().unwrap_or_default().to_owned(), last.name.to_string());
                    found.extend(
                        page.iter().map(|row| format!("{}/{}", row.workspace.as_deref().unwrap_or_default(), row.name)),
                    );
                }
                assert_eq!(found, expected, "{} by {limit}", database.engine);
            }
            let all = tx.documents_of(Kind::Workload, workspace.unwrap_or_default()).await.expect("all");
            assert_eq!(all.len(), expected.len(), "{}", database.engine);
        }
    }
}

#[tokio::test]
async fn deleted_documents_wait_beside_a_new_one_of_the_name_until_they_are_purged() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let first = stored(Kind::Deployment, "iot", "prod", 1);
        let (older, newer) = (
            Stored { deleted: Some(at(2)), ..first.clone() },
            Stored { deleted: Some(at(4)), ..stored(Kind::Deployment, "iot", "prod", 3) },
        );
        let live = stored(Kind::Deployment, "iot", "prod", 5);
        let mut tx = write(&store).await;
        for document in [&first, &older, &newer, &live] {
            tx.put_document(document).await.expect("put");
        }
        tx.commit().await.expect("commit");
        let mut tx = write(&store).await;
        assert_eq!(tx.document(Kind::Deployment, "iot", "prod").await.expect("read"), Some(live.clone()), "{engine}");
        let deleted = tx.deleted_document(Kind::Deployment, "iot", "prod").await.expect("read");
        assert_eq!(deleted, Some(newer.clone()), "{engine}");
        assert_eq!(tx.document_by_uid(older.uid).await.expect("read"), Some(older.clone()), "{engine}");
        assert_eq!(tx.all_documents().await.expect("all"), std::slice::from_ref(&live), "{engine}");
        tx.purge_document(newer.uid).await.expect("purge");
        assert_eq!(tx.deleted_document(Kind::Deployment, "iot", "prod").await.expect("read"), Some(older), "{engine}");
        tx.commit().await.expect("commit");
        // A second live one of the name is refused by the database itself.
        let mut tx = write(&store).await;
        let twin = tx.put_document(&stored(Kind::Deployment, "iot", "prod", 6)).await;
        assert!(twin.is_err(), "{engine}");
    }
}

#[tokio::test]
async fn deletions_settle_when_they_are_planned_and_no_assignment_is_left() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let deployment = Stored { deleted: Some(at(10)), ..stored(Kind::Deployment, "iot", "prod", 1) };
        let host = Stored { deleted: Some(at(20)), ..stored(Kind::Host, "", "h", 1) };
        let present = super::assignment(deployment.uid, host.uid, 5);
        let mut tx = write(&store).await;
        tx.put_document(&deployment).await.expect("put");
        tx.put_document(&host).await.expect("put");
        tx.put_document(&stored(Kind::Host, "", "alive", 1)).await.expect("put");
        assert_eq!(tx.settled_deletions(10).await.expect("settled"), [], "{engine}: nothing is planned yet");
        tx.set_bookmark("planner", at(10)).await.expect("bookmark");
        let settled = tx.settled_deletions(10).await.expect("settled");
        assert_eq!(settled, [(Kind::Deployment, deployment.uid)], "{engine}");
        super::put(&mut tx, [&present]).await;
        tx.set_bookmark("planner", at(30)).await.expect("bookmark");
        assert_eq!(tx.settled_deletions(10).await.expect("settled"), [], "{engine}: both have an assignment");
        super::put(&mut tx, [&super::tombstone(&present, 31)]).await;
        assert_eq!(tx.settled_deletions(10).await.expect("settled"), [], "{engine}: a tombstone waits");
        let removal = super::removal(&present, host.uid, 31);
        assert_eq!(tx.confirm_removals(&[removal]).await.expect("confirm"), [removal], "{engine}");
        let mut settled = tx.settled_deletions(10).await.expect("settled");
        settled.sort();
        let mut expected = vec![(Kind::Host, host.uid), (Kind::Deployment, deployment.uid)];
        expected.sort();
        assert_eq!(settled, expected, "{engine}");
        assert_eq!(tx.settled_deletions(1).await.expect("settled").len(), 1, "{engine}: no more than asked for");
        let host_alone = tx.settled_among(&[host.uid, Uuid::now_v7()]).await.expect("settled");
        assert_eq!(host_alone, [(Kind::Host, host.uid)], "{engine}: no others than asked for");
        assert_eq!(tx.hosts_leaving().await.expect("leaving"), [host.uid], "{engine}");
        tx.put_observed_host(&ObservedHost { uid: host.uid, ..ObservedHost::default() }).await.expect("put");
        tx.purge_settled(&settled).await.expect("purge");
        assert_eq!(tx.settled_deletions(10).await.expect("settled"), [], "{engine}");
        assert_eq!(tx.observed_hosts().await.expect("read"), [], "{engine}");
        assert!(tx.hosts_among(&[host.uid]).await.expect("read").is_empty(), "{engine}");
    }
}
