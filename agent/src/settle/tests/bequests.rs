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
