//! `titan demo`: a control plane, agents and an example fleet in one process, at work.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use titan_api::{
    Code, Kind, Name, Revision,
    client::{Client, ClientError, WriteOptions},
    status::DeploymentStatus,
};
use tokio::signal;

use crate::{
    builtin::Shelf,
    commands::documents::apply,
    errors::CliError,
    manifests::{self, Manifest},
    output::{Exit, Output, Tone, ages},
    session::Session,
};

mod board;
mod commits;
mod fleet;
mod folders;
mod story;

use board::Board;
use fleet::{Fleet, Place};
use folders::Folder;
use story::{Patch, Reference, Step, Story};

/// How often the table is brought up to date.
const LOOK: Duration = Duration::from_millis(250);
/// How long the fleet may take to settle after a change.
const SETTLE: Duration = Duration::from_secs(120);
/// Hosts whose files are shown one by one; of larger fleets the first few stand for all.
const SHOWN_HOSTS: usize = 4;

/// Run a control plane, agents and an example fleet in this one process, and show them at work.
///
/// The fleet is applied over HTTP as anybody would; when it is healthy, the scenario's story follows: something changes,
/// a host is relabelled, a deployment is deleted. Then everything stays up until Ctrl-C. Nothing outside of the demo's
/// directory is touched.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan demo
  titan demo --once --dir ./titan-demo
  titan demo validator-fleet

Scenarios: quickstart, temperature-sensor, kubernetes-guestbook, validator-fleet.")]
pub(crate) struct Demo {
    /// Example to run.
    #[arg(default_value = "quickstart")]
    scenario: String,
    /// End by itself, with 0 only if everything converged; prints each host's files and commits.
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
        let heading = |text: &str| output.line(&format!("\n{}", Tone::Strong.paint(text)));
        let client = fleet.ready().await?;
        output.line(&format!("control plane on {}, everything in {}", client.server(), directory.display()))?;

        heading(&format!("titan apply -f {}", directory.join("fleet").display()))?;
        let manifests = manifests::read(&directory.join("fleet"))?;
        let answer = apply::send(&client, &manifests, false, Some("the demo".to_owned())).await?;
        let count = |kind: Kind| {
            let count = manifests.iter().filter(|manifest| manifest.kind() == Some(kind)).count();
            number(count, &kind.as_str().to_lowercase())
        };
        let counts = [Kind::Host, Kind::Template, Kind::Deployment].map(count).join(", ");
        output.line(&format!("{counts} in one transaction"))?;
        let places = fleet.enrol(&client, hosts(&manifests)).await?;

        heading("the agents poll, apply, prove and commit")?;
        let mut scene = Scene { output, client: &client, fleet, places, board: Board::new(output) };
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
            return Ok(Exit::Done);
        }
        scene.next(directory)?;
        // Until Ctrl-C, or until something ends that should not.
        Err(fleet.ended().await.into())
    }
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
        return Err(crate::builtin::BuiltinError::Occupied(directory.to_owned()).into());
    }
    Shelf::Examples.copy(scenario, &directory.join("fleet"))?;
    let absolute = directory.canonicalize();
    Ok(absolute.map_err(|source| DemoError::Setup { doing: "its directory", source })?)
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

/// The running fleet and what is shown of it.
struct Scene<'a> {
    output: Output,
    client: &'a Client,
    fleet: &'a mut Fleet,
    places: Vec<Place>,
    board: Board,
}

impl Scene<'_> {
    /// Shows the table until every deployment is healthy on all its hosts, the planner has seen `since`, and no host has
    /// files of the `gone` deployments. The `bad` one is to be taken back instead, by every host.
    async fn settle(
        &mut self,
        since: Option<Revision>,
        gone: &[(Name, Name)],
        bad: Option<&Reference>,
    ) -> Result<(), CliError> {
        let begin = Instant::now();
        loop {
            let statuses = self.statuses(gone).await?;
            self.board.show(&statuses, ages::now())?;
            let seen = |status: &DeploymentStatus| since.is_none_or(|since| status.planned >= since);
            let is_bad = |status: &DeploymentStatus| {
                bad.is_some_and(|bad| bad.name == status.name && bad.workspace.as_ref() == Some(&status.workspace))
            };
            let settled = |status: &DeploymentStatus| match is_bad(status) {
                true => status.counts.rolled_back == status.counts.desired && status.counts.desired > 0,
                false => status.converged(),
            };
            if statuses.iter().all(|status| seen(status) && settled(status)) && self.are_gone(gone)? {
                self.board.leave();
                return Ok(());
            }
            self.fleet.check()?;
            if begin.elapsed() > SETTLE {
                let behind = statuses.iter().filter(|status| !settled(status));
                let state: Vec<_> = behind
                    .map(|status| format!("{}: {}", status.name, crate::commands::deployments::status::counts(status)))
                    .collect();
                let log = self.fleet.log().display().to_string();
                return Err(DemoError::NotSettled { state: state.join("; "), log }.into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn statuses(&self, gone: &[(Name, Name)]) -> Result<Vec<DeploymentStatus>, CliError> {
        let mut keys: Vec<(Name, Name)> = Vec::new();
        for document in self.client.list_all(Kind::Deployment, None, None).await? {
            keys.extend(document.metadata.workspace.map(|workspace| (workspace, document.metadata.name)));
        }
        keys.extend(gone.iter().filter(|key| !keys.contains(key)).cloned().collect::<Vec<_>>());
        let mut statuses = Vec::new();
        for (workspace, name) in keys {
            match self.client.deployment_status(&workspace, &name).await {
                Ok(status) => statuses.push(status),
                Err(error) if error.code() == Some(Code::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(statuses)
    }

    /// Whether no host has a file of the `gone` deployments any more.
    fn are_gone(&self, gone: &[(Name, Name)]) -> Result<bool, CliError> {
        for (workspace, name) in gone {
            for place in &self.places {
                if Folder::read(&place.files)?.has(&Path::new(workspace.as_str()).join(name.as_str())) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Plays one step of the story and shows what followed.
    async fn play(&mut self, step: &Step) -> Result<(), CliError> {
        self.output.line(&Tone::Faint.paint(&step.command))?;
        let before = self.look()?;
        let mut gone = Vec::new();
        let mut since = None;
        if let Some(patch) = &step.patch {
            since = Some(self.patch(patch).await?);
        }
        if let Some(Reference { kind, workspace, name }) = &step.delete {
            let options = WriteOptions { reason: Some(step.title.clone()), ..WriteOptions::default() };
            let answer = self.client.delete(*kind, workspace.as_deref(), name, false, &options).await?;
            since = answer.revision;
            if let (Kind::Deployment, Some(workspace)) = (*kind, workspace) {
                gone.push((workspace.clone(), name.clone()));
            }
        }
        let begin = Instant::now();
        self.settle(since, &gone, step.rolls_back.as_ref()).await?;
        self.output.line(&format!("{} in {:.1} s", Tone::Good.paint("done"), begin.elapsed().as_secs_f64()))?;
        self.consequences(&before)
    }

    async fn patch(&self, patch: &Patch) -> Result<Revision, ClientError> {
        let options = WriteOptions { reason: Some("the demo".to_owned()), ..WriteOptions::default() };
        let workspace = patch.workspace.as_deref();
        let document = self.client.patch(patch.kind, workspace, &patch.name, &patch.with, &options).await?;
        Ok(document.metadata.revision.unwrap_or_default())
    }

    fn look(&self) -> Result<BTreeMap<Name, (Folder, usize)>, CliError> {
        let mut hosts = BTreeMap::new();
        for place in &self.places {
            hosts.insert(place.host.clone(), (Folder::read(&place.files)?, log(place)?.len()));
        }
        Ok(hosts)
    }

    /// Prints, host by host, which files came, changed and went, and what was committed.
    fn consequences(&self, before: &BTreeMap<Name, (Folder, usize)>) -> Result<(), CliError> {
        let mut moved = 0;
        for place in &self.places {
            let Some((folder, commits)) = before.get(&place.host) else { continue };
            let changes = folder.changes(&Folder::read(&place.files)?);
            if changes.is_empty() {
                continue;
            }
            moved += 1;
            if moved > SHOWN_HOSTS {
                continue;
            }
            self.output.line(&format!("  {}", Tone::Strong.paint(&place.host)))?;
            self.output.raw(&changes.concat())?;
            let log = log(place)?;
            let new = log.len().saturating_sub(*commits);
            for commit in log.iter().take(new) {
                self.output.line(&format!("    {} {}", Tone::Care.paint(&commit.id[..10]), commit.summary))?;
            }
        }
        if moved > SHOWN_HOSTS {
            self.output.line(&format!("  and {}", number(moved - SHOWN_HOSTS, "more host")))?;
        }
        let same = self.places.len() - moved;
        if same > 0 {
            self.output.line(&Tone::Faint.paint(&format!("  nothing was touched on {}", number(same, "host"))))?;
        }
        Ok(())
    }

    /// Prints each host's files and commits.
    fn files(&self) -> Result<(), CliError> {
        for place in self.places.iter().take(SHOWN_HOSTS) {
            self.output.line(&format!("\n{} {}", Tone::Strong.paint(&place.host), place.files.display()))?;
            self.output.raw(&Folder::read(&place.files)?.tree())?;
            for commit in log(place)?.iter().take(5) {
                let trailers = Tone::Faint.paint(&commit.trailers.join(", "));
                self.output.line(&format!("  {} {} {trailers}", Tone::Care.paint(&commit.id[..10]), commit.summary))?;
            }
        }
        if self.places.len() > SHOWN_HOSTS {
            self.output.line(&format!("\nand {}", number(self.places.len() - SHOWN_HOSTS, "more host")))?;
        }
        Ok(())
    }

    /// Prints what to type next.
    fn next(&self, directory: &Path) -> Result<(), CliError> {
        let token = self.fleet.token_file().display().to_string();
        let config = directory.join("titan.yaml").display().to_string();
        let quoted = crate::commands::hosts::quoted;
        self.output.line(&format!("\n{}", Tone::Strong.paint("It stays up until Ctrl-C. In another terminal:")))?;
        for line in [
            format!("export TITAN_CLI_CONFIG={}", quoted(&config)),
            format!("titan login --server {} --token-file {}", self.client.server(), quoted(&token)),
            "titan get hosts -o wide".to_owned(),
            "titan get deployments -A".to_owned(),
            "titan events --since 10m --diff".to_owned(),
            format!("titan plan -f {}", quoted(&directory.join("fleet").display().to_string())),
        ] {
            self.output.line(&format!("  {line}"))?;
        }
        for place in self.places.iter().take(1) {
            self.output.line(&format!("  titan status host {}", place.host))?;
            self.output.line(&format!("  git -C {} log", quoted(&place.repository.display().to_string())))?;
        }
        Ok(())
    }
}

/// Returns a number of things in words.
fn number(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn log(place: &Place) -> Result<Vec<commits::Commit>, DemoError> {
    commits::log(&place.repository, fleet::BRANCH)
        .map_err(|source| DemoError::Repository(place.repository.clone(), source))
}
