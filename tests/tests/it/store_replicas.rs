//! Two replicas over one PostgreSQL database.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use titan_api::{
    Kind, Revision,
    changes::ApplyRequest,
    client::{Client, Polled, WriteOptions},
    enrolment::{EnrolRequest, EnrolmentTokenRequest},
    poll::PollAnswer,
};
use titan_control_plane::{
    clock::Clock,
    fleet::view::HostSet,
    routes::router::router,
    serve,
    state::AppState,
    tasks::{follow, sweep},
};
use titan_tests::{
    databases::{self, Database},
    fleets::document,
    nodes::PlaneNode,
    planes::{self, Plane},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use uuid::Uuid;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the documents of one deployment onto every host, however many there are at once.
pub(crate) fn deployment(name: &str, port: u32) -> Vec<Value> {
    let files = json!({ "files": { "app.conf.j2": { "content": "port={{ values.port }} on {{ host.name }}\n" } } });
    let everybody =
        json!({ "stages": [{ "name": "all", "hosts": "100%" }], "maxFailures": "100%", "onFailure": "continue" });
    let spec = json!({
        "workload": "w", "template": "t", "target": "all", "values": { "port": port }, "strategy": everybody
    });
    vec![
        document("Deployment", None, name, &spec),
        document("Target", None, "all", &json!({ "expression": "true" })),
        document("Template", None, "t", &files),
        document("Workload", None, "w", &json!({ "version": "v1" })),
    ]
}

pub(crate) async fn apply(client: &Client, resources: Vec<Value>) -> Revision {
    let request = ApplyRequest { resources, ..ApplyRequest::default() };
    let answer = client.apply(&request, &WriteOptions::default()).await.expect("apply");
    answer.revision.expect("something changed")
}

/// Makes a host and returns its credential.
pub(crate) async fn enrolled(client: &Client, host: &str) -> String {
    apply(client, vec![document("Host", None, host, &json!({}))]).await;
    let host = crate::store::name(host);
    let request = EnrolmentTokenRequest { host: host.clone(), ttl_seconds: None };
    let token = client.enrolment_token(&request).await.expect("token").token;
    let request = EnrolRequest { host, token, attempt: Uuid::new_v4(), facts: titan_api::hosts::Facts::new() };
    client.enrol(&request).await.expect("enrol").credential
}

/// Polls until the host's full answer has `count` deployments.
pub(crate) async fn full(client: &Client, host: &str, count: usize) -> PollAnswer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.poll(host, None, None, 0).await {
            Ok(Polled::Changed(answer)) if answer.deployments.len() == count => return *answer,
            other => assert!(Instant::now() < deadline, "{host} never got {count} deployments: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Returns a replica whose view moves only when it is told to.
pub(crate) async fn still_replica(database: &Database) -> AppState {
    let config = planes::config(&database.url, crate::NODE.into());
    let renderer = serve::renderer(&config).expect("a renderer");
    let (state, _planner) =
        serve::open(config, renderer, Clock::system(), CancellationToken::new()).await.expect("open");
    state
}

async fn leads(server: &str) -> bool {
    let ready = async { reqwest::get(format!("{server}/readyz")).await?.json::<Value>().await };
    ready.await.is_ok_and(|ready| ready["planner"]["leads"] == json!(true))
}

async fn until_leads(server: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !leads(server).await {
        assert!(Instant::now() < deadline, "{server} never led");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// S4-35, S5-1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_on_one_replica_reaches_a_poll_that_is_held_on_the_other() {
    let Some(database) = databases::postgres() else { return };
    let one = Plane::start(&database, crate::NODE, "").await.expect("start");
    let other = Plane::start(&database, crate::NODE, &one.token).await.expect("start");
    let credential = enrolled(&one.client(), "h").await;
    let hosts = [&one, &other].map(|plane| Client::new(&plane.server, Some(credential.clone())).expect("client"));
    let mut cursor = full(&hosts[1], "h", 0).await.cursor;
    let url = database.url.clone();
    let mut listener = sqlx::postgres::PgListener::connect(&url).await.expect("connect");
    listener.listen("titan_feed").await.expect("listen");
    for round in 0..6 {
        // Written here and held there, in turn.
        let (writer, holder) = if round % 2 == 0 { (&one, &hosts[1]) } else { (&other, &hosts[0]) };
        let held = tokio::spawn({
            let holder = holder.clone();
            async move { holder.poll("h", Some(cursor), None, 30).await }
        });
        let revision = apply(&writer.client(), deployment("prod", round)).await;
        let Polled::Changed(answer) = held.await.expect("join").expect("poll") else {
            panic!("round {round}: nothing came")
        };
        assert!(!answer.full, "round {round}");
        assert_eq!(answer.deployments[0].release, format!("prod#{}", round + 1));
        assert!(answer.cursor > cursor && answer.deployments[0].revision > revision, "round {round}");
        cursor = answer.cursor;
        // Every commit was hinted at.
        tokio::time::timeout(PATIENCE, listener.recv()).await.expect("a hint").expect("a hint");
        // The replica that was written to answers from there on, too.
        let here = if round % 2 == 0 { &hosts[0] } else { &hosts[1] };
        match here.poll("h", Some(cursor), Some(answer.digest), 0).await.expect("poll") {
            Polled::Unchanged { cursor: next, .. } => assert!(next >= cursor, "round {round}: the cursor went back"),
            Polled::Changed(other) => panic!("round {round}: the replicas differ: {other:?}"),
        }
    }
    one.stop().await.expect("stop");
    other.stop().await.expect("stop");
}

/// S5-36.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_replica_leads_and_hands_over_when_it_stops() {
    let Some(database) = databases::postgres() else { return };
    let one = Plane::start(&database, crate::NODE, "").await.expect("start");
    let other = Plane::start(&database, crate::NODE, &one.token).await.expect("start");
    until_leads(&one.server).await;
    assert!(!leads(&other.server).await, "both lead");
    let credential = enrolled(&other.client(), "h").await;
    one.stop().await.expect("stop");
    until_leads(&other.server).await;
    apply(&other.client(), deployment("prod", 1)).await;
    let host = Client::new(&other.server, Some(credential)).expect("client");
    assert_eq!(full(&host, "h", 1).await.deployments[0].release, "prod#1");
    other.stop().await.expect("stop");
}

/// Two replicas as processes, the first of them leading, with a host that has one deployment.
struct Pair {
    leader: PlaneNode,
    other: PlaneNode,
    token: String,
    credential: String,
    _folder: tempfile::TempDir,
}

impl Pair {
    async fn start(database: &Database) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut leader = PlaneNode::start(crate::NODE, folder.path(), &database.url, None).expect("start");
        assert!(leader.ready().await.expect("ready"));
        let token = std::fs::read_to_string(folder.path().join("token")).expect("a token").trim().to_owned();
        let mut other = PlaneNode::start(crate::NODE, folder.path(), &database.url, None).expect("start");
        assert!(other.ready().await.expect("ready"));
        let admin = Client::new(&other.server, Some(token.clone())).expect("client");
        let credential = enrolled(&admin, "h").await;
        until_leads(&leader.server).await;
        apply(&admin, deployment("before", 1)).await;
        let pair = Self { leader, other, token, credential, _folder: folder };
        full(&pair.host(&pair.other), "h", 1).await;
        pair
    }

    fn admin(&self, node: &PlaneNode) -> Client {
        Client::new(&node.server, Some(self.token.clone())).expect("client")
    }

    fn host(&self, node: &PlaneNode) -> Client {
        Client::new(&node.server, Some(self.credential.clone())).expect("client")
    }
}

/// S5-36. A leader that is gone without a word is succeeded when its lease is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_replica_takes_over_from_a_leader_that_was_killed() {
    let Some(database) = databases::postgres() else { return };
    let mut pair = Pair::start(&database).await;
    let host = pair.host(&pair.other);
    let before = full(&host, "h", 1).await;
    pair.leader.process.kill().expect("kill");
    // Taken in while nobody plans.
    apply(&pair.admin(&pair.other), deployment("after", 2)).await;
    assert!(!leads(&pair.other.server).await, "the lease of the dead leader was not waited for");
    let after = full(&host, "h", 2).await;
    assert!(leads(&pair.other.server).await);
    assert!(after.cursor > before.cursor);
    let releases = database.texts("SELECT CAST(number AS TEXT) FROM releases").await.expect("releases");
    assert_eq!(releases, ["1", "1"]);
}

/// S5-36. A leader that slept while another took over follows from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_that_slept_through_its_lease_decides_nothing_when_it_wakes_up() {
    let Some(database) = databases::postgres() else { return };
    let pair = Pair::start(&database).await;
    pair.leader.process.pause().expect("pause");
    apply(&pair.admin(&pair.other), deployment("after", 2)).await;
    full(&pair.host(&pair.other), "h", 2).await;
    pair.leader.process.resume().expect("resume");
    // Both are asked to write; one of them plans.
    apply(&pair.admin(&pair.leader), deployment("by-the-sleeper", 3)).await;
    apply(&pair.admin(&pair.other), deployment("by-the-other", 4)).await;
    let (one, two) = (pair.host(&pair.leader), pair.host(&pair.other));
    let (one, two) = (full(&one, "h", 4).await, full(&two, "h", 4).await);
    assert_eq!(one.digest, two.digest, "the replicas differ");
    let deadline = Instant::now() + PATIENCE;
    while leads(&pair.leader.server).await {
        assert!(Instant::now() < deadline, "the sleeper believes that it leads");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(leads(&pair.other.server).await);
    let numbered =
        "SELECT r.name || '#' || x.number FROM releases x JOIN resources r ON r.uid = x.deployment_uid ORDER BY 1";
    let mut releases = database.texts(numbered).await.expect("releases");
    releases.sort();
    // The values of workload, template and target are shared: only new deployments made releases.
    assert_eq!(releases, ["after#1", "before#1", "by-the-other#1", "by-the-sleeper#1"]);
}

/// S4-35. A host that was answered by one replica is never answered from before by another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_behind_the_cursor_waits_and_never_goes_back() {
    let Some(database) = databases::postgres() else { return };
    let ahead = Plane::start(&database, crate::NODE, "").await.expect("start");
    let credential = enrolled(&ahead.client(), "h").await;
    let state = still_replica(&database).await;
    let behind = router(state.clone());
    apply(&ahead.client(), deployment("prod", 1)).await;
    let host = Client::new(&ahead.server, Some(credential.clone())).expect("client");
    let newest = full(&host, "h", 1).await;
    assert!(state.view.revision().next() < newest.cursor);
    let ask = || {
        let path = format!("/v1/hosts/h/changes?since={}&have={}", newest.cursor, newest.digest);
        let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {credential}"));
        behind.clone().oneshot(request.body(Body::empty()).expect("a request"))
    };
    // It does not catch up in time: no answer is better than an older one.
    let answer = ask().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    let problem: Value = serde_json::from_slice(&body).expect("a problem");
    assert_eq!(problem["code"], "unavailable", "{problem}");
    // It does: the answer is not older than the cursor.
    let waiting = tokio::spawn(ask());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished(), "answered from before the cursor");
    follow::pass(&state).await.expect("follow");
    let answer = waiting.await.expect("join").expect("an answer");
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    let cursor = answer.headers()[titan_api::poll::CURSOR_HEADER].to_str().expect("text");
    assert!(cursor.parse::<Revision>().expect("a cursor") >= newest.cursor);
    ahead.stop().await.expect("stop");
}

/// The same request, sent to both replicas at once because an answer seemed lost, happens once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotency_key_holds_over_both_replicas_at_once() {
    let Some(database) = databases::postgres() else { return };
    let one = Plane::start(&database, crate::NODE, "").await.expect("start");
    let other = Plane::start(&database, crate::NODE, &one.token).await.expect("start");
    let clients = [one.client(), other.client()];
    for round in 0..20 {
        let host = document("Host", None, &format!("h{round}"), &json!({}));
        let request = ApplyRequest { resources: vec![host], ..ApplyRequest::default() };
        let options = WriteOptions { idempotency_key: Some(format!("k{round}")), ..WriteOptions::default() };
        let [first, second] = clients.each_ref().map(|client| client.apply(&request, &options));
        let (first, second) = tokio::join!(first, second);
        let (first, second) = (first.expect("an answer"), second.expect("an answer"));
        assert!(first.revision.is_some(), "round {round}");
        assert_eq!(first, second, "round {round}: two answers to one request");
    }
    one.stop().await.expect("stop");
    other.stop().await.expect("stop");
}

/// S4-35. The feed does not tell of confirmed tombstones; the other replica finds out by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tombstone_confirmed_to_one_replica_leaves_the_view_of_the_other() {
    let Some(database) = databases::postgres() else { return };
    let one = Plane::start(&database, crate::NODE, "").await.expect("start");
    let host = Client::new(&one.server, Some(enrolled(&one.client(), "h").await)).expect("client");
    apply(&one.client(), [deployment("stays", 1), deployment("goes", 2).drain(..1).collect()].concat()).await;
    full(&host, "h", 2).await;
    let options = WriteOptions::default();
    one.client().delete(Kind::Deployment, Some("default"), "goes", false, &options).await.expect("delete");
    let whole = full(&host, "h", 1).await;
    let [tombstone] = whole.tombstones.as_slice() else { panic!("no tombstone: {whole:?}") };
    let other = still_replica(&database).await;
    let ids = || {
        let sets = other.view.sets().into_iter();
        let of_host =
            |(host, set): (Uuid, Arc<HostSet>)| set.entries().iter().map(|entry| entry.id(host)).collect::<Vec<_>>();
        let mut ids: Vec<_> = sets.flat_map(of_host).collect();
        ids.sort();
        ids
    };
    let mut both = [tombstone.id, whole.deployments[0].id];
    both.sort();
    // Not confirmed: it stays.
    sweep::pass(&other).await.expect("sweep");
    assert_eq!(ids(), both);
    let confirmed = json!({ "seq": 1, "deployments": [
        { "id": tombstone.id, "release": "goes#1", "revision": tombstone.revision, "phase": "removed", "message": "" } ] });
    let confirmed = serde_json::from_value(confirmed).expect("a report");
    host.report("h", &confirmed).await.expect("report");
    sweep::pass(&other).await.expect("sweep");
    assert_eq!(ids(), [whole.deployments[0].id]);
    one.stop().await.expect("stop");
}
