//! The least that any server would have to do: the poll's path over axum with an answer from memory and nothing behind it,
//! in a process of its own.

use std::{
    ffi::OsString,
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use axum::{Router, http::StatusCode, http::header, routing::get, serve::ListenerExt as _};
use bytes::Bytes;

use crate::{
    nodes, postgres, processes,
    simulator::{command::TUNABLES, transports::Place},
};

/// The role: the arguments are the port and, if it is to answer with something, the file.
pub const ROLE: &str = "bare";
/// How long it may take to answer for the first time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves until the process ends: 204, or the content of a file as JSON.
pub fn serve(args: &[OsString]) -> anyhow::Result<()> {
    let port: u16 = args.first().and_then(|port| port.to_str()).context("a port")?.parse()?;
    let body = args.get(1).map(std::fs::read).transpose().context("the body")?.map(Bytes::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        let listener = listener.tap_io(|connection| {
            let _best_effort = connection.set_nodelay(true);
        });
        let route = match body {
            None => get(|| std::future::ready(StatusCode::NO_CONTENT)),
            Some(body) => get(move || std::future::ready(([(header::CONTENT_TYPE, "application/json")], body.clone()))),
        };
        let router: Router = Router::new().route("/v1/hosts/{name}/changes", route);
        Ok(axum::serve(listener, router).await?)
    })
}

/// A bare server in a process of its own.
#[derive(Debug)]
pub struct Bare {
    child: Child,
    /// Where it is.
    pub place: Place,
}

impl Bare {
    /// Starts one by `program`, which serves when it is started as `PROGRAM bare PORT [FILE]`.
    pub async fn start(program: &Path, body: Option<&Path>) -> anyhow::Result<Self> {
        let port = postgres::free_port()?;
        let mut command = nodes::command(&program.to_string_lossy(), ROLE);
        command.arg(port.to_string()).args(body).env_remove(TUNABLES).stdin(Stdio::piped()).stdout(Stdio::null());
        let child = command.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
        let mut bare = Self { child, place: Place { address: format!("localhost:{port}"), trusted: None } };
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if let Some(status) = bare.child.try_wait()? {
                bail!("the bare server ended with {status}");
            }
            if begun.elapsed() > PATIENCE {
                bail!("the bare server did not begin to listen in {PATIENCE:?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(bare)
    }

    /// Returns the processor time that the process has taken until now.
    pub fn processor(&self) -> anyhow::Result<Duration> {
        Ok(processes::processor(self.child.id())?.own)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _gone_already = self.child.wait();
    }
}
