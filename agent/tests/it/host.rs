//! A host: a directory with state, files and configuration, and the real agent on it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use titan_agent::ledger::Ledger;

use crate::plane::Plane;

pub(crate) struct Host {
    dir: tempfile::TempDir,
    root: Option<PathBuf>,
}

/// How a process of the agent ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) killed: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        let Output { status, stdout, stderr } = output;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: status.code(), killed: status.signal() == Some(9), out: text(stdout), err: text(stderr) }
    }
}

impl Host {
    /// Makes a host that has enrolled.
    pub(crate) fn new(plane: &Plane) -> Self {
        Self::with(plane, "")
    }

    /// Makes a host with more configuration, which must not name the files' root.
    pub(crate) fn with(plane: &Plane, config: &str) -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap(), root: None };
        fs::write(host.config(), config).unwrap();
        host.enrol(plane);
        host
    }

    /// Enrols the host, anew if it has enrolled before.
    pub(crate) fn enrol(&self, plane: &Plane) {
        let ended = self.agent(&["enrol", "--server", &plane.url, "--host", "tim-pi", "--token", "once"], &[]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }

    /// Returns the host with its files elsewhere, where its configuration says.
    pub(crate) fn at(self, root: &Path) -> Self {
        Self { root: Some(root.to_owned()), ..self }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    fn config(&self) -> PathBuf {
        self.path().join("agent.yaml")
    }

    pub(crate) fn configure(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.root.clone().unwrap_or_else(|| self.state().join("files"))
    }

    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.root().join("default").join(name)
    }

    pub(crate) fn command(&self, args: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_titan-agent"));
        command.args(args).arg("--config").arg(self.config()).arg("--state-dir").arg(self.state());
        for key in ["TITAN_FAULT", "TITAN_FAIL", "TITAN_AGENT_CONFIG", "TITAN_STATE_DIR", "http_proxy", "HTTP_PROXY"] {
            command.env_remove(key);
        }
        command.envs(env.iter().copied());
        command
    }

    pub(crate) fn agent(&self, args: &[&str], env: &[(&str, &str)]) -> Ended {
        Ended::of(self.command(args, env).output().unwrap())
    }

    /// Runs `once` and returns the exit code with all that was printed.
    pub(crate) fn once(&self) -> Ended {
        self.agent(&["once"], &[])
    }

    /// Runs `once`, which must succeed.
    pub(crate) fn settle(&self) -> String {
        let ended = self.once();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.out
    }

    pub(crate) fn ledger(&self) -> Ledger {
        match fs::read(self.state().join("ledger.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
            Err(_) => Ledger::default(),
        }
    }

    /// All files below the root with their contents.
    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        collect(&self.root(), &self.root(), &mut files);
        files
    }

    /// All files of one deployment's own directory.
    pub(crate) fn files_of(&self, name: &str) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        collect(&self.home(name), &self.home(name), &mut files);
        files
    }
}

fn collect(top: &Path, dir: &Path, files: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let name = path.strip_prefix(top).unwrap().to_string_lossy().into_owned();
        if kind.is_dir() {
            collect(top, &path, files);
        } else if kind.is_file() {
            files.insert(name, fs::read_to_string(&path).unwrap());
        } else {
            files.insert(name, "(neither)".to_owned());
        }
    }
}

pub(crate) fn map(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(path, content)| ((*path).to_owned(), (*content).to_owned())).collect()
}
