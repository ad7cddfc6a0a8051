//! The processes of the demo, each a thread: one control plane, and an agent for every host.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Mutex,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use titan_agent::{Agent, Settings};
use titan_api::{
    Kind, Name,
    client::{Client, ListOptions},
    enrolment::EnrolmentTokenRequest,
};
use titan_control_plane::Config;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::DemoError;
use crate::{
    config::Secret,
    errors::{CliError, chain},
};

/// Threads that agents share.
const AGENT_THREADS: usize = 3;
/// How long the control plane may take to be ready.
const READY: Duration = Duration::from_secs(30);

/// Where a host of the demo keeps what.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The host.
    pub(super) host: Name,
    /// What its agent remembers.
    pub(super) state: PathBuf,
    /// The files that it applies.
    pub(super) files: PathBuf,
    /// Its repository.
    pub(super) repository: PathBuf,
}

impl Place {
    /// Returns the place of `host` below the demo's directory.
    pub(super) fn of(directory: &Path, host: &Name) -> Self {
        let own = directory.join("hosts").join(host.as_str());
        Self {
            host: host.clone(),
            state: own.join("state"),
            files: own.join("files"),
            repository: own.join("repository.git"),
        }
    }

    fn settings(&self, server: &str) -> Settings {
        let mut settings = Settings::new(&self.state);
        settings.server = Some(server.to_owned());
        if let Some(files) = &mut settings.files {
            files.root.clone_from(&self.files);
        }
        if let Some(git) = &mut settings.git {
            git.repository.clone_from(&self.repository);
        }
        settings
    }
}

/// The branch that agents commit to unless told otherwise.
pub(super) const BRANCH: &str = "main";

/// The threads of the demo.
#[derive(Debug)]
pub(super) struct Fleet {
    directory: PathBuf,
    server: String,
    shutdown: CancellationToken,
    threads: Vec<JoinHandle<()>>,
    failed: mpsc::UnboundedSender<DemoError>,
    failures: mpsc::UnboundedReceiver<DemoError>,
}

impl Fleet {
    /// Starts a control plane on a free port of this machine, with its database in `directory`.
    pub(super) fn start(directory: &Path) -> Result<Self, DemoError> {
        let setup = |doing| move |source| DemoError::Setup { doing, source };
        let log = directory.join("demo.log");
        let file = fs::File::create(&log).map_err(setup("its log"))?;
        let subscriber = tracing_subscriber::fmt().with_writer(Mutex::new(file)).with_ansi(false).finish();
        // In a process that logs already, that log has it all.
        let _logging_already = tracing::subscriber::set_global_default(subscriber);

        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(setup("a free port"))?;
        listener.set_nonblocking(true).map_err(setup("a free port"))?;
        let server = format!("http://{}", listener.local_addr().map_err(setup("a free port"))?);
        let (failed, failures) = mpsc::unbounded_channel();
        let mut fleet = Self {
            directory: directory.to_owned(),
            server,
            shutdown: CancellationToken::new(),
            threads: Vec::new(),
            failed,
            failures,
        };
        let config = Config {
            database_url: format!("sqlite://{}", directory.join("titan.db").display()),
            admin_token_file: Some(fleet.token_file()),
            poll_after_seconds: 1,
            shutdown_seconds: 2,
            ..Config::default()
        };
        fleet.control_plane(config, listener)?;
        Ok(fleet)
    }

    fn control_plane(&mut self, config: Config, listener: TcpListener) -> Result<(), DemoError> {
        let setup = |source| DemoError::Setup { doing: "the control plane's thread", source };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("control-plane")
            .enable_all()
            .build()
            .map_err(setup)?;
        let (shutdown, failed) = (self.shutdown.clone(), self.failed.clone());
        let serve = move || {
            let served = runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).map_err(|error| error.to_string())?;
                let served = titan_control_plane::serve(config, listener, shutdown.clone()).await;
                served.map_err(|error| chain(&error))
            });
            if !shutdown.is_cancelled() {
                // Nobody listens any more once the demo is over.
                let _over =
                    failed.send(DemoError::ControlPlane(served.err().unwrap_or_else(|| "no reason given".into())));
            }
        };
        self.threads.push(thread::Builder::new().name("control-plane".into()).spawn(serve).map_err(setup)?);
        Ok(())
    }

    /// Waits until the control plane answers, and returns a connection with its admin token.
    pub(super) async fn ready(&mut self) -> Result<Client, CliError> {
        let begin = Instant::now();
        loop {
            self.check()?;
            let token = fs::read_to_string(self.token_file()).ok().and_then(|text| Secret::new(&text));
            if let Some(token) = token {
                let client = Client::new(&self.server, Some(token.reveal().to_owned()))?;
                match client.list(Kind::Workspace, None, &ListOptions::default()).await {
                    Ok(_) => return Ok(client),
                    Err(error) if begin.elapsed() > READY => return Err(error.into()),
                    Err(_) => {}
                }
            } else if begin.elapsed() > READY {
                return Err(DemoError::ControlPlane("it wrote no admin token".to_owned()).into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Enrols an agent for each of `hosts` and lets them run.
    pub(super) async fn enrol(&mut self, client: &Client, hosts: Vec<Name>) -> Result<Vec<Place>, CliError> {
        let places: Vec<_> = hosts.iter().map(|host| Place::of(&self.directory, host)).collect();
        let mut shares: Vec<Vec<(Place, String)>> = vec![Vec::new(); AGENT_THREADS.min(places.len())];
        for (index, place) in places.iter().enumerate() {
            let request = EnrolmentTokenRequest { host: place.host.clone(), ttl_seconds: None };
            let token = client.enrolment_token(&request).await?.token;
            if let Some(share) = shares.get_mut(index % AGENT_THREADS) {
                share.push((place.clone(), token));
            }
        }
        for share in shares {
            self.agents(share)?;
        }
        Ok(places)
    }

    /// Starts a thread with a runtime of its own, in which the agents of `share` run side by side.
    fn agents(&mut self, share: Vec<(Place, String)>) -> Result<(), DemoError> {
        let setup = |source| DemoError::Setup { doing: "an agent's thread", source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(setup)?;
        let (server, shutdown, failed) = (self.server.clone(), self.shutdown.clone(), self.failed.clone());
        let run = move || {
            let agents = share.into_iter().map(|(place, token)| {
                let (server, shutdown, failed) = (&server, shutdown.clone(), &failed);
                async move {
                    let ended = agent(&place, server, &token, shutdown.clone()).await;
                    if !shutdown.is_cancelled() {
                        let reason = ended.err().unwrap_or_else(|| "no reason given".to_owned());
                        // Nobody listens any more once the demo is over.
                        let _over = failed.send(DemoError::Agent { host: place.host, reason });
                    }
                }
            });
            runtime.block_on(futures_util::future::join_all(agents));
        };
        self.threads.push(thread::Builder::new().name("agents".into()).spawn(run).map_err(setup)?);
        Ok(())
    }

    /// Returns what ended though it should not have, if anything has.
    pub(super) fn check(&mut self) -> Result<(), DemoError> {
        self.failures.try_recv().map_or(Ok(()), Err)
    }

    /// Waits until something ends that should not.
    pub(super) async fn ended(&mut self) -> DemoError {
        match self.failures.recv().await {
            Some(error) => error,
            // The fleet itself holds a sender: this is not reached while it lives.
            None => DemoError::ControlPlane("no reason given".to_owned()),
        }
    }

    /// Returns the file of the admin token.
    pub(super) fn token_file(&self) -> PathBuf {
        self.directory.join("admin.token")
    }

    /// Returns the file of the log.
    pub(super) fn log(&self) -> PathBuf {
        self.directory.join("demo.log")
    }

    /// Ends every thread, waiting for each.
    pub(super) fn stop(self) {
        self.shutdown.cancel();
        for thread in self.threads {
            // A panic was told on standard error when it happened.
            let _panicked = thread.join();
        }
    }
}

/// Enrols and runs the agent of a host until `shutdown`.
async fn agent(place: &Place, server: &str, token: &str, shutdown: CancellationToken) -> Result<(), String> {
    let settings = place.settings(server);
    let token = titan_agent::config::Secret::new(token.to_owned());
    titan_agent::enrol(&settings, server, &place.host, &token).await.map_err(|error| chain(&error))?;
    let mut agent = Agent::open(settings, &tokio::runtime::Handle::current()).map_err(|error| chain(&error))?;
    agent.run(shutdown).await;
    Ok(())
}
