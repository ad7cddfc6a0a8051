//! Those who wait for a plan outlast a control plane that is away for a moment.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Stdio},
};

use serde_json::json;
use titan_api::workplans::{Signal, SignalRequest};
use titan_tests::{
    manifests::{deployment, host, target, template, workload},
    operators::Operator,
    relays::{Relay, Weather},
    worlds::{World, until},
};
use tokio::task::spawn_blocking;

use super::{id, name, plan, somebody};

/// Someone who watches or waits, once the control plane has told something.
struct Waiting {
    line: String,
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    err: BufReader<std::process::ChildStderr>,
    told: String,
}

impl Waiting {
    fn start(person: &Operator, line: &str) -> Self {
        let words = line.split_whitespace().skip(1);
        let mut command = person.command();
        let child = command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("it runs");
        let out = BufReader::new(child.stdout.take().expect("its output"));
        let err = BufReader::new(child.stderr.take().expect("its errors"));
        let mut waiting = Self { line: line.to_owned(), child, out, err, told: String::new() };
        // Whoever watches says on standard output what happens, whoever waits on standard error how far it is.
        let first = if line.contains("watch") { waiting.read_out() } else { waiting.read_err() };
        assert!(!first.is_empty(), "{line} says nothing");
        waiting
    }

    fn read_out(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line");
        self.told.push_str(&line);
        line
    }

    fn read_err(&mut self) -> String {
        let mut line = String::new();
        self.err.read_line(&mut line).expect("a line");
        line
    }

    /// Reads until it says that the control plane is away.
    fn left_alone(mut self) -> Self {
        loop {
            let line = self.read_err();
            assert!(!line.is_empty() && !line.starts_with("error"), "{}: {line}", self.line);
            if line.contains("the control plane is away, trying again") {
                return self;
            }
        }
    }

    fn ends(mut self) -> (String, Option<i32>, String) {
        self.out.read_to_string(&mut self.told).expect("what it said");
        let code = self.child.wait().expect("its end").code();
        (self.line, code, self.told)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_watches_or_waits_outlasts_a_control_plane_that_is_away_for_a_moment() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let relay = Relay::start(world.plane.address()).await.expect("a relay");
    let person = Operator::new(crate::NODE).expect("a directory");
    person.login(&relay.server, &world.plane.token).expect("logged in");
    let gate = json!({ "nodes": { "gate": { "kind": "check", "run": { "approval": {} } } } });
    // The host never comes, so that its first stage waits for it until it is ended.
    let strategy = json!({ "strategy": { "stages": [{ "name": "all", "hosts": "100%" }] } });
    world
        .apply([
            plan("p", &gate),
            host("h", ""),
            template("t", &[("a", "1\n")]),
            workload("w", "one"),
            target("all", ""),
            deployment("web", "w", "t", "all", &strategy),
        ])
        .await
        .expect("written");
    let id = id(&world, "p").await;
    let rollout = until("the rollout", async || Ok(world.admin.rollout("default", "web").await.ok()));
    let rollout = rollout.await.expect("the rollout").id;
    let lines = ["workplan watch p", "workplan status p --wait", "rollout watch web", "rollout status web --wait"];
    let waiting = lines.map(|line| Waiting::start(&person, &format!("titan {line}")));
    relay.set(Weather::Cut);
    let alone = spawn_blocking(|| waiting.map(Waiting::left_alone)).await.expect("they go on");
    // What happens meanwhile is told afterwards.
    let gate = world.admin.plan_node(id, &name("gate")).await.expect("the gate");
    let request = SignalRequest {
        node: Some(gate.name.clone()),
        generation: Some(gate.generation),
        reason: Some("seen-meanwhile".to_owned()),
        ..SignalRequest::new(Signal::Approve, "approve")
    };
    somebody(&world, "bob").await.signal(id, &request).await.expect("approved");
    let request =
        SignalRequest { reason: Some("enough-of-it".to_owned()), ..SignalRequest::new(Signal::Abort, "abort") };
    world.admin.signal(rollout, &request).await.expect("aborted");
    relay.set(Weather::Fair);
    let ends = spawn_blocking(|| alone.map(Waiting::ends)).await.expect("they end");
    for ((line, code, told), (expected, said)) in
        ends.into_iter().zip([(0, "seen-meanwhile"), (0, "succeeded"), (1, "enough-of-it"), (1, "enough-of-it")])
    {
        assert_eq!(code, Some(expected), "{line}: {told}");
        assert!(told.contains(said), "{line}: {told}");
    }
}
