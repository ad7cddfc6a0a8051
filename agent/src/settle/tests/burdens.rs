//! What was left to a deployment, nobody wants, and cannot go.

use std::{fs, time::Duration};

use serde_json::json;
use titan_api::reports::Phase;

use super::{
    bequests::{REMOVES, is_over, left_beside, two_and_one},
    worlds::{World, shell},
};

#[test]
fn what_a_deployment_had_goes_before_what_was_left_to_it_which_may_hold_it() {
    let (mut world, _gate) = left_beside(Some("other"));
    let own = "systemd removes unit:other > ";
    world.withdraw("two");
    world.say(None, Some("stopping"));
    world.pass();
    assert_eq!(world.calls(), [own]);
    world.say(None, None);
    world.holds(Some("unit:app.service"));
    world.pass();
    assert_eq!((world.calls(), world.whose().as_str()), (vec![own.to_owned(), REMOVES.to_owned()], "default/one"));
    world.pass();
    assert_eq!(world.calls(), [REMOVES], "what is down is down");
    assert_eq!((world.report("two").phase, world.text("one").as_deref()), (Phase::Removing, Some("1")));
    world.holds(None);
    world.pass();
    assert_eq!((world.calls(), world.report("two").phase), (vec![REMOVES.to_owned()], Phase::Removed));
    assert!(is_over(&world) && world.worker.ledger.entries.is_empty() && world.text("one").is_none());
}

#[test]
fn what_nobody_wants_and_cannot_be_taken_down_holds_up_nothing_and_is_told() {
    let (mut world, _gate) = left_beside(None);
    world.holds(Some("unit:app.service"));
    world.declare("two", "3", &json!({ "drift": "report" }));
    world.until("the release", |world| world.text("two").as_deref() == Some("3"));
    for _ in 0..2 {
        world.look_over();
        let report = world.report("two");
        assert_eq!((report.phase, report.drift.len()), (Phase::Degraded, 0), "{report:?}");
        assert!(report.message.contains("what was left to it is not down: "), "{report:?}");
        assert_eq!(world.text("one").as_deref(), Some("1"), "what it rests on stays");
    }
    // It is not tried at each look, and others are not kept from anything.
    assert_eq!((world.calls().len(), world.worker.is_stirred(false)), (1, false));
    let after = json!({ "dependsOn": "two" });
    world.declare("three", "1", &after);
    world.pass();
    assert_eq!((world.text("three").as_deref(), world.calls().len()), (Some("1"), 0));
    assert!(world.worker.idle_for().expect("it is tried again") <= Duration::from_secs(60));
    world.burdens_are_due(Duration::ZERO);
    world.pass();
    assert_eq!((world.calls().len(), world.report("two").phase), (1, Phase::Degraded));
    world.holds(None);
    world.burdens_are_due(Duration::ZERO);
    world.pass();
    assert!(is_over(&world) && world.text("one").is_none());
    assert_eq!((world.report("two").phase, world.text("two").as_deref()), (Phase::Healthy, Some("3")));
}

#[test]
fn what_takes_long_to_go_is_waited_for_a_minute_and_by_a_way_back_not_at_all() {
    let (mut world, _gate) = left_beside(None);
    world.say(None, Some("stopping"));
    world.declare("two", "3", &json!({}));
    world.pass();
    assert_eq!((world.report("two").phase, world.text("two").as_deref()), (Phase::Applying, Some("1")));
    world.burdens_are_due(Duration::from_mins(2));
    world.pass();
    assert_eq!((world.report("two").phase, world.text("two").as_deref()), (Phase::Degraded, Some("3")));
    assert!(!world.worker.is_busy() && world.report("two").message.contains("stopping"));
    world.say(None, None);
    world.burdens_are_due(Duration::ZERO);
    world.pass();
    assert!(is_over(&world) && world.report("two").phase == Phase::Healthy);

    let mut world = two_and_one();
    let mut waits = shell("sleep 1000");
    waits["applier"] = json!("systemd");
    world.withdraw("one");
    let two = world.declare("two", "3", &waits);
    world.until("the bequest", |world| world.worker.ledger.is_left(two));
    world.say(None, Some("stopping"));
    // What is in place is declared again, and proves bad.
    world.declare("two", "2", &json!({}));
    world.proves_bad("two");
    world.pass();
    assert_eq!((world.text("two").as_deref(), world.text("one").as_deref()), (Some("1"), Some("1")));
    assert!(world.worker.ledger.is_left(two), "it is not forgotten");
}

#[test]
fn whoever_leaves_is_not_applied_again_for_what_comes_back_to_it() {
    let mut world = World::new(false);
    world.declare("one", "both", &json!({ "applier": "systemd" }));
    world.pass();
    world.holds(Some("unit:other"));
    world.withdraw("one");
    let mut waits = shell("sleep 1000");
    waits["applier"] = json!("systemd");
    let two = world.declare("two", "2", &waits);
    world.until("the bequest", |world| world.worker.ledger.is_left(two));
    world.calls();
    world.withdraw("two");
    for _ in 0..3 {
        world.pass();
    }
    let calls = world.calls();
    assert!(!calls.is_empty() && calls.iter().all(|call| call.starts_with("systemd removes")), "{calls:?}");
    world.holds(None);
    world.until("the end", |world| world.worker.desired.removals.is_empty());
    assert!(is_over(&world) && world.worker.ledger.entries.is_empty() && world.text("one").is_none());
}

#[test]
fn drift_is_put_right_outside_of_windows_whatever_was_left() {
    let (mut world, _gate) = left_beside(None);
    world.holds(Some("unit:app.service"));
    world.declare("two", "3", &json!({}));
    world.until("the release", |world| world.text("two").as_deref() == Some("3"));
    world.burdens_are_due(Duration::ZERO);
    world.close_windows();
    world.calls();
    fs::write(world.worker.state.file("files/default/two/a"), "theirs").expect("edited");
    world.look_over();
    assert_eq!((world.text("two").as_deref(), world.calls()), (Some("3"), Vec::new()));
    assert!(world.report("two").phase != Phase::Pending, "{:?}", world.report("two"));
}
