//! Serving: from a configuration to a running control plane, and its orderly end.

use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path, sync::Arc, time::Duration};

use titan_api::{Name, Problem};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    access,
    clock::Clock,
    config::{Config, ConfigError},
    connections::{self, tls::Certificate},
    load,
    render::{Renderer, RendererConfig, WorkerCommand},
    routes::{documents::ensure_default_workspace, router::router},
    state::AppState,
    store::{Store, StoreError},
    tasks::{apart::awaited, follow, heartbeats, listen, planner::Planner, sweep, work, workplans::Runner},
};

/// Why the control plane cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration is not valid.
    #[error("the configuration is not valid")]
    Config(#[from] ConfigError),
    /// The database cannot be used.
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
    /// Something that the first start makes could not be made.
    #[error("the first start failed: {0}")]
    Begin(#[from] Problem),
    /// The file for the first admin token cannot be written.
    #[error("the admin token cannot be written to {}", path.display())]
    TokenFile {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Where this program is cannot be found out, so that it cannot start itself to render.
    #[error("the program for rendering cannot be found")]
    Worker(#[source] std::io::Error),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// Returns what renders templates under a configuration.
pub fn renderer(config: &Config) -> Result<Renderer, ServeError> {
    let worker = match &config.render_worker {
        Some(worker) => worker.clone(),
        None => WorkerCommand::own().map_err(ServeError::Worker)?,
    };
    Ok(Renderer::new(RendererConfig { workers: config.render_workers, ..RendererConfig::new(worker) }))
}

/// Opens everything that a control plane needs, without serving yet: the database, the first documents and token, the
/// model and the view.
pub async fn open(
    config: Config,
    renderer: Renderer,
    clock: Clock,
    shutdown: CancellationToken,
) -> Result<(AppState, Planner), ServeError> {
    config.check()?;
    let mut store = Store::open(&config.database_url).await?;
    if let Some(url) = &config.replica_url {
        store = store.with_standby(url).await?;
    }
    let state = AppState::new(config, store, renderer, clock, shutdown);
    ensure_default_workspace(&state).await?;
    ensure_admin_token(&state).await?;
    let mut planner = Planner::new(state.clone());
    // Side by side: with a million hosts each takes seconds. What is not decided yet is decided while serving; whoever
    // polls gets what was decided before.
    let view = tokio::spawn({
        let state = state.clone();
        async move { follow::pass(&state).await }
    });
    planner.load().await?;
    view.await
        .map_err(|error| Problem::new(titan_api::Code::Internal, format!("the view was not loaded: {error}")))??;
    Ok((state, planner))
}

/// Serves on `listener` until `shutdown`, then lets held polls and requests finish.
pub async fn serve(config: Config, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServeError> {
    let grace = Duration::from_secs(config.shutdown_seconds);
    let renderer = renderer(&config)?;
    let (state, planner) = open(config, renderer, Clock::system(), shutdown.clone()).await?;
    let mut tasks = JoinSet::new();
    let tls = match &state.config.tls {
        Some(config) => {
            let certificate = Arc::new(Certificate::read(config)?);
            tasks.spawn(Arc::clone(&certificate).follow(shutdown.clone()));
            Some(certificate.server()?)
        }
        None => None,
    };
    tasks.spawn(awaited("planner", planner.run()));
    tasks.spawn(awaited("follower", follow::run(state.clone())));
    tasks.spawn(awaited("writer of heartbeats", heartbeats::run(state.clone())));
    tasks.spawn(listen::run(state.clone()));
    tasks.spawn(awaited("sweeper", sweep::Sweeper::new(state.clone()).run()));
    tasks.spawn(awaited("runner of plans", Runner::new(state.clone()).run()));
    tasks.spawn(awaited("worker on tasks", work::run(state.clone())));
    tasks.spawn(load::run(state.clone()));
    if let Ok(address) = listener.local_addr() {
        let scheme = if tls.is_some() { "https" } else { "http" };
        tracing::info!(%address, "serving on {scheme}://{address}");
    }
    let store = state.store.clone();
    let router = router(state.clone());
    connections::serve(listener, state, router, tls, grace).await;
    shutdown.cancel();
    let _ended_or_given_up = tokio::time::timeout(grace, tasks.join_all()).await;
    // Whoever copies or restores the file next finds it complete and nobody writing.
    let _closed_or_given_up = tokio::time::timeout(grace, store.close()).await;
    tracing::info!("stopped");
    Ok(())
}

/// Makes the first admin token if there is none, and tells it once.
async fn ensure_admin_token(state: &AppState) -> Result<(), ServeError> {
    let mut tx = state.store.write("request").await?;
    if !tx.admin_tokens().await?.is_empty() {
        return Ok(());
    }
    let name = Name::new("admin").map_err(|error| Problem::new(titan_api::Code::Internal, error.to_string()))?;
    let (_, secret) = access::add_admin_token(&mut tx, name, state.clock.now(), None).await?;
    // Told before it is kept: if the process ends in between, the next start makes another one.
    match &state.config.admin_token_file {
        Some(path) => {
            write_secret(path, &secret).map_err(|source| ServeError::TokenFile { path: path.clone(), source })?;
            tracing::info!(path = %path.display(), "the first admin token was written to {}", path.display());
        }
        None => tell(&secret),
    }
    tx.commit().await?;
    Ok(())
}

/// Writes a secret so that nobody else can ever read it.
fn write_secret(path: &Path, secret: &str) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
    writeln!(file, "{secret}")?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

#[expect(clippy::print_stdout, reason = "the one time that the first admin token is told")]
fn tell(secret: &str) {
    println!("The admin token, told this once: {secret}");
}
