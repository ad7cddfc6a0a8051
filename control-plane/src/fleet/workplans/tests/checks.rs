//! Checks: what they ask, until when they may be written anew, and the results that they take.

use titan_api::workplans::{NodeKind, NodeSpec};

use super::*;

fn one(node: &str, spec: Value) -> BTreeMap<Name, NodeSpec> {
    BTreeMap::from([(name(node), serde_json::from_value(spec).expect("a node"))])
}

fn answer(node: &str, check: &str, data: Value, failure: Option<&str>) -> Input {
    let failure_message = failure.map(str::to_owned);
    let results = vec![ResultRequest { check: name(check), data, failure_message }];
    Input::Answer { node: name(node), number: 1, uid: "w".to_owned(), results }
}

/// Returns the results of a step: whose, what, why not, and whether they came too late.
fn results(step: &Step) -> Vec<(&str, &Value, Option<&str>, bool)> {
    let each = step.events.iter().filter_map(|event| match event {
        Event::Result { owner, data, failure_message, late, .. } => {
            Some((owner.as_str(), data, failure_message.as_deref(), *late))
        }
        _ => None,
    });
    each.collect()
}

/// S3-3: whatever it asks by, a check waits for an answer; it is not what a stage does.
#[test]
fn everything_that_can_be_asked_is_a_check() {
    for (run, kind) in [
        (json!({"health": {"deployment": "web"}}), "health"),
        (json!({"metric": {"server": "http://x", "query": "up", "success": "result > 0"}}), "metric"),
        (json!({"http": {"url": "http://x/healthz"}}), "http"),
        (json!({"approval": {"minimum": 2}}), "approval"),
        (external(), "external"),
    ] {
        let bench =
            Bench::of(json!({"nodes": {"ask": {"kind": "check", "run": run}, "then": {"after": {"edges": ["ask"]}}}}));
        let ask = bench.working.seen(&name("ask")).expect("the check");
        assert_eq!((ask.state, ask.outcome, ask.spec.kind), (NodeState::Waiting, None, NodeKind::Check), "{kind}");
        assert_eq!(ask.spec.run.as_ref().map(Executor::name), Some(kind));
        assert_eq!(bench.state("then"), (NodeState::Planned, None), "{kind}");
    }
    // One that only has a name is never tried: stages answer it.
    let spec = json!({"nodes": {"ask": {"kind": "check"}, "s": {"run": external(), "answers": [{"check": "ask"}]}}});
    let mut bench = Bench::of(spec);
    assert_eq!((bench.state("ask"), bench.attempt("ask")), ((NodeState::Waiting, None), None));
    assert_eq!(bench.claim("ask", "w").expect_err("there is nothing to do").code, Code::AttemptTaken);
    bench.work("s", Ok(Verdict::Passed));
    assert_eq!((bench.outcome("ask"), bench.attempt("ask")), (Some(Outcome::Passed), None));
}

/// S3-5, S3-6: what a check asks and waits for is written anew for as long as it is being planned, and never after that.
#[test]
fn a_check_is_written_anew_only_while_it_is_being_planned() {
    let check = |queue: &str, after: &str, planning: bool| {
        let run = json!({"external": {"queue": queue}});
        json!({"kind": "check", "run": run, "planning": planning, "after": {"edges": [after]}})
    };
    let nodes = json!({"a": {}, "b": {"run": external()}, "ask": check("q", "a", true)});
    let mut bench = Bench::of(json!({ "nodes": nodes }));
    assert_eq!(bench.state("ask").0, NodeState::Planning, "though what it waits for has passed");
    for (queue, after) in [("r", "a"), ("r", "b"), ("s", "b")] {
        bench.put(Input::Write(one("ask", check(queue, after, true)))).expect("options and dependencies");
        assert_eq!(bench.state("ask").0, NodeState::Planning);
    }
    bench.put(Input::Write(one("ask", check("s", "b", false)))).expect("that is the plan");
    let refused = |bench: &mut Bench, state: NodeState| {
        assert_eq!(bench.state("ask").0, state);
        let (before, written) = (bench.working.seen(&name("ask")).cloned(), bench.log.len());
        for spec in [check("t", "b", false), check("s", "a", false), check("s", "b", true)] {
            let refused = bench.put(Input::Write(one("ask", spec))).expect_err("too late");
            assert_eq!((refused.code, refused.status), (Code::ImmutableNode, 409), "{state}");
            assert_eq!(refused.errors[0].pointer, "/nodes/ask");
        }
        assert_eq!((bench.working.seen(&name("ask")).cloned(), bench.log.len()), (before, written), "{state}");
    };
    refused(&mut bench, NodeState::Planned);
    // A second node keeps the plan open behind the check.
    bench.put(Input::Write(one("last", json!({"run": external(), "after": {"edges": ["ask"]}})))).expect("it grows");
    bench.work("b", Ok(Verdict::Passed));
    refused(&mut bench, NodeState::Waiting);
    bench.work("ask", Ok(Verdict::Passed));
    refused(&mut bench, NodeState::Final);
    assert_eq!(bench.outcome("ask"), Some(Outcome::Passed));
}

/// S3-6, S3-13: each attempt gives a result of its own, in which it says what it found and why the answer is no. A check
/// that waits takes it; one that is final keeps as it is, and what comes late is only in the history.
#[test]
fn results_of_several_stages_are_kept_and_late_ones_change_nothing() {
    let stage = json!({"run": external(), "answers": [{"check": "ask"}]});
    let mut bench = Bench::of(json!({"nodes": {"ask": {"kind": "check"}, "s": stage, "t": stage}}));
    for stage in ["s", "t"] {
        bench.claim(stage, "w").expect("claimed");
    }
    let (free, full) = (json!({"free": 7}), json!({"free": 0}));
    let first = bench.put(answer("s", "ask", free.clone(), None)).expect("taken");
    assert_eq!(results(&first), [("s/1", &free, None, false)]);
    let second = bench.put(answer("t", "ask", full.clone(), Some("the disk is full"))).expect("taken");
    assert_eq!(results(&second), [("t/1", &full, Some("the disk is full"), false)]);
    let ask = bench.working.seen(&name("ask")).expect("the check");
    assert_eq!(
        (ask.state, ask.yes, ask.no, ask.first_no.as_deref()),
        (NodeState::Waiting, 1, 1, Some("the disk is full"))
    );
    bench.tell(Signal::Skip, Some("ask"), "token:bob").expect("a person decides");
    let before = bench.working.seen(&name("ask")).cloned();
    let late = bench.put(answer("s", "ask", free.clone(), None)).expect("written down");
    assert!(late.late && !second.late, "whoever answers is told");
    assert_eq!(results(&late), [("s/1", &free, None, true)]);
    assert_eq!(bench.working.seen(&name("ask")).cloned(), before);
    assert!(bench.replayed().same(&bench.working));
}

/// S3-6: a check that is still being put together takes no results.
#[test]
fn a_check_that_is_being_planned_takes_no_results() {
    let mut bench = Bench::of(json!({"nodes": {
        "ask": {"kind": "check"}, "plan": {"run": external(), "answers": [{"check": "ask", "goal": "planned"}]},
        "s": {"run": external(), "answers": [{"check": "ask"}]},
    }}));
    bench.claim("s", "w").expect("claimed");
    let early = bench.put(answer("s", "ask", Value::Null, None)).expect_err("nobody asks yet");
    assert_eq!((early.code, early.status), (Code::InvalidTransition, 409));
    bench.work("plan", Ok(Verdict::Passed));
    bench.put(answer("s", "ask", Value::Null, None)).expect("now it does");
}
