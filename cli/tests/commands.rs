//! The binary against a real control plane: what is typed, what is shown, how it ends.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;
use titan_agent::{Agent, Settings};
use titan_control_plane::{Config, render::WorkerCommand};
use tokio_util::sync::CancellationToken;

const TITAN: &str = env!("CARGO_BIN_EXE_titan");

/// A control plane of its own for each test, and a directory to work in.
struct Scene {
    directory: tempfile::TempDir,
    server: String,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// How a command ended and what it said, without colour.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("port");
        listener.set_nonblocking(true).expect("nonblocking");
        let server = format!("http://{}", listener.local_addr().expect("address"));
        let config = Config {
            database_url: format!("sqlite://{}", directory.path().join("titan.db").display()),
            admin_token_file: Some(directory.path().join("admin.token")),
            poll_after_seconds: 1,
            shutdown_seconds: 1,
            render_worker: Some(WorkerCommand { program: TITAN.into(), args: vec!["render-worker".into()] }),
            ..Config::default()
        };
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("runtime").block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("listener");
                titan_control_plane::serve(config, listener, token).await.expect("serve");
            });
        });
        let scene = Self { directory, server, shutdown, thread: Some(thread) };
        let begin = Instant::now();
        while !scene.path("admin.token").exists() {
            assert!(begin.elapsed() < Duration::from_secs(30), "the control plane did not start");
            thread::sleep(Duration::from_millis(10));
        }
        scene
    }

    /// A scene in which somebody is logged in already.
    fn logged_in() -> Self {
        let scene = Self::new();
        let server = scene.server.clone();
        scene.done(&["login", "--server", &server, "--token-file", "admin.token"]);
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
        fs::write(path, text).expect("write");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(TITAN);
        command.args(args).current_dir(self.directory.path()).env("TITAN_CLI_CONFIG", self.path("config.yaml"));
        for name in ["TITAN_SERVER", "TITAN_TOKEN", "EDITOR", "VISUAL"] {
            command.env_remove(name);
        }
        command
    }

    fn titan(&self, args: &[&str]) -> Said {
        said(self.command(args).output())
    }

    /// Runs a command that has to end with 0, and returns its standard output.
    fn done(&self, args: &[&str]) -> String {
        let said = self.titan(args);
        assert_eq!(said.code, 0, "titan {}: {}{}", args.join(" "), said.out, said.err);
        said.out
    }

    /// Runs a line as it is typed.
    fn line(&self, line: &str) -> String {
        let words: Vec<_> = line.split_whitespace().skip(1).collect();
        self.done(&words)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn said(output: std::io::Result<Output>) -> Said {
    let output = output.expect("titan runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("mkdir");
    for entry in fs::read_dir(from).expect("read") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copy");
        }
    }
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

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
    let parts: Value =
        serde_json::from_str(&scene.done(&["host", "join-command", "tim-pi", "-o", "json"])).expect("json");
    let token = titan_agent::config::Secret::new(parts["token"].as_str().expect("token").to_owned());
    let settings = Settings::new(scene.path("agent"));
    let host = "tim-pi".parse().expect("name");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        titan_agent::enrol(&settings, &scene.server, &host, &token).await.expect("enrol");
        Agent::open(settings, &tokio::runtime::Handle::current()).expect("agent").once().await.expect("once");
    });
    scene.done(&["status", "deployment", "prod", "--wait", "--timeout", "20s"]);
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
fn bad_documents_are_refused_with_file_and_pointer_and_nothing_is_written() {
    let scene = Scene::logged_in();
    let good = "apiVersion: titan/v1\nkind: Host\nmetadata: {name: good}\n---\n";
    for (text, pointer) in [
        ("apiVersion: titan/v1\nkind: Host\nmetadata: {name: a}\nspec: {cordonned: true}\n", "/spec/cordonned"),
        ("apiVersion: titan/v1\nkind: Host\nmetadata: {name: a}\nspec: {cordoned: maybe}\n", "/spec/cordoned"),
        ("apiVersion: titan/v1\nkind: Host\nmetadata: {name: a, labels: {'x y': z}}\n", "/metadata/labels"),
        ("apiVersion: titan/v9\nkind: Host\nmetadata: {name: a}\n", "/apiVersion"),
        (
            "apiVersion: titan/v1\nkind: Template\nmetadata: {name: t}\nspec: {files: {../x: {content: ''}}}\n",
            "/spec/files/..~1x",
        ),
        (
            "apiVersion: titan/v1\nkind: Template\nmetadata: {name: t}\nspec: {files: {/x: {content: ''}}}\n",
            "/spec/files/~1x",
        ),
    ] {
        scene.write("bad.yaml", &format!("{good}{text}"));
        let said = scene.titan(&["apply", "-f", "bad.yaml"]);
        assert_eq!(said.code, 4, "{text}: {}", said.err);
        assert!(said.err.contains("  bad.yaml#2 (") && said.err.contains(pointer), "{text}: {}", said.err);
        let json = scene.titan(&["apply", "-f", "bad.yaml", "-o", "json"]);
        let problem: Value = serde_json::from_str(&json.err).expect("a problem");
        let first = problem["errors"][0]["pointer"].as_str().expect("pointer");
        assert!(first.starts_with("/resources/1"), "{first}");
    }
    assert_eq!(scene.done(&["get", "hosts", "-o", "name"]), "");
}

#[test]
fn template_directories_with_links_or_too_much_in_them_are_refused() {
    let scene = Scene::logged_in();
    scene.write("linked/a", "x");
    std::os::unix::fs::symlink("/etc/passwd", scene.path("linked/b")).expect("symlink");
    let said = scene.titan(&["create", "template", "t", "-f", "linked"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("linked/b is a symbolic link"), "{}", said.err);
    scene.write("large/a", &"x".repeat(10 << 20));
    let said = scene.titan(&["create", "template", "t", "-f", "large"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("too large"), "{}", said.err);
    scene.write("broken/a.j2", "fine\n{{ values.port");
    for args in [&["create", "template", "t", "-f", "broken"][..], &["template", "lint", "-f", "broken"]] {
        let said = scene.titan(args);
        assert_eq!(said.code, 4, "{}", said.err);
        assert!(said.err.contains("a.j2 line 2"), "{}", said.err);
    }
    assert_eq!(scene.done(&["get", "templates", "-o", "name"]), "");
}

#[test]
fn an_edit_is_refused_when_somebody_else_was_faster() {
    let scene = Scene::logged_in();
    scene.done(&["create", "host", "a", "--description", "old"]);
    let edit = |script: &str| {
        scene.write("editor", &format!("#!/bin/sh\nset -e\n{script}\nsed -i s/old/new/ \"$1\"\n"));
        fs::set_permissions(scene.path("editor"), fs::Permissions::from_mode(0o755)).expect("chmod");
        said(scene.command(&["edit", "host", "a"]).env("EDITOR", scene.path("editor")).output())
    };
    let raced = edit(&format!("{TITAN} host cordon a"));
    assert_eq!(raced.code, 4, "{}", raced.err);
    assert!(raced.err.contains("your version is kept in "), "{}", raced.err);
    let kept = raced.err.split("kept in ").nth(1).and_then(|rest| rest.lines().next()).expect("a path");
    assert!(fs::read_to_string(kept).expect("kept").contains("new"));
    fs::remove_file(kept).expect("remove");
    assert_eq!(edit("true").code, 0);
    let host: Value = serde_json::from_str(&scene.done(&["get", "host", "a", "-o", "json"])).expect("json");
    assert_eq!((host["spec"]["description"].as_str(), host["spec"]["cordoned"].as_bool()), (Some("new"), Some(true)));
    let nowhere = said(scene.command(&["edit", "host", "a"]).stdin(std::process::Stdio::null()).output());
    assert_eq!(nowhere.code, 2, "without a terminal nobody can edit: {}", nowhere.err);
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

const ROOM: &str = "\
apiVersion: titan/v1
kind: Template
metadata: { name: web }
spec: { files: { web.conf: { content: x } } }
---
apiVersion: titan/v1
kind: Workload
metadata: { name: web }
spec: { version: 1.0.0, template: web }
---
apiVersion: titan/v1
kind: Target
metadata: { name: all }
spec: { expression: 'true' }
";

/// S5-16.
#[test]
fn what_does_not_fit_is_said_in_plans_and_statuses_and_hosts_are_drained_and_tainted() {
    let scene = Scene::logged_in();
    // Why is answered once everything is decided.
    let status = || {
        scene.line("titan why a web");
        scene.line("titan status deployment web")
    };
    scene.write("room.yaml", ROOM);
    scene.done(&["apply", "-f", "room.yaml"]);
    scene.line("titan create host a --capacity cpu=2,memory=4Gi --labels zone=x");
    scene.line("titan create host b --capacity cpu=1,memory=4Gi --labels zone=y --taint gpu:NoSchedule");
    let create =
        "titan create deployment web --workload web --target all --replicas 2 --spread zone --failover-after 2m";
    scene.line(&format!("{create} --requests cpu=1,memory=512Mi"));
    let said = status();
    assert!(said.contains("1 of 2 replicas have a place; 1 host: taint gpu:NoSchedule"), "{said}");
    let why = scene.line("titan why b web");
    assert!(why.contains("tolerates the taints") && why.contains("gpu:NoSchedule"), "{why}");
    scene.line("titan host taint b gpu:NoSchedule --remove");
    let said = status();
    assert!(!said.contains("problem") && said.contains("0 of 2 healthy"), "{said}");
    let shown = scene.line("titan get deployment web -o yaml");
    assert!(shown.contains("memory: 512Mi") && shown.contains("failoverAfter: 2m"), "{shown}");

    // What would not fit is told before it is written.
    let more = shown.replace("cpu: 1", "cpu: 1500m");
    scene.write("more.yaml", &more);
    let plan = scene.line("titan plan -f more.yaml");
    let unplaced = "default/web would not be placed everywhere: 1 of 2 replicas have a place; \
                    1 host: not enough cpu (needs 1500m, 1 left)";
    assert!(plan.contains(unplaced) && plan.contains("1 to remove"), "{plan}");

    // There is no other place: the replica leaves all the same, and says so.
    let drained = scene.line("titan host drain a");
    assert!(drained.contains("host/a cordoned: 1 of its replicas are leaving: default/web"), "{drained}");
    let said = status();
    assert!(said.contains("1 of 2 replicas have a place; 1 host: cordoned"), "{said}");
    let waited = scene.titan(&["host", "drain", "a", "--wait", "--timeout", "1s"]);
    assert_eq!(waited.code, 1, "{}", waited.out);
    assert!(waited.err.contains("default/web") && waited.err.contains("is it online?"), "{}", waited.err);
    scene.line("titan host uncordon a");
    let tainted = scene.line("titan host taint b repair:NoExecute dedicated=db:NoSchedule");
    assert!(tainted.contains("host/b has taints repair:NoExecute, dedicated=db:NoSchedule"), "{tainted}");
    let said = status();
    assert!(said.contains("1 of 2 replicas have a place; 1 host: taint repair:NoExecute"), "{said}");
    for bad in [
        "titan create host c --capacity cpu=much",
        "titan create host c --taint gpu",
        "titan create deployment c --workload web --target all --spread zone",
        "titan create deployment c --workload web --target all --replicas 1 --failover-after 5",
    ] {
        let words: Vec<_> = bad.split_whitespace().skip(1).collect();
        assert_eq!(scene.titan(&words).code, 2, "{bad}");
    }
}

#[test]
fn waiting_ends_with_one_when_the_time_is_over() {
    let scene = Scene::logged_in();
    copy(&example("temperature-sensor"), &scene.path("fleet"));
    let said = scene.titan(&["apply", "-f", "fleet", "--wait", "--timeout", "1s"]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("prod is not healthy yet"), "{}", said.err);
}
