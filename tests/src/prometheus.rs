//! A throwaway Prometheus, and a target for it to scrape.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use axum::{Router, routing::get};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::{nodes::Running, postgres::free_port};

const PROGRAM: &str = "/usr/bin/prometheus";

/// Whether Prometheus and its tools are on this machine; that they are not is told.
///
/// # Panics
///
/// With `CI=true` in the environment a machine without Prometheus is a failure.
#[expect(clippy::print_stderr, reason = "whoever runs the tests is to know what they did not show")]
#[must_use]
pub fn is_here() -> bool {
    let here = Path::new(PROGRAM).exists();
    if !here {
        assert!(!std::env::var("CI").is_ok_and(|value| value == "true"), "Prometheus is needed here");
        eprintln!("left out: tests with Prometheus (install prometheus)");
    }
    here
}

/// A running Prometheus that scrapes one number, `shop_errors`, five times a second.
#[derive(Debug)]
pub struct Prometheus {
    /// Its address.
    pub url: String,
    number: Arc<AtomicI64>,
    target: JoinHandle<std::io::Result<()>>,
    process: Running,
    _folder: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.target.abort();
    }
}

impl Prometheus {
    /// Starts one; `None` on a machine without Prometheus, which is told.
    ///
    /// # Panics
    ///
    /// With `CI=true` in the environment a machine without Prometheus is a failure.
    pub async fn start() -> anyhow::Result<Option<Self>> {
        if !is_here() {
            return Ok(None);
        }
        let number = Arc::new(AtomicI64::new(0));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let scraped = listener.local_addr()?;
        let shown = Arc::clone(&number);
        let answer = move || async move { format!("shop_errors {}\n", shown.load(Ordering::SeqCst)) };
        let router = Router::new().route("/metrics", get(answer));
        let target = tokio::spawn(async move { axum::serve(listener, router).await });
        let folder = TempDir::with_prefix("titan-prometheus-")?;
        let config = folder.path().join("prometheus.yml");
        std::fs::write(
            &config,
            format!(
                "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms }}\nscrape_configs:\n  - job_name: shop\n    \
                 static_configs: [ {{ targets: [ \"{scraped}\" ] }} ]\n"
            ),
        )?;
        let port = free_port()?;
        let mut command = Command::new(PROGRAM);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .current_dir(folder.path());
        let process = Running::start(&mut command)?;
        let url = format!("http://127.0.0.1:{port}");
        let mut started = Self { url, number, target, process, _folder: folder };
        started.shows(0).await?;
        Ok(Some(started))
    }

    /// Sets the number, and waits until a query answers with it.
    pub async fn set(&mut self, number: i64) -> anyhow::Result<()> {
        self.number.store(number, Ordering::SeqCst);
        self.shows(number).await
    }

    async fn shows(&mut self, number: i64) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let query = format!("{}/api/v1/query?query=shop_errors", self.url);
        loop {
            if !self.process.is_running() {
                bail!("Prometheus ended by itself");
            }
            let answer = async { reqwest::get(&query).await?.json::<serde_json::Value>().await };
            let answer = answer.await.context("Prometheus answers");
            if let Ok(answer) = &answer
                && answer["data"]["result"][0]["value"][1].as_str() == Some(number.to_string().as_str())
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("Prometheus never showed {number}: {answer:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
