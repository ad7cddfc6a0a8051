//! What pipelines report is kept once, forward only, and not without end.

use titan_api::{
    limits,
    pipelines::{Build, BuildReport, BuildState, Source, SourceReport},
};
use uuid::Uuid;

use super::{at, read, stores, write};

fn commit(number: usize) -> String {
    format!("{number:040x}")
}

fn source(number: usize, seen: i64) -> Source {
    let report = SourceReport { commit: commit(number), branch: None, message: None, author: None, url: None };
    Source { report, actor: "token:ci".to_owned(), seen_at: at(seen) }
}

fn build(id: usize, number: usize, state: BuildState, version: &str) -> Build {
    let report = BuildReport {
        id: id.to_string(),
        commit: commit(number),
        state,
        version: Some(version.to_owned()),
        artifact: None,
        message: Some("a\0b".to_owned()),
        url: None,
    };
    let began_at = at(i64::try_from(id).expect("a number"));
    Build { report, actor: "token:ci".to_owned(), began_at, ended_at: state.is_final().then_some(began_at) }
}

/// S2-33.
#[tokio::test]
async fn what_pipelines_report_is_read_back_newest_first_and_by_workload() {
    for (database, store) in stores().await {
        let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
        let mut tx = write(&store).await;
        for (number, seen) in [(1, 10), (2, 20)] {
            tx.put_source(one, &source(number, seen)).await.expect("put");
        }
        let running = build(1, 1, BuildState::Running, "1.0");
        assert!(tx.put_build(one, &running).await.expect("put"), "{}", database.engine);
        tx.put_source(other, &source(3, 30)).await.expect("put");
        tx.commit().await.expect("commit");
        let mut tx = write(&store).await;
        // The time when it was first seen stays.
        tx.put_source(one, &source(1, 99)).await.expect("put");
        let ended = build(1, 1, BuildState::Succeeded, "1.0");
        assert!(tx.put_build(one, &ended).await.expect("put"));
        assert!(!tx.put_build(one, &running).await.expect("put"), "{}: it has ended", database.engine);
        let failed = build(1, 1, BuildState::Failed, "1.0");
        assert!(!tx.put_build(one, &failed).await.expect("put"), "{}: it has ended otherwise", database.engine);
        tx.commit().await.expect("commit");
        let mut tx = read(&store).await;
        let log = tx.pipeline_log(one).await.expect("log");
        assert_eq!(log.sources, [source(2, 20), source(1, 10)], "{}", database.engine);
        assert_eq!(log.builds, std::slice::from_ref(&ended), "{}", database.engine);
        assert_eq!(tx.source(one, &commit(2)).await.expect("read"), Some(source(2, 20)));
        assert_eq!(tx.source(one, &commit(3)).await.expect("read"), None);
        assert_eq!(tx.build(one, "1").await.expect("read"), Some(ended));
        drop(tx);
        let mut tx = write(&store).await;
        tx.purge_pipeline_log(one).await.expect("purge");
        tx.commit().await.expect("commit");
        let mut tx = read(&store).await;
        assert_eq!(tx.pipeline_log(one).await.expect("log"), Default::default(), "{}", database.engine);
        assert_eq!(tx.pipeline_log(other).await.expect("log").sources.len(), 1, "{}", database.engine);
    }
}

#[tokio::test]
async fn only_the_newest_are_kept_and_those_that_the_version_names() {
    let kept = limits::PIPELINE_KEPT;
    for (database, store) in stores().await {
        let workload = Uuid::now_v7();
        let mut tx = write(&store).await;
        for number in 0..kept + 5 {
            let version = if number < 2 { "1.0" } else { "2.0" };
            let seen = i64::try_from(number).expect("a number");
            tx.put_source(workload, &source(number, seen)).await.expect("put");
            tx.put_build(workload, &build(number, number, BuildState::Succeeded, version)).await.expect("put");
        }
        tx.trim_pipeline_log(workload, "1.0").await.expect("trim");
        let log = tx.pipeline_log(workload).await.expect("log");
        assert_eq!((log.sources.len(), log.builds.len()), (kept + 2, kept + 2), "{}", database.engine);
        assert_eq!(log.sources.last().map(|source| source.report.commit.clone()), Some(commit(0)));
        // As a version names a commit.
        tx.trim_pipeline_log(workload, &commit(1)).await.expect("trim");
        let log = tx.pipeline_log(workload).await.expect("log");
        assert_eq!((log.sources.len(), log.builds.len()), (kept + 1, kept + 1), "{}", database.engine);
        // A version that every build makes keeps no more of them than others.
        tx.trim_pipeline_log(workload, "2.0").await.expect("trim");
        let log = tx.pipeline_log(workload).await.expect("log");
        assert_eq!((log.sources.len(), log.builds.len()), (kept, kept), "{}", database.engine);
        tx.commit().await.expect("commit");
    }
}
