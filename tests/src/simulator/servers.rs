//! The control plane under load: a child of this process, or one that runs already.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;
use titan_api::client::Client;

use crate::{
    nodes, planes, postgres, processes,
    simulator::{command::TUNABLES, credentials::Credentials, transports::Place},
};

/// How long a control plane may take to stop in good order.
const STOPPING: Duration = Duration::from_secs(60);

/// How a control plane is started.
#[derive(Debug, Clone)]
pub struct Start {
    /// A program that is a control plane when it is started as `PROGRAM control-plane ARGUMENTS`.
    pub program: PathBuf,
    /// The database.
    pub url: String,
    /// Whether it speaks TLS, with a certificate that is made for it.
    pub tls: bool,
    /// Where its configuration, certificate and log are kept.
    pub folder: PathBuf,
    /// How long it may take to become ready.
    pub patience: Duration,
}

/// For how long it is looked what a control plane does, and which part of a processor is little.
const GLANCE: Duration = Duration::from_secs(2);
const REST: f64 = 0.25;

/// A control plane.
#[derive(Debug)]
pub struct Server {
    /// Where it is.
    pub place: Place,
    /// A client that may do everything.
    pub admin: Client,
    token: String,
    http: reqwest::Client,
    child: Option<(Start, Child)>,
}

impl Server {
    /// Starts a control plane over a seeded database and waits until it is ready. Returns it with how long that took.
    pub async fn start(start: Start, credentials: &Credentials) -> anyhow::Result<(Self, Duration)> {
        let port = postgres::free_port()?;
        let trusted = if start.tls { Some(certificate(&start.folder)?) } else { None };
        let config = config(&start, port);
        std::fs::write(start.folder.join("control-plane.yaml"), config)?;
        let place = Place { address: format!("localhost:{port}"), trusted };
        let mut server = Self::at(place, credentials)?;
        let child = spawn(&start)?;
        server.child = Some((start, child));
        let took = server.ready().await?;
        Ok((server, took))
    }

    /// Stands for a control plane that runs already.
    pub fn at(place: Place, credentials: &Credentials) -> anyhow::Result<Self> {
        planes::choose_tls();
        let token = credentials.admin();
        let scheme = if place.trusted.is_some() { "https" } else { "http" };
        let mut http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        if let Some(trusted) = &place.trusted {
            let certificate = reqwest::Certificate::from_pem(&std::fs::read(trusted)?)?;
            http = http.tls_certs_only([certificate]);
        }
        let http = http.build()?;
        let admin = Client::over(http.clone(), &format!("{scheme}://{}", place.address), Some(token.clone()))?;
        Ok(Self { place, admin, token, http, child: None })
    }

    /// Returns the process's id, if the control plane is a child of this one.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(|(_, child)| child.id())
    }

    /// Returns the processor time that the process has taken until now; zero if it is not ours.
    pub fn processor(&self) -> anyhow::Result<Duration> {
        self.id().map_or(Ok(Duration::ZERO), |id| Ok(processes::processor(id)?.own))
    }

    /// Returns the process's resident bytes; 0 if it is not ours.
    pub fn resident(&self) -> anyhow::Result<u64> {
        self.id().map_or(Ok(0), processes::resident)
    }

    /// Stops the control plane in good order and starts it again, if it is ours. Returns how long it took to be ready.
    pub async fn restart(&mut self) -> anyhow::Result<Duration> {
        let Some((start, mut child)) = self.child.take() else { return Ok(Duration::ZERO) };
        end(&mut child).await?;
        let child = spawn(&start)?;
        self.child = Some((start, child));
        self.ready().await
    }

    /// Stops the control plane in good order, so that its database is complete.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        match self.child.take() {
            Some((_, mut child)) => end(&mut child).await,
            None => Ok(()),
        }
    }

    async fn ready(&mut self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let (patience, log) = match &self.child {
            Some((start, _)) => (start.patience, start.folder.join("log")),
            None => (Duration::from_secs(10), PathBuf::new()),
        };
        loop {
            if let Some((_, child)) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                bail!("the control plane ended with {status}: {}", std::fs::read_to_string(log)?);
            }
            if self.readiness().await.is_ok() {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > patience {
                bail!("the control plane did not become ready in {patience:?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn text(&self, path: &str) -> anyhow::Result<String> {
        let request = self.http.get(format!("{}{path}", self.admin.server())).bearer_auth(&self.token);
        Ok(request.send().await?.error_for_status()?.text().await?)
    }

    async fn readiness(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.text("/readyz").await?)?)
    }

    /// Waits until everything that was written is decided and in the view.
    pub async fn settled(&self, patience: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let ready = self.readiness().await;
            if let Ok(ready) = &ready {
                let (view, planner) = (&ready["view"], &ready["planner"]);
                let decided = planner["revision"].as_str() >= view["revision"].as_str();
                if view["behindMicroseconds"] == 0 && decided {
                    return Ok(());
                }
            }
            if begun.elapsed() > patience {
                bail!("what was written was not decided in {patience:?}: {ready:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the control plane has little to do: what a start or a first release leaves behind is done.
    pub async fn at_rest(&self, patience: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let before = self.processor()?;
            tokio::time::sleep(GLANCE).await;
            let spent = self.processor()?.saturating_sub(before);
            if spent <= GLANCE.mul_f64(REST) {
                return Ok(());
            }
            if begun.elapsed() > patience {
                bail!("the control plane was not at rest after {patience:?}: it takes {spent:?} in {GLANCE:?}");
            }
        }
    }

    /// Returns a counter or gauge of `/metrics` by its whole name, if it is there.
    pub async fn metric(&self, name: &str) -> anyhow::Result<Option<f64>> {
        let text = self.text("/metrics").await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.map(str::parse).transpose()?)
    }

    /// Waits until a counter or gauge is at least `least`; returns how long that took.
    pub async fn reaches(&self, name: &str, least: f64, patience: Duration) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        loop {
            let value = self.metric(name).await?.unwrap_or_default();
            if value >= least {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > patience {
                bail!("{name} is {value} and not {least} after {patience:?}");
            }
            // Whoever asks all the time is what it waits for.
            tokio::time::sleep((begun.elapsed() / 50).max(Duration::from_millis(1))).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((_, child)) = &mut self.child {
            let _gone_already = child.kill();
            let _gone_already = child.wait();
        }
    }
}

fn config(start: &Start, port: u16) -> String {
    let folder = start.folder.display();
    let tls = if start.tls {
        format!("tls: {{ certificate: {folder}/certificate.pem, key: {folder}/key.pem }}\n")
    } else {
        String::new()
    };
    let url = &start.url;
    format!("listen: 127.0.0.1:{port}\ndatabaseUrl: {url}\nlogLevel: warn\nshutdownSeconds: 5\n{tls}")
}

fn spawn(start: &Start) -> anyhow::Result<Child> {
    let mut command: Command = nodes::command(&start.program.to_string_lossy(), "control-plane");
    let log = File::options().create(true).append(true).open(start.folder.join("log"))?;
    command.args(["serve", "--config"]).arg(start.folder.join("control-plane.yaml"));
    // It ends when this process does: its standard input is held open for as long.
    command.env_remove(TUNABLES).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
    command.spawn().with_context(|| format!("{} cannot be started", start.program.display()))
}

async fn end(child: &mut Child) -> anyhow::Result<()> {
    let id = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).context("a process id")?;
    rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
    let begun = Instant::now();
    while child.try_wait()?.is_none() {
        if begun.elapsed() > STOPPING {
            child.kill()?;
            child.wait()?;
            bail!("the control plane did not stop in {STOPPING:?}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Makes a certificate for `localhost` with its key; returns where the certificate is.
fn certificate(folder: &Path) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let path = folder.join("certificate.pem");
    std::fs::write(&path, made.cert.pem())?;
    let mut key = File::options().create(true).write(true).truncate(true).mode(0o600).open(folder.join("key.pem"))?;
    std::io::Write::write_all(&mut key, made.signing_key.serialize_pem().as_bytes())?;
    Ok(path)
}
