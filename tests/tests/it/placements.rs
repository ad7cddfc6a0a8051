//! Placement by what hosts have room for, and what happens when a host is gone.

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use titan_api::poll::{PollAnswer, RemovalReason};
use titan_tests::{
    databases::{self, Database},
    fleets::{Fleet, document},
};

async fn fleet(database: &Database, hosts: &[(&str, Value)]) -> Fleet {
    let mut fleet = Fleet::open(&database.url, crate::NODE).await.expect("a control plane");
    let mut documents = vec![
        document("Template", Some("default"), "t", &json!({ "files": { "a": { "content": "a" } } })),
        document("Workload", Some("default"), "w", &json!({ "version": "1", "template": "t" })),
        document("Target", Some("default"), "all", &json!({ "expression": "true" })),
    ];
    documents.extend(hosts.iter().map(|(name, spec)| document("Host", None, name, spec)));
    fleet.apply(&documents).await.expect("written");
    fleet.settle().await.expect("settled");
    fleet
}

fn deployment(name: &str, placement: &Value) -> Value {
    let mut spec = json!({ "workload": "w", "target": "all" });
    let fields = placement.as_object().expect("fields").clone();
    spec.as_object_mut().expect("fields").extend(fields);
    document("Deployment", Some("default"), name, &spec)
}

async fn apply(fleet: &mut Fleet, documents: &[Value]) {
    fleet.apply(documents).await.expect("written");
    rest(fleet).await;
}

/// Lets everything come to rest, and checks that nothing was missed and no host has more than it has room for.
async fn rest(fleet: &mut Fleet) {
    fleet.settle().await.expect("settled");
    let undecided = fleet.undecided().await.expect("decided anew");
    assert!(undecided.is_empty(), "law 4: the planner missed a cause: {undecided:#?}");
    assert_eq!(fleet.overcommitted("memory"), [""; 0]);
}

async fn get(fleet: &Fleet, path: &str) -> Value {
    fleet.admin(Method::GET, path, &Value::Null).await.expect("answered")
}

/// Returns the hosts that a deployment is to be on.
async fn hosts(fleet: &Fleet, name: &str) -> Vec<String> {
    let status = get(fleet, &format!("/v1/workspaces/default/deployments/{name}/status")).await;
    let rows = status["hosts"].as_array().expect("hosts").iter().filter(|row| row["state"] != "removing");
    rows.map(|row| row["host"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Returns what keeps a deployment from being placed.
async fn problem(fleet: &Fleet, name: &str) -> Option<String> {
    let status = get(fleet, &format!("/v1/workspaces/default/deployments/{name}/status")).await;
    let problem = status["problems"].get(0)?;
    assert_eq!(problem["code"], "unschedulable", "{problem}");
    Some(problem["detail"].as_str().unwrap_or_default().to_owned())
}

/// S5-16: what one deployment has taken is taken for the next, in whatever chunks it is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_host_is_overcommitted_at_any_commit_however_small_the_chunks() {
    for pairs in [1, 3, 1000] {
        for database in databases::each() {
            let names: Vec<_> = (0..7).map(|number| format!("h{number}")).collect();
            let room = |number: usize| json!({ "capacity": { "memory": format!("{}Gi", 1 + number % 3) } });
            let listed: Vec<_> = names.iter().enumerate().map(|(number, name)| (name.as_str(), room(number))).collect();
            let mut fleet = fleet(&database, &listed).await;
            fleet.plan_in_chunks_of(pairs);
            let asks = |number: usize| json!({ "replicas": 2 + number % 3, "requests": { "memory": format!("{}Gi", 1 + number % 2) } });
            let all: Vec<_> = (0..6).map(|number| deployment(&format!("d{number}"), &asks(number))).collect();
            fleet.apply(&all).await.expect("written");
            let watched = async |fleet: &mut Fleet| {
                let mut more = true;
                while more {
                    more = fleet.plan().await.expect("planned");
                    fleet.follow().await.expect("followed");
                    assert_eq!(fleet.overcommitted("memory"), [""; 0], "{}, chunks of {pairs}", database.engine);
                }
            };
            watched(&mut fleet).await;
            rest(&mut fleet).await;
            // A deployment goes, another comes, and a host takes nothing more.
            fleet.admin(Method::DELETE, "/v1/workspaces/default/deployments/d0", &Value::Null).await.expect("deleted");
            let more = deployment("d9", &json!({ "replicas": 3, "requests": { "memory": "1Gi" } }));
            fleet.apply(&[more, document("Host", None, "h2", &json!({ "cordoned": true }))]).await.expect("written");
            watched(&mut fleet).await;
            rest(&mut fleet).await;
        }
    }
}

/// S5-16: whatever makes room leads back to what did not fit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_says_why_and_is_placed_as_soon_as_it_does() {
    for database in databases::each() {
        let small = json!({ "capacity": { "memory": "1Gi" } });
        let mut fleet = fleet(&database, &[("h1", small.clone()), ("h2", small.clone()), ("h3", small.clone())]).await;
        let full = json!({ "replicas": 3, "requests": { "memory": "600Mi" } });
        apply(&mut fleet, &[deployment("first", &full), deployment("second", &full)]).await;
        assert_eq!((hosts(&fleet, "first").await.len(), hosts(&fleet, "second").await.len()), (3, 0));
        let detail = problem(&fleet, "second").await.expect("it does not fit");
        assert_eq!(detail, "0 of 3 replicas have a place; 3 hosts: not enough memory (needs 600Mi, 424Mi left)");
        let why = get(&fleet, "/v1/hosts/h1/why/default/second").await;
        let summary = why["summary"].as_str().expect("a summary");
        assert!(
            summary.contains("600Mi memory left") && summary.contains("600Mi of 1Gi memory are taken"),
            "{summary}"
        );

        // More room on one host; a taint keeps it away from there, and then does not.
        let large = json!({ "capacity": { "memory": "2Gi" }, "taints": [{ "key": "gpu", "effect": "NoSchedule" }] });
        apply(&mut fleet, &[document("Host", None, "h1", &large)]).await;
        let detail = problem(&fleet, "second").await.expect("it does not fit");
        assert!(
            detail.contains("2 hosts: not enough memory") && detail.contains("1 host: taint gpu:NoSchedule"),
            "{detail}"
        );
        apply(&mut fleet, &[document("Host", None, "h1", &json!({ "capacity": { "memory": "2Gi" } }))]).await;
        assert_eq!(hosts(&fleet, "second").await, ["h1"]);
        // Another deployment asks for less.
        apply(&mut fleet, &[deployment("first", &json!({ "replicas": 3, "requests": { "memory": "300Mi" } }))]).await;
        assert_eq!((hosts(&fleet, "second").await.len(), problem(&fleet, "second").await), (3, None));
        // A cordon moves what there is no place for, and its end brings it back.
        apply(
            &mut fleet,
            &[document("Host", None, "h3", &json!({ "capacity": { "memory": "1Gi" }, "cordoned": true }))],
        )
        .await;
        assert!(problem(&fleet, "second").await.expect("one is missing").contains("1 host: cordoned"));
        apply(&mut fleet, &[document("Host", None, "h3", &small)]).await;
        assert_eq!((hosts(&fleet, "second").await.len(), problem(&fleet, "second").await), (3, None));
        // Another deployment is deleted.
        apply(&mut fleet, &[deployment("third", &full)]).await;
        assert!(problem(&fleet, "third").await.is_some());
        fleet.admin(Method::DELETE, "/v1/workspaces/default/deployments/second", &Value::Null).await.expect("deleted");
        rest(&mut fleet).await;
        assert_eq!((hosts(&fleet, "third").await.len(), problem(&fleet, "third").await), (3, None));
    }
}

/// S5-16: a deployment for every host goes to those that have room, and says of which it is not so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployment_for_every_host_passes_over_those_that_are_full() {
    for database in databases::each() {
        let small = json!({ "capacity": { "memory": "512Mi" } });
        let mut fleet = fleet(&database, &[("h1", small), ("h2", json!({}))]).await;
        apply(&mut fleet, &[deployment("every", &json!({ "requests": { "memory": "1Gi" } }))]).await;
        assert_eq!(hosts(&fleet, "every").await, ["h2"]);
        let detail = problem(&fleet, "every").await.expect("one is full");
        assert!(detail.ends_with("1 host: not enough memory (needs 1Gi, 512Mi left)"), "{detail}");
        // What the agent reports counts where nothing is declared.
        let credential = fleet.enrol("h2").await.expect("enrolled");
        let report = json!({ "seq": 1, "facts": { "memoryBytes": 512 << 20 } });
        let answered = fleet.send(Method::POST, "/v1/hosts/h2/report", &credential, &report).await.expect("sent");
        assert_eq!(answered.status, StatusCode::NO_CONTENT);
        rest(&mut fleet).await;
        assert_eq!(hosts(&fleet, "every").await, [""; 0]);
        // A taint that drives off needs no room.
        apply(&mut fleet, &[deployment("every", &json!({}))]).await;
        assert_eq!(hosts(&fleet, "every").await, ["h1", "h2"]);
        let taint = json!({ "taints": [{ "key": "repair", "effect": "NoExecute" }] });
        apply(&mut fleet, &[document("Host", None, "h1", &taint)]).await;
        assert_eq!(hosts(&fleet, "every").await, ["h2"]);
    }
}

/// Hosts that poll, with their credentials and cursors.
struct Pollers(BTreeMap<String, (String, Option<String>)>);

impl Pollers {
    async fn enrol(fleet: &Fleet, names: &[&str]) -> Self {
        let mut hosts = BTreeMap::new();
        for name in names {
            hosts.insert((*name).to_owned(), (fleet.enrol(name).await.expect("enrolled"), None));
        }
        Self(hosts)
    }

    /// Lets a host poll; returns what it is told to have and to remove.
    async fn poll(&mut self, fleet: &Fleet, name: &str) -> (Vec<String>, Vec<(String, RemovalReason)>) {
        let (credential, cursor) = self.0.get_mut(name).expect("enrolled");
        let since = cursor.as_ref().map(|cursor| format!("?since={cursor}")).unwrap_or_default();
        let path = format!("/v1/hosts/{name}/changes{since}");
        let answered = fleet.send(Method::GET, &path, credential, &Value::Null).await.expect("answered");
        if answered.status == StatusCode::NO_CONTENT {
            return (Vec::new(), Vec::new());
        }
        assert_eq!(answered.status, StatusCode::OK);
        let answer: PollAnswer = serde_json::from_slice(&answered.body).expect("an answer");
        *cursor = Some(answer.cursor.to_string());
        let present = answer.deployments.iter().map(|told| told.name.to_string()).collect();
        (present, answer.tombstones.iter().map(|told| (told.name.to_string(), told.reason)).collect())
    }

    /// Lets time pass, some seconds at a time, while these hosts poll and the planner goes on.
    async fn pass(&mut self, fleet: &mut Fleet, seconds: i64, names: &[&str]) {
        for _ in 0..seconds / 10 {
            fleet.shift_clock(10_000_000);
            for name in names {
                self.poll(fleet, name).await;
            }
            fleet.settle().await.expect("settled");
        }
    }
}

/// S5-17: after its time the replica of a host that is gone is elsewhere, and the host is told when it returns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_of_a_host_that_is_gone_goes_elsewhere_and_the_host_is_told_when_it_returns() {
    for database in databases::each() {
        let mut fleet = fleet(&database, &[("h1", json!({})), ("h2", json!({})), ("h3", json!({}))]).await;
        let mut pollers = Pollers::enrol(&fleet, &["h1", "h2", "h3"]).await;
        let one = deployment("one", &json!({ "replicas": 1, "failoverAfter": "5m" }));
        let never = deployment("never", &json!({ "replicas": 3, "failoverAfter": "0s" }));
        apply(&mut fleet, &[one, never]).await;
        pollers.pass(&mut fleet, 20, &["h1", "h2", "h3"]).await;
        let lost = hosts(&fleet, "one").await.remove(0);
        let others: Vec<_> = ["h1", "h2", "h3"].into_iter().filter(|name| *name != lost).collect();
        pollers.pass(&mut fleet, 280, &others).await;
        assert_eq!(hosts(&fleet, "one").await, std::slice::from_ref(&lost), "not yet: {}", database.engine);
        pollers.pass(&mut fleet, 40, &others).await;
        let now = hosts(&fleet, "one").await;
        assert!(now.len() == 1 && now[0] != lost, "{}: {now:?}", database.engine);
        assert_eq!(hosts(&fleet, "never").await.len(), 3);
        let (_, removed) = pollers.poll(&fleet, &lost).await;
        assert_eq!(removed, [("one".to_owned(), RemovalReason::ReplicaMoved)]);
        pollers.pass(&mut fleet, 60, &["h1", "h2", "h3"]).await;
        assert_eq!(hosts(&fleet, "one").await, now, "it does not go back");
    }
}

/// S5-17: nothing fails over because the control plane was away, or cannot be reached by anybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_fails_over_because_the_control_plane_was_away() {
    for database in databases::each() {
        let mut fleet = fleet(&database, &[("h1", json!({})), ("h2", json!({}))]).await;
        let mut pollers = Pollers::enrol(&fleet, &["h1", "h2"]).await;
        apply(&mut fleet, &[deployment("one", &json!({ "replicas": 1, "failoverAfter": "2m" }))]).await;
        pollers.pass(&mut fleet, 20, &["h1", "h2"]).await;
        let on = hosts(&fleet, "one").await;
        let other = ["h1", "h2"].into_iter().find(|name| *name != on[0]).expect("another");
        // Restarted again and again, each time for less than two minutes: it takes what it saw itself.
        for _ in 0..3 {
            pollers.pass(&mut fleet, 90, &[other]).await;
            fleet = fleet.restart().await.expect("restarted");
            fleet.settle().await.expect("settled");
            assert_eq!(hosts(&fleet, "one").await, on, "{}", database.engine);
        }
        // Held up for an hour, and then for as long as nobody comes.
        fleet.shift_clock(3_600_000_000);
        fleet.settle().await.expect("settled");
        pollers.pass(&mut fleet, 1000, &[]).await;
        assert_eq!(hosts(&fleet, "one").await, on, "{}", database.engine);
        // And then it is the host that is gone.
        pollers.pass(&mut fleet, 400, &[other]).await;
        assert_eq!(hosts(&fleet, "one").await, [other], "{}", database.engine);
    }
}
