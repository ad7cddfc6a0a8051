//! Drift is told before it is put right, if anybody can be told.

use std::{fs, time::Instant};

use serde_json::json;
use titan_api::reports::Phase;

use super::worlds::World;
use crate::settle::Action;

const APPLIES: &str = "systemd applies  > unit:app.service";

/// A host in touch with its control plane on which a unit was stopped and a file edited.
fn strayed() -> World {
    let mut world = World::new(false);
    world.declare("one", "1", &json!({ "applier": "systemd" }));
    world.declare("two", "1", &json!({}));
    world.until("health", |world| {
        let reports = &world.worker.outbox.reports;
        reports.len() == 2 && reports.values().all(|report| report.phase == Phase::Healthy)
    });
    world.in_touch = true;
    world.takes_reports();
    world.calls();
    world.goes_down();
    fs::write(world.worker.state.file("files/default/two/a"), "theirs").expect("edited");
    let done = world.look_over();
    assert!(done.len() == 2 && done.iter().all(|done| done.action == Action::Waiting), "{done:?}");
    world
}

/// Whether both are as they are found, or as they are to be.
fn is_right(world: &World) -> bool {
    let (calls, text) = (world.calls(), world.text("two").expect("a file"));
    assert!((calls.is_empty() && text == "theirs") || (calls == [APPLIES] && text == "1"), "{calls:?}: {text}");
    text == "1"
}

#[test]
fn drift_is_told_with_its_difference_before_it_is_put_right() {
    let mut world = strayed();
    for _ in 0..2 {
        assert!(!is_right(&world));
        for name in ["one", "two"] {
            let report = world.report(name);
            assert_eq!((report.phase, report.drift.len(), report.drift[0].repaired), (Phase::Healthy, 1, false));
        }
        world.look_over();
    }
    assert!(world.report("two").drift[0].diff.contains("-1\n") && world.worker.outbox.unsent.len() == 2);
    world.takes_reports();
    world.pass();
    assert!(is_right(&world) && !world.worker.has_untold());
    for name in ["one", "two"] {
        assert!(world.report(name).drift.iter().all(|drift| drift.repaired), "{:?}", world.report(name));
    }
    // The next time it is news again.
    world.takes_reports();
    fs::write(world.worker.state.file("files/default/two/a"), "theirs").expect("edited");
    world.look_over();
    assert!(world.text("two").as_deref() == Some("theirs") && world.worker.has_untold());
}

#[test]
fn drift_does_not_wait_for_whoever_is_away_or_takes_long() {
    let mut lost = strayed();
    lost.in_touch = false;
    lost.pass();
    assert!(is_right(&lost));

    let mut slow = strayed();
    assert!(slow.worker.idle_for().is_some());
    slow.worker.untold.values_mut().for_each(|until| *until = Instant::now());
    slow.pass();
    assert!(is_right(&slow) && !slow.worker.has_untold());

    // What was undone by whoever did it is put right by that.
    let mut undone = strayed();
    fs::write(undone.worker.state.file("files/default/two/a"), "1").expect("undone");
    undone.look_over();
    assert!(undone.worker.untold.keys().eq([&undone.id("one")]));
    // A new release takes its place.
    undone.declare("one", "2", &json!({ "applier": "systemd" }));
    undone.pass();
    assert!(!undone.worker.has_untold() && undone.text("one").as_deref() == Some("2"));
}
