//! Control planes in this process: the real service on a real socket.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use titan_api::client::Client;
use titan_control_plane::{Config, render::WorkerCommand};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::databases::Database;

/// A running control plane.
#[derive(Debug)]
pub struct Plane {
    /// Its address, `http://127.0.0.1:PORT`.
    pub server: String,
    /// The admin token.
    pub token: String,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), titan_control_plane::serve::ServeError>>,
}

/// Settles which library speaks TLS in this process; without it no HTTP client can be made.
pub fn choose_tls() {
    let _settled_already = rustls::crypto::ring::default_provider().install_default();
}

/// Returns the configuration of a control plane over `url` that renders with this crate's binary.
#[must_use]
pub fn config(url: &str, worker: PathBuf) -> Config {
    Config {
        database_url: url.to_owned(),
        render_worker: Some(WorkerCommand { program: worker, args: vec!["render-worker".into()] }),
        poll_after_seconds: 1,
        shutdown_seconds: 5,
        ..Config::default()
    }
}

impl Plane {
    /// Starts a control plane over `database`. `worker` is the path of this crate's `titan-node`.
    ///
    /// The first start over a database takes an empty `token`; later ones the token that the first one gave.
    pub async fn start(database: &Database, worker: &str, token: &str) -> anyhow::Result<Self> {
        Self::start_with(database, worker, token, |_| {}).await
    }

    /// The same with a configuration that differs by `change`.
    pub async fn start_with(
        database: &Database,
        worker: &str,
        token: &str,
        change: impl FnOnce(&mut Config),
    ) -> anyhow::Result<Self> {
        choose_tls();
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("token");
        let mut config = Config { admin_token_file: Some(file.clone()), ..config(&database.url, worker.into()) };
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let server = format!("{scheme}://{}", listener.local_addr()?);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(titan_control_plane::serve(config, listener, shutdown.clone()));
        let mut plane = Self { server, token: token.to_owned(), shutdown, task };
        plane.ready().await?;
        if token.is_empty() {
            plane.token = std::fs::read_to_string(&file).context("the first start writes a token")?.trim().to_owned();
        }
        Ok(plane)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        // Whoever comes first in this process wins.
        let _already_set = rustls::crypto::ring::default_provider().install_default();
        // Over TLS it has a certificate of a test. Nothing is kept open: connections are counted.
        let http = reqwest::Client::builder().danger_accept_invalid_certs(true).pool_max_idle_per_host(0).build()?;
        for _ in 0..600 {
            if self.task.is_finished() {
                (&mut self.task).await??;
                anyhow::bail!("the control plane stopped at once");
            }
            let answer = http.get(format!("{}/readyz", self.server)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("the control plane did not become ready")
    }

    /// Returns a client with the admin token.
    ///
    /// # Panics
    ///
    /// Never: the address is well-formed.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(&self.server, Some(self.token.clone())).expect("a well-formed address")
    }

    /// Returns `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        self.server.rsplit('/').next().unwrap_or_default()
    }

    /// Tells the control plane to end, and does not wait for it.
    pub fn drain(&self) {
        self.shutdown.cancel();
    }

    /// Ends the control plane in good order.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.task.await??;
        Ok(())
    }
}
