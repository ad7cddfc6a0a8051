use serde_json::{Value, json};
use titan_api::Digest;
use uuid::Uuid;

use super::*;

const ONE: &str = "1111111111111111111111111111111111111111";
const TWO: &str = "2222222222222222222222222222222222222222";

fn at(seconds: i64) -> Revision {
    Revision::from_micros(seconds * 1_000_000)
}

fn node(name: &str, change: Value) -> NodeView {
    let kind = change.get("kind").cloned().unwrap_or_else(|| json!("stage"));
    let mut value = json!({
        "name": name, "kind": kind, "state": "final", "outcome": "passed", "generation": 1,
        "updatedAt": at(0), "spec": {"kind": kind},
    });
    if let (Some(value), Value::Object(change)) = (value.as_object_mut(), change) {
        value.extend(change);
    }
    serde_json::from_value(value).expect("a node")
}

fn after(kind: &str, names: &[&str]) -> Value {
    json!({"kind": kind, "after": {"edges": names}})
}

fn release(version: &str) -> Release {
    Release {
        id: Uuid::nil(),
        deployment: Uuid::nil(),
        number: 7,
        revision: at(30),
        inputs_digest: Digest::of(b""),
        inputs: json!({"context": {"workload": {"version": version}}}).to_string(),
    }
}

fn log() -> PipelineLog {
    let source = |commit: &str, seen: i64| {
        json!({"commit": commit, "branch": "main", "author": "ann", "message": "mend it\nat last",
            "actor": "token:ci", "seenAt": at(seen)})
    };
    let build = |id: &str, commit: &str, state: &str, began: i64, ended: Value| {
        json!({"id": id, "commit": commit, "state": state, "version": id, "actor": "token:ci",
            "beganAt": at(began), "endedAt": ended})
    };
    let value = json!({
        "sources": [source(TWO, 50), source(ONE, 10)],
        "builds": [build("2.0", TWO, "running", 55, Value::Null), build("1.0", ONE, "succeeded", 15, json!(at(20)))],
    });
    serde_json::from_value(value).expect("a log")
}

fn touch() -> Touch {
    let (actor, reason) = ("token:ci".to_owned(), Some("1.0 is out".to_owned()));
    Touch {
        kind: Kind::Workload,
        name: "web".to_owned(),
        operation: Operation::Update,
        actor,
        reason,
        revision: at(30),
    }
}

fn nodes() -> Vec<NodeView> {
    vec![
        node("canary", json!({"updatedAt": at(40), "spec": after("stage", &["preflight"])})),
        node("preflight", json!({"kind": "check", "updatedAt": at(35)})),
        node(
            "ask",
            json!({"kind": "check", "executor": "approval", "state": "waiting", "outcome": null,
            "updatedAt": at(41), "spec": after("check", &["canary"])}),
        ),
        node(
            "rest",
            json!({"state": "planned", "outcome": null, "updatedAt": at(31),
            "spec": after("stage", &["ask", "canary"])}),
        ),
        node(
            "roll-back",
            json!({"state": "planned", "outcome": null, "updatedAt": at(31),
            "spec": {"compensation": true}}),
        ),
    ]
}

fn ids(steps: &[Step]) -> Vec<(&str, Vec<&str>, StepState, Option<u64>)> {
    let row = |step: &'_ Step| (step.state, step.age_seconds);
    steps
        .iter()
        .map(|step| (step.id.as_str(), step.after.iter().map(String::as_str).collect(), row(step).0, row(step).1))
        .collect()
}

/// S2-34, S2-35: each step has what it follows from, its time and its age; what was built since is shown beside it.
#[test]
fn the_way_goes_from_the_commit_over_its_build_and_change_to_the_stages() {
    let (log, touch, release, nodes) = (log(), touch(), release("1.0"), nodes());
    let known = Known {
        log: &log,
        change: Some(&touch),
        release: Some((&release, "web#7")),
        plan: None,
        nodes: &nodes,
        now: at(100),
    };
    let steps = steps(known);
    let expected = [
        ("source:111111111111", vec![], StepState::Done, Some(90)),
        ("source:222222222222", vec![], StepState::Done, Some(50)),
        ("build:1.0", vec!["source:111111111111"], StepState::Done, Some(80)),
        ("build:2.0", vec!["source:222222222222"], StepState::Running, Some(45)),
        ("change:Workload/web", vec!["build:1.0"], StepState::Done, Some(70)),
        ("release:web#7", vec!["change:Workload/web"], StepState::Done, Some(70)),
        ("check:preflight", vec!["release:web#7"], StepState::Done, Some(65)),
        ("stage:canary", vec!["check:preflight"], StepState::Done, Some(60)),
        ("check:ask", vec!["stage:canary"], StepState::Waiting, Some(59)),
        ("stage:rest", vec!["check:ask", "stage:canary"], StepState::Waiting, None),
    ];
    assert_eq!(ids(&steps), expected);
    assert_eq!(steps[0].message.as_deref(), Some("mend it, by ann, on main"));
    assert_eq!(steps[4].message.as_deref(), Some("changed by token:ci: 1.0 is out"));
    assert_eq!(steps[5].version.as_deref(), Some("1.0"));
    assert_eq!(steps[8].message.as_deref(), Some("waits for somebody to approve it"));
}

#[test]
fn hosts_follow_from_the_stage_that_had_not_ended_when_they_were_given_the_release() {
    let (log, release) = (PipelineLog::default(), release("1.0"));
    let mut nodes = nodes();
    nodes[3] = node("rest", json!({"state": "attempting", "outcome": null, "updatedAt": at(50)}));
    let known =
        Known { log: &log, change: None, release: Some((&release, "web#7")), plan: None, nodes: &nodes, now: at(100) };
    let given = |seconds| Givers::of(known).expect("there is a release").at(at(seconds)).to_owned();
    assert_eq!(
        [given(33), given(40), given(41), given(99)].map(|id| id[6..].to_owned()),
        ["canary", "canary", "rest", "rest"]
    );
    let ended = [node("canary", json!({"updatedAt": at(40)})), node("left", json!({"outcome": "skipped"}))];
    let known = Known { nodes: &ended, ..known };
    let given = |known| Givers::of(known).map(|givers| givers.at(at(99)).to_owned());
    assert_eq!(given(known).as_deref(), Some("stage:canary"), "moved again after all was over");
    let known = Known { nodes: &[], ..known };
    assert_eq!(given(known).as_deref(), Some("release:web#7"), "no stage gave it");
    assert_eq!(given(Known { release: None, ..known }), None);
}

#[test]
fn without_a_release_the_change_goes_on_and_without_pipelines_there_is_no_source() {
    let touch = touch();
    let log = PipelineLog::default();
    let known = Known { log: &log, change: Some(&touch), release: None, plan: None, nodes: &[], now: at(100) };
    assert_eq!(ids(&steps(known)), [("change:Workload/web", vec![], StepState::Running, Some(70))]);
}

#[test]
fn a_stage_tells_that_it_had_nothing_to_do_and_how_many_it_left_out() {
    let run = json!({"release": {"stage": {"stage": "s", "hosts": "100%", "minReadySeconds": 0, "maxUnavailable": "100%",
        "maxFailures": "0", "progressDeadline": "10m", "offline": {}}}});
    let ended = |name: &str, run: &Value, details: Value| {
        let attempt =
            json!({"number": 1, "state": "complete", "createdAt": at(1), "updatedAt": at(2), "details": details});
        node(name, json!({"attempts": [attempt], "spec": {"run": run}}))
    };
    let counts = json!({"members": 3, "opened": 3, "proven": 1, "settling": 0, "moving": 0, "failed": 0, "offline": 2,
        "excluded": 2});
    let worker = json!({"external": {"queue": "q"}});
    let nodes = [
        ended("a", &run, json!({"noOp": true, "counts": counts})),
        ended("b", &run, json!({"counts": counts})),
        ended("c", &run, Value::Null),
        // What a worker says is about something else.
        ended("d", &worker, json!({"noOp": true, "counts": counts})),
    ];
    let found: Vec<_> = of_nodes(&nodes, "release:x").into_iter().map(|step| (step.no_op, step.left_out)).collect();
    assert_eq!(found, [(true, 2), (false, 2), (false, 0), (false, 0)]);
}

#[test]
fn nodes_that_wait_for_each_other_are_left_out_and_not_waited_for() {
    let nodes = [
        node("a", json!({"spec": after("stage", &["b"])})),
        node("b", json!({"spec": after("stage", &["a"])})),
        node("c", json!({})),
    ];
    let found: Vec<String> = of_nodes(&nodes, "release:x").into_iter().map(|step| step.id).collect();
    assert_eq!(found, ["stage:c"]);
}

#[test]
fn a_commit_and_a_build_are_read_back_as_they_were_written() {
    let log = log();
    let text = serde_json::to_string(&log).expect("written");
    assert_eq!(serde_json::from_str::<PipelineLog>(&text).expect("read"), log);
}
