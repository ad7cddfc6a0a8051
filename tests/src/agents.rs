//! Agents as real processes, each with a state directory of its own.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::nodes::{self, Running};

/// An agent's directories.
#[derive(Debug)]
pub struct AgentNode {
    program: String,
    role: String,
    folder: TempDir,
    appliers: String,
}

impl AgentNode {
    /// Makes the directories and `agent.yaml` of an agent. `node`: path of this crate's `titan-node`.
    pub fn new(node: &str) -> anyhow::Result<Self> {
        Self::of(node, "agent", "")
    }

    /// Makes the directories and `agent.yaml` of an agent that may use more appliers than `files`, such as
    /// `kubernetes: {}`.
    pub fn allowing(node: &str, appliers: &str) -> anyhow::Result<Self> {
        Self::of(node, "agent", appliers)
    }

    /// The same with the agent of another architecture. `emulator` is a program that runs `binary`.
    pub fn emulated(emulator: &str, binary: &str) -> anyhow::Result<Self> {
        Self::of(emulator, binary, "")
    }

    /// The same below a directory of the caller's choice.
    pub fn below(node: &str, parent: &Path) -> anyhow::Result<Self> {
        Self::within(parent, node, "agent", "")
    }

    fn of(program: &str, role: &str, appliers: &str) -> anyhow::Result<Self> {
        let shared = Path::new("/dev/shm");
        let parent = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
        Self::within(&parent, program, role, appliers)
    }

    fn within(parent: &Path, program: &str, role: &str, appliers: &str) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix_in("titan-agent-", parent)?;
        let (program, role, appliers) = (program.to_owned(), role.to_owned(), appliers.to_owned());
        let agent = Self { program, role, folder, appliers };
        std::fs::create_dir(agent.root())?;
        agent.configure(None)?;
        Ok(agent)
    }

    fn configure(&self, server: Option<&str>) -> anyhow::Result<()> {
        let mut yaml = format!(
            "appliers: {{ files: {{ root: {} }}, {} }}\ngit: {{ repository: {} }}\npolling: {{ wait: 2s, maxBackoff: 1s }}\n",
            self.root().display(),
            self.appliers,
            self.repository().display()
        );
        if let Some(server) = server {
            yaml.push_str(&format!("server: {server}\n"));
        }
        Ok(std::fs::write(self.config(), yaml)?)
    }

    /// Configures the agent anew: its control plane, what `appliers` allows beside files, as in `exec: {}`, and keys in
    /// lines of their own.
    pub fn configure_with(&self, server: &str, appliers: &str, more: &str) -> anyhow::Result<()> {
        let yaml = format!(
            "server: {server}\nappliers: {{ files: {{ root: {} }}, {appliers} }}\ngit: {{ repository: {} }}\n{more}\n",
            self.root().display(),
            self.repository().display()
        );
        Ok(std::fs::write(self.config(), yaml)?)
    }

    /// Returns the directory that the agent keeps its state in.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Tells the agent that its control plane is at another address now.
    pub fn point_at(&self, server: &str) -> anyhow::Result<()> {
        self.configure(Some(server))
    }

    /// Returns the directory that files are applied to.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Returns the repository that is committed to.
    #[must_use]
    pub fn repository(&self) -> PathBuf {
        self.folder.path().join("git")
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("agent.yaml")
    }

    /// Returns the command `titan-agent` with `args` and this agent's directories.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = nodes::command(&self.program, &self.role);
        command.args(args).arg("--config").arg(self.config());
        command.arg("--state-dir").arg(self.state());
        command
    }

    /// Runs the line that `titan host join-command` printed.
    pub fn join(&self, line: &str) -> anyhow::Result<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let args = words.strip_prefix(&["titan-agent"]).with_context(|| format!("{line:?} runs titan-agent"))?;
        nodes::succeed(&mut self.command(args)).map(drop)
    }

    /// Runs one round.
    pub fn once(&self) -> anyhow::Result<Output> {
        nodes::output(&mut self.command(&["once"]))
    }

    /// Runs one round in which the disk is full for the `nth` of the agent's own files that `write` names: any at `disk-write`, or
    /// those of one name at `write-NAME`. Returns whether it wrote that many, and what it said.
    pub fn once_without_room(&self, write: &str, nth: usize) -> anyhow::Result<(bool, String)> {
        let ended = nodes::output(self.command(&["once"]).env("TITAN_FAIL", format!("{write}:{nth}")))?;
        let said = [ended.stdout, ended.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        anyhow::ensure!(ended.status.code().is_some(), "it died: {said}");
        Ok((said.contains(&format!("{write} fails")), said))
    }

    /// Runs one round, which must go well; returns what it said.
    pub fn settle(&self) -> anyhow::Result<String> {
        nodes::succeed(&mut self.command(&["once"]))
    }

    /// Starts the agent for good.
    pub fn run(&self) -> anyhow::Result<Running> {
        Running::start(&mut self.command(&["run"]))
    }

    /// Returns what `titan-agent status` says.
    pub fn status(&self) -> anyhow::Result<Value> {
        let said = nodes::succeed(&mut self.command(&["status", "-o", "json"]))?;
        Ok(serde_json::from_str(&said)?)
    }

    /// Returns the messages of the repository's commits, newest first, each with its id.
    pub fn commits(&self) -> anyhow::Result<Vec<(String, String)>> {
        if !self.repository().exists() {
            return Ok(Vec::new());
        }
        let repository = git2::Repository::open(self.repository())?;
        let mut walk = repository.revwalk()?;
        walk.push_ref("refs/heads/main")?;
        let mut commits = Vec::new();
        for id in walk {
            let commit = repository.find_commit(id?)?;
            let message = String::from_utf8_lossy(commit.message_bytes()).into_owned();
            commits.push((commit.id().to_string(), message));
        }
        Ok(commits)
    }

    /// Returns the content of a file in the newest commit, if it is there.
    pub fn committed(&self, path: &str) -> anyhow::Result<Option<String>> {
        let repository = git2::Repository::open(self.repository())?;
        let tree = repository.find_reference("refs/heads/main")?.peel_to_tree()?;
        match tree.get_path(Path::new(path)) {
            Ok(entry) => {
                let blob = entry.to_object(&repository)?.peel_to_blob()?;
                Ok(Some(String::from_utf8_lossy(blob.content()).into_owned()))
            }
            Err(_) => Ok(None),
        }
    }

    /// Returns every file below the root with its content.
    pub fn files(&self) -> anyhow::Result<std::collections::BTreeMap<String, String>> {
        fn walk(at: &Path, root: &Path, into: &mut std::collections::BTreeMap<String, String>) -> anyhow::Result<()> {
            // What goes while it is looked at is not there.
            let Some(entries) = there(std::fs::read_dir(at))? else { return Ok(()) };
            for entry in entries {
                let path = entry?.path();
                let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
                if path.is_dir() {
                    walk(&path, root, into)?;
                } else if let Some(content) = there(std::fs::read(&path))? {
                    into.insert(name, String::from_utf8_lossy(&content).into_owned());
                }
            }
            Ok(())
        }
        fn there<T>(found: std::io::Result<T>) -> std::io::Result<Option<T>> {
            match found {
                Ok(found) => Ok(Some(found)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        }
        let mut files = std::collections::BTreeMap::new();
        walk(&self.root(), &self.root(), &mut files)?;
        ensure!(files.keys().all(|name| !name.contains("..")), "a file is where no file can be");
        Ok(files)
    }
}
