use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use titan_api::{
    Code, Name, Problem,
    workplans::{
        AttemptState, Event, Executor, NodeState, Outcome, PlanState, Signal, SignalRequest, WorkPlanSpec,
        attempts::{ResultRequest, Verdict},
    },
};
use uuid::Uuid;

use super::{Finished, Input, Node, Order, Plan, Step, Stop, Told, Working};

mod checks;
mod deadlines;
mod failures;
mod growth;
mod partial;
mod times;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// A plan in memory, with a clock and everything that happened to it.
struct Bench {
    working: Working,
    log: Vec<Event>,
    now: i64,
    dice: u64,
    orders: Vec<Order>,
}

const SECOND: i64 = 1_000_000;

impl Bench {
    fn of(spec: Value) -> Self {
        Self::try_of(spec).expect("a plan")
    }

    fn try_of(spec: Value) -> Result<Self, Problem> {
        let spec: WorkPlanSpec = serde_json::from_value(spec).expect("a spec");
        let id = Uuid::nil();
        let mut bench = Self {
            working: Working::whole(Plan::new(id), 0, 0),
            log: Vec::new(),
            now: 1_000 * SECOND,
            dice: 7,
            orders: Vec::new(),
        };
        let start = spec.start;
        bench.put(Input::Make { spec: Box::new(spec), author: "token:ann".to_owned() })?;
        if start {
            bench.put(Input::Start)?;
        }
        Ok(bench)
    }

    /// Something happens. What is refused leaves everything as it was.
    fn put(&mut self, input: Input) -> Result<Step, Problem> {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.working.again(self.now, self.dice);
        self.working.submit(input);
        match self.working.advance() {
            Ok(()) => {
                let step = self.working.finish();
                self.log.extend(step.events.iter().cloned());
                self.orders.extend(step.orders.iter().cloned());
                self.check(&step);
                Ok(step)
            }
            Err(Stop::Refused(problem)) => {
                let _what_was_begun = self.working.finish();
                self.working = self.replayed();
                Err(*problem)
            }
            Err(Stop::Missing(need)) => panic!("nothing is missing, yet {need:?}"),
        }
    }

    /// Makes the plan again from its events alone.
    fn replayed(&self) -> Working {
        let mut working = Working::whole(Plan::new(self.working.plan.id), 0, 0);
        self.log.iter().for_each(|event| working.apply(event));
        working
    }

    /// What holds after every step.
    fn check(&self, step: &Step) {
        for node in step.nodes.iter().filter(|node| node.is_final()) {
            assert!(node.outcome.is_some() && node.live().is_none() && !node.held, "{node:?}");
        }
        let open = |undoes: bool| {
            let open = |node: &&&Node| !node.is_final() && node.spec.compensation == undoes;
            self.working.all().values().filter(open).count() as u64
        };
        assert_eq!((self.working.plan.open, self.working.plan.compensations), (open(false), open(true)));
    }

    fn tell(&mut self, signal: Signal, node: Option<&str>, by: &str) -> Result<Step, Problem> {
        let generation = node.and_then(|node| self.working.seen(&name(node))).map(|node| node.generation);
        let request = SignalRequest {
            node: node.map(name),
            generation: generation.filter(|_| matches!(signal, Signal::Approve | Signal::Reject)),
            reason: signal.needs_a_reason().then(|| "because".to_owned()),
            ..SignalRequest::new(signal, format!("r{}", self.log.len()))
        };
        self.put(Input::Told(Told { request, actor: by.to_owned() }))
    }

    fn state(&self, node: &str) -> (NodeState, Option<Outcome>) {
        let node = self.working.seen(&name(node)).expect("node");
        (node.state, node.outcome)
    }

    fn outcome(&self, node: &str) -> Option<Outcome> {
        self.state(node).1
    }

    fn attempt(&self, node: &str) -> Option<(u32, AttemptState)> {
        let node = self.working.seen(&name(node)).expect("node");
        node.attempt.as_ref().map(|attempt| (attempt.number, attempt.state))
    }

    fn claim(&mut self, node: &str, uid: &str) -> Result<Step, Problem> {
        let number = self.attempt(node).map_or(1, |(number, _)| number);
        self.put(Input::Claim { node: name(node), number, uid: uid.to_owned() })
    }

    fn finish(&mut self, node: &str, end: Result<Verdict, &str>) -> Result<Step, Problem> {
        let number = self.attempt(node).map_or(1, |(number, _)| number);
        let uid = "w".to_owned();
        let (node, end) = (name(node), end.map_err(str::to_owned));
        self.put(Input::Finish(Box::new(Finished {
            node,
            number,
            uid,
            end,
            message: None,
            details: None,
            results: Vec::new(),
        })))
    }

    /// Takes the attempt of a node and ends it.
    fn work(&mut self, node: &str, end: Result<Verdict, &str>) {
        self.claim(node, "w").expect("claimed");
        self.finish(node, end).expect("finished");
    }

    /// Lets time pass until something is due; says whether anything was.
    fn tick(&mut self) -> bool {
        let plan = &self.working.plan;
        if plan.state.is_final() || plan.paused_at.is_some() {
            return false;
        }
        let timers =
            self.working.all().into_iter().filter_map(|(name, node)| Some((node.timer()?, Some(name.clone()))));
        let first = timers.chain(plan.deadline().map(|at| (at, None))).min_by_key(|(at, _)| *at);
        let Some((at, node)) = first else { return false };
        self.now = self.now.max(at + plan.frozen);
        self.put(Input::Due(node)).expect("time passes");
        true
    }
}

fn external() -> Value {
    json!({"external": {"queue": "q"}})
}

/// S3-10, S3-11, S3-15, S3-16: a diamond, and a failure in it.
#[test]
fn a_failed_node_never_lets_its_dependants_begin() {
    let plan = || {
        Bench::of(json!({"nodes": {
            "a": {"run": external()}, "b": {"run": external(), "retry": {"attempts": 1}, "after": {"edges": ["a"]}},
            "c": {"run": external(), "after": {"edges": ["a"]}}, "d": {"after": {"edges": ["b", "c"]}},
            "apologise": {"after": {"edges": ["b:failed"]}}, "always": {"after": {"edges": ["b:final", "c:final"]}},
        }}))
    };
    let mut good = plan();
    for node in ["a", "b", "c"] {
        good.work(node, Ok(Verdict::Passed));
    }
    assert_eq!(good.outcome("d"), Some(Outcome::Passed));
    assert_eq!(good.outcome("apologise"), Some(Outcome::Skipped));
    assert_eq!(good.working.plan.state, PlanState::Succeeded);
    let mut bad = plan();
    bad.work("a", Ok(Verdict::Passed));
    bad.work("b", Err("crash"));
    assert_eq!(bad.outcome("d"), Some(Outcome::Skipped));
    assert_eq!(bad.outcome("apologise"), Some(Outcome::Passed));
    assert_eq!(bad.working.plan.state, PlanState::Running);
    bad.work("c", Ok(Verdict::Passed));
    assert_eq!((bad.outcome("always"), bad.working.plan.state), (Some(Outcome::Passed), PlanState::Failed));
}

/// S3-9: complete is not passed, and a claim is won once.
#[test]
fn a_claim_is_won_once_and_completion_is_not_the_outcome() {
    let mut bench = Bench::of(json!({"nodes": {"a": {"run": external()}}}));
    bench.claim("a", "w").expect("first");
    bench.claim("a", "w").expect("again");
    assert_eq!(bench.claim("a", "x").expect_err("taken").code, Code::AttemptTaken);
    bench.finish("a", Ok(Verdict::Failed)).expect("did the job");
    // The job was done: nothing is tried again.
    assert_eq!(bench.attempt("a"), Some((1, AttemptState::Complete)));
    assert_eq!((bench.outcome("a"), bench.working.plan.state), (Some(Outcome::Failed), PlanState::Failed));
    // Whoever did not hear the answer says it again.
    assert_eq!(bench.finish("a", Ok(Verdict::Failed)).expect("repeated").events, []);
}

/// S4-18, S4-22: attempts and the waits between them.
#[test]
fn what_came_to_nothing_is_tried_three_times_with_growing_waits() {
    let mut bench = Bench::of(json!({"nodes": {"a": {"run": external(), "retry": {"jitter": "none"}}}}));
    for (number, wait) in [(1, 1), (2, 2)] {
        bench.work("a", Err("crash"));
        assert_eq!(bench.attempt("a"), Some((number + 1, AttemptState::Pending)));
        let before = bench.now;
        assert!(bench.tick());
        assert_eq!(bench.now - before, wait * SECOND);
    }
    bench.work("a", Err("crash"));
    assert_eq!((bench.outcome("a"), bench.working.plan.retries), (Some(Outcome::Failed), 2));
    let mut refused = Bench::of(json!({"nodes": {"a": {"run": external(), "retry": {"nonRetryable": ["invalid"]}}}}));
    refused.work("a", Err("invalid"));
    assert_eq!(refused.outcome("a"), Some(Outcome::Failed));
}

/// S4-17: an attempt that would not fit into the time of its stage is not begun.
#[test]
fn attempts_that_would_not_fit_are_not_begun() {
    let timeouts = json!({"perAttempt": "2s", "total": "6s"});
    let mut bench =
        Bench::of(json!({"nodes": {"a": {"run": external(), "timeouts": timeouts, "retry": {"jitter": "none"}}}}));
    bench.claim("a", "w").expect("claimed");
    assert!(bench.tick());
    // 2 s are gone, 1 s of waiting and 2 s of another attempt fit.
    assert_eq!(bench.attempt("a"), Some((2, AttemptState::Pending)));
    assert!(bench.tick());
    bench.claim("a", "w").expect("claimed");
    assert!(bench.tick());
    assert_eq!(bench.outcome("a"), Some(Outcome::Failed));
    assert!(bench.working.seen(&name("a")).expect("a").message.as_ref().expect("why").contains("would not fit"));
}

#[test]
fn two_missed_heartbeats_end_an_attempt() {
    let mut bench = Bench::of(json!({"nodes": {"a": {"run": external(), "timeouts": {"heartbeat": "1s"}}}}));
    bench.claim("a", "w").expect("claimed");
    bench.now += 3 * SECOND / 2;
    bench.put(Input::Beat { node: name("a"), number: 1, uid: "w".into() }).expect("alive");
    bench.put(Input::Due(Some(name("a")))).expect("not yet");
    assert_eq!(bench.attempt("a"), Some((1, AttemptState::Running)));
    let silent = bench.now;
    assert!(bench.tick());
    assert_eq!((bench.now - silent, bench.attempt("a")), (2 * SECOND, Some((2, AttemptState::Pending))));
    let late = bench.put(Input::Beat { node: name("a"), number: 1, uid: "w".into() }).expect_err("late");
    assert_eq!(late.code, Code::NotFound);
}

/// S3-5, S3-6, S3-12.
#[test]
fn checks_advance_when_no_assigned_stage_remains() {
    let mut bench = Bench::of(json!({"nodes": {
        "builds": {"kind": "check"},
        "linux": {"run": external(), "answers": [{"check": "builds"}]},
        "mac": {"run": external(), "answers": [{"check": "builds"}], "retry": {"attempts": 1}},
        "release": {"after": {"edges": ["builds"]}},
    }}));
    assert_eq!(bench.state("builds"), (NodeState::Waiting, None));
    bench.work("linux", Ok(Verdict::Passed));
    assert_eq!(bench.state("builds"), (NodeState::Waiting, None));
    bench.work("mac", Ok(Verdict::Failed));
    assert_eq!(bench.outcome("builds"), Some(Outcome::Failed));
    assert_eq!(bench.outcome("release"), Some(Outcome::Skipped));
    let rewritten = serde_json::from_value(json!({"builds": {"kind": "check", "description": "x"}})).expect("nodes");
    assert_eq!(bench.put(Input::Write(rewritten)).expect_err("final").code, Code::ImmutableNode);
}

/// An answer that was given on the way stands, whatever the attempt comes to; what it says nothing of follows its end.
#[test]
fn an_answer_stands_whatever_its_stage_comes_to() {
    let nodes = json!({
        "a": {"kind": "check"}, "b": {"kind": "check"},
        "s": {"run": external(), "answers": [{"check": "a"}, {"check": "b"}], "retry": {"attempts": 1}},
    });
    let yes = |check: &str| ResultRequest { check: name(check), data: Value::Null, failure_message: None };
    let (no, passed) = (Some(Outcome::Failed), Some(Outcome::Passed));
    for (end, on_the_way, with_it, a, b) in [
        (Ok(Verdict::Failed), vec!["a"], vec!["b"], passed, passed),
        (Ok(Verdict::Failed), vec!["a"], vec![], passed, no),
        (Ok(Verdict::Failed), vec![], vec!["a"], passed, no),
        (Ok(Verdict::Passed), vec!["a"], vec![], passed, passed),
        (Err("crash".to_owned()), vec!["a"], vec![], passed, no),
        (Ok(Verdict::Failed), vec![], vec![], no, no),
    ] {
        let mut bench = Bench::of(json!({ "nodes": nodes }));
        bench.claim("s", "w").expect("claimed");
        let case = format!("{end:?} {on_the_way:?} {with_it:?}");
        let (node, number, uid) = (name("s"), 1, "w".to_owned());
        let results: Vec<_> = on_the_way.into_iter().map(yes).collect();
        if !results.is_empty() {
            let answer = Input::Answer { node: node.clone(), number, uid: uid.clone(), results };
            bench.put(answer).expect("answered");
        }
        let results = with_it.into_iter().map(yes).collect();
        let end = Finished { node, number, uid, end, message: None, details: None, results };
        bench.put(Input::Finish(Box::new(end))).expect("finished");
        assert_eq!((bench.outcome("a"), bench.outcome("b")), (a, b), "{case}");
        assert!(bench.replayed().same(&bench.working));
    }
}

#[test]
fn a_check_that_stages_plan_is_planned_once_they_are_done() {
    let mut bench = Bench::of(json!({"nodes": {
        "tests": {"kind": "check"},
        "plan": {"run": external(), "answers": [{"check": "tests", "goal": "planned"}]},
        "run": {"run": external(), "answers": [{"check": "tests"}], "after": {"edges": ["plan"]}},
    }}));
    assert_eq!(bench.state("tests").0, NodeState::Planning);
    bench.work("plan", Ok(Verdict::Passed));
    assert_eq!(bench.state("tests").0, NodeState::Waiting);
    bench.work("run", Ok(Verdict::Passed));
    assert_eq!(bench.outcome("tests"), Some(Outcome::Passed));
}

/// S3-8.
#[test]
fn a_stage_waits_for_its_children_and_so_do_its_dependants() {
    let mut bench = Bench::of(json!({"nodes": {"p": {"run": external()}, "after": {"after": {"edges": ["p"]}}}}));
    bench.claim("p", "w").expect("claimed");
    let children = json!({"east": {"parent": "p", "run": external()}, "west": {"parent": "p", "run": external()}});
    bench.put(Input::Write(serde_json::from_value(children).expect("nodes"))).expect("spawned");
    assert_eq!(bench.attempt("east"), Some((1, AttemptState::Scheduled)));
    bench.finish("p", Ok(Verdict::Passed)).expect("done");
    assert_eq!(bench.state("p"), (NodeState::AwaitingGroup, None));
    bench.work("east", Ok(Verdict::Passed));
    assert_eq!(bench.state("after").0, NodeState::Planned);
    bench.work("west", Ok(Verdict::Passed));
    assert_eq!((bench.outcome("p"), bench.outcome("after")), (Some(Outcome::Passed), Some(Outcome::Passed)));
    assert_eq!(bench.working.plan.state, PlanState::Succeeded);
}

/// S4-34: minimum, no self-approval, deadline; what is said early is kept, what is stale is refused.
#[test]
fn gates_open_for_enough_people_who_did_not_make_the_plan() {
    let spec = json!({"nodes": {"build": {"run": external()},
        "gate": {"kind": "check", "run": {"approval": {"minimum": 2, "deadline": "1h"}}, "after": {"edges": ["build"]}}}});
    let mut bench = Bench::of(spec.clone());
    assert_eq!(bench.tell(Signal::Approve, Some("gate"), "token:ann").expect_err("own").code, Code::SelfApproval);
    bench.tell(Signal::Approve, Some("gate"), "token:bob").expect("early");
    bench.tell(Signal::Approve, Some("gate"), "token:bob").expect("twice is once");
    let stale =
        SignalRequest { node: Some(name("gate")), generation: Some(2), ..SignalRequest::new(Signal::Approve, "stale") };
    let stale = bench.put(Input::Told(Told { request: stale, actor: "token:eve".into() }));
    assert_eq!(stale.expect_err("stale").code, Code::StaleSignal);
    bench.work("build", Ok(Verdict::Passed));
    assert_eq!(bench.state("gate").0, NodeState::Waiting);
    bench.tell(Signal::Approve, Some("gate"), "token:eve").expect("second");
    assert_eq!(bench.outcome("gate"), Some(Outcome::Passed));
    assert_eq!(bench.tell(Signal::Approve, Some("gate"), "token:eve").expect_err("over").code, Code::InvalidTransition);
    let mut late = Bench::of(spec);
    late.work("build", Ok(Verdict::Passed));
    let opened = late.now;
    assert!(late.tick());
    assert_eq!((late.now - opened, late.outcome("gate")), (3600 * SECOND, Some(Outcome::Failed)));
}

#[test]
fn clocks_stand_still_while_a_plan_is_paused() {
    let mut bench = Bench::of(
        json!({"deadline": "1h", "nodes": {"w": {"run": {"wait": {"for": "10s"}}}, "x": {"after": {"edges": ["w"]}}}}),
    );
    bench.now += 4 * SECOND;
    bench.tell(Signal::Pause, None, "token:bob").expect("paused");
    bench.now += 1_000 * SECOND;
    bench.put(Input::Due(Some(name("w")))).expect("nothing");
    assert!(!bench.tick());
    bench.tell(Signal::Resume, None, "token:bob").expect("resumed");
    let resumed = bench.now;
    assert!(bench.tick());
    assert_eq!((bench.now - resumed, bench.working.plan.state), (6 * SECOND, PlanState::Succeeded));
}

#[test]
fn what_becomes_ready_while_paused_begins_on_resume() {
    let mut bench =
        Bench::of(json!({"nodes": {"a": {"run": external()}, "b": {"run": external(), "after": {"edges": ["a"]}}}}));
    bench.claim("a", "w").expect("claimed");
    bench.tell(Signal::Pause, None, "token:bob").expect("paused");
    bench.finish("a", Ok(Verdict::Passed)).expect("live attempts go on");
    assert_eq!(bench.state("b").0, NodeState::Planned);
    bench.tell(Signal::Resume, None, "token:bob").expect("resumed");
    assert_eq!(bench.attempt("b"), Some((1, AttemptState::Scheduled)));
}

#[test]
fn what_cannot_be_told_waits_for_a_person() {
    let plan = json!({"nodes": {"m": {"kind": "check", "run": external()}, "x": {"after": {"edges": ["m"]}}}});
    let mut bench = Bench::of(plan.clone());
    bench.work("m", Ok(Verdict::Inconclusive));
    assert_eq!(bench.working.plan.state, PlanState::Paused);
    bench.tell(Signal::Retry, Some("m"), "token:bob").expect("again");
    assert_eq!(bench.working.plan.state, PlanState::Running);
    assert_eq!(bench.working.seen(&name("m")).expect("m").generation, 2);
    assert!(bench.tick());
    bench.work("m", Ok(Verdict::Passed));
    assert_eq!(bench.working.plan.state, PlanState::Succeeded);
    let mut skipped = Bench::of(plan.clone());
    skipped.work("m", Ok(Verdict::Inconclusive));
    skipped.tell(Signal::Skip, Some("m"), "token:bob").expect("skipped");
    assert_eq!((skipped.outcome("m"), skipped.working.plan.state), (Some(Outcome::Overridden), PlanState::Succeeded));
    let mut rejected = Bench::of(plan);
    rejected.work("m", Ok(Verdict::Inconclusive));
    rejected.tell(Signal::Reject, Some("m"), "token:bob").expect("rejected");
    assert_eq!((rejected.outcome("x"), rejected.working.plan.state), (Some(Outcome::Skipped), PlanState::Failed));
}

/// Nobody's word opens a gate whose time is over; who wants it open has it asked again first.
#[test]
fn a_gate_that_waits_for_a_person_is_opened_again_before_it_is_approved() {
    let gate = json!({"kind": "check", "run": {"approval": {"deadline": "1h"}}, "onFailure": "pause"});
    let mut bench = Bench::of(json!({"nodes": {"gate": gate}}));
    assert!(bench.tick());
    assert!(bench.working.seen(&name("gate")).expect("gate").held);
    let refused = bench.tell(Signal::Approve, Some("gate"), "token:bob").expect_err("closed");
    assert_eq!((refused.code, refused.detail.contains("nobody approved it in time")), (Code::InvalidTransition, true));
    assert!(refused.hint.expect("a hint").contains("retry"));
    bench.tell(Signal::Retry, Some("gate"), "token:bob").expect("again");
    bench.tick();
    bench.tell(Signal::Approve, Some("gate"), "token:bob").expect("approved");
    assert_eq!((bench.outcome("gate"), bench.working.plan.state), (Some(Outcome::Passed), PlanState::Succeeded));
}

/// That the job was done and came out badly is a failure like one that could not be done.
#[test]
fn what_fails_waits_for_a_person_where_that_is_asked_for() {
    let plan = json!({"nodes": {
        "m": {"kind": "check", "run": external(), "onFailure": "pause"},
        "gate": {"kind": "check", "run": {"approval": {}}, "onFailure": "pause"},
        "x": {"after": {"edges": ["m", "gate"]}},
    }});
    let mut bench = Bench::of(plan.clone());
    bench.work("m", Ok(Verdict::Failed));
    assert!(bench.working.seen(&name("m")).expect("m").held);
    assert_eq!((bench.outcome("m"), bench.working.plan.state), (None, PlanState::Paused));
    bench.tell(Signal::Retry, Some("m"), "token:bob").expect("again");
    assert_eq!(bench.working.plan.state, PlanState::Running);
    bench.tick();
    bench.work("m", Ok(Verdict::Failed));
    bench.tell(Signal::Skip, Some("m"), "token:bob").expect("skipped");
    assert_eq!((bench.outcome("m"), bench.working.plan.state), (Some(Outcome::Overridden), PlanState::Running));
    // A person who says no has said it.
    bench.tell(Signal::Reject, Some("gate"), "token:bob").expect("rejected");
    assert_eq!((bench.outcome("gate"), bench.outcome("x")), (Some(Outcome::Failed), Some(Outcome::Skipped)));
    assert_eq!(bench.working.plan.state, PlanState::Failed);
}

/// S4-12, S4-23: what was done is undone, what was not is left alone.
#[test]
fn a_plan_that_is_rolled_back_undoes_what_was_done() {
    let mut bench = Bench::of(json!({"nodes": {
        "charge": {"run": external()}, "ship": {"run": external(), "after": {"edges": ["charge"]}},
        "refund": {"compensation": true, "run": external(), "after": {"edges": ["charge"]}},
        "recall": {"compensation": true, "run": external(), "after": {"edges": ["ship"]}},
    }}));
    bench.work("charge", Ok(Verdict::Passed));
    assert_eq!(bench.state("refund").0, NodeState::Planned);
    bench.claim("ship", "w").expect("claimed");
    bench.tell(Signal::Rollback, None, "token:bob").expect("told");
    assert_eq!(bench.working.plan.state, PlanState::RollingBack);
    // The worker is told to stop, and nothing is undone before it has.
    assert_eq!(bench.state("refund").0, NodeState::Planned);
    bench.finish("ship", Err("cancelled")).expect("stopped");
    assert_eq!((bench.outcome("ship"), bench.outcome("recall")), (Some(Outcome::Cancelled), Some(Outcome::Skipped)));
    bench.work("refund", Ok(Verdict::Passed));
    assert_eq!(bench.working.plan.state, PlanState::RolledBack);
    assert_eq!(bench.tell(Signal::Pause, None, "token:bob").expect_err("over").code, Code::InvalidTransition);
    let mut whole = Bench::of(json!({"nodes": {"a": {}, "undo": {"compensation": true, "after": {"edges": ["a"]}}}}));
    assert_eq!((whole.outcome("undo"), whole.working.plan.state), (Some(Outcome::Skipped), PlanState::Succeeded));
    assert!(!whole.tick());
}

#[test]
fn a_worker_that_does_not_stop_is_not_waited_for_for_ever() {
    let mut bench = Bench::of(json!({"nodes": {"a": {"run": external()}}}));
    bench.claim("a", "w").expect("claimed");
    bench.tell(Signal::Abort, None, "token:bob").expect("told");
    assert_eq!(bench.working.plan.state, PlanState::Aborting);
    let told = bench.now;
    assert!(bench.tick());
    assert_eq!((bench.now - told, bench.working.plan.state), (30 * SECOND, PlanState::Aborted));
}

/// S4-19.
#[test]
fn the_deadline_of_a_plan_stops_it() {
    let gate = json!({"kind": "check", "run": {"approval": {"deadline": "10s"}}});
    let mut bench = Bench::of(json!({"deadline": "10s", "nodes": {"gate": gate}}));
    bench.now += 10 * SECOND;
    bench.put(Input::Due(None)).expect("over");
    assert_eq!((bench.working.plan.state, bench.outcome("gate")), (PlanState::Failed, Some(Outcome::Cancelled)));
    assert_eq!(bench.working.plan.reason.as_deref(), Some("its deadline of 10s has passed"));
}

#[test]
fn a_plan_inside_a_stage_is_made_with_it_and_decides_what_comes_of_it() {
    let mut bench = Bench::of(
        json!({"nodes": {"ship": {"run": {"plan": {"nodes": {"pack": {}}}}}, "x": {"after": {"edges": ["ship"]}}}}),
    );
    let Some(Order::Child { id, number, .. }) = bench.orders.first().cloned() else { panic!("no child") };
    assert_eq!((id, number), (super::flow::child_id(Uuid::nil(), &name("ship"), 1), 1));
    let ended = |state| Input::Child { node: name("ship"), number, state, reason: None };
    bench.put(ended(PlanState::Succeeded)).expect("ended");
    assert_eq!(bench.working.plan.state, PlanState::Succeeded);
    assert_eq!(bench.put(ended(PlanState::Failed)).expect("too late").events, []);
}

#[test]
fn an_attempt_that_was_interrupted_does_not_count() {
    let mut bench =
        Bench::of(json!({"nodes": {"a": {"run": {"http": {"url": "http://x"}}, "retry": {"attempts": 1}}}}));
    for number in 1..5 {
        bench.claim("a", "w").expect("claimed");
        bench.put(Input::Interrupted { node: name("a"), number }).expect("interrupted");
        assert_eq!(bench.attempt("a"), Some((number + 1, AttemptState::Scheduled)));
    }
    bench.work("a", Err("refused"));
    assert_eq!(bench.outcome("a"), Some(Outcome::Failed));
}

/// S3-16, S4-19: refused with its code, and nothing of it is there.
#[test]
fn plans_that_make_no_sense_are_refused_whole() {
    let code = |spec: Value| Bench::try_of(spec).err().expect("refused").code;
    assert_eq!(
        code(json!({"nodes": {"a": {"after": {"edges": ["b"]}}, "b": {"after": {"edges": ["a"]}}}})),
        Code::Cycle
    );
    assert_eq!(code(json!({"nodes": {"a": {"after": {"edges": ["b"]}}}})), Code::UnknownNode);
    assert_eq!(code(json!({"nodes": {}})), Code::Invalid);
    assert_eq!(code(json!({"deadline": "5s", "nodes": {"a": {"run": {"wait": {"for": "6s"}}}}})), Code::BudgetExceeded);
    let mut bench = Bench::of(json!({"nodes": {"a": {"run": external()}}}));
    let before = bench.log.len();
    let grow = |value: Value| Input::Write(serde_json::from_value(value).expect("nodes"));
    assert_eq!(
        bench.put(grow(json!({"b": {"after": {"edges": ["c"]}}}))).expect_err("unknown").code,
        Code::UnknownNode
    );
    let loops = json!({"b": {"after": {"edges": ["c"]}}, "c": {"after": {"edges": ["b"]}}});
    assert_eq!(bench.put(grow(loops)).expect_err("cycle").code, Code::Cycle);
    assert_eq!(bench.put(grow(json!({"a": {}}))).expect_err("begun").code, Code::ImmutableNode);
    assert_eq!((bench.log.len(), bench.working.all().len()), (before, 1));
}

/// Chance, for graphs and for what happens to them.
fn spec(seed: &[u8], size: usize) -> Value {
    let at = |index: usize| usize::from(seed[index % seed.len()]);
    let mut nodes = BTreeMap::new();
    let written = |index: usize| format!("n{index}");
    for index in 0..size {
        let dice = at(index * 7);
        let condition = ["", ":final", ":failed"][at(index * 3 + 1) % 3];
        let mut edges: Vec<String> = (0..index)
            .filter(|target| at(index * 31 + target * 17) % 5 == 0)
            .map(|target| format!("{}{condition}", written(target)))
            .collect();
        edges.truncate(4);
        let mut node = json!({});
        if !edges.is_empty() {
            node["after"] = json!({ "edges": edges, "threshold": at(index + 5) % (edges.len() + 1) });
        }
        let timeouts = json!({"perAttempt": "2s", "heartbeat": "1s"});
        match dice % 7 {
            0 => node["run"] = json!({"wait": {"for": "3s"}}),
            1 => {
                node["kind"] = json!("check");
                node["run"] = json!({"approval": {"deadline": "1h", "minimum": 1 + dice % 2}});
            }
            2 => {
                node["kind"] = json!("check");
                node["run"] = external();
            }
            3 => {}
            4 => node["run"] = json!({"http": {"url": "http://x"}}),
            _ => node["run"] = external(),
        }
        if dice % 7 != 1 && dice % 7 != 3 {
            node["timeouts"] = timeouts;
        }
        node["optional"] = json!(dice % 11 == 0);
        node["onFailure"] = json!(if dice % 13 == 0 { "pause" } else { "fail" });
        nodes.insert(written(index), node);
    }
    nodes.insert("undo".to_owned(), json!({"compensation": true, "run": external(), "after": {"edges": ["n0:final"]}}));
    let roll = if at(2) % 2 == 0 { "rollback" } else { "fail" };
    json!({ "nodes": nodes, "onFailure": roll })
}

/// Does something by chance: a claim, an end, a heartbeat, a signal, time, an interruption.
fn happen(bench: &mut Bench, dice: u8, more: u8) {
    let names: Vec<Name> = bench.working.all().into_keys().cloned().collect();
    let node = names[usize::from(more) % names.len()].clone();
    let text = node.to_string();
    let number = bench.attempt(&text).map_or(1, |(number, _)| number);
    let signals = [Signal::Pause, Signal::Resume, Signal::Approve, Signal::Skip, Signal::Retry, Signal::Reject];
    let _refused_or_not = match dice % 16 {
        0..4 => bench.claim(&text, "w"),
        4..7 => bench.finish(&text, Ok(if more.is_multiple_of(9) { Verdict::Failed } else { Verdict::Passed })),
        7 => bench.finish(&text, Err("crash")),
        8 => bench.finish(&text, Ok(Verdict::Inconclusive)),
        9 => bench.put(Input::Beat { node, number, uid: "w".into() }),
        10 => bench.put(Input::Interrupted { node, number }),
        11 | 12 => {
            bench.tick();
            Ok(bench.put(Input::Due(Some(node))).expect("time never fails"))
        }
        13 if more.is_multiple_of(32) => {
            bench.tell(if more.is_multiple_of(64) { Signal::Abort } else { Signal::Rollback }, None, "token:bob")
        }
        _ => {
            let signal = signals[usize::from(more / 7) % signals.len()];
            bench.tell(signal, signal.is_about_a_node().then_some(text.as_str()), "token:bob")
        }
    };
}

/// Lets everybody do what there is to do, and people decide; the plan has to come to its end.
fn run_out(bench: &mut Bench) {
    for _ in 0..5_000 {
        if bench.working.plan.state.is_final() {
            return;
        }
        let found: Vec<(Name, Option<AttemptState>, bool, bool)> = bench
            .working
            .all()
            .into_values()
            .map(|node| {
                let gate = matches!(node.spec.run, Some(Executor::Approval(_)));
                (node.name.clone(), node.live().map(|attempt| attempt.state), node.held, gate)
            })
            .collect();
        let before = bench.log.len();
        for (node, live, held, gate) in found {
            match live {
                _ if held => drop(bench.tell(Signal::Skip, Some(&node), "token:bob")),
                Some(AttemptState::Scheduled) => drop(bench.claim(&node, "w")),
                Some(AttemptState::Running) if gate => {
                    drop(bench.tell(Signal::Approve, Some(&node), "token:bob"));
                    drop(bench.tell(Signal::Approve, Some(&node), "token:eve"));
                }
                Some(AttemptState::Running) => drop(bench.finish(&node, Ok(Verdict::Passed))),
                _ => {}
            }
        }
        if bench.working.plan.state == PlanState::Paused {
            drop(bench.tell(Signal::Resume, None, "token:bob"));
        }
        let moved = bench.log.len() > before;
        assert!(bench.tick() || moved || bench.working.plan.state.is_final(), "stuck: {:?}", bench.working);
    }
    panic!("it never ends: {:?}", bench.working.plan);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Never two live attempts, final never changes, the events give the state, and every plan ends or waits for a person.
    #[test]
    fn whatever_happens_the_laws_of_plans_hold(
        seed in prop::collection::vec(any::<u8>(), 8..64),
        size in 1..14_usize,
        steps in prop::collection::vec((any::<u8>(), any::<u8>()), 0..120),
    ) {
        let mut bench = Bench::of(spec(&seed, size));
        for (dice, more) in steps {
            happen(&mut bench, dice, more);
        }
        let replayed = bench.replayed();
        prop_assert!(replayed.same(&bench.working), "{:?}\n{:?}", replayed.plan, bench.working.plan);
        run_out(&mut bench);
        prop_assert!(bench.replayed().same(&bench.working));
        lawful(&bench.log);
    }
}

/// Checks the log alone: transitions, one live attempt at a time, and that what is final stays so.
fn lawful(log: &[Event]) {
    let mut nodes: BTreeMap<Name, (titan_api::workplans::NodeKind, NodeState)> = BTreeMap::new();
    let mut attempts: BTreeMap<Name, (u32, AttemptState)> = BTreeMap::new();
    let mut plan = PlanState::Planning;
    for event in log {
        match event {
            Event::Written { node, spec } => {
                let first = if spec.planning { NodeState::Planning } else { NodeState::Planned };
                nodes.insert(node.clone(), (spec.kind, first));
            }
            Event::Plan { state, .. } => {
                assert!(plan.may_become(*state), "{plan} to {state}");
                plan = *state;
            }
            Event::Node { node, state, .. } => {
                let (kind, before) = nodes[node];
                assert!(before.may_become(kind, *state), "{node}: {before} to {state}");
                nodes.insert(node.clone(), (kind, *state));
            }
            Event::Attempt { node, number, state, .. } => {
                match attempts.get(node) {
                    Some((before, was)) if before == number => assert!(was.may_become(*state), "{node}/{number}"),
                    Some((before, was)) => {
                        assert!(was.is_final() && *number == before + 1, "{node}: two live attempts")
                    }
                    None => assert_eq!((*number, *state), (1, AttemptState::Pending)),
                }
                assert!(nodes[node].1 != NodeState::Final, "{node} is final");
                attempts.insert(node.clone(), (*number, *state));
            }
            _ => {}
        }
    }
    assert!(attempts.values().all(|(_, state)| state.is_final()) || !plan.is_final());
}
