//! The agent for small devices: at rest, its binary, and one round of it beside other tools.

mod peers;
mod rest;
mod rounds;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::{
    children::{self, Plane},
    hosts,
    options::Options,
};

pub(crate) use {rest::rest, rounds::rounds};

/// The agent's service.
const SERVICE: &str = include_str!("../../../agent/packaging/titan-agent.service");

/// An agent with its own directories, enrolled.
struct Agent {
    binary: PathBuf,
    folder: TempDir,
    authorities: Option<PathBuf>,
}

impl Agent {
    /// Enrols an agent as `host`, which is declared, at `server`. The binary is copied, so that no other process shares
    /// its pages. `authorities`: whom to trust instead of the system's.
    async fn enrol(
        binary: &Path,
        plane: &Plane,
        host: &str,
        server: &str,
        authorities: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("titan-bench-agent-")?;
        let own = folder.path().join("titan-agent");
        std::fs::copy(binary, &own).with_context(|| format!("{} is copied", binary.display()))?;
        let agent = Self { binary: own, folder, authorities };
        let (root, repository) = (agent.folder.path().join("root"), agent.folder.path().join("git"));
        std::fs::create_dir(&root)?;
        let settings = format!(
            "appliers: {{ files: {{ root: {} }} }}\ngit: {{ repository: {} }}\nlogging: {{ level: warn }}\n",
            root.display(),
            repository.display()
        );
        std::fs::write(agent.folder.path().join("agent.yaml"), settings)?;
        let token = hosts::join_token(plane, host).await?;
        agent.round(&["enrol", "--server", server, "--host", host, "--token", &token])?;
        Ok(agent)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).stdin(Stdio::null());
        command.arg("--config").arg(self.folder.path().join("agent.yaml"));
        command.arg("--state-dir").arg(self.folder.path().join("state"));
        children::without_settings(&mut command);
        if let Some(authorities) = &self.authorities {
            command.env("SSL_CERT_FILE", authorities);
        }
        command
    }

    /// Runs a subcommand to its end, which must go well.
    fn round(&self, args: &[&str]) -> anyhow::Result<()> {
        let output = self.command(args).output().with_context(|| format!("{} runs", self.binary.display()))?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            bail!("titan-agent {} ended with {}: {}", args[0], output.status, String::from_utf8_lossy(&said));
        }
        Ok(())
    }

    /// Starts it for good, with the variables that its service sets.
    fn run(&self) -> anyhow::Result<Running> {
        let mut command = self.command(&["run"]);
        let settings = SERVICE.lines().filter_map(|line| line.strip_prefix("Environment="));
        let settings = settings.flat_map(str::split_whitespace).filter_map(|pair| pair.split_once('='));
        command.envs(settings);
        Ok(Running(command.stdout(Stdio::null()).spawn()?))
    }
}

/// A child that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        children::end(&mut self.0);
    }
}

/// Returns the agents' binaries, or says that there are none.
fn binaries(options: &Options) -> &[PathBuf] {
    if options.agents.is_empty() {
        crate::tell(
            "left out: name the agent's binary with --agent FILE or TITAN_AGENT_BINARY; 'just bench' builds it",
        );
    }
    &options.agents
}

/// Returns how a binary is linked, for the names of figures.
fn linked(binary: &Path) -> anyhow::Result<&'static str> {
    // A program that needs a loader names it, and every loader is called so.
    let bytes = std::fs::read(binary).with_context(|| format!("{} is read", binary.display()))?;
    let loader = b"/ld-linux";
    Ok(if bytes.windows(loader.len()).any(|window| window == loader) { "dynamic" } else { "static" })
}
