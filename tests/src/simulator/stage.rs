//! Where a fleet plays: a seeded database, a control plane over it, every host with its assignments.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tempfile::TempDir;
use titan_api::{Kind, changes::ApplyRequest, client::WriteOptions};

use crate::simulator::{
    credentials::{self, Credentials},
    documents, progress, seed,
    servers::{Server, Start},
};

/// Where things are and how large they are.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program that is also a control plane.
    pub program: PathBuf,
    /// The database's file; absent: one that is gone afterwards.
    pub database: Option<PathBuf>,
    /// Hosts.
    pub hosts: usize,
    /// Deployments that each host has.
    pub assignments: usize,
    /// What credentials are worked out from.
    pub seed: String,
    /// Whether the control plane speaks TLS.
    pub tls: bool,
    /// How long the planner may take to give every host its assignments, and the control plane to start.
    pub patience: Duration,
}

/// A control plane with a fleet declared.
#[derive(Debug)]
pub struct Stage {
    /// The control plane.
    pub server: Server,
    /// The hosts' credentials.
    pub credentials: Credentials,
    /// How many hosts there are.
    pub hosts: usize,
    /// How long the control plane took to be ready.
    pub started: Duration,
    /// How long it took to give every host its assignments; zero if they were there.
    pub planned: Duration,
    folder: TempDir,
}

impl Stage {
    /// Opens a stage: seeds the database unless it is there, starts the control plane, and waits for the assignments.
    pub async fn open(options: &Options) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("titan-fleet-")?;
        let file = options.database.clone().unwrap_or_else(|| folder.path().join("titan.db"));
        let credentials = Credentials::new(&options.seed);
        let seeded = seeded(&file, options, &credentials).await?;
        let start = Start {
            program: options.program.clone(),
            url: url(&file),
            tls: options.tls,
            folder: folder.path().to_owned(),
            patience: options.patience,
        };
        let (server, started) = Server::start(start, &credentials).await?;
        let last = credentials::name(options.hosts.saturating_sub(1));
        server.admin.get(Kind::Host, None, &last, None).await.with_context(|| {
            format!("{} has no {} hosts that were seeded with {:?}", file.display(), options.hosts, options.seed)
        })?;
        let planned = if seeded { assign(&server, options).await? } else { Duration::ZERO };
        Ok(Self { server, credentials, hosts: options.hosts, started, planned, folder })
    }

    /// Returns a directory that is gone with this.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Returns the address of a database by its file.
#[must_use]
pub fn url(file: &Path) -> String {
    format!("sqlite://{}", file.display())
}

/// Seeds the database unless its file is there; whether it did.
async fn seeded(file: &Path, options: &Options, credentials: &Credentials) -> anyhow::Result<bool> {
    if file.exists() {
        return Ok(false);
    }
    let begun = Instant::now();
    seed::fill(&url(file), options.hosts, credentials).await.context("seeding the database")?;
    progress::tell(&format!("{} hosts seeded in {:.1} s", options.hosts, begun.elapsed().as_secs_f64()));
    Ok(true)
}

/// Declares the deployments and waits until the planner has made the assignments; returns how long that took.
pub async fn assign(server: &Server, options: &Options) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let request = ApplyRequest { resources: documents::ground(options.assignments), ..ApplyRequest::default() };
    server.admin.apply(&request, &WriteOptions::default()).await?;
    server.settled(options.patience).await.context("giving every host its assignments")?;
    let took = begun.elapsed();
    let made = options.hosts * options.assignments;
    progress::tell(&format!("{made} assignments made in {:.1} s", took.as_secs_f64()));
    Ok(took)
}
