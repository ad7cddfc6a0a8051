//! People at a terminal: the command line as a real process, logged in, in a directory of its own.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::nodes;

/// Someone who types commands.
#[derive(Debug)]
pub struct Operator {
    node: String,
    folder: TempDir,
}

impl Operator {
    /// Gives someone a directory to work in. `node`: path of this crate's `titan-node`.
    pub fn new(node: &str) -> anyhow::Result<Self> {
        Ok(Self { node: node.to_owned(), folder: TempDir::with_prefix("titan-operator-")? })
    }

    /// Logs in.
    pub fn login(&self, server: &str, token: &str) -> anyhow::Result<String> {
        let file = self.folder.path().join("token");
        std::fs::write(&file, token)?;
        nodes::succeed(self.command().args(["login", "--server", server, "--token-file"]).arg(file))
    }

    /// Returns the directory that commands run in.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file into the directory and returns its path.
    pub fn write(&self, path: &str, content: &str) -> anyhow::Result<PathBuf> {
        let file = self.folder.path().join(path);
        std::fs::create_dir_all(file.parent().context("a file is in a directory")?)?;
        std::fs::write(&file, content)?;
        Ok(file)
    }

    /// Copies a directory with all that is in it into this one, as `name`.
    pub fn copy(&self, from: &Path, name: &str) -> anyhow::Result<()> {
        copy(from, &self.folder.path().join(name))
    }

    /// Returns the command `titan` without arguments.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = nodes::command(&self.node, "cli");
        command.current_dir(self.folder.path()).env("TITAN_CLI_CONFIG", self.folder.path().join("config.yaml"));
        command
    }

    /// Types a line that begins with `titan`, as a shell without quotes would split it.
    pub fn run(&self, line: &str) -> anyhow::Result<Output> {
        let words: Vec<_> = line.split_whitespace().collect();
        let args = words.strip_prefix(&["titan"]).with_context(|| format!("{line:?} runs titan"))?;
        nodes::output(self.command().args(args))
    }

    /// Types a line that must succeed, and returns what it printed.
    pub fn titan(&self, line: &str) -> anyhow::Result<String> {
        let output = self.run(line)?;
        if !output.status.success() {
            bail!(
                "{line} ended with {}: {}{}",
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Types a line with `-o json` and returns the exit code and what was printed as JSON: the problem, if it failed.
    pub fn json(&self, line: &str) -> anyhow::Result<(i32, Value)> {
        let output = self.run(&format!("{line} -o json"))?;
        let code = output.status.code().context("the command ended by itself")?;
        let text = if code == 0 { &output.stdout } else { &output.stderr };
        let json = serde_json::from_slice(text)
            .with_context(|| format!("{line} printed {}", String::from_utf8_lossy(text)))?;
        Ok((code, json))
    }

    /// Types a line with `input` on its standard input.
    pub fn feed(&self, line: &str, input: &str) -> anyhow::Result<Output> {
        use std::io::Write as _;
        let words: Vec<_> = line.split_whitespace().skip(1).collect();
        let mut command = self.command();
        let mut child =
            command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("standard input")?.write_all(input.as_bytes())?;
        Ok(child.wait_with_output()?)
    }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("{} can be read", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
