//! The binary against a real control plane: what is typed, what is shown, how it ends.

mod leaving;
mod plans;
mod refusals;
mod rooms;
mod scenes;

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;

use self::scenes::{Scene, copy, example};

#[test]
fn lines_of_the_founding_document_work_verbatim() {
    let scene = Scene::logged_in();
    copy(&example("temperature-sensor/device-service"), &scene.path("device-service"));
    scene.line("titan create host --name tim-pi --labels name=tim-pi,platform=kubernetes");
    scene.line("titan create template device-service -f ./device-service");
    assert!(scene.line("titan get workspaces").contains("default"));
    let developer = [
        "titan create workload temperature-sensor --repo https://github.com/timfpark/temp-sensor",
        "titan create target tim-pi --labels name=tim-pi",
        "titan create deployment prod --workload temperature-sensor --template device-service --target tim-pi",
    ];
    for line in developer {
        scene.line(line);
    }
    scene.line("titan create workspace iot");
    for line in developer {
        scene.line(&format!("{line} --workspace iot"));
    }
    let all = scene.done(&["get", "deployments", "-A", "-o", "json"]);
    let all: Value = serde_json::from_str(&all).expect("json");
    assert_eq!(all["items"].as_array().map(Vec::len), Some(2));
}

#[test]
fn an_agent_that_joins_is_shown_healthy_with_digest_and_commit() {
    let scene = Scene::logged_in();
    copy(&example("temperature-sensor"), &scene.path("fleet"));
    scene.done(&["apply", "-f", "fleet"]);
    let line = scene.done(&["host", "join-command", "tim-pi", "--state-dir", "a b"]);
    assert!(line.starts_with(&format!("titan-agent enrol --server {} --host tim-pi --token ", scene.server)), "{line}");
    assert!(line.ends_with(" --state-dir 'a b'\n"), "{line}");
    scene.come_and_go();
    let status: Value =
        serde_json::from_str(&scene.done(&["status", "deployment", "prod", "-o", "json"])).expect("json");
    let row = &status["hosts"][0];
    assert_eq!(row["state"], "healthy");
    let commit = row["commit"].as_str().expect("a commit");
    let shown = scene.done(&["status", "deployment", "prod"]);
    assert!(shown.contains(&commit[..10]) && shown.contains("converged, 1 of 1 healthy"), "{shown}");
    assert!(scene.done(&["status", "host", "tim-pi"]).contains("healthy"));
    assert!(scene.done(&["why", "tim-pi", "prod"]).contains("every rule holds"));

    // What a pipeline tells is seen above the release, and the rollout is a task.
    let source = ["report", "source", "prod", "--commit", "3FA9C1E24B0D", "--branch", "main"];
    assert_eq!(scene.done(&source), "workload temperature-sensor: recorded\n");
    assert_eq!(scene.done(&source), "workload temperature-sensor: known already\n");
    scene.done(&["report", "build", "prod", "--commit", "3fa9c1e24b0d", "--id", "42", "--state", "running"]);
    let shown = scene.done(&["status", "prod"]);
    for part in ["source 3fa9c1e24b0d", "└─ build 42", "release prod#1", "└─ 1 host", "converged, 1 of 1 healthy"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let tasks = ["get", "tasks", "--task-kind", "rollout", "--deployment", "prod", "-o", "json"];
    let tasks: Value = serde_json::from_str(&scene.done(&tasks)).expect("json");
    let id = tasks["items"][0]["id"].as_str().expect("a rollout").to_owned();
    assert!(scene.done(&["task", &id, "--wait", "--timeout", "20s"]).contains("completed"));
    let json = |args: &[&str]| scene.done(&[args, &["-o", "json"]].concat());
    for args in [&["describe", "task", &id][..], &["describe", "task", "prod#1"], &["task", "prod#1"]] {
        assert_eq!(json(args), json(&["task", &id]), "{args:?}");
    }
    let described = scene.done(&["describe", "host", "tim-pi"]);
    let row = described.lines().find(|line| line.starts_with("default  ")).unwrap_or_default();
    assert!(row.contains("prod") && row.contains("healthy"), "{described}");
}

#[test]
fn every_example_is_applied_compared_planned_and_deleted() {
    let scene = Scene::logged_in();
    for name in ["quickstart", "temperature-sensor", "kubernetes-guestbook", "validator-fleet"] {
        let path = example(name);
        let path = path.to_str().expect("path");
        scene.done(&["apply", "-f", path, "--dry-run"]);
        assert_eq!(scene.titan(&["diff", "-f", path]).code, 6, "{name}");
        scene.done(&["apply", "-f", path]);
        scene.done(&["diff", "-f", path]);
        assert!(scene.done(&["plan", "-f", path, "--exit-code"]).contains("no host would change"), "{name}");
        assert!(scene.done(&["apply", "-f", path]).ends_with("nothing changed\n"), "{name}");
        scene.done(&["delete", "-f", path, "--reason", "test"]);
    }
}

#[test]
fn what_is_printed_as_yaml_can_be_applied_again() {
    let scene = Scene::logged_in();
    scene.done(&["apply", "-f", example("quickstart").to_str().expect("path")]);
    for kind in ["hosts", "templates", "workloads", "targets", "deployments"] {
        let yaml = scene.done(&["get", kind, "-o", "yaml", "-w", "iot"]);
        scene.write("again.yaml", &yaml);
        assert!(scene.done(&["apply", "-f", "again.yaml"]).ends_with("nothing changed\n"), "{kind}");
    }
    assert_eq!(scene.done(&["get", "hosts", "-o", "name"]), "host/garden-pi\nhost/kitchen-pi\nhost/lab\n");
    assert_eq!(scene.done(&["get", "hosts", "-o", "name", "-l", "place=outdoors"]), "host/garden-pi\n");
}

#[test]
fn plan_tells_each_hosts_difference_and_writes_nothing() {
    let scene = Scene::logged_in();
    copy(&example("quickstart"), &scene.path("fleet"));
    scene.done(&["apply", "-f", "fleet"]);
    let text = fs::read_to_string(scene.path("fleet/fleet.yaml")).expect("fleet");
    scene.write("fleet/fleet.yaml", &text.replace("1.4.0", "1.4.1"));
    let plan = scene.titan(&["plan", "-f", "fleet", "--exit-code"]);
    assert_eq!(plan.code, 6);
    assert!(plan.out.contains("workload/thermometer updated"), "{}", plan.out);
    assert!(plan.out.contains("+version: '1.4.1'"), "{}", plan.out);
    assert_eq!(scene.titan(&["diff", "-f", "fleet"]).code, 6);
    assert!(scene.done(&["get", "workload", "thermometer", "-w", "iot"]).contains("1.4.0"));
}

#[test]
fn exit_codes_are_those_of_the_contract() {
    let scene = Scene::logged_in();
    scene.done(&["create", "host", "a"]);
    for (code, args) in [
        (2, &["get", "nothing"][..]),
        (2, &["create", "host", "Upper"]),
        (2, &["apply", "-f", "not-there.yaml"]),
        (2, &["create", "template", "t", "-f", "not-there"]),
        (3, &["get", "host", "b"]),
        (3, &["status", "deployment", "prod"]),
        (3, &["template", "show", "not-there"]),
        (4, &["create", "host", "a"]),
        (4, &["get", "hosts", "--token", "wrong"]),
        (5, &["get", "hosts", "--server", "http://127.0.0.1:1", "--token", "x"]),
    ] {
        let said = scene.titan(args);
        assert_eq!(said.code, code, "titan {}: {}", args.join(" "), said.err);
        assert!(said.err.starts_with("error: "), "titan {}: {}", args.join(" "), said.err);
    }
}

#[test]
fn the_token_is_kept_privately_and_sent_to_its_own_server_only() {
    let scene = Scene::new();
    let nobody = scene.titan(&["get", "hosts"]);
    assert_eq!(nobody.code, 2);
    assert!(nobody.err.contains("hint: titan login"), "{}", nobody.err);
    let wrong = scene.titan(&["login", "--server", &scene.server, "--token", "wrong"]);
    assert_eq!(wrong.code, 4, "{}", wrong.err);
    assert!(!scene.path("config.yaml").exists());
    scene.done(&["login", "--server", &scene.server, "--token-file", "admin.token"]);
    let mode = fs::metadata(scene.path("config.yaml")).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let elsewhere = scene.titan(&["get", "hosts", "--server", "http://127.0.0.1:1"]);
    assert_eq!(elsewhere.code, 2, "{}", elsewhere.err);
    scene.done(&["doctor"]);
}

#[test]
fn history_events_tasks_and_tokens_are_shown() {
    let scene = Scene::logged_in();
    scene.done(&["create", "host", "a"]);
    scene.done(&["host", "cordon", "a"]);
    let history = scene.done(&["history", "host", "a", "--diff"]);
    assert!(history.contains("+  cordoned: true"), "{history}");
    let newest = scene.titan(&["history", "host", "a", "--limit", "1"]);
    assert!(newest.out.contains("updated") && !newest.out.contains("created"), "{}", newest.out);
    assert!(newest.err.contains("there are more than these 1"), "{}", newest.err);
    assert!(!scene.titan(&["history", "host", "a", "--limit", "2"]).err.contains("more"));
    let events = scene.done(&["events", "--since", "10m", "-o", "json"]);
    let last: Value = serde_json::from_str(events.lines().last().expect("an event")).expect("json");
    assert_eq!((last["operation"].as_str(), last["name"].as_str()), (Some("update"), Some("a")));
    assert!(scene.done(&["get", "tasks"]).contains("Host a"));
    let new: Value = serde_json::from_str(&scene.done(&["token", "create", "ci", "-o", "json"])).expect("json");
    let (id, token) = (new["record"]["id"].as_str().expect("id"), new["token"].as_str().expect("token"));
    scene.done(&["get", "hosts", "--token", token]);
    assert!(scene.done(&["token", "list"]).contains("ci"));
    scene.done(&["token", "delete", id]);
    assert_eq!(scene.titan(&["get", "hosts", "--token", token]).code, 4);
}

#[test]
fn waiting_ends_with_one_when_the_time_is_over() {
    let scene = Scene::logged_in();
    copy(&example("temperature-sensor"), &scene.path("fleet"));
    let said = scene.titan(&["apply", "-f", "fleet", "--wait", "--timeout", "1s"]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("prod is not healthy yet"), "{}", said.err);
}
