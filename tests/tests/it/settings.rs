//! How a control plane is set up, what it does unless told otherwise, and what it writes to its log.

use std::{
    fs::File,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use titan_api::{
    client::Client,
    workplans::{PlanState, executors::External, policies::Retry},
};
use titan_control_plane::store::Store;
use titan_tests::{databases, nodes, postgres::free_port};

/// S3-28, S3-29, S4-18: three attempts of five minutes each, a second between them at first, and never more than ten.
#[test]
fn attempts_are_three_of_five_minutes_each() {
    let external = External { queue: "q".parse().expect("a name"), input: serde_json::Map::new() };
    let limit = titan_api::workplans::Executor::External(external).limit(None);
    assert_eq!((Retry::default().attempts, limit), (3, Duration::from_mins(5)));
    assert_eq!(
        (Retry::default().longest_wait(1), Retry::default().longest_wait(9)),
        (Duration::from_secs(1), Duration::from_secs(10))
    );
}

/// S3-30: address and database come from the environment, and have defaults.
#[test]
fn settings_come_from_the_environment_and_have_defaults() {
    let printed = |change: &dyn Fn(&mut std::process::Command)| {
        let mut command = nodes::command(crate::NODE, "control-plane");
        command.arg("check-config");
        change(&mut command);
        nodes::succeed(&mut command).expect("printed")
    };
    let plain = printed(&|_| {});
    assert!(plain.contains("127.0.0.1:7420") && plain.contains("sqlite://titan.db"), "{plain}");
    let told = printed(&|command| {
        command.env("TITAN_LISTEN", "127.0.0.1:1234").env("TITAN_DATABASE_URL", "sqlite://elsewhere.db");
    });
    assert!(told.contains("127.0.0.1:1234") && told.contains("elsewhere.db"), "{told}");
    // S4-36.
    let told = printed(&|command| {
        command.env("TITAN_DATABASE_URL", "postgres://db/titan").env("TITAN_REPLICA_URL", "postgres://standby/titan");
    });
    assert!(told.contains("replicaUrl: postgres://standby/titan"), "{told}");
}

/// S4-21: ten connections at a time read; whoever comes next waits for one of them.
#[tokio::test]
async fn ten_connections_read_at_a_time() {
    for database in databases::each() {
        let store = Store::open(&database.url).await.expect("open");
        let mut readers = Vec::new();
        for _ in 0..10 {
            readers.push(store.read().await.expect("a connection"));
        }
        let next = tokio::time::timeout(Duration::from_millis(200), store.read()).await;
        assert!(next.is_err(), "{}: an eleventh", database.engine);
        readers.pop();
        let next = tokio::time::timeout(Duration::from_secs(30), store.read()).await;
        next.expect("it waits no longer").expect("a connection");
    }
}

/// S3-22, S3-39, S4-27, S4-30, S4-33: one process serves; its log is a JSON object per line, which says where plans and attempts
/// went, in which request, and how each request was answered, with no secret in it and nothing of what was sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_is_json_without_a_secret() {
    titan_tests::planes::choose_tls();
    let folder = tempfile::tempdir().expect("a folder");
    let (token_file, log) = (folder.path().join("token"), folder.path().join("log"));
    let server = format!("127.0.0.1:{}", free_port().expect("a port"));
    let mut command = nodes::command(crate::NODE, "control-plane");
    command.args(["serve", "--listen", &server, "--log-format", "json", "--log-level", "debug", "--database-url"]);
    command.arg(format!("sqlite://{}", folder.path().join("titan.db").display()));
    command.arg("--admin-token-file").arg(&token_file);
    let mut child = command.stdout(Stdio::null()).stderr(File::create(&log).expect("a file")).spawn().expect("started");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !reqwest::get(format!("http://{server}/readyz")).await.is_ok_and(|answer| answer.status().is_success()) {
        assert!(Instant::now() < deadline, "it is not ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ready = reqwest::get(format!("http://{server}/readyz")).await.expect("answered").json::<Value>().await;
    let ready = ready.expect("JSON");
    for component in ["database", "view", "planner", "tasks", "workplans"] {
        assert_eq!(ready[component]["ready"], json!(true), "{ready}");
    }
    assert!(ready["view"]["behindMicroseconds"].is_number() && ready["planner"]["leads"].is_boolean(), "{ready}");
    let token = std::fs::read_to_string(&token_file).expect("a token").trim().to_owned();
    let admin = Client::new(&format!("http://{server}"), Some(token.clone())).expect("client");
    let credential = crate::store_replicas::enrolled(&admin, "pi").await;
    let plan = json!({ "apiVersion": "titan/v1", "kind": "WorkPlan", "metadata": { "name": "p", "workspace": "default" },
        "spec": { "nodes": { "a": { "run": { "wait": { "for": "10ms" } } } } } });
    crate::store_replicas::apply(&admin, vec![plan]).await;
    // What people declare is theirs, and may be a secret; so may be what stands in a query.
    let secret = json!({ "apiVersion": "titan/v1", "kind": "Workload", "metadata": { "name": "w", "workspace": "default" },
        "spec": { "values": { "password": "hunter2" } } });
    crate::store_replicas::apply(&admin, vec![secret]).await;
    let query = reqwest::Client::new().get(format!("http://{server}/v1/hosts?labelSelector=pin%3Dhunter3"));
    let listed = query.bearer_auth(&token).header("x-request-id", "list-7").send().await.expect("answered");
    assert_eq!(listed.status(), 200);
    let plans = admin.plans(None, 10).await.expect("plans").items;
    assert_eq!(admin.plan_status(plans[0].id, 20).await.expect("the end").state, PlanState::Succeeded);
    child.kill().expect("killed");
    child.wait().expect("ended");
    let log = std::fs::read_to_string(&log).expect("a log");
    assert!(log.lines().count() > 3, "{log}");
    let read = |line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let lines: Vec<_> = log.lines().map(read).collect();
    for said in &lines {
        assert!(said["level"].is_string() && said["timestamp"].is_string() && said["target"].is_string(), "{said}");
    }
    let id = json!(plans[0].id);
    let about = lines.iter().filter(|said| said["workplan.id"] == id && said["level"] == "INFO");
    let (attempts, states): (Vec<_>, Vec<_>) = about.partition(|said| said["attempt"].is_number());
    let [attempt] = attempts.as_slice() else { panic!("one line for the one attempt: {attempts:?}") };
    let told = (&attempt["node.name"], &attempt["attempt"], &attempt["executor"], &attempt["outcome"]);
    assert_eq!(told, (&json!("a"), &json!(1), &json!("wait"), &json!("passed")), "{attempt}");
    assert!(attempt["elapsed_ms"].as_f64().is_some_and(|elapsed| elapsed >= 10.0), "{attempt}");
    // It was started by a request, and nobody asked for its end.
    let states: Vec<_> = states.iter().map(|said| (&said["state"], said["span"]["request.id"].is_string())).collect();
    assert_eq!(states, [(&json!("running"), true), (&json!("succeeded"), false)]);
    for lease in ["planner", "plans"] {
        assert!(lines.iter().any(|said| said["lease.name"] == lease && said["holder"].is_string()), "{lease}: {log}");
    }
    // Each request stands there with how it was answered, and without what was in it.
    let answered = lines.iter().find(|said| said["request.id"] == "list-7").expect("the request");
    assert_eq!((&answered["method"], &answered["path"]), (&json!("GET"), &json!("/v1/hosts")), "{answered}");
    assert!(answered["status"] == 200 && answered["elapsed_ms"].is_number(), "{answered}");
    for secret in [token.as_str(), credential.as_str(), "hunter2", "hunter3"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
