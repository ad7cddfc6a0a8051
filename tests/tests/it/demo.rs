//! The demo, which a stranger runs first.

use titan_tests::{nodes, operators::Operator};

#[test]
fn demo_ends_well_and_keeps_what_it_made() {
    let person = Operator::new(crate::NODE).expect("a directory");
    let said = nodes::succeed(person.command().args(["demo", "--once", "--dir", "kept"])).expect("it ends with 0");
    assert!(said.contains("healthy") || said.contains("converged"), "{said}");
    assert!(person.directory().join("kept").read_dir().expect("kept").next().is_some());
    // A directory with something in it is somebody else's.
    let output = nodes::output(person.command().args(["demo", "--once", "--dir", "kept"])).expect("run");
    assert!(!output.status.success());
}

/// A release that does not work is taken back by the hosts themselves, and the next one is tried.
#[test]
fn demo_of_a_bad_release_ends_well() {
    let person = Operator::new(crate::NODE).expect("a directory");
    let said = nodes::succeed(person.command().args(["demo", "edge-rollback", "--once", "--dir", "kept"]));
    let said = said.expect("it ends with 0");
    assert!(said.contains("rolled back"), "{said}");
    assert!(said.contains("everything converged"), "{said}");
}

/// Plays a scenario to its end, which has to be the right one.
fn played(scenario: &str) -> String {
    let person = Operator::new(crate::NODE).expect("a directory");
    let said = nodes::succeed(person.command().args(["demo", scenario, "--once"])).expect("it ends with 0");
    assert!(said.contains("everything came out as it was to") && !said.contains("✗"), "{said}");
    // Where nothing can be painted nothing is steered.
    assert!(!said.contains('\u{1b}'), "{said}");
    said
}

/// A release waits at its gate and reaches all hosts; the next one stops at its canary and is taken back.
#[test]
fn demo_of_rollouts_ends_well() {
    let said = played("rollout");
    for line in [
        "at the gate 2.0.0 was on 1 host of 12",
        "canary-check-1 waits for approval, 0 of 1",
        "canary-check-1 was approved by token:reviewer",
        "web#2 succeeded",
        "web#3 was taken back",
        "2.0.0 is on 12 hosts again",
    ] {
        assert!(said.contains(line), "{line:?} is not in\n{said}");
    }
}

/// S4-19: an order is shipped within its 15 s though every step breaks and hangs, and a cancelled one is refunded once.
#[test]
fn demo_of_orders_ends_well() {
    let said = played("order-lifecycle");
    for line in ["order o-1001 succeeded", "it went to Ulm", "order o-1002 was taken back", "refunded once"] {
        assert!(said.contains(line), "{line:?} is not in\n{said}");
    }
}

#[test]
fn demo_of_checks_ends_well() {
    let said = played("ci-checks");
    for line in ["the first commit succeeded", "one of two is enough", "it was not released"] {
        assert!(said.contains(line), "{line:?} is not in\n{said}");
    }
}

#[test]
fn unknown_scenario_is_named_with_those_that_there_are() {
    let person = Operator::new(crate::NODE).expect("a directory");
    let output = person.run("titan demo no-such-scenario --once").expect("run");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("quickstart") && said.contains("rollout") && said.contains("ci-checks"), "{output:?}");
}
