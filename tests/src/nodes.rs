//! Real processes: every Titan binary, as `titan-node ROLE ARGUMENTS`.

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

/// Returns a command that runs `node` in a role, with nothing of this process's environment that Titan reads.
#[must_use]
pub fn command(node: &str, role: &str) -> Command {
    let mut command = Command::new(node);
    command.arg(role).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TITAN_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end and returns what it printed.
pub fn output(command: &mut Command) -> anyhow::Result<Output> {
    command.output().with_context(|| format!("{command:?} cannot be run"))
}

/// Returns what a command printed, or fails with all of it if the command failed.
pub fn succeed(command: &mut Command) -> anyhow::Result<String> {
    let output = output(command)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?} ended with {}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(said)
}

/// A process that is killed with this value.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts a command whose output is thrown away.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("{command:?} cannot be run"))?))
    }

    /// Returns the process's number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self, most: Duration) -> anyhow::Result<std::process::ExitStatus> {
        let deadline = Instant::now() + most;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("the process did not end within {most:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks the process to end in good order.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::TERM)
    }

    /// Stops the process in its tracks, as a machine that is put to sleep does.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::STOP)
    }

    /// Lets a paused process go on as if nothing had been.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::CONT)
    }

    fn signal(&self, signal: rustix::process::Signal) -> anyhow::Result<()> {
        let id = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(id.context("a process id")?, signal)?;
        Ok(())
    }

    /// Ends the process as a power cut would.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone_already = self.kill();
    }
}

/// A control plane as a process of its own.
#[derive(Debug)]
pub struct PlaneNode {
    /// Its address.
    pub server: String,
    /// The process.
    pub process: Running,
}

impl PlaneNode {
    /// Starts a control plane over `url` with its token in `folder/token`. `fault`: see the control plane's fault points.
    pub fn start(node: &str, folder: &Path, url: &str, fault: Option<&str>) -> anyhow::Result<Self> {
        Self::start_with(node, folder, url, |command| {
            if let Some(fault) = fault {
                command.env("TITAN_FAULT", fault);
            }
        })
    }

    /// The same with a command that is changed before it is run.
    pub fn start_with(node: &str, folder: &Path, url: &str, change: impl FnOnce(&mut Command)) -> anyhow::Result<Self> {
        Self::start_at(node, folder, url, crate::postgres::free_port()?, change)
    }

    /// The same at a port of the caller's choice, such as that of one that was killed.
    pub fn start_at(
        node: &str,
        folder: &Path,
        url: &str,
        port: u16,
        change: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Self> {
        crate::planes::choose_tls();
        let mut command = command(node, "control-plane");
        command.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--database-url", url, "--admin-token-file"]);
        command.arg(folder.join("token"));
        change(&mut command);
        Ok(Self { server: format!("http://127.0.0.1:{port}"), process: Running::start(&mut command)? })
    }

    /// Waits until it is ready; `false` if the process ended first.
    pub async fn ready(&mut self) -> anyhow::Result<bool> {
        for _ in 0..1200 {
            if !self.process.is_running() {
                return Ok(false);
            }
            let answer = reqwest::get(format!("{}/readyz", self.server)).await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        bail!("the control plane did not become ready")
    }
}
