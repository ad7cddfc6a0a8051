//! Child processes: this binary in a [role](crate::roles), ended with the value that stands for it.

use std::{
    ffi::OsStr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use titan_api::client::Client;
use titan_tests::processes;

use crate::roles;

/// How long a server may take to answer for the first time.
const START: Duration = Duration::from_secs(60);

/// A server in a process of its own on a port of the loopback.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
}

impl Server {
    /// Starts the bare server.
    pub(crate) async fn bare() -> anyhow::Result<Self> {
        let port = free_port()?;
        Self::start(roles::BARE, &[port.to_string()], port, roles::LEAST).await
    }

    async fn start(role: &str, args: &[impl AsRef<OsStr>], port: u16, path: &str) -> anyhow::Result<Self> {
        let child = command(role)?.args(args).spawn().context("this binary cannot be started once more")?;
        let mut server = Self { child, address: format!("127.0.0.1:{port}") };
        let deadline = Instant::now() + START;
        let http = reqwest::Client::new();
        loop {
            if let Some(status) = server.child.try_wait()? {
                bail!("{role} ended at once with {status}");
            }
            let answer = http.get(format!("http://{}{path}", server.address)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(server);
            }
            if Instant::now() > deadline {
                bail!("{role} did not become ready in {START:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns the process's id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the processor time that the process has taken until now.
    pub(crate) fn processor(&self) -> anyhow::Result<Duration> {
        Ok(processes::processor(self.id())?.own)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends a child and waits for it.
pub(crate) fn end(child: &mut Child) {
    let _gone_already = child.kill();
    let _gone_already = child.wait();
}

/// A control plane over a new SQLite file on the disk.
#[derive(Debug)]
pub(crate) struct Plane {
    /// The process.
    pub(crate) server: Server,
    /// A client that may do everything.
    pub(crate) admin: Client,
    folder: TempDir,
}

impl Plane {
    /// Starts it.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("titan-bench-")?;
        let port = free_port()?;
        let token = folder.path().join("token");
        let args = [
            "serve".to_owned(),
            "--listen".to_owned(),
            format!("127.0.0.1:{port}"),
            "--database-url".to_owned(),
            format!("sqlite://{}", folder.path().join("titan.db").display()),
            "--admin-token-file".to_owned(),
            token.display().to_string(),
            "--log-level".to_owned(),
            "warn".to_owned(),
        ];
        let server = Server::start(roles::PLANE, &args, port, "/readyz").await?;
        let token = std::fs::read_to_string(&token).context("the first start writes a token")?;
        let admin = Client::new(&format!("http://{}", server.address), Some(token.trim().to_owned()))?;
        Ok(Self { server, admin, folder })
    }

    /// Returns the control plane's address as a URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// Returns a counter or gauge of `/metrics` by its whole name; 0 if it is not there.
    pub(crate) async fn metric(&self, http: &reqwest::Client, name: &str) -> anyhow::Result<f64> {
        let token = std::fs::read_to_string(self.folder.path().join("token"))?;
        let request = http.get(format!("{}/metrics", self.url())).bearer_auth(token.trim());
        let text = request.send().await?.error_for_status()?.text().await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.map_or(Ok(0.0), str::parse)?)
    }
}

/// Returns the command that starts this binary in `role`, with nothing of the environment that Titan reads.
pub(crate) fn command(role: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(role).stdin(Stdio::piped());
    without_settings(&mut command);
    Ok(command)
}

/// Takes everything that Titan reads out of a command's environment.
pub(crate) fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TITAN_")) {
        command.env_remove(name);
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
