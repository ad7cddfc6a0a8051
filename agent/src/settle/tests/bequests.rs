//! What a deployment leaves: to another one, or to nobody.

use std::fs;

use serde_json::json;
use titan_api::{deployments::OnRemove, reports::Phase};

use super::worlds::{World, shell};

#[test]
fn what_a_claim_rests_on_stays_until_whoever_takes_it_over_has_it() {
    let mut world = World::new(false);
    world.declare("one", "1", &json!({ "applier": "systemd" }));
    world.pass();
    world.calls();
    let gate = world.dir.path().join("gate");
    let mut waits = shell(&format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display()));
    waits["applier"] = json!("systemd");
    world.withdraw("one");
    world.declare("two", "2", &waits);
    world.until("the removal", |world| !world.worker.ledger.entries.contains_key(&world.id("one")));
    for _ in 0..3 {
        world.pass();
        assert_eq!((world.text("one").as_deref(), world.calls()), (Some("1"), Vec::new()), "it rests on that");
    }
    fs::write(&gate, "").expect("gate");
    world.until("the heir", |world| world.text("two").as_deref() == Some("2"));
    assert_eq!(world.text("one"), None);
    let claim = "unit:app.service";
    assert_eq!(
        world.calls(),
        [format!("systemd prepares {claim} > {claim}"), format!("systemd applies {claim} > {claim}")]
    );
    assert_eq!(world.worker.ledger.inherited.len() + world.worker.ledger.bequeathed.len(), 0);
}

#[test]
fn whoever_gives_up_late_leaves_it_to_whom_it_was_refused_until_then() {
    let mut world = World::new(false);
    let at = |text: &str| json!([{ "path": "srv/x", "rooted": true, "mode": "0644", "content": text }]);
    let path = world.worker.state.file("files").join("srv/x");
    world.declare("one", "1", &json!({ "files": at("old") }));
    world.pass();
    assert_eq!(fs::read_to_string(&path).expect("file"), "old");
    // The giver has a hook to wait for, and the heir is refused meanwhile.
    let gate = world.dir.path().join("gate");
    world.declare("one", "2", &shell(&format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display())));
    let id = world.declare("two", "1", &json!({ "files": at("new") }));
    world.until("the refusal", |world| world.worker.failures.contains_key(&id));
    assert!(world.report("two").message.contains("default/one"), "{:?}", world.report("two"));
    fs::write(&gate, "").expect("gate");
    world.until("the second release", |world| world.text("one").as_deref() == Some("2"));
    assert_eq!(fs::read_to_string(&path).expect("it was never gone"), "new", "in the same pass");
    assert_eq!(world.report("two").phase, Phase::Healthy);
    assert!(world.worker.failures.is_empty() && world.worker.ledger.inherited.is_empty());
}

#[test]
fn what_was_left_to_whoever_has_something_else_in_place_stays_and_goes_back_with_the_giver() {
    for bad in [false, true] {
        let mut world = World::new(false);
        let a = |text: &str| json!({ "path": "a", "mode": "0644", "content": text });
        let x = |text: &str| json!({ "path": "srv/x", "rooted": true, "mode": "0644", "content": text });
        let path = world.worker.state.file("files").join("srv/x");
        let says = || fs::read_to_string(&path).expect("it was never gone");
        world.declare("one", "1", &json!({ "files": [a("1"), x("old")] }));
        world.declare("two", "1", &json!({}));
        world.pass();
        let gate = world.dir.path().join("gate");
        let mut newer = shell(&format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display()));
        newer["files"] = json!([a("2"), x("new")]);
        world.declare("two", "2", &newer);
        world.declare("one", "2", &json!({}));
        world.until("the giver", |world| world.text("one").as_deref() == Some("2"));
        for _ in 0..3 {
            world.look_over();
            assert_eq!((says().as_str(), world.text("two").as_deref()), ("old", Some("1")), "{bad}");
        }
        if bad {
            // What the giver goes back to needs it, and the heir does not have it yet.
            world.proves_bad("one");
            world.until("the way back", |world| world.text("one").as_deref() == Some("1"));
            assert!(world.entry("one").files.contains_key("srv/x") && says() == "old");
            fs::write(&gate, "").expect("gate");
            world.until("the refusal", |world| world.report("two").message.contains("default/one"));
            assert_eq!(says(), "old");
        } else {
            fs::write(&gate, "").expect("gate");
            world.until("the heir", |world| world.text("two").as_deref() == Some("2"));
            assert_eq!(says(), "new");
            assert!(world.worker.ledger.inherited.is_empty());
        }
    }
}

#[test]
fn what_is_to_stay_is_let_go_of_by_whoever_looks_after_it() {
    let mut world = World::new(false);
    world.declare("one", "1", &json!({ "applier": "systemd" }));
    world.pass();
    world.calls();
    world.withdraw_and("one", OnRemove::Orphan);
    // Who is not there yet is waited for.
    for said in ["!", "releasing"] {
        world.say(None, Some(said));
        world.pass();
        assert_eq!(world.calls(), ["systemd releases unit:app.service > "], "{said}");
        assert_eq!(world.report("one").phase, Phase::Removing, "{said}");
    }
    world.say(None, None);
    world.pass();
    assert_eq!(world.calls(), ["systemd releases unit:app.service > "]);
    assert_eq!(world.text("one").as_deref(), Some("1"), "its files stay too");
    assert!(world.worker.ledger.entries.is_empty() && world.worker.desired.removals.is_empty());
}

/// Has `one` leave its unit to `two`, which waits for its own hook. With `stays`, the giver does not leave itself.
fn left(stays: bool) -> World {
    let mut world = World::new(false);
    world.declare("one", "1", &json!({ "applier": "systemd" }));
    world.pass();
    if stays {
        world.declare("one", "other", &json!({ "applier": "systemd" }));
    } else {
        world.withdraw("one");
    }
    let mut waits = shell("sleep 1000");
    waits["applier"] = json!("systemd");
    let two = world.declare("two", "2", &waits);
    world.until("the bequest", |world| world.worker.ledger.is_left(two));
    for _ in 0..3 {
        world.pass();
    }
    world.calls();
    world
}

/// Whether nobody is left anything.
pub(super) fn is_over(world: &World) -> bool {
    let ledger = &world.worker.ledger;
    ledger.inherited.is_empty() && ledger.bequeathed.is_empty() && ledger.givers.is_empty()
}

#[test]
fn what_was_left_to_whoever_leaves_too_is_taken_down_in_the_name_of_whoever_made_it() {
    let mut world = left(false);
    world.withdraw("two");
    world.say(None, Some("stopping"));
    world.pass();
    assert_eq!((world.report("two").phase, world.report("two").message.as_str()), (Phase::Removing, "stopping"));
    assert_eq!(world.text("one").as_deref(), Some("1"), "it is not down yet");
    world.say(None, None);
    world.pass();
    let call = "systemd removes unit:app.service > ";
    assert_eq!((world.calls(), world.whose().as_str()), (vec![call.to_owned(); 2], "default/one"));
    assert_eq!((world.text("one"), world.report("two").phase), (None, Phase::Removed));
    assert!(is_over(&world) && world.worker.ledger.entries.is_empty() && world.worker.desired.removals.is_empty());
}

#[test]
fn what_was_left_to_whoever_is_to_stay_behind_is_let_go_of_in_the_name_of_whoever_made_it() {
    let mut world = left(false);
    world.withdraw_and("two", OnRemove::Orphan);
    world.pass();
    let call = "systemd releases unit:app.service > ";
    assert_eq!((world.calls(), world.whose().as_str()), (vec![call.to_owned()], "default/one"));
    assert_eq!((world.text("one").as_deref(), world.report("two").phase), (Some("1"), Phase::Removed));
    assert!(is_over(&world) && world.worker.ledger.entries.is_empty());
}

#[test]
fn what_was_left_to_whoever_does_not_want_it_any_more_is_taken_down_before_it_goes_on() {
    let mut world = left(false);
    world.declare("two", "3", &json!({}));
    world.say(None, Some("stopping"));
    world.pass();
    assert_eq!((world.report("two").phase, world.text("one").as_deref()), (Phase::Applying, Some("1")));
    world.say(None, None);
    world.until("the heir", |world| world.text("two").as_deref() == Some("3"));
    assert_eq!((world.whose().as_str(), world.text("one")), ("default/one", None));
    assert!(is_over(&world));
}

#[test]
fn whoever_is_still_there_takes_down_itself_what_nobody_wants_of_it() {
    let mut world = left(true);
    assert!(world.entry("one").claims.keys().map(ToString::to_string).eq(["unit:other"]));
    world.withdraw("two");
    world.pass();
    let call = "systemd applies unit:app.service,unit:other > unit:other";
    assert_eq!((world.calls(), world.whose().as_str()), (vec![call.to_owned()], "default/one"));
    assert!(is_over(&world) && world.entry("one").unfinished.is_none());
    assert_eq!(world.report("two").phase, Phase::Removed);
}

#[test]
fn what_was_taken_over_and_is_not_in_line_yet_is_taken_down_in_both_names() {
    let mut world = left(false);
    // It is switched to, and applying it fails.
    world.fails(true);
    world.declare("two", "3", &json!({ "applier": "systemd" }));
    world.until("the switch", |world| world.text("two").as_deref() == Some("3"));
    assert!(world.entry("two").unfinished.is_some() && !world.worker.ledger.givers.is_empty());
    world.calls();
    world.withdraw("two");
    world.until("the removal", |world| world.worker.desired.removals.is_empty());
    let call = "systemd removes unit:app.service > ";
    assert_eq!((world.calls(), world.whose().as_str()), (vec![call.to_owned(); 2], "default/one"));
    assert!(is_over(&world) && world.worker.ledger.entries.is_empty());
}

/// Returns a host with two releases of `two`, one after the other, and `one` with its unit.
pub(super) fn two_and_one() -> World {
    let mut world = World::new(false);
    for text in ["1", "2"] {
        world.declare("two", text, &json!({}));
        world.pass();
    }
    world.declare("one", "1", &json!({ "applier": "systemd" }));
    world.pass();
    world
}

/// The same, with another unit, or none, in place of the one to whom it was left, which waits until `gate` is there.
pub(super) fn left_beside(other: Option<&str>) -> (World, std::path::PathBuf) {
    let mut world = World::new(false);
    let kind = if other.is_some() { "systemd" } else { "files" };
    world.declare("two", other.unwrap_or("1"), &json!({ "applier": kind }));
    world.pass();
    world.declare("one", "1", &json!({ "applier": "systemd" }));
    world.pass();
    let gate = world.dir.path().join("gate");
    let mut waits = shell(&format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display()));
    (waits["applier"], waits["health"]) = (json!("systemd"), json!({ "minReadySeconds": 600 }));
    world.withdraw("one");
    let two = world.declare("two", "2", &waits);
    world.until("the bequest", |world| world.worker.ledger.is_left(two));
    world.calls();
    (world, gate)
}

pub(super) const REMOVES: &str = "systemd removes unit:app.service > ";

#[test]
fn what_others_take_over_is_theirs_at_once_though_the_rest_cannot_go() {
    let mut world = World::new(false);
    world.declare("one", "both", &json!({ "applier": "systemd" }));
    world.pass();
    world.holds(Some("unit:other"));
    world.withdraw("one");
    world.declare("two", "2", &json!({ "applier": "systemd" }));
    world.until("the heir", |world| world.text("two").as_deref() == Some("2"));
    assert!(world.entry("two").unfinished.is_none() && world.report("one").phase == Phase::Removing);
    assert!(world.entry("one").claims.keys().map(ToString::to_string).eq(["unit:other"]));
    world.holds(None);
    world.until("the end", |world| world.worker.desired.removals.is_empty());
    assert!(world.worker.ledger.entries.keys().eq([&world.id("two")]) && world.text("one").is_none());
    assert_eq!(world.text("two").as_deref(), Some("2"));
}

#[test]
fn what_others_take_over_waits_until_the_rest_is_down() {
    let mut world = World::new(false);
    world.declare("one", "both", &json!({ "applier": "systemd" }));
    world.pass();
    world.say(None, Some("stopping"));
    world.withdraw("one");
    world.declare("two", "2", &json!({ "applier": "systemd" }));
    for _ in 0..3 {
        world.pass();
        assert_eq!((world.text("two"), world.entry("one").claims.len()), (None, 2), "both would run");
    }
    world.say(None, None);
    world.until("the heir", |world| world.text("two").as_deref() == Some("2"));
    assert!(world.worker.ledger.entries.keys().eq([&world.id("two")]) && world.text("one").is_none());
}

#[test]
fn a_way_back_keeps_what_was_left_for_what_is_declared() {
    let mut world = two_and_one();
    let gate = world.dir.path().join("gate");
    let mut waits = shell(&format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display()));
    waits["applier"] = json!("systemd");
    world.withdraw("one");
    let two = world.declare("two", "3", &waits);
    world.until("the bequest", |world| world.worker.ledger.is_left(two));
    world.calls();
    world.proves_bad("two");
    world.until("the way back", |world| world.text("two").as_deref() == Some("1"));
    assert_eq!((world.calls(), world.text("one").as_deref()), (Vec::new(), Some("1")));
    fs::write(&gate, "").expect("gate");
    world.until("the heir", |world| world.text("two").as_deref() == Some("3"));
    let claim = "unit:app.service";
    let calls = [format!("systemd prepares {claim} > {claim}"), format!("systemd applies {claim} > {claim}")];
    assert_eq!((world.calls(), world.text("one")), (calls.to_vec(), None));
    assert!(world.worker.ledger.bequeathed.is_empty() && world.worker.ledger.inherited.is_empty());
}

#[test]
fn what_is_left_by_whoever_is_on_trial_rests_on_its_own_files_and_is_its_own() {
    let (mut world, gate) = left_beside(None);
    fs::write(&gate, "").expect("gate");
    world.until("the trial", |world| world.text("two").as_deref() == Some("2"));
    assert!(world.entry("two").unfinished.is_none() && world.entry("two").trial.is_some());
    assert_eq!(world.text("one"), None);
    let mut waits = shell("sleep 1000");
    waits["applier"] = json!("systemd");
    let three = world.declare("three", "3", &waits);
    world.withdraw("two");
    world.until("the bequest", |world| world.worker.ledger.bequeathed.contains_key(&three));
    let giver = world.worker.ledger.givers.values().next().expect("a giver");
    assert_eq!((giver.id, world.text("two").as_deref()), (world.id("two"), Some("2")));
    world.calls();
    world.withdraw("three");
    world.pass();
    assert_eq!((world.calls(), world.whose().as_str()), (vec![REMOVES.to_owned()], "default/two"));
    assert!(is_over(&world) && world.text("two").is_none());
}

#[test]
fn what_was_made_by_one_is_taken_down_for_one_heir_after_the_other_and_whoever_stops_makes_room() {
    let [maker, first, second] = [1, 2, 3].map(uuid::Uuid::from_u128);
    let mut ends = crate::settle::bequests::Ends::default();
    assert!(ends.begin(maker, first) && !ends.begin(maker, second));
    ends.turn();
    assert!(!ends.begin(maker, second) && ends.begin(maker, first), "it goes on");
    ends.turn();
    ends.turn();
    assert!(ends.begin(maker, second) && !ends.begin(maker, first), "it did not go on");
    ends.end(maker);
    assert!(ends.begin(maker, first));
    ends.forget(first);
    assert!(ends.begin(maker, second));
}
