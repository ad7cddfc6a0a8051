//! Power cuts in the middle of planning.

use std::{sync::Arc, time::Instant};

use serde_json::json;
use titan_api::{
    Digest, Kind, SetDigest,
    client::{Polled, WriteOptions},
    poll::PollAnswer,
};

use super::{PATIENCE, Site, apply, deployment, each_time, settled};
use crate::store_replicas::full;

fn digest(answer: &PollAnswer) -> SetDigest {
    SetDigest::of(answer.deployments.iter().map(|deployment| (deployment.id, deployment.revision)))
}

fn names(answer: &PollAnswer) -> Vec<String> {
    let mut names: Vec<_> = answer.deployments.iter().map(|deployment| deployment.release.clone()).collect();
    names.sort();
    names
}

/// Plans two new deployments on two hosts with a power cut; returns whether the power was cut.
async fn plan_and_cut(site: &Site, fault: &str) -> bool {
    let mut node = site.start(Some(fault));
    let mut cursor = None;
    let mut cut = !node.ready().await.expect("ready");
    if !cut {
        cursor = match site.host(&node, 1).poll("h1", None, None, 0).await {
            Ok(Polled::Changed(answer)) => Some(answer.cursor),
            other => panic!("{fault}: {other:?}"),
        };
        apply(&site.admin(&node), [deployment("one", 1), deployment("two", 2).drain(..1).collect()].concat()).await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = site.host(&node, 1).poll("h1", None, None, 0).await;
            if !node.process.is_running() {
                cut = true;
                break;
            }
            if let Ok(Polled::Changed(answer)) = &told
                && answer.deployments.len() == 2
            {
                break;
            }
            assert!(Instant::now() < deadline, "{fault}: neither planned nor cut: {told:?}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        // The planner may be cut on its way out of the commit that the poll has seen.
        node.process.kill().expect("kill");
    } else {
        let node = site.restart().await;
        apply(&site.admin(&node), [deployment("one", 1), deployment("two", 2).drain(..1).collect()].concat()).await;
        settled(&node.server).await;
    }
    let node = site.restart().await;
    for (number, host) in [(1, "h1"), (2, "h2")] {
        let client = site.host(&node, number);
        let whole = full(&client, host, 2).await;
        assert!(whole.full && whole.tombstones.is_empty(), "{fault}");
        assert_eq!(names(&whole), ["one#1", "two#1"], "{fault}: {host}");
        assert_eq!(whole.digest, digest(&whole), "{fault}: {host}");
        for deployment in &whole.deployments {
            let bundle =
                client.bundle(host, &deployment.digest).await.expect("a bundle").bytes().await.expect("all of it");
            assert_eq!(Digest::of(&bundle), deployment.digest, "{fault}: {host}");
        }
        // Whoever polled before the power cut is told the rest.
        if let Some(cursor) = cursor {
            match client.poll(host, Some(cursor), None, 0).await.expect("poll") {
                Polled::Changed(delta) => {
                    assert_eq!(digest(&delta), whole.digest, "{fault}: {host}: the delta is not the rest");
                }
                Polled::Unchanged { .. } => panic!("{fault}: {host}: nothing is told"),
            }
        }
    }
    // The next release follows on.
    let patch = json!({ "spec": { "values": { "port": 9 } } });
    let admin = site.admin(&node);
    admin.patch(Kind::Deployment, Some("default"), "one", &patch, &WriteOptions::default()).await.expect("patch");
    let deadline = Instant::now() + PATIENCE;
    while names(&full(&site.host(&node, 2), "h2", 2).await) != ["one#2", "two#1"] {
        assert!(Instant::now() < deadline, "{fault}: the next release never came");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    settled(&node.server).await;
    drop(node);
    // Exactly once each.
    let mut numbers = site
        .texts(
            "SELECT r.name || ' ' || x.number FROM releases x JOIN resources r ON r.uid = x.deployment_uid ORDER BY 1",
        )
        .await;
    numbers.sort();
    assert_eq!(numbers, ["one 1", "one 2", "two 1"], "{fault}: a release is missing or double");
    let assignments = site.texts("SELECT CAST(COUNT(*) AS TEXT) FROM assignments WHERE bundle IS NOT NULL").await;
    assert_eq!(assignments, ["4"], "{fault}");
    let waiting = site
        .texts(
            "SELECT CAST(COUNT(*) AS TEXT) FROM changes \
             WHERE revision > (SELECT revision FROM bookmarks WHERE name = 'planner')",
        )
        .await;
    assert_eq!(waiting, ["0"], "{fault}: a change is not planned");
    cut
}

/// S1-14, law 2. What a planner had decided is written whole or decided again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_planned_once_wherever_the_power_is_cut() {
    let site = Arc::new(Site::new(Vec::new()).await);
    let cuts = each_time("planner", async move |fault: String| plan_and_cut(&site.copy(), &fault).await).await;
    // The clock, the lease, two releases, their bundles, four assignments, the bookmark, before and after the commit.
    assert!(cuts >= 13, "only {cuts} power cuts");
}
