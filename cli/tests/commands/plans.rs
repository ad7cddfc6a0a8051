//! Plans and rollouts by the names that are shown of them.

use std::fs;

use serde_json::Value;

use crate::scenes::Scene;

#[test]
fn rollouts_of_earlier_releases_are_shown_by_the_name_they_are_listed_with() {
    let scene = Scene::logged_in();
    scene.deploy();
    scene.come_and_go();
    scene.done(&["create", "workspace", "iot"]);
    let fleet = fs::read_to_string(scene.path("fleet/fleet.yaml")).expect("fleet");
    scene.write("fleet/fleet.yaml", &fleet.replace("spec: { repository", "spec: { version: 1.0.1, repository"));
    scene.done(&["apply", "-f", "fleet"]);
    scene.done(&["why", "tim-pi", "prod"]);
    let id = |args: &[&str]| -> (String, String) {
        let status: Value = serde_json::from_str(&scene.done(&[args, &["-o", "json"]].concat())).expect("json");
        (status["name"].as_str().expect("a name").to_owned(), status["id"].as_str().expect("an id").to_owned())
    };
    let (first, second) = (id(&["workplan", "status", "prod#1"]), id(&["rollout", "status", "prod"]));
    assert_eq!((first.0.as_str(), second.0.as_str()), ("prod#1", "prod#2"));
    for args in [
        &["workplan", "status", "default/prod#1", "-w", "iot"][..],
        &["workplan", "status", "workplan/prod#1"],
        &["rollout", "status", "prod", "--release", "1"],
        &["workplan", "status", &first.1],
    ] {
        assert_eq!(id(args), first, "{args:?}");
    }
    let told = |args: &[&str]| scene.done(args).lines().next().unwrap_or_default().to_owned();
    assert_eq!(told(&["rollout", "history", "prod", "--release", "1"]), told(&["workplan", "history", "prod#1"]));
    for (code, args) in [
        (3, &["workplan", "status", "prod#9"][..]),
        (3, &["rollout", "history", "prod", "--release", "9"]),
        (3, &["workplan", "status", "prod#1", "-w", "iot"]),
        (2, &["workplan", "status", "prod#x"]),
        (2, &["rollout", "status", "prod", "--release", "0"]),
    ] {
        let said = scene.titan(args);
        assert_eq!(said.code, code, "{args:?}: {}", said.err);
    }
}
