//! What the picture shows, at the widths that people have.

use serde_json::{Value, json};
use titan_api::{
    Name,
    client::Client,
    workplans::{Event, EventView, PlanStatus},
};

use super::*;

const AT: i64 = 1_700_000_000_000_000;

fn at(seconds: i64) -> Revision {
    Revision::from_micros(AT + seconds * 1_000_000)
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// A plan of these nodes; what is said of each goes over what a node that has not begun says.
fn plan(state: &str, nodes: &[(&str, Value)]) -> Follow {
    let status: PlanStatus = serde_json::from_value(json!({
        "id": "00000000-0000-7000-8000-000000000001", "name": "web#2", "workspace": "default", "state": state,
        "version": 7, "author": "token:admin", "createdAt": at(0), "startedAt": at(0), "counts": {},
    }))
    .expect("a status");
    let client = Client::new("http://127.0.0.1:1", None).expect("a client");
    let mut follow = Follow::of(&client, status, Some((name("default"), name("web"))));
    for (node, more) in nodes {
        let mut view = json!({
            "name": node, "kind": "stage", "state": "planned", "generation": 1, "updatedAt": at(0), "spec": {},
        });
        view.as_object_mut().expect("a map").extend(more.as_object().cloned().expect("a map"));
        follow.nodes.insert(name(node), serde_json::from_value(view).expect("a node"));
    }
    follow
}

fn stage(stage: &str, hosts: &str, after: &[&str], more: &Value) -> Value {
    let mut view = json!({ "executor": "release", "spec": {
        "after": { "edges": after },
        "run": { "release": { "stage": {
            "stage": stage, "hosts": hosts, "minReadySeconds": 0, "maxUnavailable": "100%", "maxFailures": "2%",
            "progressDeadline": "10m", "offline": {},
        } } },
    } });
    view.as_object_mut().expect("a map").extend(more.as_object().cloned().expect("a map"));
    view
}

fn counted(state: &str, counts: &Value) -> Value {
    json!({ "state": "attempting", "attempts": [{
        "number": 1, "state": state, "createdAt": at(2), "updatedAt": at(3), "progress": [{ "counts": counts }],
    }] })
}

fn counts() -> Value {
    json!({ "members": 40, "opened": 24, "proven": 16, "settling": 2, "moving": 3, "failed": 1, "offline": 3,
            "excluded": 2 })
}

fn gated() -> Follow {
    let passed =
        json!({ "state": "final", "outcome": "passed", "message": "stage canary: 1 of 1 hosts healthy; passed" });
    let gate = json!({ "kind": "check", "state": "waiting", "executor": "approval", "dueAt": at(3600 * 23),
        "spec": { "kind": "check", "after": { "edges": ["canary"] }, "run": { "approval": { "minimum": 2 } } } });
    let mut plan = plan(
        "running",
        &[
            // By name they would come in another order.
            ("all", stage("all", "100%", &["early"], &json!({}))),
            ("canary", stage("canary", "1", &[], &passed)),
            ("canary-check-1", gate),
            ("early", stage("early", "10%", &["canary-check-1"], &json!({}))),
            ("roll-back", json!({ "spec": { "compensation": true } })),
        ],
    );
    plan.approvals.entry(name("canary-check-1")).or_default().insert("token:ann".to_owned());
    plan.times.insert(name("canary"), (at(1), Some(at(4))));
    plan
}

fn texts(plan: &Follow, size: (usize, usize)) -> Vec<String> {
    picture(plan, at(10), size).iter().map(|line| line.render(false)).collect()
}

#[test]
fn a_gate_says_how_many_it_waits_for_and_what_to_type() {
    let lines = texts(&gated(), (110, 40));
    assert_eq!(lines[0], "● web#2 in default  running for 10s, stage 1 of 3, by token:admin");
    let text = lines.join("\n");
    for said in [
        "◆ canary-check-1  ",
        "waits for approval, 1 of 2, 22h left",
        "token:admin may not",
        "titan rollout approve web canary-check-1  or reject --reason '...'",
        "10% of the hosts",
        "all hosts",
    ] {
        assert!(text.contains(said), "{said:?} is not in\n{text}");
    }
    let rows: Vec<usize> = ["canary ", "canary-check-1", "early", "all "]
        .iter()
        .map(|name| {
            lines.iter().position(|line| line.contains(name) && line.starts_with(['✓', '◆', '○'])).expect("a row")
        })
        .collect();
    assert!(rows.is_sorted(), "nodes come after what they wait for: {rows:?}\n{text}");
    // Nothing is undone, so that nobody wants to read about it.
    assert!(!text.contains("roll-back"), "{text}");
}

#[test]
fn hosts_of_a_stage_are_a_bar_with_all_that_becomes_of_them() {
    let mut plan = plan("running", &[("early", stage("early", "40", &[], &counted("running", &counts())))]);
    plan.times.insert(name("early"), (at(2), None));
    let lines = texts(&plan, (190, 40));
    let said = "16 of 40 proven, 2 settling, 3 on the way, 1 failed (2% may), 1 offline, 2 left out, 15 not yet open";
    assert!(lines[2].contains(said) && lines[2].ends_with("8s"), "{lines:?}");
    for sign in ['█', '▓', '▒', '✗', '?', '·', '░'] {
        assert!(lines[2].contains(sign), "{sign} is not in {}", lines[2]);
        assert!(lines[3].contains(sign), "{sign} is not explained: {}", lines[3]);
    }
}

#[test]
fn nothing_is_wider_or_higher_than_the_terminal() {
    let mut plan = gated();
    plan.faults.insert(name("h1"), "a very long message ".repeat(20));
    plan.status.reason = Some("r".repeat(300));
    for number in 0..20 {
        let event = Event::Approved { node: name("canary-check-1"), by: "b".repeat(200) };
        plan.events.push_back(EventView { number, at: at(number), actor: "a".to_owned(), event });
    }
    for (columns, rows) in [(20, 14), (79, 23), (200, 60)] {
        let lines = picture(&plan, at(10), (columns, rows));
        assert!(lines.len() <= rows, "{} lines in {rows}", lines.len());
        assert!(lines.iter().all(|line| line.width() <= columns), "{columns}: {:?}", texts(&plan, (columns, rows)));
    }
    let tall = texts(&plan, (100, 60)).join("\n");
    assert_eq!(tall.matches("was approved by").count(), EVENTS);
}

#[test]
fn many_of_a_kind_are_one_row() {
    let shard = |number: u64| {
        let more = match number {
            0..30 => json!({ "state": "final", "outcome": "passed", "executor": "external" }),
            30 => json!({ "state": "final", "outcome": "failed", "executor": "external" }),
            31..36 => json!({ "state": "attempting", "executor": "external" }),
            _ => json!({ "executor": "external" }),
        };
        (format!("shard-{number:02}"), more)
    };
    let shards: Vec<_> = (0..50).map(shard).collect();
    let mut nodes: Vec<(&str, Value)> = shards.iter().map(|(name, more)| (name.as_str(), more.clone())).collect();
    nodes.push(("build-1", json!({})));
    nodes.push(("build-2", json!({})));
    let lines = texts(&plan("running", &nodes), (120, 40));
    let row = lines.iter().find(|line| line.contains("shard × 50")).expect("a row");
    assert!(row.starts_with('✗') && row.contains("30 of 50 passed, 5 on the way, 1 failed"), "{row}");
    assert!(lines.iter().any(|line| line.contains("build-1")) && lines.iter().any(|line| line.contains("build-2")));
    assert!(!lines.iter().any(|line| line.contains("shard-07")));
}

#[test]
fn rows_that_matter_stay_when_there_are_too_many() {
    let names: Vec<String> = ('a'..='z').map(|letter| format!("step-{letter}")).collect();
    let mut nodes: Vec<(&str, Value)> =
        names.iter().map(|name| (name.as_str(), json!({ "state": "final", "outcome": "passed" }))).collect();
    nodes[20].1 = json!({ "state": "final", "outcome": "failed", "message": "it broke" });
    let lines = texts(&plan("running", &nodes), (80, 12));
    let text = lines.join("\n");
    assert!(lines.len() <= 12 && text.contains("step-u") && text.contains("failed: it broke"), "{text}");
    assert!(text.contains("… and 17 more"), "{text}");
}

#[test]
fn a_rollout_that_stopped_says_why() {
    let failed = json!({ "state": "final", "outcome": "failed",
        "message": "stage canary failed: 1 of 1 hosts failed, and 0 may" });
    let mut plan = plan("rolledBack", &[("canary", stage("canary", "1", &[], &failed))]);
    plan.status.reason = Some("canary failed".to_owned());
    plan.faults.insert(name("web-07"), "probe file web.conf: it does not hold state=ok".to_owned());
    let text = texts(&plan, (120, 30)).join("\n");
    for said in [
        "✗ web#2 in default  taken back",
        "failed: 1 of 1 hosts failed, and 0 may",
        "✗ web-07: probe file web.conf: it does not hold state=ok",
        "because canary failed",
    ] {
        assert!(text.contains(said), "{said:?} is not in\n{text}");
    }
    assert!(!text.contains("canary failed: canary"), "it is named once\n{text}");
    plan.status.state = PlanState::Planning;
    assert!(texts(&plan, (120, 30)).join("\n").contains("titan rollout retry web --reason"));
}

#[test]
fn beside_what_decided_it_stand_the_others_that_failed() {
    let failed = json!({ "state": "final", "outcome": "failed" });
    let mut plan = plan("failed", &[("gate", failed.clone()), ("gate-2", failed.clone()), ("build", failed)]);
    for (reason, line) in [
        ("gate was rejected by token:bob: no", "because gate was rejected by token:bob: no; build, gate-2 failed too"),
        ("stage build failed: 1 of 1 hosts", "because stage build failed: 1 of 1 hosts; gate, gate-2 failed too"),
        ("its deadline has passed", "because its deadline has passed: build, gate, gate-2"),
    ] {
        plan.status.reason = Some(reason.to_owned());
        let text = texts(&plan, (120, 30)).join("\n");
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

/// Neither a stage whose hosts are all offline nor one whose hosts had it before looks as if the release was proven there.
#[test]
fn a_stage_that_had_nothing_to_do_does_not_look_like_one_that_passed() {
    let ended = |name: &str, counts: Value, why: &str, no_op: bool| {
        let mut details = json!({ "counts": counts });
        if no_op {
            details["noOp"] = json!(true);
        }
        let more = json!({ "state": "final", "outcome": "passed", "message": format!("stage {name}: {why}"),
            "attempts": [{ "number": 1, "state": "complete", "createdAt": at(2), "updatedAt": at(3), "details": details }],
        });
        stage(name, "1", &[], &more)
    };
    let counts = |proven: u64, excluded: u64| {
        json!({ "members": 1, "opened": 1, "proven": proven, "settling": 0, "moving": 0, "failed": 0,
            "offline": excluded, "excluded": excluded })
    };
    let away = "nothing to do, all 1 hosts are offline";
    let had = "nothing to do, all 1 hosts had it before";
    let plan = plan(
        "succeeded",
        &[
            ("away", ended("away", counts(0, 1), away, true)),
            ("had", ended("had", counts(1, 0), had, true)),
            ("new", ended("new", counts(1, 0), "1 of 1 hosts healthy; passed", false)),
        ],
    );
    let lines = texts(&plan, (120, 30));
    let row = |name: &str| lines.iter().find(|line| line.contains(&format!(" {name} "))).expect("a row");
    assert!(row("away").starts_with('–') && row("away").contains(away), "{lines:?}");
    assert!(row("had").starts_with('–') && row("had").contains(had), "{lines:?}");
    assert!(row("new").starts_with('✓') && row("new").contains("1 of 1 proven"), "{lines:?}");
    let event = |node: &str, message: &str| EventView {
        number: 1,
        at: at(3),
        actor: "titan".to_owned(),
        event: serde_json::from_value(json!({ "type": "node", "node": node, "state": "final", "outcome": "passed",
            "message": message, "at": 3 }))
        .expect("an event"),
    };
    assert_eq!(sentence(&plan, &event("away", &format!("stage away: {away}"))), Some(format!("away: {away}")));
    assert_eq!(sentence(&plan, &event("away", away)), Some(format!("away: {away}")));
}

#[test]
fn what_is_said_changes_only_with_what_it_is_about() {
    let plan = gated();
    let gate = &plan.nodes[&name("canary-check-1")];
    assert_eq!(words(&plan, gate, None), "waits for approval, 1 of 2");
    assert_eq!(waits_for(&plan, &plan.nodes[&name("early")], None), None);
}

#[test]
fn resume_is_offered_only_where_it_moves_something() {
    let held = json!({ "state": "attempting", "held": true, "message": "stage canary failed: 1 of 1 hosts failed" });
    let mut plan = plan("paused", &[("canary", stage("canary", "1", &[], &held))]);
    let text = texts(&plan, (120, 30)).join("\n");
    assert!(
        text.contains("titan rollout retry web canary  or skip, reject --reason '...'") && !text.contains("resume"),
        "{text}"
    );
    // Once that is decided, a plan that is still paused was paused by somebody.
    let canary = plan.nodes.get_mut(&name("canary")).expect("the stage");
    (canary.held, canary.outcome) = (false, Some(titan_api::workplans::Outcome::Overridden));
    let text = texts(&plan, (120, 30)).join("\n");
    assert!(text.contains("titan rollout resume web"), "{text}");
}

#[test]
fn how_long_it_is_paused_counts_from_the_pause() {
    let mut plan = plan("paused", &[("build", json!({}))]);
    let head = |plan: &Follow| texts(plan, (120, 30)).remove(0);
    assert_eq!(head(&plan), "◆ web#2 in default  paused, by token:admin");
    plan.stated = Some((PlanState::Running, at(0)));
    assert_eq!(head(&plan), "◆ web#2 in default  paused, by token:admin", "of another state nothing follows");
    plan.stated = Some((PlanState::Paused, at(7)));
    assert_eq!(head(&plan), "◆ web#2 in default  paused for 3s, by token:admin");
}
