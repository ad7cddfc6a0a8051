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

#[test]
fn unknown_scenario_is_named_with_those_that_there_are() {
    let person = Operator::new(crate::NODE).expect("a directory");
    let output = person.run("titan demo no-such-scenario --once").expect("run");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("quickstart"), "{output:?}");
}
