//! A control plane of its own for each test, and the binary beside it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;
use titan_agent::{Agent, Settings, config::Secret};
use titan_control_plane::{Config, render::WorkerCommand};
use tokio_util::sync::CancellationToken;

/// The binary.
pub(crate) const TITAN: &str = env!("CARGO_BIN_EXE_titan");

/// A control plane of its own for each test, and a directory to work in.
pub(crate) struct Scene {
    directory: tempfile::TempDir,
    pub(crate) server: String,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// How a command ended and what it said, without colour.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Scene {
    pub(crate) fn new() -> Self {
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
    pub(crate) fn logged_in() -> Self {
        let scene = Self::new();
        let server = scene.server.clone();
        scene.done(&["login", "--server", &server, "--token-file", "admin.token"]);
        scene
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
        fs::write(path, text).expect("write");
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(TITAN);
        command.args(args).current_dir(self.directory.path()).env("TITAN_CLI_CONFIG", self.path("config.yaml"));
        for name in ["TITAN_SERVER", "TITAN_TOKEN", "EDITOR", "VISUAL"] {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn titan(&self, args: &[&str]) -> Said {
        said(self.command(args).output())
    }

    /// Runs a command that has to end with 0, and returns its standard output.
    pub(crate) fn done(&self, args: &[&str]) -> String {
        let said = self.titan(args);
        assert_eq!(said.code, 0, "titan {}: {}{}", args.join(" "), said.out, said.err);
        said.out
    }

    /// Applies an example of one host and one deployment, to be changed in `fleet/`.
    pub(crate) fn deploy(&self) {
        copy(&example("temperature-sensor"), &self.path("fleet"));
        self.done(&["apply", "-f", "fleet"]);
    }

    /// Makes the agent of its host enrol and run once; nobody runs it after that.
    pub(crate) fn come_and_go(&self) {
        let parts = self.done(&["host", "join-command", "tim-pi", "-o", "json"]);
        let parts: Value = serde_json::from_str(&parts).expect("json");
        let token = Secret::new(parts["token"].as_str().expect("token").to_owned());
        let (settings, host) = (Settings::new(self.path("agent")), "tim-pi".parse().expect("name"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(titan_agent::enrol(&settings, &self.server, &host, &token)).expect("enrol");
        self.handed_out();
        runtime.block_on(async {
            Agent::open(settings, &tokio::runtime::Handle::current()).expect("agent").once().await.expect("once");
        });
        self.done(&["status", "deployment", "prod", "--wait", "--timeout", "20s"]);
    }

    /// Waits until the host is to have something: what is applied is planned after it is stored, and an agent that runs
    /// once asks once.
    fn handed_out(&self) {
        let begin = Instant::now();
        loop {
            let status = self.done(&["status", "deployment", "prod", "-o", "json"]);
            let status: Value = serde_json::from_str(&status).expect("json");
            if status["hosts"][0]["digest"].is_string() {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "nothing is handed out: {status}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a line as it is typed.
    pub(crate) fn line(&self, line: &str) -> String {
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

pub(crate) fn said(output: std::io::Result<Output>) -> Said {
    let output = output.expect("titan runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

pub(crate) fn copy(from: &Path, to: &Path) {
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

pub(crate) fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}
