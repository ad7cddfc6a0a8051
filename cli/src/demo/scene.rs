//! What is shown of a fleet: how far its deployments are, and what each step of the story did to its hosts.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use titan_api::{
    Code, Kind, Name, Revision,
    client::{Client, ClientError, WriteOptions},
    status::DeploymentStatus,
};

use super::{
    DemoError, SETTLE,
    board::Board,
    commits, fleet,
    fleet::{Fleet, Place},
    folders::Folder,
    number,
    story::{Patch, Reference, Step},
};
use crate::{
    errors::CliError,
    output::{Output, Tone, ages},
};

/// How often the table is brought up to date.
const LOOK: Duration = Duration::from_millis(250);
/// Hosts whose files are shown one by one; of larger fleets the first few stand for all.
const SHOWN_HOSTS: usize = 4;

/// The running fleet and what is shown of it.
pub(super) struct Scene<'a> {
    output: Output,
    client: &'a Client,
    fleet: &'a mut Fleet,
    places: Vec<Place>,
    board: Board,
}

impl<'a> Scene<'a> {
    /// Returns a scene of which nothing was shown yet.
    pub(super) const fn new(output: Output, client: &'a Client, fleet: &'a mut Fleet, places: Vec<Place>) -> Self {
        Self { output, client, fleet, places, board: Board::new(output) }
    }

    /// Shows the table until every deployment is healthy on all its hosts, the planner has seen `since`, and no host has
    /// files of the `gone` deployments. The `bad` one is to be taken back instead, by every host.
    pub(super) async fn settle(
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
    pub(super) async fn play(&mut self, step: &Step) -> Result<(), CliError> {
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
    pub(super) fn files(&self) -> Result<(), CliError> {
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
}

fn log(place: &Place) -> Result<Vec<commits::Commit>, DemoError> {
    commits::log(&place.repository, fleet::BRANCH)
        .map_err(|source| DemoError::Repository(place.repository.clone(), source))
}
