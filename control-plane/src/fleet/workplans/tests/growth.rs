//! Plans that grow while they run, and documents that are written again.

use super::*;

/// A document that is written anew, where the one before declared every node of one letter.
fn declare(spec: Box<WorkPlanSpec>) -> Input {
    Input::Declare { spec, before: ["a", "b", "c"].map(name).into() }
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

#[test]
fn a_plan_that_was_not_started_can_be_written_anew() {
    let plan = |value: Value| Box::new(serde_json::from_value::<WorkPlanSpec>(value).expect("spec"));
    let mut bench = Bench::of(json!({"start": false, "nodes": {"a": {}, "b": {"after": {"edges": ["a"]}}}}));
    bench
        .put(declare(plan(json!({"start": false, "description": "x",
            "nodes": {"b": {}, "c": {"after": {"edges": ["b:final"]}}}}))))
        .expect("written anew");
    let names: Vec<_> = bench.working.all().into_keys().map(ToString::to_string).collect();
    assert_eq!(names, ["b", "c"]);
    assert!(bench.replayed().same(&bench.working));
    bench.put(Input::Start).expect("started");
    assert_eq!(bench.working.plan.state, PlanState::Succeeded);
    let again = plan(json!({"description": "x", "nodes": {"b": {}, "c": {"after": {"edges": ["b:final"]}}}}));
    assert_eq!(bench.put(declare(again)).expect("the same").events, []);
}

#[test]
fn what_runs_keeps_its_nodes() {
    let plan = |value: Value| Box::new(serde_json::from_value::<WorkPlanSpec>(value).expect("spec"));
    let mut bench = Bench::of(json!({"nodes": {"a": {"run": external()}, "b": {"after": {"edges": ["a"]}}}}));
    let refused = |bench: &mut Bench, value| bench.put(declare(plan(value))).expect_err("refused").code;
    assert_eq!(refused(&mut bench, json!({"nodes": {"a": {"run": external()}}})), Code::ImmutableNode);
    assert_eq!(
        refused(
            &mut bench,
            json!({"deadline": "1h", "nodes": {"a": {"run": external()}, "b": {"after": {"edges": ["a"]}}}})
        ),
        Code::ImmutableNode
    );
    let grown = json!({"nodes": {"a": {"run": external()}, "b": {"after": {"edges": ["a"]}}, "c": {}}});
    bench.put(declare(plan(grown))).expect("grown");
    assert_eq!(bench.outcome("c"), Some(Outcome::Passed));
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
