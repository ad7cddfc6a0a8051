//! Hosts that leave: with their agent, or without.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::scenes::Scene;

/// S2-30.
#[test]
fn host_on_which_no_agent_ever_came_is_gone_at_once() {
    let scene = Scene::logged_in();
    scene.deploy();
    scene.done(&["why", "tim-pi", "prod"]);
    let begin = Instant::now();
    let said = scene.titan(&["delete", "host", "tim-pi", "--wait"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(!said.err.contains("--force"), "{}", said.err);
    assert!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
    assert_eq!(scene.titan(&["get", "host", "tim-pi"]).code, 3);
}

/// S2-30.
#[test]
fn host_whose_agent_is_silent_is_said_to_be_waited_for_and_can_be_let_go_of_afterwards() {
    let scene = Scene::logged_in();
    scene.deploy();
    scene.come_and_go();
    let said = scene.titan(&["delete", "host", "tim-pi", "--wait", "--timeout", "3s"]);
    assert_eq!(said.code, 1, "{}{}", said.out, said.err);
    assert!(said.err.contains("host tim-pi is online, seen "), "{}", said.err);
    assert!(said.err.contains("titan delete host tim-pi --force"), "{}", said.err);
    let again = scene.titan(&["delete", "host", "tim-pi"]);
    assert_eq!(again.code, 3, "{}", again.out);
    assert!(again.err.contains("hint: it was deleted and waits for its agent"), "{}", again.err);
    scene.done(&["delete", "host", "tim-pi", "--force", "--wait", "--timeout", "20s", "--reason", "it burnt down"]);
    assert_eq!(scene.titan(&["get", "host", "tim-pi"]).code, 3);
    assert_eq!(scene.titan(&["delete", "host", "tim-pi", "--force"]).code, 3);
    let tasks = scene.done(&["get", "tasks", "--task-kind", "remove", "-o", "json"]);
    let tasks: Value = serde_json::from_str(&tasks).expect("json");
    let tasks = tasks["items"].as_array().expect("tasks");
    assert_eq!(tasks.iter().map(|task| task["state"].as_str()).collect::<Vec<_>>(), [Some("completed"); 2]);
    assert_eq!(tasks[0]["payload"]["forced"]["reason"], "it burnt down");
    // Its name is free, and what it was to run is gone everywhere.
    scene.done(&["delete", "deployment", "prod", "--wait", "--timeout", "20s"]);
    scene.done(&["create", "host", "tim-pi"]);
}
