//! Deadlines that change while a plan goes on.

use titan_api::spans::Span;

use super::*;
use crate::fleet::rollouts::compile;

fn update(bench: &mut Bench, deadline: &str) -> Result<Step, Problem> {
    let deadline: Span = serde_json::from_value(json!(deadline)).expect("a span");
    let id = format!("r{}", bench.log.len());
    let request = SignalRequest { deadline: Some(deadline), ..SignalRequest::new(Signal::Update, id) };
    bench.put(Input::Told(Told { request, actor: "token:bob".to_owned() }))
}

fn rollout(strategy: Value) -> Bench {
    let strategy = serde_json::from_value(strategy).expect("a strategy");
    let spec = compile(Some(&strategy), 2, |_| Vec::new());
    Bench::of(serde_json::to_value(spec).expect("a plan"))
}

#[test]
fn a_rollout_without_a_deadline_says_where_one_is_written() {
    let stages = json!([{"name": "all", "hosts": "100%"}]);
    let mut free = rollout(json!({ "stages": stages }));
    let problem = update(&mut free, "300h").expect_err("its stages have no end");
    assert_eq!((problem.code, problem.errors[0].pointer.as_str()), (Code::BudgetExceeded, "/deadline"));
    assert!(problem.detail.contains("began without a deadline"), "{}", problem.detail);
    let hint = problem.hint.expect("how to mend it");
    assert!(hint.contains("write `deadline: 300h` into spec.strategy of the deployment"), "{hint}");
    assert_eq!(free.working.plan.head.deadline, None);

    // One that has a deadline is given more time, and too little is told with the sum.
    let mut bound = rollout(json!({ "stages": stages, "deadline": "1h" }));
    update(&mut bound, "2h").expect("more time");
    let problem = update(&mut bound, "15m").expect_err("too little");
    assert!(problem.detail.contains("preflight 10m + all 10m = 20m"), "{}", problem.detail);
}

#[test]
fn any_other_plan_is_given_a_deadline_that_fits() {
    let mut bench = Bench::of(json!({"nodes": {"a": {"run": external(), "timeouts": {"total": "10m"}}}}));
    update(&mut bench, "1h").expect("it fits");
    let problem = update(&mut bench, "5m").expect_err("too little");
    assert!(problem.detail.contains("a 10m in total"), "{}", problem.detail);
}
