//! The demo as a stranger runs it.

use std::process::Command;

const TITAN: &str = env!("CARGO_BIN_EXE_titan");

#[test]
fn the_demo_converges_and_keeps_what_it_did() {
    let directory = tempfile::tempdir().expect("directory");
    let own = directory.path().join("demo");
    let output = Command::new(TITAN).args(["demo", "--once", "--dir"]).arg(&own).output().expect("demo");
    let out = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));
    for said in
        ["healthy in", "changed iot/thermometer/thermometer.yaml", "removed iot/dashboard", "everything converged"]
    {
        assert!(out.contains(said), "{said:?} is not in\n{out}");
    }
    assert!(own.join("hosts/garden-pi/files/iot/thermometer/thermometer.yaml").is_file());
    assert!(!own.join("hosts/kitchen-pi/files/iot/thermometer/thermometer.yaml").exists());
    assert!(!own.join("hosts/lab/files/iot/dashboard/service.yaml").exists());
    // A second time it would be among what the first one left.
    let again = Command::new(TITAN).args(["demo", "--once", "--dir"]).arg(&own).output().expect("demo");
    assert_eq!(again.status.code(), Some(4));
}

#[test]
fn unknown_scenarios_are_told_what_there_is() {
    let output = Command::new(TITAN).args(["demo", "moon-landing", "--once"]).output().expect("demo");
    assert_eq!(output.status.code(), Some(3));
    let err = String::from_utf8(output.stderr).expect("text");
    assert!(err.contains("quickstart") && err.contains("validator-fleet"), "{err}");
}
