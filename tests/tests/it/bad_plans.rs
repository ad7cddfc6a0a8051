//! Plans and strategies that make no sense, and signals that come too late or from the wrong person: refused with a code over
//! the API and at the command line, and nothing is written.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};
use titan_api::{
    Kind, Name,
    client::Client,
    enrolment::TokenRequest,
    workplans::{NodeState, PlanState, Signal, SignalRequest},
};
use titan_tests::{
    manifests::{deployment, document, target, template, workload},
    operators::Operator,
    worlds::{World, until},
};
use uuid::Uuid;

/// Exit code of what is refused.
const REFUSED: i32 = 4;

/// A control plane, somebody at a terminal, and what lay in the database before anything was refused.
struct Scene {
    world: World,
    person: Operator,
    before: BTreeMap<String, i64>,
}

impl Scene {
    async fn new() -> Self {
        let world = World::start(crate::NODE).await.expect("a control plane");
        let person = Operator::new(crate::NODE).expect("a directory");
        person.login(&world.plane.server, &world.plane.token).expect("logged in");
        let mut scene = Self { world, person, before: BTreeMap::new() };
        scene.note().await;
        scene
    }

    async fn note(&mut self) {
        self.world.settled().await.expect("decided");
        self.before = self.world.rows().await.expect("rows");
    }

    /// Fails if anything was written since.
    async fn nothing_was_written(&self) {
        assert_eq!(self.world.rows().await.expect("rows"), self.before);
    }

    /// Applies documents of which the last is bad, over the API and at the command line.
    async fn refused(&self, resources: &[Value], code: &str, pointer: &str) -> String {
        let place = resources.len() - 1;
        let refused = self.world.raw_apply(resources).await.expect("answered");
        assert_eq!((refused.status.as_u16(), refused.code()), (422, code), "{}", refused.text);
        assert_eq!(refused.pointers(), [format!("/resources/{place}{pointer}")], "{}", refused.text);
        let list: Vec<_> = resources.iter().map(Value::to_string).collect();
        self.person.write("bad.yaml", &list.join("\n---\n")).expect("a file");
        let (exit, problem) = self.person.json("titan apply -f bad.yaml").expect("run");
        assert_eq!((exit, &problem["code"]), (REFUSED, &json!(code)), "{problem}");
        self.nothing_was_written().await;
        refused.body["detail"].as_str().unwrap_or_default().to_owned() + &refused.text
    }

    async fn refused_plan(&self, spec: &Value, code: &str, pointer: &str) -> String {
        self.refused(&[plan("p", spec)], code, pointer).await
    }

    /// Applies a plan that is good, and returns its id.
    async fn applied(&self, spec: &Value) -> Uuid {
        self.world.apply([plan("p", spec)]).await.expect("applied");
        let document = self.world.admin.get(Kind::WorkPlan, Some("default"), "p", None).await.expect("the plan");
        document.metadata.uid.expect("an id")
    }

    /// Sends a signal that is refused.
    async fn refused_signal(&self, id: Uuid, request: &SignalRequest, code: &str) {
        let body = serde_json::to_string(request).expect("JSON");
        let refused = self.world.admin_call(Method::POST, &format!("/v1/workplans/{id}/signals"), body).await;
        let refused = refused.expect("answered");
        let status = if code == "self_approval" { 403 } else { 409 };
        assert_eq!((refused.status.as_u16(), refused.code()), (status, code), "{}", refused.text);
    }

    async fn waiting(&self, id: Uuid, node: &str) -> u32 {
        let node = Name::new(node).expect("a name");
        until("a gate", async || {
            let found = self.world.admin.plan_node(id, &node).await?;
            Ok((found.state == NodeState::Waiting).then_some(found.generation))
        })
        .await
        .expect("it waits")
    }
}

fn plan(name: &str, spec: &Value) -> Value {
    document("WorkPlan", Some("default"), name, spec)
}

fn about(signal: Signal, node: &str, generation: u32, request: &str) -> SignalRequest {
    let (node, reason) = (Name::new(node).ok(), signal.needs_a_reason().then(|| "because".to_owned()));
    SignalRequest { node, generation: Some(generation), reason, ..SignalRequest::new(signal, request) }
}

/// Somebody else than who makes the plans.
async fn reviewer(world: &World) -> Client {
    let request = TokenRequest { name: Name::new("reviewer").expect("a name"), ttl_seconds: None };
    let token = world.admin.create_token(&request).await.expect("a token").token;
    Client::new(&world.plane.server, Some(token)).expect("a client")
}

/// S3-16, S4-32.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_wait_for_each_other_are_refused() {
    let scene = Scene::new().await;
    let nodes = json!({ "a": { "after": { "edges": ["b"] } }, "b": { "after": { "edges": ["c"] } },
        "c": { "after": { "edges": ["a"] } } });
    let said = scene.refused_plan(&json!({ "nodes": nodes }), "cycle", "/spec/nodes/a/after").await;
    assert!(said.contains('a') && said.contains('b') && said.contains('c'), "{said}");
}

/// S3-21.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_waits_for_one_that_is_not_there_is_refused() {
    let spec = json!({ "nodes": { "a": { "after": { "edges": ["nobody"] } } } });
    Scene::new().await.refused_plan(&spec, "unknown_node", "/spec/nodes/a/after").await;
}

/// S3-10.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_group_is_refused() {
    let spec = json!({ "nodes": { "a": {}, "b": { "after": { "edges": [], "groups": [] } } } });
    Scene::new().await.refused_plan(&spec, "empty_group", "/spec/nodes/b/after").await;
}

/// S3-10.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_threshold_above_the_size_of_its_group_is_refused() {
    let after = json!({ "edges": ["a", "b"], "threshold": 3 });
    let spec = json!({ "nodes": { "a": {}, "b": {}, "c": { "after": after } } });
    Scene::new().await.refused_plan(&spec, "threshold_too_large", "/spec/nodes/c/after/threshold").await;
}

/// S4-32.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_a_hundred_percent_is_refused() {
    let scene = Scene::new().await;
    let health = json!({ "nodes": { "a": { "run": { "health": { "deployment": "web", "percent": 101 } } } } });
    scene.refused_plan(&health, "invalid_document", "/spec/nodes/a/run/health/percent").await;
    let around = [target("all", ""), template("t", &[("a", "")]), workload("w", "1")];
    for (strategy, pointer) in [
        (json!({ "stages": [{ "name": "all", "hosts": "101%" }] }), "/spec/strategy/stages/0/hosts"),
        (
            json!({ "stages": [{ "name": "all", "hosts": "100%" }], "maxFailures": "200%" }),
            "/spec/strategy/maxFailures",
        ),
        (
            json!({ "stages": [{ "name": "all", "hosts": "100%", "maxUnavailable": "4294967296%" }] }),
            "/spec/strategy/stages/0/maxUnavailable",
        ),
    ] {
        let web = deployment("web", "w", "t", "all", &json!({ "strategy": strategy }));
        let resources: Vec<_> = around.iter().cloned().chain([web]).collect();
        scene.refused(&resources, "invalid_document", pointer).await;
    }
}

/// S3-6, S4-25.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_is_over_is_told_nothing_any_more() {
    let mut scene = Scene::new().await;
    let id = scene.applied(&json!({ "nodes": { "a": {} } })).await;
    assert_eq!(scene.world.admin.plan_status(id, 20).await.expect("the end").state, PlanState::Succeeded);
    scene.note().await;
    for signal in [Signal::Pause, Signal::Resume, Signal::Abort, Signal::Rollback, Signal::Start] {
        let reason = Some("because".to_owned());
        let request = SignalRequest { reason, ..SignalRequest::new(signal, format!("late-{signal}")) };
        scene.refused_signal(id, &request, "invalid_transition").await;
    }
    for signal in [Signal::Skip, Signal::Retry, Signal::Reject] {
        scene.refused_signal(id, &about(signal, "a", 1, &format!("late-{signal}")), "invalid_transition").await;
    }
    let (exit, problem) = scene.person.json("titan workplan abort p --reason late").expect("run");
    assert_eq!((exit, &problem["code"]), (REFUSED, &json!("invalid_transition")), "{problem}");
    scene.nothing_was_written().await;
}

/// S4-25: an approval of a gate as it was before it was written anew opens nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_of_a_gate_as_it_no_longer_is_is_refused() {
    let mut scene = Scene::new().await;
    let spec = |deadline: &str| {
        let gate = json!({ "kind": "check", "run": { "approval": { "deadline": deadline } } });
        json!({ "start": false, "nodes": { "gate": gate } })
    };
    let id = scene.applied(&spec("1h")).await;
    let gate = Name::new("gate").expect("a name");
    let seen = scene.world.admin.plan_node(id, &gate).await.expect("the gate").generation;
    scene.applied(&spec("2h")).await;
    scene.world.admin.signal(id, &SignalRequest::new(Signal::Start, "start")).await.expect("started");
    let now = scene.waiting(id, "gate").await;
    assert_ne!(now, seen);
    let reviewer = reviewer(&scene.world).await;
    scene.note().await;
    let stale = reviewer.signal(id, &about(Signal::Approve, "gate", seen, "stale")).await.expect_err("stale");
    assert_eq!(stale.code(), Some(titan_api::Code::StaleSignal), "{stale}");
    scene.refused_signal(id, &about(Signal::Approve, "gate", seen, "stale"), "stale_signal").await;
    scene.nothing_was_written().await;
    assert_eq!(scene.world.admin.plan_status(id, 0).await.expect("status").state, PlanState::Running);
    reviewer.signal(id, &about(Signal::Approve, "gate", now, "yes")).await.expect("approved");
    assert_eq!(scene.world.admin.plan_status(id, 20).await.expect("the end").state, PlanState::Succeeded);
}

/// S4-34.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_made_a_plan_cannot_approve_it() {
    let mut scene = Scene::new().await;
    let id = scene.applied(&json!({ "nodes": { "gate": { "kind": "check", "run": { "approval": {} } } } })).await;
    let seen = scene.waiting(id, "gate").await;
    scene.note().await;
    scene.refused_signal(id, &about(Signal::Approve, "gate", seen, "mine"), "self_approval").await;
    let (exit, problem) = scene.person.json("titan workplan approve p gate --reason mine").expect("run");
    assert_eq!((exit, &problem["code"]), (REFUSED, &json!("self_approval")), "{problem}");
    scene.nothing_was_written().await;
    assert_eq!(scene.waiting(id, "gate").await, seen);
}

/// S4-19 (b): a plan, a plan that grows, and a strategy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worst_case_that_does_not_fit_is_refused_with_its_sum() {
    let mut scene = Scene::new().await;
    let ask = json!({ "http": { "url": "http://127.0.0.1:9" } });
    let four = json!({ "run": ask, "timeouts": { "perAttempt": "4s" } });
    let spec = json!({ "deadline": "15s", "nodes": { "accept": { "run": { "wait": { "for": "1s" } } },
        "apply": { "run": ask, "timeouts": { "perAttempt": "4s" }, "after": { "edges": ["accept"] } } } });
    let said = scene.refused_plan(&spec, "budget_exceeded", "/spec/deadline").await;
    assert!(said.contains("= 16s") && said.contains("15s"), "{said}");
    let around = [target("all", ""), template("t", &[("a", "")]), workload("w", "1")];
    let strategy = json!({ "deadline": "15m", "stages": [{ "name": "all", "hosts": "100%", "minReadySeconds": 60 }] });
    let web = deployment("web", "w", "t", "all", &json!({ "strategy": strategy }));
    let resources: Vec<_> = around.into_iter().chain([web]).collect();
    let said = scene.refused(&resources, "budget_exceeded", "/spec/strategy/deadline").await;
    assert!(said.contains("= 21m"), "{said}");
    // One that grows has to fit as well, and so has one that gets less time.
    let hold = json!({ "run": { "external": { "queue": "q" } }, "timeouts": { "perAttempt": "5s" }, "retry": { "attempts": 1 } });
    let id = scene.applied(&json!({ "deadline": "15s", "nodes": { "hold": hold } })).await;
    scene.note().await;
    let mut later = four;
    later["after"] = json!({ "edges": ["hold"] });
    let body = json!({ "nodes": { "later": later } }).to_string();
    let refused =
        scene.world.admin_call(Method::POST, &format!("/v1/workplans/{id}/nodes"), body).await.expect("answered");
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "budget_exceeded"), "{}", refused.text);
    let deadline = serde_json::from_value(json!("4s")).expect("a span");
    let update = SignalRequest { deadline: Some(deadline), ..SignalRequest::new(Signal::Update, "less") };
    let refused = scene.world.admin.signal(id, &update).await.expect_err("too short");
    assert_eq!(refused.code(), Some(titan_api::Code::BudgetExceeded), "{refused}");
    scene.nothing_was_written().await;
}
