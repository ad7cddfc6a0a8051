//! The command line of `titan-control-plane`.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use titan_api::Name;
use tokio::signal::unix;
use tokio_util::sync::CancellationToken;

use crate::{
    access,
    clock::Clock,
    config::{Config, LogFormat, LogLevel},
    connections, render, serve,
    store::Store,
};

/// Stores what is declared for a fleet, decides which host runs what, and answers the hosts' polls.
#[derive(Debug, Parser)]
#[command(name = "titan-control-plane", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until told to stop
    ///
    /// The first start makes the database, the workspace `default` and an admin token, which is written to
    /// --admin-token-file or else printed once.
    Serve(Settings),
    /// Admin tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Check the configuration and print it as it would be used
    CheckConfig(Settings),
    /// Bring the database's schema up to date, then stop
    Migrate(Settings),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make an admin token and print it; works beside a running control plane
    Create {
        #[command(flatten)]
        settings: Settings,
        /// Whose it is; stands as the actor in the history
        #[arg(long, default_value = "admin")]
        name: Name,
        /// How many hours it can be used; for ever unless told
        #[arg(long)]
        hours: Option<u32>,
    },
}

/// What is set by flags and environment; stronger than the file.
#[derive(Debug, Args)]
struct Settings {
    /// The configuration file
    #[arg(long, env = "TITAN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:7420]
    #[arg(long, env = "TITAN_LISTEN", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The database, sqlite://FILE or postgres://... [default: sqlite://titan.db]
    #[arg(long, env = "TITAN_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// A hot standby of a PostgreSQL database, from which lists and histories are read
    #[arg(long, env = "TITAN_REPLICA_URL", value_name = "URL", hide_env_values = true)]
    replica_url: Option<String>,
    /// Where the first admin token is written, readable by its owner only
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// How log lines look
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// The least level that is logged
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
}

impl Settings {
    fn into_config(self) -> anyhow::Result<Config> {
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        config.listen = self.listen.unwrap_or(config.listen);
        config.database_url = self.database_url.unwrap_or(config.database_url);
        config.replica_url = self.replica_url.or(config.replica_url);
        config.admin_token_file = self.admin_token_file.or(config.admin_token_file);
        config.log_format = self.log_format.unwrap_or(config.log_format);
        config.log_level = self.log_level.unwrap_or(config.log_level);
        config.check()?;
        Ok(config)
    }
}

/// Runs the command line of the process.
pub fn main() -> ExitCode {
    run_with(std::env::args_os())
}

/// Runs a command line, the program's name first.
pub fn run_with<I: IntoIterator<Item = OsString>>(args: I) -> ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    // Before any thread is started: a process that renders limits its own memory.
    if args.get(1).is_some_and(|arg| arg == "render-worker") {
        return render::worker_main();
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _printed = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::new(error).context("the runtime cannot be started")),
    };
    match runtime.block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(settings) => {
            let config = settings.into_config()?;
            start_logging(&config);
            let listener = connections::listen(config.listen)
                .with_context(|| format!("{} cannot be listened on", config.listen))?;
            let shutdown = CancellationToken::new();
            stop_on_signals(shutdown.clone())?;
            Ok(serve::serve(config, listener, shutdown).await?)
        }
        Command::Token(TokenCommand::Create { settings, name, hours }) => {
            let store = Store::open_beside(&settings.into_config()?.database_url).await?;
            let clock = Clock::system();
            let expires_at = hours.map(|hours| clock.after(Duration::from_secs(u64::from(hours) * 3600)));
            let mut tx = store.write("request").await?;
            let (_, secret) = access::add_admin_token(&mut tx, name, clock.now(), expires_at).await?;
            tx.commit().await?;
            print(&secret);
            Ok(())
        }
        Command::CheckConfig(settings) => {
            let config = settings.into_config()?;
            print(serde_yaml::to_string(&config).context("the configuration cannot be printed")?.trim_end());
            Ok(())
        }
        Command::Migrate(settings) => {
            Store::open(&settings.into_config()?.database_url).await?;
            print("the database's schema is up to date");
            Ok(())
        }
    }
}

fn start_logging(config: &Config) {
    let level = match config.log_level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    // Somebody else's subscriber in the process stays.
    let _already_set = match config.log_format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).try_init(),
    };
}

fn stop_on_signals(shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = unix::signal(unix::SignalKind::terminate()).context("signals cannot be watched")?;
    let mut interrupt = unix::signal(unix::SignalKind::interrupt()).context("signals cannot be watched")?;
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping");
        shutdown.cancel();
    });
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what the command is asked for")]
fn print(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "where an error stops")]
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
