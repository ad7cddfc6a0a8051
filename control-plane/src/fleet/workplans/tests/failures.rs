//! Why a plan came to a bad end is told with it.

use super::*;

fn told(bench: &Bench) -> (PlanState, &str) {
    let plan = &bench.working.plan;
    (plan.state, plan.reason.as_deref().unwrap_or_default())
}

/// S4-12, S4-34: who rejected it and why is what a plan was taken back for.
#[test]
fn a_plan_that_a_person_rejected_says_who_and_why_until_its_end() {
    let mut bench = Bench::of(json!({"onFailure": "rollback", "nodes": {
        "canary": {"run": external()},
        "gate": {"kind": "check", "run": {"approval": {}}, "after": {"edges": ["canary"]}},
        "all": {"run": external(), "after": {"edges": ["gate"]}},
        "undo": {"compensation": true, "run": external(), "after": {"edges": ["canary"]}},
    }}));
    bench.work("canary", Ok(Verdict::Passed));
    bench.tell(Signal::Reject, Some("gate"), "token:bob").expect("rejected");
    let why = "gate was rejected by token:bob: because";
    assert_eq!(told(&bench), (PlanState::RollingBack, why));
    bench.work("undo", Ok(Verdict::Passed));
    assert_eq!(told(&bench), (PlanState::RolledBack, why));
    assert!(bench.replayed().same(&bench.working), "the events alone say it");
    let kept = serde_json::to_value(&bench.working.plan).expect("written");
    assert_eq!(serde_json::from_value::<Plan>(kept.clone()).expect("read"), bench.working.plan);
    // One that was written before it was kept is read all the same.
    let mut before = kept;
    before.as_object_mut().expect("a map").remove("failure");
    assert_eq!(serde_json::from_value::<Plan>(before).expect("read").failure, None);
}

#[test]
fn a_check_that_was_answered_with_no_is_told_with_its_question() {
    let mut bench = Bench::of(json!({"nodes": {
        "books": {"kind": "check", "description": "are the books closed?"},
        "look": {"run": external(), "answers": [{"check": "books"}]},
    }}));
    bench.claim("look", "w").expect("claimed");
    let no = ResultRequest { check: name("books"), data: Value::Null, failure_message: Some("two are open".into()) };
    let (node, number, uid, results) = (name("look"), 1, "w".to_owned(), vec![no]);
    let end = Finished { node, number, uid, end: Ok(Verdict::Passed), message: None, details: None, results };
    bench.put(Input::Finish(Box::new(end))).expect("finished");
    assert_eq!(told(&bench), (PlanState::Failed, "books (are the books closed?) failed: two are open"));
}

/// What failed first is told, unless a person decided: what goes on after a failure stops for that alone.
#[test]
fn of_several_failures_the_first_is_told_or_the_one_that_a_person_decided() {
    let nodes = json!({
        "build": {"run": external(), "retry": {"attempts": 1}},
        "beside": {"run": external(), "retry": {"attempts": 1}},
        "unneeded": {"run": external(), "retry": {"attempts": 1}, "optional": true},
        "gate": {"kind": "check", "run": {"approval": {}}, "after": {"edges": ["build:final"]}},
        "after": {"after": {"edges": ["build"]}},
    });
    for (word, why) in [
        (Signal::Skip, "build failed: crash (no attempts are left)"),
        (Signal::Reject, "gate was rejected by token:bob: because"),
    ] {
        let mut bench = Bench::of(json!({ "nodes": nodes }));
        bench.work("unneeded", Err("crash"));
        bench.work("build", Err("crash"));
        bench.work("beside", Err("smash"));
        bench.tell(word, Some("gate"), "token:bob").expect("told");
        assert_eq!(told(&bench), (PlanState::Failed, why));
    }
}

#[test]
fn a_plan_inside_a_stage_hands_its_reason_up() {
    let inner = json!({"nodes": {"gate": {"kind": "check", "run": {"approval": {}}}}});
    let mut bench = Bench::of(json!({"nodes": {"inner": {"run": {"plan": inner}}}}));
    let reason = Some("gate was rejected by token:bob: because".to_owned());
    bench.put(Input::Child { node: name("inner"), number: 1, state: PlanState::Failed, reason }).expect("heard");
    let why = "inner failed: its plan is failed: gate was rejected by token:bob: because";
    assert_eq!(told(&bench), (PlanState::Failed, why));
}
