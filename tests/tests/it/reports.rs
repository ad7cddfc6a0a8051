//! Reports of many hosts: one transaction for those of a moment, and none for what was said before.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use futures_util::future::join_all;
use serde_json::{Value, json};
use titan_control_plane::{
    store::ObservedHost,
    tasks::{
        heartbeats,
        sweep::{self, Sweeper},
    },
};
use titan_tests::{
    databases::{self, Database},
    fleets::{Answered, Fleet, document},
};
use uuid::Uuid;

use crate::store_replicas::deployment;

/// Hosts `h0` and so on, with a deployment each of them has, and their credentials.
struct Site {
    fleet: Fleet,
    credentials: Vec<String>,
    _database: Database,
}

fn name(host: usize) -> String {
    format!("h{host}")
}

impl Site {
    async fn new(database: Database, hosts: usize) -> Self {
        let mut fleet = Fleet::open(&database.url, crate::NODE).await.expect("open");
        let mut documents: Vec<_> = (0..hosts).map(|host| document("Host", None, &name(host), &json!({}))).collect();
        documents.extend(deployment("prod", 1));
        fleet.apply(&documents).await.expect("apply");
        let mut credentials = Vec::new();
        for host in 0..hosts {
            credentials.push(fleet.enrol(&name(host)).await.expect("enrol"));
        }
        fleet.settle().await.expect("settle");
        Self { fleet, credentials, _database: database }
    }

    fn uid(&self, host: usize) -> Uuid {
        self.fleet.state.model().host_named(&name(host)).expect("a host").uid()
    }

    /// Returns what a host says of its deployment.
    fn said(&self, host: usize, seq: i64, phase: &str) -> Value {
        let uid = self.uid(host);
        let set = self.fleet.state.view.slot(uid).set();
        let said = set.entries().iter().map(|entry| {
            let (id, digest) = (entry.id(uid), entry.bundle());
            json!({ "id": id, "release": "prod#1", "revision": entry.revision, "digest": digest, "phase": phase })
        });
        json!({ "seq": seq, "deployments": said.collect::<Vec<_>>() })
    }

    async fn report(&self, host: usize, report: &Value) -> Answered {
        let path = format!("/v1/hosts/{}/report", name(host));
        self.fleet.send(Method::POST, &path, &self.credentials[host], report).await.expect("an answer")
    }

    /// Reports and expects to be told that it arrived.
    async fn say(&self, host: usize, seq: i64, phase: &str) {
        let answered = self.report(host, &self.said(host, seq, phase)).await;
        assert_eq!(answered.status, StatusCode::NO_CONTENT, "{}", String::from_utf8_lossy(&answered.body));
    }

    async fn observed(&self, host: usize) -> ObservedHost {
        let mut tx = self.fleet.state.store.read().await.expect("read");
        tx.observed_host(self.uid(host)).await.expect("read").expect("enrolled")
    }

    async fn phase(&self, host: usize) -> Value {
        let path = "/v1/workspaces/default/deployments/prod/status";
        let status = self.fleet.admin(Method::GET, path, &Value::Null).await.expect("status");
        let hosts = status["hosts"].as_array().expect("hosts");
        let found = hosts.iter().find(|row| row["host"] == json!(name(host))).expect("the host");
        found["phase"].clone()
    }

    /// Lets reports queue up behind another writer, one after the other, then lets them through.
    async fn at_once(&self, reports: &[(usize, Value)]) -> Vec<Answered> {
        let other = self.fleet.state.store.write("test").await.expect("begin");
        let queued = async |count| {
            while self.fleet.state.reports.waiting() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let all = join_all(reports.iter().enumerate().map(async |(before, (host, report))| {
            queued(before).await;
            self.report(*host, report).await
        }));
        let let_through = async {
            queued(reports.len()).await;
            drop(other);
        };
        tokio::join!(all, let_through).0
    }

    fn metric(&self, name: &str) -> f64 {
        let text = self.fleet.state.metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }
}

/// S5-1: a batch is as good as one report after the other, but for the commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_of_a_moment_are_one_transaction_in_which_a_bad_one_fails_alone() {
    const HOSTS: usize = 20;
    let site = Site::new(databases::sqlite(), HOSTS).await;
    site.say(3, 9, "applying").await;
    let tamper = format!("UPDATE host_status SET orphans = '[' WHERE host_uid = '{}'", site.uid(5));
    site._database.execute(&tamper).await.expect("tamper");
    let before = site.metric("titan_report_batch_count");
    let mut reports: Vec<_> = (0..HOSTS).map(|host| (host, site.said(host, 1, "healthy"))).collect();
    // Two of one host: the second goes on from the first.
    reports.push((7, site.said(7, 2, "failed")));
    let answers = site.at_once(&reports).await;
    assert!(site.metric("titan_report_batch_count") - before < 1.5, "more than one transaction");
    for ((host, _), answered) in reports.iter().zip(&answers) {
        let (status, code) = match host {
            3 => (412, "stale"),
            5 => (500, "internal"),
            _ => (204, ""),
        };
        assert_eq!(answered.status.as_u16(), status, "{host}: {}", String::from_utf8_lossy(&answered.body));
        if !code.is_empty() {
            let problem: Value = serde_json::from_slice(&answered.body).expect("a problem");
            assert_eq!(problem["code"], code);
        }
    }
    assert_eq!(site.phase(0).await, "healthy");
    assert_eq!(site.phase(3).await, "applying");
    assert_eq!(site.phase(5).await, Value::Null);
    assert_eq!(site.phase(7).await, "failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_nothing_changed_is_taken_directly_after_what_is_known_and_refused_where_a_report_is_missing() {
    for database in databases::each() {
        let site = Site::new(database, 1).await;
        let beat = async |seq: i64| {
            let answered = site.report(0, &json!({ "seq": seq, "unchanged": true })).await;
            let problem: Value = serde_json::from_slice(&answered.body).unwrap_or_default();
            (answered.status.as_u16(), problem["errors"][0]["pointer"].clone())
        };
        let missed = (412, json!("/unchanged"));
        assert_eq!(beat(7).await, missed, "nothing was ever said");
        site.say(0, 7, "healthy").await;
        assert_eq!((beat(8).await, beat(9).await), ((204, Value::Null), (204, Value::Null)));
        assert_eq!((site.metric("titan_reports_again_total") > 0.5, site.phase(0).await), (true, json!("healthy")));
        assert_eq!(beat(11).await, missed, "10 was lost");
        assert_eq!(beat(12).await, missed, "a number that was refused is none to follow on");
        site.say(0, 13, "failed").await;
        assert_eq!((beat(14).await, site.phase(0).await), ((204, Value::Null), json!("failed")));
        // What an older backup brings back knows less.
        let restore = format!("UPDATE host_status SET report_seq = 9 WHERE host_uid = '{}'", site.uid(0));
        site._database.execute(&restore).await.expect("restore");
        site.fleet.state.view.slot(site.uid(0)).told().forget();
        assert_eq!(beat(15).await, missed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_that_fails_fails_the_whole_batch_and_the_next_one_goes_through() {
    for database in databases::each() {
        let site = Site::new(database, 3).await;
        let engine = site._database.engine;
        site.say(0, 1, "healthy").await;
        site._database.execute("ALTER TABLE reports RENAME TO gone").await.expect("rename");
        for host in 0..3 {
            let answered = site.report(host, &site.said(host, 2, "failed")).await;
            assert_eq!(answered.status, StatusCode::SERVICE_UNAVAILABLE, "{engine}");
            assert!(answered.headers.contains_key("retry-after"), "{engine}");
        }
        site._database.execute("ALTER TABLE gone RENAME TO reports").await.expect("rename");
        assert_eq!(site.observed(0).await.report_seq, 1, "{engine}: part of it is there");
        for host in 0..3 {
            site.say(host, 2, "failed").await;
            assert_eq!(site.phase(host).await, "failed", "{engine}");
        }
    }
}

/// What is said again is on disk with the next heartbeats; until then its number is known in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn report_that_says_the_same_again_is_counted_now_and_written_later() {
    for database in databases::each() {
        let site = Site::new(database, 1).await;
        let engine = site._database.engine;
        site.say(0, 1, "healthy").await;
        for seq in 2..=4 {
            site.say(0, seq, "healthy").await;
        }
        assert_eq!(site.observed(0).await.report_seq, 1, "{engine}: it was written at once");
        assert!((site.metric("titan_reports_again_total") - 3.0).abs() < 0.5, "{engine}");
        // Late, and different: its number is older than what was counted.
        let late = site.report(0, &site.said(0, 3, "failed")).await;
        assert_eq!(late.status, StatusCode::PRECONDITION_FAILED, "{engine}");
        let problem: Value = serde_json::from_slice(&late.body).expect("a problem");
        assert_eq!(problem["errors"][0]["detail"], "4", "{engine}: {problem}");
        heartbeats::pass(&site.fleet.state).await.expect("heartbeats");
        let observed = site.observed(0).await;
        assert_eq!(observed.report_seq, 4, "{engine}");
        assert!(observed.last_seen > observed.enrolled_at, "{engine}");
        // News is on disk at once, whatever was said before.
        site.say(0, 5, "degraded").await;
        assert_eq!((site.observed(0).await.report_seq, site.phase(0).await), (5, json!("degraded")), "{engine}");
        // A number is missing: something else may have been said there.
        site.say(0, 7, "degraded").await;
        assert_eq!(site.observed(0).await.report_seq, 7, "{engine}");
    }
}

/// What was counted and not written is lost in a crash; no report is refused or lost because of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_loses_only_the_count_of_what_was_said_again() {
    for database in databases::each() {
        let engine = database.engine;
        let mut site = Site::new(database, 1).await;
        site.say(0, 1, "healthy").await;
        site.say(0, 2, "healthy").await;
        site.fleet = site.fleet.restart().await.expect("restart");
        assert_eq!((site.observed(0).await.report_seq, site.phase(0).await), (1, json!("healthy")), "{engine}");
        site.say(0, 3, "failed").await;
        assert_eq!((site.observed(0).await.report_seq, site.phase(0).await), (3, json!("failed")), "{engine}");
        let late = site.report(0, &site.said(0, 2, "healthy")).await;
        assert_eq!(late.status, StatusCode::PRECONDITION_FAILED, "{engine}");
    }
}

/// S4-35. What another replica wrote is the truth, and what is counted here gives way to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn report_to_another_replica_is_taken_once_and_ends_the_counting_here() {
    let Some(database) = databases::postgres() else { return };
    let site = Site::new(database, 1).await;
    let other = crate::store_replicas::still_replica(&site._database).await;
    let there = async |report: &Value| {
        let request = axum::http::Request::post("/v1/hosts/h0/report")
            .header("authorization", format!("Bearer {}", site.credentials[0]))
            .body(axum::body::Body::from(report.to_string()))
            .expect("a request");
        let router = titan_control_plane::routes::router::router(other.clone());
        tower::ServiceExt::oneshot(router, request).await.expect("an answer").status()
    };
    site.say(0, 1, "healthy").await;
    site.say(0, 2, "healthy").await;
    // Its answer was lost: the agent says it again, to whoever answers.
    assert_eq!(there(&site.said(0, 3, "failed")).await, StatusCode::NO_CONTENT);
    site.say(0, 3, "failed").await;
    assert_eq!((site.observed(0).await.report_seq, site.phase(0).await), (3, json!("failed")));
    let late = site.report(0, &site.said(0, 2, "healthy")).await;
    assert_eq!(late.status, StatusCode::PRECONDITION_FAILED);
    // The heartbeats of the first replica do not bring back what it had counted.
    heartbeats::pass(&site.fleet.state).await.expect("heartbeats");
    assert_eq!(site.observed(0).await.report_seq, 3);
    site.say(0, 4, "healthy").await;
    assert_eq!((site.observed(0).await.report_seq, site.phase(0).await), (4, json!("healthy")));
}

/// A host that is gone leaves the view of whoever did not take it away, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_that_is_gone_leaves_the_view() {
    for database in databases::each() {
        let mut site = Site::new(database, 3).await;
        let engine = site._database.engine;
        let mut sweeper = Sweeper::new(site.fleet.state.clone());
        sweeper.pass().await.expect("sweep");
        let [forced, asked, stays] = [0, 1, 2].map(|host| site.uid(host));
        site.fleet.admin(Method::DELETE, "/v1/hosts/h0?force=true", &Value::Null).await.expect("delete");
        site.fleet.admin(Method::DELETE, "/v1/hosts/h1", &Value::Null).await.expect("delete");
        site.fleet.settle().await.expect("settle");
        sweeper.pass().await.expect("sweep");
        let found = |uid| site.fleet.state.view.find(uid).is_some();
        assert_eq!([forced, asked, stays].map(found), [false, true, true], "{engine}");
        // As if another replica had taken the confirmation and purged the host.
        let mut tx = site.fleet.state.store.write("test").await.expect("begin");
        for entry in site.fleet.state.view.slot(asked).set().entries() {
            let removal = titan_control_plane::store::Removal {
                host: asked,
                deployment: entry.deployment(),
                assignment: entry.id(asked),
                revision: entry.revision,
            };
            assert_eq!(tx.confirm_removals(&[removal]).await.expect("confirm"), [removal], "{engine}");
        }
        let settled = tx.settled_among(&[asked, stays]).await.expect("settled");
        assert_eq!(settled.len(), 1, "{engine}");
        tx.purge_settled(&settled).await.expect("purge");
        tx.commit().await.expect("commit");
        sweeper.pass().await.expect("sweep");
        assert_eq!([forced, asked, stays].map(found), [false, false, true], "{engine}");
        sweep::pass(&site.fleet.state).await.expect("sweep");
        assert!(found(stays), "{engine}");
    }
}

/// Heartbeats that cannot be written are written later; meanwhile the host counts as seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_counts_as_seen_whether_or_not_it_is_written_down() {
    let site = Site::new(databases::sqlite(), 1).await;
    let poll = format!("/v1/hosts/{}/changes", name(0));
    site.fleet.shift_clock(3_600_000_000);
    site.fleet.send(Method::GET, &poll, &site.credentials[0], &Value::Null).await.expect("polled");
    let seen = site.fleet.state.view.seen(site.uid(0)).expect("seen");
    site._database.execute("ALTER TABLE host_status RENAME TO gone").await.expect("rename");
    heartbeats::pass(&site.fleet.state).await.expect_err("nothing to write to");
    site._database.execute("ALTER TABLE gone RENAME TO host_status").await.expect("rename");
    let shown = async || {
        let host = site.fleet.admin(Method::GET, "/v1/hosts/h0", &Value::Null).await.expect("shown");
        (host["status"]["lastSeen"].clone(), host["status"]["online"].clone())
    };
    assert_eq!(shown().await, (json!(seen), json!(true)));
    assert!(site.observed(0).await.last_seen < Some(seen), "it is not on disk");
    heartbeats::pass(&site.fleet.state).await.expect("heartbeats");
    assert_eq!(site.observed(0).await.last_seen, Some(seen));
    assert_eq!(shown().await, (json!(seen), json!(true)));
}
