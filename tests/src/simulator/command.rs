//! The command line of `fleet-sim`.

use std::{
    ffi::OsString,
    io::Read as _,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{self, ExitCode},
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    measures::{Figure, table},
    planes,
    records::{self, Record},
    simulator::{
        bare,
        credentials::Credentials,
        measured::{self, DIFFERENCES, Measure, Measuring},
        progress::tell,
        quick, runs,
        script::{Carrier, Script},
        seed, servers,
        stage::{self, Stage},
        transports::Place,
    },
};

/// Plays up to a million agents over real sockets and proves that each holds what it should.
#[derive(Debug, Parser)]
#[command(name = "fleet-sim", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The main figures in 45 seconds, with a verdict
    Quick {
        #[command(flatten)]
        stage: StageArgs,
        /// Hosts
        #[arg(long, default_value_t = 20_000)]
        hosts: usize,
        /// How to print the figures
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Let a fleet play a script and compare everything at the end
    Run {
        #[command(flatten)]
        stage: StageArgs,
        /// Hosts
        #[arg(long, default_value_t = 10_000)]
        hosts: usize,
        /// A control plane that runs already, HOST:PORT, over a database that `fleet-sim seed` filled
        #[arg(long, value_name = "ADDRESS")]
        server: Option<String>,
        /// The certificates that are trusted with --server and --tls, PEM
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
        #[command(flatten)]
        script: Box<ScriptArgs>,
        /// How to print what happened
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Figures that need a fleet, each by its name
    Measure {
        /// What to measure
        #[arg(required = true, value_enum)]
        measures: Vec<Measure>,
        #[command(flatten)]
        stage: StageArgs,
        /// Hosts [default: the measure's]
        #[arg(long)]
        hosts: Option<usize>,
        /// How long a run takes, or a round [default: the measure's]
        #[arg(long)]
        seconds: Option<f64>,
        /// How often each host polls in runs, in seconds [default: the measure's]
        #[arg(long)]
        cadence: Option<f64>,
        /// How long polls are held in runs, in seconds
        #[arg(long, default_value_t = 0)]
        wait: u64,
        /// Connections of HTTP/2
        #[arg(long, default_value_t = 2000)]
        connections: usize,
        /// Rounds of what is measured again and again [default: the measure's]
        #[arg(long)]
        rounds: Option<u64>,
        /// What carries polls in runs [default: the measure's]
        #[arg(long, value_enum)]
        carrier: Option<Carrier>,
        /// One JSON object a line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Keep figures that were measured with --json, and tell them beside the run before
    Record {
        /// What the benchmarks printed, one JSON object a line
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The repository: its docs/performance/ gets the record, its docs/performance.md the table
        #[arg(long, default_value = ".")]
        repository: PathBuf,
    },
    /// Fill a new database with hosts
    Seed {
        /// The database, sqlite://FILE
        #[arg(long, value_name = "URL")]
        database_url: String,
        /// Hosts
        #[arg(long)]
        hosts: usize,
        /// Deployments that each host has; a control plane is started to make the assignments
        #[arg(long, default_value_t = 0)]
        assignments: usize,
        /// What credentials are worked out from
        #[arg(long, default_value = "titan")]
        seed: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
struct StageArgs {
    /// The database's file, seeded unless it is there [default: a new one that is gone afterwards]
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
    /// Deployments that each host has
    #[arg(long, default_value_t = 5)]
    assignments: usize,
    /// What credentials are worked out from
    #[arg(long, default_value = "titan")]
    seed: String,
    /// Seconds that the planner may take to make the assignments, and the control plane to start
    #[arg(long, default_value_t = 1200)]
    patience: u64,
}

impl StageArgs {
    fn options(self, hosts: usize, tls: bool) -> anyhow::Result<stage::Options> {
        Ok(stage::Options {
            program: std::env::current_exe()?,
            database: self.database,
            hosts,
            assignments: self.assignments,
            seed: self.seed,
            tls,
            patience: Duration::from_secs(self.patience),
        })
    }
}

/// What of a script can be said by flags; they are stronger than the file.
#[derive(Debug, Args)]
struct ScriptArgs {
    /// The script, YAML
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// How long it runs
    #[arg(long)]
    seconds: Option<f64>,
    /// What carries the polls
    #[arg(long, value_enum)]
    carrier: Option<Carrier>,
    /// Connections of HTTP/2
    #[arg(long)]
    connections: Option<usize>,
    /// Encrypt connections
    #[arg(long)]
    tls: bool,
    /// Never resume a TLS session
    #[arg(long)]
    no_resumption: bool,
    /// How often each agent polls, in seconds
    #[arg(long)]
    cadence: Option<f64>,
    /// How long polls are held, in seconds
    #[arg(long)]
    wait: Option<u64>,
    /// Changes a second through the API
    #[arg(long)]
    changes_per_second: Option<f64>,
    /// Share of answers that are lost
    #[arg(long)]
    lost: Option<f64>,
    /// Share of agents that are away at a time
    #[arg(long)]
    offline: Option<f64>,
    /// Share of agents that read slowly
    #[arg(long)]
    slow: Option<f64>,
    /// Seconds between storms
    #[arg(long)]
    storm_every: Option<f64>,
    /// Seconds between restarts of the control plane
    #[arg(long)]
    restart_every: Option<f64>,
    /// Report after each change
    #[arg(long)]
    reports: bool,
}

impl ScriptArgs {
    fn script(self) -> anyhow::Result<Script> {
        let base = self.script.as_deref().map_or_else(|| Ok(Script::default()), Script::read)?;
        let script = Script {
            seconds: self.seconds.unwrap_or(base.seconds),
            carrier: self.carrier.unwrap_or(base.carrier),
            connections: self.connections.unwrap_or(base.connections),
            tls: self.tls || base.tls,
            resumption: !self.no_resumption && base.resumption,
            cadence: self.cadence.or(base.cadence),
            wait: self.wait.unwrap_or(base.wait),
            changes_per_second: self.changes_per_second.unwrap_or(base.changes_per_second),
            lost: self.lost.unwrap_or(base.lost),
            offline: self.offline.unwrap_or(base.offline),
            slow: self.slow.unwrap_or(base.slow),
            storm_every: self.storm_every.unwrap_or(base.storm_every),
            restart_every: self.restart_every.unwrap_or(base.restart_every),
            reports: self.reports || base.reports,
            ..base
        };
        script.check()?;
        Ok(script)
    }
}

/// Runs the command line of the process, or plays the role of a child.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let ended = match args.get(1).and_then(|role| role.to_str()) {
        Some("render-worker") => return titan_control_plane::render::worker_main(),
        Some("control-plane") => {
            end_with_parent();
            return titan_control_plane::command::run_with(args.into_iter().skip(1));
        }
        Some(bare::ROLE) => {
            end_with_parent();
            bare::serve(&args[2..]).map(|()| ExitCode::SUCCESS)
        }
        _ => with_roomy_caches().and_then(|()| run()),
    };
    ended.unwrap_or_else(|error| {
        tell(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

/// What glibc's allocator is told of the load, and of none of the servers.
pub(super) const TUNABLES: &str = "GLIBC_TUNABLES";

/// Begins this process anew with an allocator whose threads keep many small pieces for themselves: a load makes and drops
/// the same ones for each of a million agents, and would look through all that is free for each of them.
fn with_roomy_caches() -> anyhow::Result<()> {
    if std::env::var_os(TUNABLES).is_some() {
        return Ok(());
    }
    let mut again = process::Command::new(std::env::current_exe().context("the program's own path")?);
    again.args(std::env::args_os().skip(1)).env(TUNABLES, "glibc.malloc.tcache_count=20000");
    Err(again.exec()).context("beginning anew")
}

/// Ends this process as soon as its standard input does: the parent holds the other end for as long as it lives.
fn end_with_parent() {
    std::thread::spawn(|| {
        let _ended_or_failed = std::io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

/// Lets this process and its children open as many files as the system allows: each connection is one.
fn open_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // With fewer, connections fail and are counted.
    let _best_effort = setrlimit(Resource::Nofile, limit);
}

fn run() -> anyhow::Result<ExitCode> {
    let command = Cli::parse().command;
    open_many_files();
    planes::choose_tls();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime")?;
    let well = runtime.block_on(carry_out(command))?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Does what was asked; returns whether every agent holds what it should.
async fn carry_out(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Quick { stage, hosts, output } => {
            let quick = quick::take(&measuring(stage.options(hosts, false)?)).await?;
            match output {
                Output::Table => say(table(&quick.figures()).trim_end()),
                Output::Json => say(&quick.to_json().to_string()),
            }
            Ok(quick.verdict.is_equal())
        }
        Command::Run { stage, hosts, server, ca, script, output } => {
            let script = script.script()?;
            let credentials = Credentials::new(&stage.seed);
            let outcome = match server {
                Some(address) => {
                    let trusted = if script.tls { Some(ca.context("--tls with --server takes --ca")?) } else { None };
                    let mut server = servers::Server::at(Place { address, trusted }, &credentials)?;
                    runs::play(&mut server, script, &credentials, hosts).await?
                }
                None => {
                    let mut stage = Stage::open(&stage.options(hosts, script.tls)?).await?;
                    runs::play(&mut stage.server, script, &credentials, hosts).await?
                }
            };
            match output {
                Output::Table => say(outcome.text().trim_end()),
                Output::Json => say(&outcome.to_json().to_string()),
            }
            Ok(outcome.verdict.is_equal())
        }
        Command::Measure { measures, stage, hosts, seconds, cadence, wait, connections, rounds, carrier, json } => {
            let options = measuring(stage.options(0, false)?);
            let options = Measuring { hosts, seconds, cadence, wait, connections, rounds, carrier, ..options };
            measure(&measures, &options, json).await
        }
        Command::Record { files, repository } => {
            let texts = files
                .iter()
                .map(|file| std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display())));
            let record = Record::of(&texts.collect::<anyhow::Result<Vec<_>>>()?, records::run(&repository)?)?;
            let docs = repository.join("docs");
            let table = records::keep(&record, &docs.join("performance"), &docs.join("performance.md"))?;
            say(table.trim_end());
            Ok(true)
        }
        Command::Seed { database_url, hosts, assignments, seed } => {
            fill(&database_url, hosts, assignments, seed).await?;
            Ok(true)
        }
    }
}

const fn measuring(stage: stage::Options) -> Measuring {
    let (hosts, seconds, cadence, rounds, carrier) = (None, None, None, None, None);
    Measuring { stage, hosts, seconds, cadence, wait: 0, connections: 2000, rounds, carrier }
}

async fn measure(measures: &[Measure], options: &Measuring, json: bool) -> anyhow::Result<bool> {
    let mut all: Vec<Figure> = Vec::new();
    for measure in measures {
        let name = measure.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        tell(&format!("measuring {name} ..."));
        let figures = measured::take(*measure, options).await.with_context(|| format!("measuring {name}"))?;
        if json {
            figures.iter().for_each(|figure| say(&figure.to_json().to_string()));
        }
        all.extend(figures);
    }
    if !json {
        say(table(&all).trim_end());
    }
    Ok(all.iter().all(|figure| !figure.name.ends_with(DIFFERENCES) || figure.value == 0.0))
}

async fn fill(url: &str, hosts: usize, assignments: usize, seed: String) -> anyhow::Result<()> {
    let begun = std::time::Instant::now();
    seed::fill(url, hosts, &Credentials::new(&seed)).await?;
    tell(&format!("{hosts} hosts in {:.1} s", begun.elapsed().as_secs_f64()));
    if assignments > 0 {
        let file = url.strip_prefix("sqlite://").context("sqlite://FILE")?;
        let args = StageArgs { database: Some(file.into()), assignments, seed, patience: 3600 };
        let options = args.options(hosts, false)?;
        let stage = Stage::open(&options).await?;
        stage::assign(&stage.server, &options).await?;
        stage.server.stop().await?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the figures are what the program is for")]
fn say(text: &str) {
    println!("{text}");
}
