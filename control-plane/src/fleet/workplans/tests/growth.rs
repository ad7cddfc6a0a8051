//! Plans that grow while they run, and documents that are written again.

use super::*;

fn plan(value: Value) -> Box<WorkPlanSpec> {
    Box::new(serde_json::from_value(value).expect("spec"))
}

/// A document that is written anew.
fn declare(before: &Value, now: &Value) -> Input {
    Input::Declare { spec: plan(now.clone()), before: plan(before.clone()) }
}

fn nodes(value: Value) -> BTreeMap<Name, titan_api::workplans::NodeSpec> {
    serde_json::from_value(value).expect("nodes")
}

/// S3-17: all or nothing, and what is there already is left alone.
#[test]
fn a_plan_grows_while_it_runs() {
    let mut bench = Bench::of(json!({"nodes": {"a": {}, "b": {"run": external()}}}));
    assert_eq!(bench.outcome("a"), Some(Outcome::Passed));
    // What it waits for is final already, in part.
    bench
        .put(Input::Write(nodes(
            json!({"c": {"after": {"edges": ["a", "b"]}}, "d": {"after": {"edges": ["a:failed"]}}}),
        )))
        .expect("grown");
    assert_eq!((bench.state("c"), bench.outcome("d")), ((NodeState::Planned, None), Some(Outcome::Skipped)));
    bench.work("b", Ok(Verdict::Passed));
    assert_eq!((bench.outcome("c"), bench.working.plan.state), (Some(Outcome::Passed), PlanState::Succeeded));
    let late = bench.put(Input::Write(nodes(json!({"e": {}}))));
    assert_eq!(late.expect_err("over").code, Code::ImmutableNode);
}

/// Whoever edits the document of a plan that is over is told what works.
#[test]
fn a_plan_that_is_over_says_how_it_is_made_anew() {
    let first = json!({"nodes": {"a": {}}});
    let mut bench = Bench::of(first.clone());
    assert_eq!(bench.working.plan.state, PlanState::Succeeded);
    for (now, what) in [
        (json!({"deadline": "1h", "nodes": {"a": {}}}), "what it says beside its nodes cannot be changed"),
        (json!({"nodes": {"b": {}}}), "node a cannot be taken out"),
        (json!({"nodes": {"a": {}, "b": {}}}), "it takes no nodes any more"),
        (json!({"nodes": {"a": {"description": "x"}}}), "it takes no nodes any more"),
    ] {
        let refused = bench.put(declare(&first, &now)).expect_err("over");
        assert!(refused.code == Code::ImmutableNode && refused.detail.ends_with(what), "{refused:?}");
        assert_eq!(refused.hint.as_deref(), Some("delete the plan and apply it again, or give it another name"));
    }
    let running = json!({"nodes": {"a": {"run": external()}}});
    let mut bench = Bench::of(running.clone());
    for now in [json!({"deadline": "1h", "nodes": {"a": {"run": external()}}}), json!({"nodes": {"a": {}}})] {
        let hint = bench.put(declare(&running, &now)).expect_err("begun").hint.unwrap_or_default();
        assert!(hint.ends_with("delete the plan and apply it again, or give it another name"), "{hint}");
    }
}

#[test]
fn a_plan_that_was_not_started_can_be_written_anew() {
    let first = json!({"start": false, "nodes": {"a": {}, "b": {"after": {"edges": ["a"]}}}});
    let second =
        json!({"start": false, "description": "x", "nodes": {"b": {}, "c": {"after": {"edges": ["b:final"]}}}});
    let mut bench = Bench::of(first.clone());
    bench.put(declare(&first, &second)).expect("written anew");
    let names: Vec<_> = bench.working.all().into_keys().map(ToString::to_string).collect();
    assert_eq!(names, ["b", "c"]);
    assert!(bench.replayed().same(&bench.working));
    bench.put(Input::Start).expect("started");
    assert_eq!(bench.working.plan.state, PlanState::Succeeded);
    let again = json!({"description": "x", "nodes": {"b": {}, "c": {"after": {"edges": ["b:final"]}}}});
    assert_eq!(bench.put(declare(&second, &again)).expect("the same").events, []);
}

#[test]
fn what_runs_keeps_its_nodes() {
    let first = json!({"nodes": {"a": {"run": external()}, "b": {"after": {"edges": ["a"]}}}});
    let mut bench = Bench::of(first.clone());
    let refused = |bench: &mut Bench, value| bench.put(declare(&first, &value)).expect_err("refused").code;
    assert_eq!(refused(&mut bench, json!({"nodes": {"a": {"run": external()}}})), Code::ImmutableNode);
    assert_eq!(
        refused(
            &mut bench,
            json!({"deadline": "1h", "nodes": {"a": {"run": external()}, "b": {"after": {"edges": ["a"]}}}})
        ),
        Code::ImmutableNode
    );
    let grown = json!({"nodes": {"a": {"run": external()}, "b": {"after": {"edges": ["a"]}}, "c": {}}});
    bench.put(declare(&first, &grown)).expect("grown");
    assert_eq!(bench.outcome("c"), Some(Outcome::Passed));
}

/// What a signal changed is not what the document says: it neither keeps the plan from growing nor is it lost by that.
#[test]
fn a_plan_that_was_updated_still_grows() {
    let first = json!({"values": {"city": "Ulm"}, "nodes": {"a": {"run": external()}}});
    let mut grown = first.clone();
    grown["nodes"]["b"] = json!({});
    for start in [true, false] {
        let (mut first, mut grown) = (first.clone(), grown.clone());
        (first["start"], grown["start"]) = (json!(start), json!(start));
        let mut bench = Bench::of(first.clone());
        let values = json!({"city": "Bonn"}).as_object().cloned();
        let update = SignalRequest { values, ..SignalRequest::new(Signal::Update, "u") };
        bench.put(Input::Told(Told { request: update, actor: "token:bob".to_owned() })).expect("updated");
        grown["description"] = if start { Value::Null } else { json!("another") };
        bench.put(declare(&first, &grown)).expect("grown");
        assert_eq!(bench.working.plan.head.values["city"], "Bonn");
        assert_eq!(bench.working.plan.head.description.is_some(), !start);
        grown["values"]["city"] = json!("Kiel");
        let changed = bench.put(declare(&first, &grown));
        assert_eq!(changed.err().map(|problem| problem.code), start.then_some(Code::ImmutableNode));
    }
}

/// A node that others wrote meanwhile may wait for the one that the document no longer has.
#[test]
fn what_is_waited_for_is_not_taken_out() {
    let first = json!({"start": false, "nodes": {"x": {}, "z": {}}});
    let mut bench = Bench::of(first.clone());
    bench.put(Input::Write(nodes(json!({"y": {"after": {"edges": ["x"]}}})))).expect("written");
    let without = json!({"start": false, "nodes": {"z": {}}});
    let refused = bench.put(declare(&first, &without)).expect_err("y waits for x");
    assert_eq!((refused.code, refused.errors[0].pointer.as_str()), (Code::UnknownNode, "/spec/nodes/y/after"));
    bench.put(declare(&first, &json!({"start": false, "nodes": {"x": {}}}))).expect("nobody waits for z");
}

/// What waits for a stage to begin cannot be added in a circle, through a check or a parent either.
#[test]
fn growth_stays_acyclic() {
    let mut bench = Bench::of(json!({"nodes": {
        "s": {"run": external(), "answers": [{"check": "q"}]}, "q": {"kind": "check"},
        "x": {"run": external(), "after": {"edges": ["q"]}},
    }}));
    let through = nodes(json!({"t": {"run": external(), "answers": [{"check": "q"}], "after": {"edges": ["x"]}}}));
    assert_eq!(bench.put(Input::Write(through)).expect_err("circle").code, Code::Cycle);
    let child = nodes(json!({"k": {"parent": "s", "after": {"edges": ["x"]}}}));
    assert_eq!(bench.put(Input::Write(child)).expect_err("circle").code, Code::Cycle);
    bench.put(Input::Write(nodes(json!({"t": {"run": external(), "answers": [{"check": "q"}]}})))).expect("fine");
}
