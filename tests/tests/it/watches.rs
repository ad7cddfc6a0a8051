//! Watching a rollout where there is no terminal: a line for each change, or a document a line.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::{Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use titan_api::{
    Name,
    client::Client,
    enrolment::TokenRequest,
    workplans::{NodeView, PlanStatus, Signal, SignalRequest},
};
use titan_tests::{
    manifests::{deployment, target, template, workload},
    operators::Operator,
    worlds::{World, until},
};
use tokio::task::{JoinHandle, JoinSet};

/// Makes hosts that take whatever they are given.
async fn hosts(world: &World, count: usize) -> JoinSet<()> {
    let mut hosts = JoinSet::new();
    for number in 0..count {
        let mut host = world.host(&format!("h{number}"), "").await.expect("a host");
        hosts.spawn(async move {
            loop {
                match host.poll(20).await {
                    Ok(Some(news)) => host.report(&news).await.expect("reported"),
                    Ok(None) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
    }
    hosts
}

async fn release(world: &World, version: &str, gated: bool) {
    let checks = if gated { json!([{ "approval": {} }]) } else { json!([]) };
    let stages = json!([{ "name": "canary", "hosts": 1, "checks": checks }, { "name": "all", "hosts": "100%" }]);
    let files = [("version.j2", "{{ workload.version }}\n")];
    let more = json!({ "strategy": { "stages": stages } });
    let documents =
        [template("t", &files), workload("w", version), target("all", ""), deployment("web", "w", "t", "all", &more)];
    world.apply(documents).await.expect("written");
}

/// Waits until the newest rollout is as it is to be.
async fn rollout(world: &World, when: impl Fn(&PlanStatus) -> bool) -> PlanStatus {
    let found =
        until("the rollout", async || Ok(world.admin.rollout("default", "web").await.ok().filter(|plan| when(plan))));
    found.await.expect("a rollout")
}

fn at_the_gate(plan: &PlanStatus) -> Option<&NodeView> {
    plan.current.iter().find(|node| &*node.name == "canary-check-1")
}

async fn approve(world: &World, plan: &PlanStatus) {
    let request = TokenRequest { name: Name::new("reviewer").expect("a name"), ttl_seconds: None };
    let token = world.admin.create_token(&request).await.expect("a token").token;
    let reviewer = Client::new(&world.plane.server, Some(token)).expect("a client");
    let gate = at_the_gate(plan).expect("the gate");
    let request = SignalRequest {
        node: Some(gate.name.clone()),
        generation: Some(gate.generation),
        ..SignalRequest::new(Signal::Approve, "approve")
    };
    reviewer.signal(plan.id, &request).await.expect("approved");
}

/// A line that goes on until the rollout ends.
struct Watch {
    said: Arc<Mutex<String>>,
    ended: JoinHandle<Output>,
}

impl Watch {
    /// Types it.
    fn begin(person: &Operator, format: &str) -> Self {
        let mut command = person.command();
        command.args(["rollout", "watch", "web", "-o", format]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("titan");
        let lines = BufReader::new(child.stdout.take().expect("what it says"));
        let said = Arc::<Mutex<String>>::default();
        let all = Arc::clone(&said);
        let ended = tokio::task::spawn_blocking(move || {
            for line in lines.lines() {
                *all.lock().expect("the lines") += &(line.expect("text") + "\n");
            }
            child.wait_with_output().expect("its end")
        });
        Self { said, ended }
    }

    fn said(&self) -> String {
        self.said.lock().expect("the lines").clone()
    }

    /// Waits until it has said this.
    async fn says(&self, what: &str) {
        until(what, async || Ok(self.said().contains(what).then_some(()))).await.expect("said");
    }

    /// Returns all that it said, once it has come to a good end.
    async fn text(self) -> String {
        let said = Arc::clone(&self.said);
        let output = self.ended.await.expect("watched");
        let text = said.lock().expect("the lines").clone();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_rollout_is_a_line_for_each_change_or_documents_without_a_hole() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let person = Operator::new(crate::NODE).expect("a directory");
    person.login(&world.plane.server, &world.plane.token).expect("logged in");
    let _hosts = hosts(&world, 4).await;
    release(&world, "one", true).await;
    let waits = rollout(&world, |plan| at_the_gate(plan).is_some()).await;
    let (lines, documents) = (Watch::begin(&person, "table"), Watch::begin(&person, "json"));
    lines.says("waits for approval").await;
    approve(&world, &waits).await;

    let lines = lines.text().await;
    for said in [
        "web#1 canary-check-1 waits for approval, 0 of 1",
        "web#1 canary-check-1 was approved by token:reviewer",
        "web#1 all: 3 of 3 hosts healthy",
        "web#1 the plan succeeded",
    ] {
        assert_eq!(lines.matches(said).count(), 1, "{said:?} in\n{lines}");
    }
    assert!(!lines.contains('\u{1b}'), "{lines}");

    let (mut nodes, mut number, mut last) = (BTreeMap::new(), 0, Value::Null);
    for line in documents.text().await.lines() {
        let document: Value = serde_json::from_str(line).expect("one document a line");
        for event in document["events"].as_array().expect("events") {
            number += 1;
            assert_eq!(event["number"], number, "no event is left out");
        }
        for node in document["nodes"].as_array().expect("nodes") {
            nodes.insert(node["name"].to_string(), node["state"].clone());
        }
        last = document["plan"]["state"].clone();
    }
    assert_eq!(last, "succeeded");
    assert!(nodes.len() >= 4 && nodes.values().all(|state| state == "final"), "{nodes:?}");
}

/// A newer release takes its place: that is what people want to see then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_with_the_release_that_takes_the_place() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let person = Operator::new(crate::NODE).expect("a directory");
    person.login(&world.plane.server, &world.plane.token).expect("logged in");
    let _hosts = hosts(&world, 3).await;
    release(&world, "one", true).await;
    rollout(&world, |plan| at_the_gate(plan).is_some()).await;
    let lines = Watch::begin(&person, "table");
    lines.says("waits for approval").await;
    release(&world, "two", false).await;
    let lines = lines.text().await;
    for said in ["web#1 the plan is superseded", "web#2 the plan succeeded"] {
        assert!(lines.contains(said), "{said:?} is not in\n{lines}");
    }
}
