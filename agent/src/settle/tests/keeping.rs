//! What is in place stays as it was applied, over boots and while something else is declared.

use std::fs;

use serde_json::json;
use titan_api::reports::Phase;

use super::worlds::{World, shell};

#[test]
fn what_went_down_with_the_host_comes_back_whatever_is_done_about_drift() {
    for policy in ["enforce", "report", "once"] {
        let mut world = World::new(false);
        world.declare("one", "1", &json!({ "applier": "systemd", "drift": policy }));
        world
            .until("health", |world| world.worker.outbox.reports.values().any(|report| report.phase == Phase::Healthy));
        assert!(world.entry("one").boot.is_some(), "{policy}");
        world.calls();
        world.reboots();
        world.goes_down();
        world.look_over();
        assert_eq!(world.calls(), ["systemd applies  > unit:app.service"], "{policy}");
        world.look_over();
        assert_eq!(world.calls(), [""; 0], "{policy}: once");
        let report = world.report("one");
        assert_eq!(report.phase, Phase::Healthy, "{policy}");
        assert!(policy == "enforce" || report.drift.is_empty(), "{policy}: nobody did that: {report:?}");
        // What somebody stops is another matter, after a boot as well if it was told.
        world.goes_down();
        world.look_over();
        assert_eq!(world.calls().is_empty(), policy != "enforce", "{policy}");
        if policy == "report" {
            world.reboots();
            world.look_over();
            assert_eq!(world.calls(), [""; 0], "it was told that it is stopped");
            assert_eq!(world.report("one").phase, Phase::Degraded);
        }
    }
}

#[test]
fn what_is_in_place_comes_back_while_another_bundle_waits_for_a_window() {
    let mut world = World::new(false);
    world.declare("one", "1", &json!({ "applier": "systemd" }));
    world.until("health", |world| world.worker.outbox.reports.values().any(|report| report.phase == Phase::Healthy));
    world.close_windows();
    world.declare("one", "2", &json!({ "applier": "systemd" }));
    world.calls();
    world.reboots();
    world.goes_down();
    world.look_over();
    assert_eq!(world.calls(), ["systemd applies  > unit:app.service"]);
    assert_eq!(world.text("one").as_deref(), Some("1"));
}

#[test]
fn what_is_in_place_is_put_right_while_another_bundle_is_missing_waits_or_fails() {
    for how in ["missing", "window", "dependency", "fails"] {
        let mut world = World::new(false);
        let id = world.declare("one", "1", &json!({ "applier": "systemd" }));
        let healthy = |world: &World| world.worker.outbox.reports.values().any(|report| report.phase == Phase::Healthy);
        world.until("health", healthy);
        let mut newer = json!({ "applier": "systemd" });
        match how {
            "missing" => drop(world.declare_only("one", "2", &newer)),
            "dependency" => {
                world.declare_only("base", "base", &json!({}));
                newer["dependsOn"] = json!("base");
                world.declare("one", "2", &newer);
            }
            "fails" => {
                newer = shell("exit 1");
                newer["applier"] = json!("systemd");
                world.declare("one", "2", &newer);
                world.until("the failure", |world| world.worker.failures.contains_key(&id));
            }
            _ => {
                world.close_windows();
                world.declare("one", "2", &newer);
            }
        }
        world.look_over();
        // What failed is tried again, and its hook runs.
        let phase = if how == "fails" { Phase::Applying } else { Phase::Pending };
        assert_eq!(world.report("one").phase, phase, "{how}");
        world.calls();
        let file = world.worker.state.file("files").join("default/one/a");
        fs::write(&file, "tampered").expect("written");
        world.goes_down();
        world.look_over();
        assert_eq!(world.text("one").as_deref(), Some("1"), "{how}");
        assert_eq!(world.calls(), ["systemd applies  > unit:app.service"], "{how}");
        let report = world.report("one").clone();
        assert!(report.release == "one#2" && report.phase != Phase::Healthy, "{how}: {report:?}");
        assert!(report.drift.len() == 2 && report.drift.iter().all(|drift| drift.repaired), "{how}: {report:?}");
        world.look_over();
        assert_eq!(world.calls(), [""; 0], "{how}: once");
        assert_eq!(world.entry("one").release, "one#1", "{how}");
    }
}
