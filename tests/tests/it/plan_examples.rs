//! The examples that are plans: checks of a commit, and the life of an order.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use titan_api::{
    Kind, Name,
    client::Client,
    enrolment::TokenRequest,
    workplans::{
        NodeState, Outcome, PlanState, PlanStatus, Signal, SignalRequest,
        attempts::{ClaimRequest, Completion, Verdict},
    },
};
use titan_tests::worlds::{World, until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use uuid::Uuid;

use crate::api_feed::{self, counted};

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// Applies an example's plan, with other values, and returns its id.
async fn applied(world: &World, example: &str, values: Value) -> Uuid {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(example).join("plan.yaml");
    let text = std::fs::read_to_string(file).expect("the example");
    let mut document: Value = serde_yaml::from_str(&text).expect("YAML");
    if let (Some(into), Value::Object(values)) = (document["spec"]["values"].as_object_mut(), values) {
        into.extend(values);
    }
    world.apply([document]).await.expect("applied");
    let document = world.admin.get(Kind::WorkPlan, Some("default"), example, None).await.expect("the plan");
    document.metadata.uid.expect("an id")
}

/// Takes attempts from all queues until the plan ends; `judge` says what comes of each.
async fn work(client: Client, id: Uuid, uid: &str, judge: fn(&str) -> Option<Verdict>) -> usize {
    let queues = ["builds", "tests", "reviews"].map(name).to_vec();
    let mut done = 0;
    while !client.plan_status(id, 0).await.expect("status").state.is_final() {
        let claim = ClaimRequest { queues: queues.clone(), process_uid: uid.to_owned(), wait: 1 };
        let Some(taken) = client.claim(&claim).await.expect("asked").attempt else { continue };
        let verdict = judge(&taken.node);
        let completion = Completion {
            process_uid: uid.to_owned(),
            verdict,
            code: verdict.is_none().then(|| "crash".to_owned()),
            message: None,
            details: None,
            results: Vec::new(),
        };
        client.complete((taken.plan, &taken.node, taken.number), &completion).await.expect("completed");
        done += 1;
    }
    done
}

async fn outcomes(world: &World, id: Uuid) -> BTreeMap<String, Option<Outcome>> {
    let nodes = world.admin.plan_nodes(id, None, None).await.expect("nodes");
    nodes.into_iter().map(|node| (node.name.to_string(), node.outcome)).collect()
}

/// S3-3, S3-10, S3-12, S3-19, S3-38, S4-20: a diamond, a fan-out of 50, an OR, a 2-of-3, by two workers beside each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_of_a_commit_are_answered_by_workers() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let id = applied(&world, "ci-checks", json!({})).await;
    // One review says no, one mirror is away: two of three and one of two are enough.
    let judge = |node: &str| match node {
        "style" => Some(Verdict::Failed),
        "mirror-a" => None,
        _ => Some(Verdict::Passed),
    };
    let (one, other) = tokio::join!(
        work(world.admin.clone(), id, "worker-1", judge),
        work(world.admin.clone(), id, "worker-2", judge)
    );
    assert_eq!(one + other, 1 + 2 + 50 + 3 + 2);
    let status = world.admin.plan_status(id, 0).await.expect("status");
    assert_eq!(status.state, PlanState::Succeeded, "{status:?}");
    let outcomes = outcomes(&world, id).await;
    assert_eq!((outcomes["release"], outcomes["blame"]), (Some(Outcome::Passed), Some(Outcome::Skipped)));
    assert_eq!((outcomes["style"], outcomes["mirror-a"]), (Some(Outcome::Failed), Some(Outcome::Failed)));
    let tests = world.admin.plan_node(id, &name("tests-pass")).await.expect("the check");
    assert_eq!(tests.results.len(), 50);
}

/// S3-11: a check that is final and failed unblocks nobody who waits for it to pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_failed_shard_keeps_a_commit_from_its_release() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let id = applied(&world, "ci-checks", json!({})).await;
    work(world.admin.clone(), id, "worker", |node| {
        Some(if node == "shard-17" { Verdict::Failed } else { Verdict::Passed })
    })
    .await;
    let outcomes = outcomes(&world, id).await;
    assert_eq!((outcomes["tests-pass"], outcomes["release"]), (Some(Outcome::Failed), Some(Outcome::Skipped)));
    assert_eq!(outcomes["blame"], Some(Outcome::Passed));
}

/// A shop whose steps fail a third of the time and hang another third, as the founding document has it, until an order has
/// had its share.
#[derive(Default)]
struct Shop {
    calls: BTreeMap<String, usize>,
    charged: BTreeSet<String>,
    payments: usize,
    refunds: usize,
    city: Option<String>,
}

/// Starts a shop and returns its address.
async fn shop(shop: Arc<Mutex<Shop>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&shop)));
        }
    });
    format!("http://{address}")
}

async fn serve(mut stream: tokio::net::TcpStream, shop: Arc<Mutex<Shop>>) {
    let mut buffer = Vec::new();
    let head = loop {
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(read) if read > 0 => buffer.extend_from_slice(&chunk[..read]),
            _ => return,
        }
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]).to_lowercase();
    let header = |wanted: &str| {
        text.lines().find_map(|line| Some(line.strip_prefix(wanted)?.trim_start_matches(':').trim().to_owned()))
    };
    let length: usize = header("content-length").and_then(|text| text.parse().ok()).unwrap_or_default();
    while buffer.len() < head + 4 + length {
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(read) if read > 0 => buffer.extend_from_slice(&chunk[..read]),
            _ => return,
        }
    }
    let body: Value = serde_json::from_slice(&buffer[head + 4..]).unwrap_or_default();
    let step = text.split_whitespace().nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    let key = header("idempotency-key").unwrap_or_default();
    let call = {
        let mut shop = shop.lock().expect("shop");
        let call = shop.calls.entry(step.clone()).or_default();
        *call += 1;
        let call = *call;
        // The payment is made before the shop breaks: whoever retries must not pay again.
        if step == "charge" && shop.charged.insert(key) {
            shop.payments += 1;
        }
        if step == "refund" && call == 3 {
            shop.refunds += 1;
        }
        if step == "dispatch" {
            shop.city = body["city"].as_str().map(str::to_owned);
        }
        call
    };
    match call {
        1 => {
            let broken = "HTTP/1.1 500 Broken\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _gone_or_not = stream.write_all(broken.as_bytes()).await;
        }
        2 => tokio::time::sleep(Duration::from_secs(60)).await,
        _ => {
            let fine = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            let _gone_or_not = stream.write_all(fine.as_bytes()).await;
        }
    }
}

/// Starts an order and waits until a person is to look at it.
async fn ordered(world: &World, shop: &str) -> (Uuid, Client, SignalRequest) {
    let id = applied(world, "order-lifecycle", json!({ "shop": shop })).await;
    let token = TokenRequest { name: name("reviewer"), ttl_seconds: None };
    let token = world.admin.create_token(&token).await.expect("a token").token;
    let reviewer = Client::new(&world.plane.server, Some(token)).expect("a client");
    let generation = until("the review", async || {
        let node = world.admin.plan_node(id, &name("review")).await?;
        Ok((node.state == NodeState::Waiting).then_some(node.generation))
    })
    .await
    .expect("the review");
    let approve = SignalRequest {
        node: Some(name("review")),
        generation: Some(generation),
        ..SignalRequest::new(Signal::Approve, "review-1")
    };
    (id, reviewer, approve)
}

async fn ended(world: &World, id: Uuid) -> PlanStatus {
    world.admin.plan_status(id, 30).await.expect("the end")
}

/// S4-1, S4-2, S4-3, S4-4, S4-5, S4-6, S4-13, S4-14, S4-17, S4-18, S4-19, S4-28, S5-34: every step fails once and hangs once,
/// and it ends in time; what was tried is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_shipped_within_15_seconds_though_every_step_fails_and_hangs() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let state = Arc::new(Mutex::new(Shop::default()));
    let address = shop(Arc::clone(&state)).await;
    let begun = Instant::now();
    let (id, reviewer, approve) = ordered(&world, &address).await;
    let moved = json!({"address": {"city": "Ulm"}}).as_object().cloned();
    let update =
        SignalRequest { values: moved, reason: Some("moved".into()), ..SignalRequest::new(Signal::Update, "u") };
    reviewer.signal(id, &update).await.expect("updated");
    let nowhere = json!({"address": {"city": ""}}).as_object().cloned();
    let nowhere = SignalRequest { values: nowhere, ..SignalRequest::new(Signal::Update, "u2") };
    assert!(reviewer.signal(id, &nowhere).await.is_err(), "that is no address");
    reviewer.signal(id, &approve).await.expect("approved");
    let status = ended(&world, id).await;
    let took = begun.elapsed();
    assert_eq!(status.state, PlanState::Succeeded, "{status:?}");
    assert!(took < Duration::from_secs(15), "it took {took:?}");
    assert!(status.retries >= 6, "{}", status.retries);
    let events = world.admin.plan_events(id, 0, 0).await.expect("events").items;
    let told: Vec<_> = events.iter().map(|event| (event.actor.clone(), event.event.summary())).collect();
    assert!(told.contains(&("token:reviewer".into(), "told to update: moved".into())), "{told:?}");
    let counted = async |executor: &str, outcome: &str| {
        let labels = [format!("executor=\"{executor}\""), format!("outcome=\"{outcome}\"")];
        counted(&world, "titan_attempts_total", &labels.each_ref().map(String::as_str)).await
    };
    let (passed, lost) = (counted("http", "passed").await, counted("http", "incomplete").await);
    assert!(passed >= 3.0 && lost >= 2.0 * passed, "{passed} {lost}");
    assert!((counted("approval", "passed").await - 1.0).abs() < f64::EPSILON);
    let ran = api_feed::counted(&world, "titan_attempt_seconds_sum", &["executor=\"http\""]).await;
    let times = api_feed::counted(&world, "titan_attempt_seconds_count", &["executor=\"http\""]).await;
    assert!((times - passed - lost).abs() < 0.5 && ran > 1.0, "{times} attempts ran for {ran} s");
    let shop = state.lock().expect("shop");
    assert_eq!((shop.payments, shop.refunds, shop.city.as_deref()), (1, 0, Some("Ulm")));
    assert!(shop.calls.values().all(|calls| *calls == 3), "{:?}", shop.calls);
}

/// S4-12, S4-23: an order that is cancelled is not shipped, and the payment is given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_order_is_refunded_once() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let state = Arc::new(Mutex::new(Shop::default()));
    let address = shop(Arc::clone(&state)).await;
    let (id, reviewer, approve) = ordered(&world, &address).await;
    reviewer.signal(id, &approve).await.expect("approved");
    until("the payment", async || {
        let node = world.admin.plan_node(id, &name("charge")).await?;
        Ok(node.outcome)
    })
    .await
    .expect("paid");
    let reason = Some("the customer changed his mind".to_owned());
    let cancel = SignalRequest { reason, ..SignalRequest::new(Signal::Rollback, "cancel") };
    reviewer.signal(id, &cancel).await.expect("cancelled");
    let status = ended(&world, id).await;
    assert_eq!(status.state, PlanState::RolledBack, "{status:?}");
    assert!(status.reason.expect("why").contains("token:reviewer: the customer changed his mind"));
    let shop = state.lock().expect("shop");
    assert_eq!((shop.payments, shop.refunds), (1, 1));
}
