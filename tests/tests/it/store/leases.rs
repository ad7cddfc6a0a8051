//! Leases (law 12).

use titan_control_plane::store::{Lease, Store, StoreError};
use uuid::Uuid;

use super::{assignment, at, read, stores, until_somebody_waits, write};

async fn take(store: &Store, holder: &str, now: i64, until: i64) -> Option<Lease> {
    let mut tx = write(store).await;
    let lease = tx.take_lease("planner", holder, at(now), at(until)).await.expect("take");
    tx.commit().await.expect("commit");
    lease
}

/// S5-36.
#[tokio::test]
async fn lease_is_held_by_one_at_a_time_and_its_token_only_grows() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let first = take(&store, "a", 100, 200).await.expect("free");
        assert_eq!(take(&store, "b", 150, 250).await, None, "{engine}");
        assert_eq!(take(&store, "b", 200, 300).await, None, "{engine}: not before it is over");
        assert_eq!(take(&store, "a", 150, 300).await, Some(first), "{engine}: renewed under the same token");
        assert_eq!(take(&store, "b", 250, 350).await, None, "{engine}: it was renewed");
        let second = take(&store, "b", 301, 400).await.expect("over");
        assert!(second.token > first.token, "{engine}");
        assert_eq!(take(&store, "a", 350, 500).await, None, "{engine}");
        let third = take(&store, "a", 401, 500).await.expect("over");
        assert!(third.token > second.token, "{engine}");
    }
}

#[tokio::test]
async fn lease_that_is_given_back_is_free_at_once() {
    for (database, store) in stores().await {
        let first = take(&store, "a", 100, 1_000).await.expect("free");
        let mut tx = write(&store).await;
        // One that was lost gives nothing back.
        tx.release_lease(Lease { token: first.token + 7, ..first }).await.expect("release");
        tx.commit().await.expect("commit");
        assert_eq!(take(&store, "b", 101, 1_000).await, None, "{}", database.engine);
        let mut tx = write(&store).await;
        tx.release_lease(first).await.expect("release");
        tx.commit().await.expect("commit");
        let second = take(&store, "b", 101, 1_000).await.expect("free");
        assert!(second.token > first.token, "{}", database.engine);
    }
}

/// S5-36. A leader that was paused while another took over writes nothing any more.
#[tokio::test]
async fn paused_leader_is_refused_after_another_took_the_lease() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let paused = take(&store, "a", 100, 200).await.expect("free");
        let mut tx = write(&store).await;
        tx.check_lease(paused).await.expect("held");
        drop(tx);
        let leader = take(&store, "b", 300, 400).await.expect("over");
        let mut tx = write(&store).await;
        tx.tick(at(350)).await.expect("tick");
        super::put(&mut tx, [&assignment(Uuid::now_v7(), Uuid::now_v7(), 350)]).await;
        let refused = tx.check_lease(paused).await.expect_err("fenced");
        assert!(matches!(refused, StoreError::Fenced("planner")), "{engine}: {refused}");
        drop(tx);
        let mut tx = read(&store).await;
        assert_eq!(super::moved_after(&mut tx, 0).await.expect("read"), [], "{engine}");
        drop(tx);
        let mut tx = write(&store).await;
        tx.check_lease(leader).await.expect("held");
        // Nobody who never held it gets through either.
        let refused = tx.check_lease(Lease { name: "other", token: leader.token }).await;
        assert!(matches!(refused, Err(StoreError::Fenced("other"))), "{engine}");
    }
}

/// S5-36. Between a leader's check and its commit nobody takes the lease, however late it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lease_cannot_change_hands_within_the_leaders_transaction() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let leader = take(&store, "a", 100, 200).await.expect("free");
        let mut writing = write(&store).await;
        writing.check_lease(leader).await.expect("held");
        let taker = store.clone();
        let taken = tokio::spawn(async move { take(&taker, "b", 1_000, 2_000).await });
        until_somebody_waits(&database).await;
        assert!(!taken.is_finished(), "{engine}: taken under a leader that is writing");
        let written = assignment(Uuid::now_v7(), Uuid::now_v7(), 350);
        super::put(&mut writing, [&written]).await;
        writing.commit().await.expect("commit");
        let second = taken.await.expect("join");
        assert!(second.is_some_and(|second| second.token > leader.token), "{engine}: {second:?}");
        assert_eq!(super::moved_after(&mut read(&store).await, 0).await.expect("read"), [written], "{engine}");
    }
}
