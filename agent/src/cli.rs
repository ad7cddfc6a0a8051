//! The command line: subcommands, exit codes, signals.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use titan_api::{Code, Name, client::ClientError};
use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    agent::{Agent, AgentError},
    config::{Secret, Settings},
    doctor::{self, Verdict},
    enrolment::{self, EnrolError},
    logs,
    notify::ServiceManager,
    output,
    settle::{Action, Done, Scope, SettleError, Worker},
    state::{StateDir, StateError},
    status::Status,
    wake::Wake,
};

/// How long to wait before looking again at what is on its way, if nobody says.
const LOOK: Duration = Duration::from_secs(1);

const DONE: u8 = 0;
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NOT_FOUND: u8 = 3;
const REFUSED: u8 = 4;
const UNREACHABLE: u8 = 5;

/// Keeps this host in the state that was declared for it.
#[derive(Debug, Parser)]
#[command(name = "titan-agent", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enrol this host: trade a one-time token for its own credential
    Enrol {
        /// Address of the control plane, such as https://titan.example:7420
        #[arg(long)]
        server: String,
        /// Name of this host
        #[arg(long)]
        host: Name,
        /// The one-time token; `-` reads it from standard input
        #[arg(long)]
        token: String,
        #[command(flatten)]
        place: Place,
    },
    /// Poll, apply and report until stopped
    Run {
        #[command(flatten)]
        place: Place,
    },
    /// Poll once, apply, repair what drifted, report, and say what was done
    Once {
        #[command(flatten)]
        place: Place,
    },
    /// Say what is on this host and how the contact with the control plane is
    Status {
        #[command(flatten)]
        place: Place,
        /// How to print it
        #[arg(long, short, default_value = "text")]
        output: Output,
    },
    /// Remove orphans: what runs here though nobody declares it
    Prune {
        /// Ids of the orphans
        #[arg(required_unless_present = "all")]
        ids: Vec<Uuid>,
        /// All of them
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Look for what could be wrong, and change nothing
    Doctor {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
struct Place {
    /// The configuration file [env: TITAN_AGENT_CONFIG=] [default: /etc/titan/agent.yaml if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The directory with everything that the agent remembers [env: TITAN_STATE_DIR=]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Runs the agent with the process's own arguments.
#[must_use]
pub fn main() -> ExitCode {
    run_with(std::env::args_os())
}

/// Runs the agent with `args`, the first of which is the program's name. Returns the exit code: 0 done, 1 failed,
/// 2 usage, 3 not found, 4 refused, 5 unreachable.
pub fn run_with<I: IntoIterator<Item = OsString>>(args: I) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    // What goes deep is done on a stack that goes away: the main thread's stays as large as it ever was.
    let read = std::thread::scope(|scope| {
        std::thread::Builder::new().spawn_scoped(scope, || read(args)).map(std::thread::ScopedJoinHandle::join)
    });
    let (command, settings) = match read {
        Ok(Ok(Ok(read))) => read,
        Ok(Ok(Err(code))) => return ExitCode::from(code),
        Ok(Err(_)) => return ExitCode::from(FAILED),
        Err(error) => {
            output::error(&error);
            return ExitCode::from(FAILED);
        }
    };
    logs::init(settings.logging);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().thread_keep_alive(Duration::from_secs(2)).build();
    let code = match runtime {
        Ok(runtime) => runtime.block_on(execute(command, settings)),
        Err(error) => {
            output::error(&error);
            FAILED
        }
    };
    ExitCode::from(code)
}

/// Reads the command line and the configuration; says what is wrong with them and returns the exit code.
fn read(args: Vec<OsString>) -> Result<(Command, Settings), u8> {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _unwritable = error.print();
            return Err(if error.use_stderr() { USAGE } else { DONE });
        }
    };
    let place = match &cli.command {
        Command::Enrol { place, .. }
        | Command::Run { place }
        | Command::Once { place }
        | Command::Status { place, .. }
        | Command::Prune { place, .. }
        | Command::Doctor { place } => place,
    };
    let settings = Settings::load(place.config.as_deref(), place.state_dir.as_deref(), |key| std::env::var_os(key));
    match settings {
        Ok(settings) => Ok((cli.command, settings)),
        Err(error) => {
            output::error(&error);
            Err(USAGE)
        }
    }
}

async fn execute(command: Command, settings: Settings) -> u8 {
    match command {
        Command::Enrol { server, host, token, .. } => enrol(&settings, &server, &host, token).await,
        Command::Run { .. } => run(settings).await,
        Command::Once { .. } => once(settings).await,
        Command::Status { output, .. } => status(&settings, output),
        Command::Prune { ids, all, .. } => prune(settings, ids, all).await,
        Command::Doctor { .. } => {
            let findings = doctor::examine(&settings).await;
            output::findings(&findings);
            if findings.iter().any(|finding| finding.verdict == Verdict::Bad) { FAILED } else { DONE }
        }
    }
}

async fn enrol(settings: &Settings, server: &str, host: &Name, mut token: String) -> u8 {
    if token == "-" {
        token.clear();
        if let Err(error) = std::io::stdin().read_line(&mut token) {
            output::error(&error);
            return FAILED;
        }
    }
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        output::error(&std::io::Error::other("what is given as the token holds none"));
        output::hint("titan host join-command HOST prints the line with it");
        return USAGE;
    }
    let token = Secret::new(token.to_owned());
    match enrolment::enrol(settings, server, host, &token).await {
        Ok(()) => {
            output::say(&format!("host {host} has enrolled at {server}; state is in {}", settings.state_dir.display()));
            DONE
        }
        Err(error) => {
            output::error(&error);
            match error {
                EnrolError::Client(error) => client_code(&error),
                EnrolError::State(error) => state_code(&error),
                EnrolError::OtherHost { .. } => REFUSED,
            }
        }
    }
}

async fn run(settings: Settings) -> u8 {
    let manager = Arc::new(ServiceManager::of(std::process::id(), |key| std::env::var_os(key)));
    let shutdown = CancellationToken::new();
    let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    for stream in signals {
        let Ok(mut stream) = stream.inspect_err(|error| output::error(error)) else { return FAILED };
        let (shutdown, manager) = (shutdown.clone(), manager.clone());
        tokio::spawn(async move {
            stream.recv().await;
            manager.stopping();
            shutdown.cancel();
        });
    }
    match open(settings).await {
        Ok(mut agent) => {
            manager.ready();
            let pulse = agent.pulse();
            tokio::select! {
                () = agent.run(shutdown) => DONE,
                never = manager.keep_alive(&pulse) => match never {},
            }
        }
        Err(error) => agent_code(&error),
    }
}

/// Opens the agent, which may block, on another thread.
async fn open(settings: Settings) -> Result<Agent, AgentError> {
    let io = Handle::current();
    let opening = tokio::task::spawn_blocking(move || Agent::open(settings, &io));
    opening.await.unwrap_or(Err(AgentError::Aborted))
}

async fn once(settings: Settings) -> u8 {
    let result = match open(settings).await {
        Ok(mut agent) => agent.once().await,
        Err(error) => Err(error),
    };
    match result {
        Ok(summary) => {
            output::once(&summary);
            match summary.fault.as_ref().or(summary.unreported.as_ref()) {
                Some(error) => client_code(error),
                None if summary.is_settled() => DONE,
                None => FAILED,
            }
        }
        Err(error) => agent_code(&error),
    }
}

fn status(settings: &Settings, output: Output) -> u8 {
    match Status::read(&StateDir::new(&settings.state_dir), settings.server.as_deref()) {
        Ok(status) => {
            match output {
                Output::Text => output::status(&status),
                Output::Json => output::json(&status),
            }
            if status.host.is_none() {
                output::hint("this host has not enrolled; titan host join-command HOST prints the line that does");
                return NOT_FOUND;
            }
            DONE
        }
        Err(error) => {
            output::error(&error);
            state_code(&error)
        }
    }
}

async fn prune(settings: Settings, ids: Vec<Uuid>, all: bool) -> u8 {
    // The work may block, and may need this thread meanwhile.
    let (io, wake) = (Handle::current(), Wake::default());
    let pruning = tokio::task::spawn_blocking(move || prune_here(&settings, &ids, all, &io, &wake));
    pruning.await.unwrap_or(FAILED)
}

fn prune_here(settings: &Settings, ids: &[Uuid], all: bool, io: &Handle, wake: &Wake) -> u8 {
    let mut worker = match Worker::open(settings, io, wake) {
        Ok(worker) => worker,
        Err(error) => {
            let code = settle_code(&error);
            if code == REFUSED {
                output::hint("an agent is running here; use titan host prune, or stop it first");
            }
            return code;
        }
    };
    let missing: Vec<_> = ids.iter().filter(|id| !worker.desired.orphans().any(|(orphan, _)| orphan == **id)).collect();
    if let Some(id) = missing.first() {
        output::error(&std::io::Error::other(format!("there is no orphan {id} on this host")));
        return NOT_FOUND;
    }
    let pruned = worker.prune((!all).then_some(ids)).map(|pruned| {
        let mut done = worker.settle(&Scope::default());
        while done.iter().any(|done| pruned.contains(&done.id) && done.action == Action::Waiting) && worker.is_busy() {
            let idle = worker.idle_for().unwrap_or(LOOK);
            let _woken = io.block_on(async { tokio::time::timeout(idle, wake.notified()).await });
            done = worker.settle(&Scope::default());
        }
        (pruned, done)
    });
    match pruned {
        Ok::<_, SettleError>((pruned, done)) => {
            for done in done.iter().filter(|done| pruned.contains(&done.id)) {
                output::say(&format!("{:<10} {}  {}", done.action.as_str(), done.title, done.message));
            }
            if pruned.is_empty() {
                output::say("there are no orphans on this host");
            }
            let gone = |done: &Done| matches!(done.action, Action::Removed | Action::Released);
            let all_gone = pruned.iter().all(|id| done.iter().any(|done| done.id == *id && gone(done)));
            if all_gone { DONE } else { FAILED }
        }
        Err(error) => settle_code(&error),
    }
}

fn agent_code(error: &AgentError) -> u8 {
    match error {
        AgentError::Settle(error) => settle_code(error),
        AgentError::Client(error) => {
            output::error(error);
            USAGE
        }
        AgentError::NotEnrolled(_) => {
            output::error(error);
            output::hint("titan host join-command HOST prints the line that enrols it");
            NOT_FOUND
        }
        AgentError::Aborted => {
            output::error(error);
            FAILED
        }
    }
}

fn settle_code(error: &SettleError) -> u8 {
    output::error(error);
    match error {
        SettleError::State(error) => state_code(error),
        SettleError::RootMoved { .. } => REFUSED,
        _ => FAILED,
    }
}

const fn state_code(error: &StateError) -> u8 {
    match error {
        StateError::InUse(_) => REFUSED,
        _ => FAILED,
    }
}

fn client_code(error: &ClientError) -> u8 {
    match error {
        ClientError::Address(_) => USAGE,
        ClientError::Setup(_) | ClientError::Tls(_) => FAILED,
        ClientError::Unreachable { .. } | ClientError::NotTitan { .. } | ClientError::Slow { .. } => UNREACHABLE,
        ClientError::Refused { problem, .. } => match problem.code {
            Code::NotFound => NOT_FOUND,
            Code::Overloaded | Code::Unavailable => UNREACHABLE,
            code if code.status() >= 500 => FAILED,
            _ => REFUSED,
        },
    }
}
