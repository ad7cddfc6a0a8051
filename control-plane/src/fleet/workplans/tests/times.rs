//! How long attempts may take, and what goes on at the same time.

use super::*;

fn of(timeouts: &Value) -> Bench {
    let retry = json!({"attempts": 2, "jitter": "none"});
    Bench::of(json!({"nodes": {"a": {"run": external(), "timeouts": timeouts, "retry": retry}}}))
}

/// Lets the next thing happen by itself, and returns after how many seconds it did.
fn passes(bench: &mut Bench) -> i64 {
    let before = bench.now;
    assert!(bench.tick(), "nothing is due");
    (bench.now - before) / SECOND
}

/// Returns the codes of the attempts that came to nothing.
fn codes(bench: &Bench) -> Vec<&str> {
    let each = bench.log.iter().filter_map(|event| match event {
        Event::Attempt { state: AttemptState::Incomplete, code, .. } => code.as_deref(),
        _ => None,
    });
    each.collect()
}

/// S4-17: an attempt has a bound until a worker takes it, one until it is done and one until its worker has stopped; that of
/// its stage is over all of them.
#[test]
fn every_part_of_an_attempt_has_a_bound_of_its_own() {
    // Nobody takes it.
    let mut pending = of(&json!({"scheduleToStart": "3s", "perAttempt": "5s", "total": "1h"}));
    assert_eq!((passes(&mut pending), codes(&pending)), (3, vec!["scheduleToStart"]));
    assert_eq!(pending.outcome("a"), Some(Outcome::Failed), "there is no other worker for another attempt either");
    // It is at it for too long, and is tried again.
    let mut running = of(&json!({"scheduleToStart": "3s", "perAttempt": "5s", "total": "1h"}));
    running.now += 2 * SECOND;
    running.claim("a", "w").expect("claimed");
    assert_eq!((passes(&mut running), codes(&running)), (5, vec!["timeout"]));
    assert_eq!((running.attempt("a"), running.outcome("a")), (Some((2, AttemptState::Pending)), None));
    // It was told to stop and does not.
    let mut stopping = of(&json!({"perAttempt": "1m", "teardown": "2s"}));
    stopping.claim("a", "w").expect("claimed");
    stopping.tell(Signal::Abort, None, "token:bob").expect("told");
    assert_eq!((passes(&mut stopping), codes(&stopping)), (2, vec!["cancelled"]));
    assert_eq!(stopping.working.plan.state, PlanState::Aborted);
    // The time of the stage is over: while it waits for a worker, and while one is at it.
    let mut waiting = of(&json!({"scheduleToStart": "1m", "total": "4s"}));
    assert_eq!((passes(&mut waiting), codes(&waiting)), (4, vec!["totalTimeout"]));
    let mut late = of(&json!({"perAttempt": "5s", "total": "6s"}));
    late.now += 3 * SECOND;
    late.claim("a", "w").expect("claimed");
    assert_eq!((passes(&mut late), codes(&late)), (3, vec!["totalTimeout"]));
    for bench in [&waiting, &late] {
        assert_eq!(bench.outcome("a"), Some(Outcome::Failed));
    }
    // Nothing was said: five minutes an attempt, half a minute to stop.
    let mut default = of(&json!({}));
    default.claim("a", "w").expect("claimed");
    assert_eq!(passes(&mut default), 300);
}

/// S4-20: what does not wait for each other is offered at once, and done at once by as many as take it.
#[test]
fn nodes_that_do_not_wait_for_each_other_run_beside_each_other() {
    const MANY: usize = 40;
    let mut nodes: BTreeMap<String, Value> =
        (0..MANY).map(|number| (format!("n{number}"), json!({"run": external()}))).collect();
    nodes.insert("chained".to_owned(), json!({"run": external(), "after": {"edges": ["n0"]}}));
    nodes.insert("inner".to_owned(), json!({"run": {"plan": {"nodes": {"x": {}}}}}));
    let mut bench = Bench::of(json!({ "nodes": nodes }));
    for number in 0..MANY {
        assert_eq!(bench.attempt(&format!("n{number}")), Some((1, AttemptState::Scheduled)));
    }
    for number in 0..MANY {
        bench.claim(&format!("n{number}"), &format!("w{number}")).expect("claimed");
    }
    let running = |bench: &Bench| {
        let live = |node: &&Node| node.live().is_some_and(|attempt| attempt.state == AttemptState::Running);
        bench.working.all().into_values().filter(live).count()
    };
    assert_eq!(running(&bench), MANY + 1, "the plan inside is under way too");
    assert_eq!(bench.state("chained"), (NodeState::Planned, None));
    let end = Finished {
        node: name("n0"),
        number: 1,
        uid: "w0".to_owned(),
        end: Ok(Verdict::Passed),
        message: None,
        details: None,
        results: Vec::new(),
    };
    bench.put(Input::Finish(Box::new(end))).expect("finished");
    assert_eq!(bench.attempt("chained"), Some((1, AttemptState::Scheduled)), "it waits for no other");
    assert_eq!(running(&bench), MANY);
}
