//! Power cuts in the middle of a report.

use std::sync::Arc;

use serde_json::json;
use titan_api::{
    Kind,
    client::{Polled, WriteOptions},
    hosts::Facts,
    reports::{DeploymentReport, Phase, Report},
};

use super::{Site, deployment, each_time, ended, settled};
use crate::store_replicas::full;

/// What is on the disk of the report: its number, the facts, what is said of deployments, tombstones of `h1`.
const ROWS: &str = "SELECT s.report_seq || ' ' || s.facts || ' ' || \
     (SELECT COUNT(*) FROM reports r WHERE r.host_uid = s.host_uid) || ' ' || \
     (SELECT COUNT(*) FROM assignments a WHERE lower(hex(a.host)) = replace(s.host_uid, '-', '') AND a.bundle IS NULL) \
     FROM host_status s JOIN resources r ON r.uid = s.host_uid WHERE r.name = 'h1'";
const BEFORE: &str = "0 {} 0 1";
const AFTER: &str = "1 {\"arch\":\"arm64\"} 1 0";

/// One report with a power cut; returns whether the power was cut.
async fn report_and_cut(site: &Site, report: &Report, fault: &str) -> bool {
    let mut node = site.start(Some(fault));
    let mut cut = !node.ready().await.expect("ready");
    let mut answered = false;
    if !cut {
        let sent = site.host(&node, 1).report("h1", report).await;
        cut = sent.is_err() && ended(&mut node);
        assert!(sent.is_ok() || cut, "{fault}: {sent:?}");
        answered = sent.is_ok();
        node.process.kill().expect("kill");
    }
    let rows = site.texts(ROWS).await;
    assert!(rows == [BEFORE] || rows == [AFTER], "{fault}: part of it is there: {rows:?}");
    assert!(!answered || rows == [AFTER], "{fault}: answered with a 2xx and gone");
    let node = site.restart().await;
    let client = site.host(&node, 1);
    // The agent had no answer: it says the same again.
    client.report("h1", report).await.expect("report");
    assert_eq!(site.texts(ROWS).await, [AFTER], "{fault}");
    let whole = full(&client, "h1", 1).await;
    assert!(whole.tombstones.is_empty(), "{fault}: a confirmed removal is asked for again");
    let status = site.admin(&node).deployment_status("default", "stays").await.expect("status");
    let status = serde_json::to_value(&status).expect("JSON").to_string();
    assert!(status.contains("healthy"), "{fault}: {status}");
    // The facts are looked at, and nothing is left to look at.
    settled(&node.server).await;
    assert_eq!(site.texts("SELECT CAST(COUNT(*) AS TEXT) FROM fact_queue").await, ["0"], "{fault}");
    cut
}

/// S1-10, law 2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn report_is_all_or_nothing_wherever_the_power_is_cut() {
    let site = Site::new([deployment("stays", 1), deployment("goes", 2).drain(..1).collect()].concat()).await;
    let node = site.restart().await;
    let whole = full(&site.host(&node, 1), "h1", 2).await;
    let options = WriteOptions::default();
    site.admin(&node).delete(Kind::Deployment, Some("default"), "goes", false, &options).await.expect("delete");
    let tombstone = loop {
        match site.host(&node, 1).poll("h1", Some(whole.cursor), None, 20).await.expect("poll") {
            Polled::Changed(answer) if !answer.tombstones.is_empty() => break answer.tombstones[0].clone(),
            other => assert!(matches!(other, Polled::Changed(_)), "no tombstone came"),
        }
    };
    settled(&node.server).await;
    drop(node);
    let said = |id, release: &str, revision, phase| DeploymentReport {
        id,
        release: release.to_owned(),
        revision,
        digest: None,
        phase,
        message: "as it should be".to_owned(),
        healthy_since: Some(revision),
        commit: None,
        push: None,
        drift: Vec::new(),
    };
    let stays = whole.deployments.iter().find(|deployment| *deployment.name == *"stays").expect("assigned");
    let report = Report {
        seq: 1,
        acked_cursor: Some(whole.cursor),
        facts: Some(Facts::from([("arch".to_owned(), json!("arm64"))])),
        deployments: vec![
            DeploymentReport {
                digest: Some(stays.digest),
                ..said(stays.id, &stays.release, stays.revision, Phase::Healthy)
            },
            said(tombstone.id, "goes#1", tombstone.revision, Phase::Removed),
        ],
        ..Report::default()
    };
    let shared = Arc::new((site, report));
    let cuts =
        each_time("report", async move |fault: String| report_and_cut(&shared.0.copy(), &shared.1, &fault).await).await;
    // What was known, the queue, the host, the removal and its report, the health with its assignment, the commit.
    assert!(cuts >= 8, "only {cuts} power cuts");
}
