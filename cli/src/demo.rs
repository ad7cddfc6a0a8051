//! `titan demo`: a control plane, agents and an example fleet in one process, at work.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use titan_api::{Kind, Name, client::Client};
use tokio::signal;

use crate::{
    builtin::{BuiltinError, Shelf},
    commands::{documents::apply, hosts::quoted},
    errors::CliError,
    manifests::{self, Manifest},
    output::{Exit, Output, Tone},
    session::Session,
};

mod board;
mod checks;
mod commits;
mod fleet;
mod folders;
mod orders;
mod plays;
mod rollouts;
mod scene;
mod story;

use fleet::{Fleet, Place};
use plays::Play;
use scene::Scene;
use story::Story;

/// How long the fleet may take to settle after a change.
const SETTLE: Duration = Duration::from_secs(120);

/// Run a control plane, agents and an example fleet in this one process, and show them at work.
///
/// The fleet is applied over HTTP as anybody would; when it is healthy, the scenario's story follows: something changes,
/// a host is relabelled, a deployment is deleted. Then everything stays up until Ctrl-C. Nothing outside of the demo's
/// directory is touched.
///
/// Three scenarios show plans as a live picture: `rollout`, a release that goes from a canary over a gate to all hosts, and
/// one that stops at the canary and is taken back; `order-lifecycle`, an order in a shop of which every step fails and
/// hangs; `ci-checks`, a commit that workers check.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan demo
  titan demo --once --dir ./titan-demo
  titan demo validator-fleet
  titan demo rollout

Scenarios: quickstart, temperature-sensor, kubernetes-guestbook, validator-fleet, edge-rollback, rollout,
order-lifecycle, ci-checks.")]
pub(crate) struct Demo {
    /// Example to run.
    #[arg(default_value = "quickstart")]
    scenario: String,
    /// End by itself, with 0 only if everything came out as it is to; prints each host's files and commits.
    #[arg(long)]
    once: bool,
    /// Directory to keep everything in; it has to be empty or not there. Otherwise a temporary one is used.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Why the demo did not work out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// A directory or thread cannot be made.
    #[error("the demo cannot be set up: {doing}")]
    Setup {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The story of the scenario is malformed.
    #[error("the story of {scenario} is malformed")]
    Story {
        /// The scenario.
        scenario: String,
        /// What is wrong with it.
        #[source]
        source: serde_yaml::Error,
    },
    /// The control plane did not come up, or went down.
    #[error("the control plane ended: {0}")]
    ControlPlane(String),
    /// An agent cannot be set up, or ended.
    #[error("the agent of {host} ended: {reason}")]
    Agent {
        /// The host.
        host: Name,
        /// Why.
        reason: String,
    },
    /// A repository cannot be read.
    #[error("the repository {} cannot be read", .0.display())]
    Repository(PathBuf, #[source] git2::Error),
    /// It took too long.
    #[error("the fleet did not settle within {limit} s: {state}; {log} has more", limit = SETTLE.as_secs())]
    NotSettled {
        /// How far it was.
        state: String,
        /// The log.
        log: String,
    },
    /// A plan does not go on, or ended before it was to.
    #[error("it does not go on: {state}; {log} has more")]
    Stuck {
        /// How far it is.
        state: String,
        /// The log.
        log: String,
    },
    /// It came out otherwise than it was to.
    #[error("it did not come out as it was to; what does not hold: {0}")]
    Unexpected(String),
}

impl Demo {
    /// Runs the demo.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let temporary;
        let directory = match &self.dir {
            Some(directory) => directory.clone(),
            None => {
                temporary = tempfile::Builder::new().prefix("titan-demo-").tempdir()?;
                temporary.path().join("demo")
            }
        };
        let directory = prepare(&self.scenario, &directory)?;
        let mut fleet = Fleet::start(&directory)?;
        let ended = tokio::select! {
            ended = self.show(session.output, &directory, &mut fleet) => ended,
            interrupted = interrupted() => {
                interrupted?;
                session.output.line("")?;
                // Somebody who waits for a result did not get one.
                Ok(if self.once { Exit::Failed } else { Exit::Done })
            }
        };
        session.output.line(&Tone::Faint.paint("stopping"))?;
        fleet.stop();
        if self.dir.is_some() {
            session.output.line(&format!("everything is kept in {}", directory.display()))?;
        }
        ended
    }

    async fn show(&self, output: Output, directory: &Path, fleet: &mut Fleet) -> Result<Exit, CliError> {
        let client = fleet.ready().await?;
        output.line(&format!("control plane on {}, everything in {}", client.server(), directory.display()))?;
        let play = |fleet| Play::new((output, self.once), &client, fleet, directory);
        let more = match self.scenario.as_str() {
            rollouts::NAME => {
                rollouts::show(play(fleet)).await?;
                vec!["titan rollout history web --brief".to_owned(), "titan workplan list".to_owned()]
            }
            orders::NAME => {
                orders::show(play(fleet)).await?;
                vec![format!("titan workplan history {} --brief", orders::NAME)]
            }
            checks::NAME => {
                checks::show(play(fleet)).await?;
                vec![format!("titan workplan nodes {}", checks::NAME)]
            }
            _ => self.fleet(output, directory, (&client, fleet)).await?,
        };
        if self.once {
            return Ok(Exit::Done);
        }
        next(output, directory, (&client, fleet), &more)?;
        // Until Ctrl-C, or until something ends that should not.
        Err(fleet.ended().await.into())
    }

    /// Shows a fleet and its story, and returns what people may want to type then.
    async fn fleet(
        &self,
        output: Output,
        directory: &Path,
        (client, fleet): (&Client, &mut Fleet),
    ) -> Result<Vec<String>, CliError> {
        let heading = |text: &str| output.line(&format!("\n{}", Tone::Strong.paint(text)));

        heading(&format!("titan apply -f {}", directory.join("fleet").display()))?;
        let manifests = manifests::read(&directory.join("fleet"))?;
        let answer = apply::send(client, &manifests, false, Some("the demo".to_owned())).await?;
        let count = |kind: Kind| {
            let count = manifests.iter().filter(|manifest| manifest.kind() == Some(kind)).count();
            number(count, &kind.as_str().to_lowercase())
        };
        let counts = [Kind::Host, Kind::Template, Kind::Deployment].map(count).join(", ");
        output.line(&format!("{counts} in one transaction"))?;
        let places = fleet.enrol(client, hosts(&manifests)).await?;
        let more = places.first().map(more).unwrap_or_default();

        heading("the agents poll, apply, prove and commit")?;
        let mut scene = Scene::new(output, client, fleet, places);
        let begin = Instant::now();
        scene.settle(answer.revision, &[], None).await?;
        output.line(&format!("{} in {:.1} s", Tone::Good.paint("healthy"), begin.elapsed().as_secs_f64()))?;
        if self.once {
            scene.files()?;
        }
        for step in story(&self.scenario, directory)?.steps {
            heading(&step.title)?;
            scene.play(&step).await?;
        }
        if self.once {
            scene.files()?;
            output.line(&format!("\n{}", Tone::Good.paint("everything converged")))?;
        }
        Ok(more)
    }
}

/// Returns what people may want to type about a host.
fn more(place: &Place) -> Vec<String> {
    let repository = place.repository.display().to_string();
    vec![format!("titan status host {}", place.host), format!("git -C {} log", quoted(&repository))]
}

/// Prints what to type next.
fn next(output: Output, directory: &Path, (client, fleet): (&Client, &Fleet), more: &[String]) -> Result<(), CliError> {
    let token = fleet.token_file().display().to_string();
    let config = directory.join("titan.yaml").display().to_string();
    output.line(&format!("\n{}", Tone::Strong.paint("It stays up until Ctrl-C. In another terminal:")))?;
    let lines = [
        format!("export TITAN_CLI_CONFIG={}", quoted(&config)),
        format!("titan login --server {} --token-file {}", client.server(), quoted(&token)),
        "titan get hosts -o wide".to_owned(),
        "titan get deployments -A".to_owned(),
        "titan events --since 10m --diff".to_owned(),
        format!("titan plan -f {}", quoted(&directory.join("fleet").display().to_string())),
    ];
    for line in lines.iter().chain(more) {
        output.line(&format!("  {line}"))?;
    }
    Ok(())
}

/// Waits for Ctrl-C, or for being told to end.
async fn interrupted() -> io::Result<()> {
    let mut terminated = signal::unix::signal(signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = signal::ctrl_c() => interrupted,
        _ = terminated.recv() => Ok(()),
    }
}

/// Makes the demo's directory with the fleet's documents in it, and returns its absolute path.
fn prepare(scenario: &str, directory: &Path) -> Result<PathBuf, CliError> {
    if fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(BuiltinError::Occupied(directory.to_owned()).into());
    }
    let to = directory.join("fleet");
    match scenario {
        rollouts::NAME => rollouts::copy(&to)?,
        orders::NAME | checks::NAME => drop(Shelf::Plans.copy(scenario, &to)?),
        _ => drop(Shelf::Examples.copy(scenario, &to).map_err(with_plays)?),
    }
    let absolute = directory.canonicalize();
    Ok(absolute.map_err(|source| DemoError::Setup { doing: "its directory", source })?)
}

/// Names the scenarios that are no fleets beside those that are.
fn with_plays(error: BuiltinError) -> BuiltinError {
    match error {
        BuiltinError::Unknown { what, name, known } => {
            let known = [&known, rollouts::NAME, orders::NAME, checks::NAME].join(", ");
            BuiltinError::Unknown { what, name, known }
        }
        other => other,
    }
}

fn story(scenario: &str, directory: &Path) -> Result<Story, DemoError> {
    match fs::read_to_string(directory.join("fleet").join(story::FILE)) {
        Ok(text) => {
            serde_yaml::from_str(&text).map_err(|source| DemoError::Story { scenario: scenario.to_owned(), source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Story::default()),
        Err(source) => Err(DemoError::Setup { doing: "reading the story", source }),
    }
}

fn hosts(manifests: &[Manifest]) -> Vec<Name> {
    let hosts = manifests.iter().filter(|manifest| manifest.kind() == Some(Kind::Host));
    hosts.filter_map(|manifest| Name::new(manifest.value.pointer("/metadata/name")?.as_str()?).ok()).collect()
}

/// Returns a number of things in words.
fn number(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
