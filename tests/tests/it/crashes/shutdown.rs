//! The orderly end.

use std::time::{Duration, Instant};

use titan_api::client::Polled;

use super::{PATIENCE, Site, deployment};
use crate::store_replicas::full;

/// S3-31. Held polls are answered, and the process ends well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_a_held_poll_finish_with_nothing_new_and_ends_with_success() {
    let site = Site::new(deployment("prod", 1)).await;
    let mut node = site.restart().await;
    let client = site.host(&node, 1);
    let whole = full(&client, "h1", 1).await;
    let held = tokio::spawn({
        let client = client.clone();
        async move { client.poll("h1", Some(whole.cursor), Some(whole.digest), 60).await }
    });
    let deadline = Instant::now() + PATIENCE;
    let metrics = reqwest::Client::new().get(format!("{}/metrics", node.server)).bearer_auth(&site.token);
    loop {
        let answer = metrics.try_clone().expect("no body").send().await.expect("metrics");
        let text = answer.error_for_status().expect("metrics").text().await.expect("text");
        if text.lines().any(|line| line == "titan_polls_waiting 1") {
            break;
        }
        assert!(Instant::now() < deadline, "the poll is not held: {text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let told = Instant::now();
    node.process.terminate().expect("terminate");
    match held.await.expect("join").expect("an answer") {
        Polled::Unchanged { cursor, .. } => assert!(cursor >= whole.cursor),
        Polled::Changed(answer) => panic!("something changed: {answer:?}"),
    }
    assert!(node.process.wait(PATIENCE).expect("ended").success());
    // Not because the 60 seconds of the poll, or the 20 of the shutdown, were over.
    assert!(told.elapsed() < Duration::from_secs(15), "it took {:?}", told.elapsed());
    // Nothing is locked and nothing lost.
    let node = site.restart().await;
    assert_eq!(full(&site.host(&node, 1), "h1", 1).await.digest, whole.digest);
}
